"""Where a training stands between two epochs, as tensors and JSON: what a checkpoint holds.

There is no pickle: an optimizer's state is taken apart into named tensors and numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medcli.errors import DamagedError


@dataclass(frozen=True, slots=True)
class TrainState:
    """A training between two epochs.

    Attributes
    ----------
    tensors : copies on the CPU, of weights, averages, optimizer and random generators
    facts : what JSON can hold: the history, the step, the numbers of the optimizer …
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors below `name`, without it."""
        start = f"{name}."
        return {k.removeprefix(start): v for k, v in self.tensors.items() if k.startswith(start)}


def below(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU, each named ``name.key``."""
    return {
        f"{name}.{key}": value.detach().to("cpu", copy=True).contiguous()
        for key, value in tensors.items()
    }


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors named ``parameter.name`` by the parameter's number, and the rest as JSON."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                numbers.setdefault(str(index), {})[name] = value
    groups = [
        {name: value for name, value in group.items() if name != "params"}
        for group in state["param_groups"]
    ]
    return tensors, {"numbers": numbers, "groups": groups}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]
) -> None:
    """Give a fresh optimizer the state that `optimizer_state` took from another.

    Tensors of a parameter's shape get its device and memory layout, so that arithmetic
    runs over them in the same order.

    Raises
    ------
    ValueError, KeyError, IndexError : the state is that of other parameters
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {
        int(index): dict(entries) for index, entries in rest["numbers"].items()
    }
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        state.setdefault(int(index), {})[name] = value
    fresh = optimizer.state_dict()
    groups = [
        group | {name: _like(group.get(name), value) for name, value in saved.items()}
        for group, saved in zip(fresh["param_groups"], rest["groups"], strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _like(fresh: Any, value: Any) -> Any:
    """A setting from JSON, as a tuple where the optimizer has one."""
    return tuple(value) if isinstance(fresh, tuple) else value


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of the process-wide generators, as tensors of bytes or words."""
    _, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    states = {
        "torch": torch.get_rng_state(),
        "numpy_keys": torch.from_numpy(np.asarray(keys, dtype=np.uint32).view(np.int32).copy()),
        "numpy_rest": torch.tensor([position, has_gauss, gauss], dtype=torch.float64),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Set the process-wide generators to where `random_state` saw them.

    Raises
    ------
    KeyError, RuntimeError, ValueError : the states are those of something else
    """
    torch.set_rng_state(states["torch"])
    position, has_gauss, gauss = states["numpy_rest"].tolist()
    keys = states["numpy_keys"].numpy().view(np.uint32)
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), gauss))
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def restore_module(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load weights and statistics; every one must be there.

    Raises
    ------
    DamagedError : the tensors are those of another network
    """
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise DamagedError(
            "the checkpoint holds the weights of another network", "Train again"
        ) from error
