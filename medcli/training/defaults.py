"""Settings that fit the data and the device, where the user left them open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from medcli.config import Augmentation, PreprocessConfig, TrainConfig
from medcli.data.presets import PRESETS
from medcli.errors import UsageError
from medcli.models.backbones.base import SMALL_INPUT
from medcli.records import Scan

# Slices that two cores train on in five to ten minutes, by input side; the number of
# epochs follows from it.
CPU_SLICES = {28: 150_000, 64: 60_000, SMALL_INPUT: 45_000, 112: 36_000}
CPU_MINUTES = 13.0
CPU_SIDE = {"single": 112, "stack": 64}
GPU_SIDE = 224
EPOCHS = (4, 40)
STEPS = 24  # at least so many batches an epoch, or small sets see too few updates
BATCH_SLICES = (32, 128)


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What the defaults look at; `side` is the longer one, in pixels."""

    side: int
    colour: bool
    stacks: bool
    unit: str
    modality: str | None

    @classmethod
    def of(cls, scans: Sequence[Scan]) -> DataFacts:
        """Facts of a sample of scans: the median side, the most frequent unit and modality."""
        units = [scan.unit for scan in scans]
        modalities = [scan.modality for scan in scans if scan.modality]
        return cls(
            side=int(np.median([max(scan.pixels.shape[1:3]) for scan in scans])),
            colour=any(scan.pixels.shape[3] == 3 for scan in scans),
            stacks=float(np.mean([len(scan.pixels) > 1 for scan in scans])) > 0.5,
            unit=max(units, key=units.count),
            modality=max(modalities, key=modalities.count) if modalities else None,
        )

    @classmethod
    def joined(cls, facts: Sequence[DataFacts]) -> DataFacts:
        """Of several sets that one model learns: what the most demanding of them asks for."""
        first = facts[0]
        return cls(
            side=max(each.side for each in facts),
            colour=any(each.colour for each in facts),
            stacks=any(each.stacks for each in facts),
            unit=first.unit,
            modality=first.modality,
        )


def choose_shared_preprocess(
    facts: Sequence[DataFacts], tasks: Sequence[str], device: torch.device, size: int | None
) -> PreprocessConfig:
    """One preprocessing for the sets of several tasks, or for that of one.

    Pictures are stretched by percentiles only where every task wants it: a masked crop, as of
    a nodule, must not be, and a scan does not say which task it belongs to.
    """
    joined = DataFacts.joined(facts)
    each = [choose_preprocess(joined, task, device, size) for task in tasks]
    stretched = all(settings.pictures == "percentiles" for settings in each)
    return replace(
        each[0],
        channels=3 if any(settings.channels == 3 for settings in each) else 1,
        pictures="percentiles" if stretched else "full_range",
    )


def choose_preprocess(
    facts: DataFacts, task: str, device: torch.device, size: int | None
) -> PreprocessConfig:
    """Input side, channels and scaling for the data; mean and std come from the training part."""
    limit = GPU_SIDE if device.type == "cuda" else CPU_SIDE["stack" if facts.stacks else "single"]
    preset = PRESETS.get(task)
    return PreprocessConfig(
        size=size or max(16, min(facts.side, limit)),
        channels=3 if facts.colour or (preset and preset.channels == 3) else 1,
        pictures=preset.pictures if preset else "full_range",
    )


def choose_training(
    facts: DataFacts,
    task: str,
    slices: int,
    size: int,
    device: torch.device,
    config: TrainConfig,
    *,
    epochs: int | None,
    minutes: float | None,
    spent: float,
) -> TrainConfig:
    """Augmentation by modality, batches by the size of the set, epochs by the device's speed.

    Parameters
    ----------
    slices : of the training part
    epochs, minutes : as the user gave them
    spent : minutes that reading took; they count towards `minutes`
    """
    if epochs is None:
        epochs = EPOCHS[1]
        if device.type == "cpu":
            budget = np.interp(size, list(CPU_SLICES), list(CPU_SLICES.values()))
            budget *= min(1.0, max(CPU_SLICES) / size) ** 2  # beyond what was measured, by area
            epochs = int(np.clip(budget / max(1, slices), *EPOCHS))
    limit = CPU_MINUTES if minutes is None and device.type == "cpu" else minutes
    # Slices of one scan are alike: a batch of stacks needs more of them to be as varied.
    few, many = BATCH_SLICES
    batch = many if facts.stacks else int(np.clip(slices // STEPS, few, many))
    return replace(
        config,
        epochs=epochs,
        patience=max(config.patience, epochs // 2),
        batch_slices=batch,
        minutes=None if limit is None else max(0.1, limit - spent),
        follow_clock=minutes is not None,
        augmentation=choose_augmentation(facts, task),
        bf16=_has_bf16(device),
        fp16=device.type == "cuda" and not _has_bf16(device),
    )


def choose_augmentation(facts: DataFacts, task: str) -> Augmentation:
    """That of a known task, else by modality."""
    if task in PRESETS:
        return PRESETS[task].augmentation
    if facts.colour:
        return "colour"
    if facts.unit == "HU" or facts.modality == "CT":
        return "ct"
    return "radiograph" if facts.modality in ("CR", "DX", "DR", "MG") else "grey"


def choose_device(name: str) -> torch.device:
    """The named device; for "auto" the GPU where there is one.

    Raises
    ------
    UsageError : a device that this machine does not have
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"no device {name!r} on this machine", "Leave --device out, or give cpu"
        ) from error
    return device


def _has_bf16(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # The oldest torch allowed cannot be asked; it trains in float32.
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
