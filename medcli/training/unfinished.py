"""Unfinished runs: where they lie, what is read of them, and whether they can go on.

Beside the coming run folder ``runs/lung`` lies ``runs/.lung.unfinished``::

    checkpoint.json     request, settings, counters, what it was made on; format version
    state-….safetensors weights, their averages, optimizer, random generators
    data.json           the scans by pixel hash, with label and part
    history.csv         the epochs so far

The folder holds paths, so only its owner can read it; it goes when the run is finished, and
nothing of it enters the run. There is no pickle. `medcli.training.checkpoint` writes it.
"""

from __future__ import annotations

import hashlib
import json
import typing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load

from medcli.config import JsonConfig, PreprocessConfig, TrainConfig
from medcli.errors import DamagedError, OutputExistsError, StorageError, UsageError
from medcli.home import runs_folder
from medcli.models.package import is_package
from medcli.training.state import TrainState

FORMAT_VERSION = 1
CHECKPOINT, DATA, SUFFIX = "checkpoint.json", "data.json", ".unfinished"

Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True)
class ScanLine:
    """A scan of the data: what must be the same when a run goes on."""

    path: str
    pixel_sha256: str
    label: str
    part: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is trained, as far as it stands when training begins.

    Attributes
    ----------
    request : a `TrainRequest` as JSON, its paths absolute, its output named
    generated : whether it trains on sample data of its own
    origin : which weights it began with; None: from scratch
    made_on : device, threads, processes and versions
    """

    request: Mapping[str, Any]
    generated: bool
    origin: str | None
    train: TrainConfig
    preprocess: PreprocessConfig
    scans: Sequence[ScanLine]
    made_on: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An unfinished run as it was read; `epoch` is the last that ended."""

    folder: Path
    plan: Plan
    state: TrainState
    state_file: Path

    @property
    def epoch(self) -> int:
        """The number of the last epoch that ended."""
        return len(self.state.facts["history"])


def draft_of(run: Path) -> Path:
    """Where the unfinished part of a coming run folder lies."""
    place = run.absolute()
    return place.with_name(f".{place.name}{SUFFIX}")


def run_of(folder: Path) -> Path | None:
    """The coming run folder of an unfinished one; None where that was renamed."""
    name = folder.name.removeprefix(".").removesuffix(SUFFIX)
    run = folder.with_name(name) if name else folder
    return run if draft_of(run) == folder else None


def check_unfinished(run: Path) -> None:
    """Raise where an unfinished run would be overwritten.

    Raises
    ------
    OutputExistsError : there is one
    """
    if (draft_of(run) / CHECKPOINT).is_file():
        raise OutputExistsError(
            f"an unfinished run is kept for {run}",
            f"Go on with `medcli train --resume {run}`, or --overwrite to begin again",
        )


def find_unfinished(name: str) -> Path:
    """The folder of the unfinished run that `name` means.

    Parameters
    ----------
    name : the coming run folder, the folder of the unfinished run itself, or "latest" for
        the newest in the medcli home

    Raises
    ------
    UsageError : there is none
    """
    if name == "latest":
        kept = sorted(unfinished_runs(), key=lambda path: path.stat().st_mtime)
        if not kept:
            raise UsageError(f"no unfinished run in {runs_folder()}", "Name its folder")
        return kept[-1].parent
    run = Path(name)
    for folder in (run, draft_of(run)):
        if (folder / CHECKPOINT).is_file():
            return folder.absolute()
    if is_package(run):
        raise UsageError(
            f"{run} is finished", f"To train another with its weights: --weights {run}"
        )
    raise UsageError(
        f"no unfinished run {name!r}",
        "Name the run folder that `medcli train` was to write, or 'latest'",
    )


def unfinished_runs() -> list[Path]:
    """The checkpoints of the unfinished runs in the medcli home."""
    return list(runs_folder().glob(f".*{SUFFIX}/{CHECKPOINT}"))


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read an unfinished run, every file compared with its checksum.

    Raises
    ------
    DamagedError : a file is missing or differs from what was written
    UsageError : it is of a newer format
    StorageError : the system refuses to read a file
    """
    try:
        return _load(folder)
    except FileNotFoundError as error:
        raise _damaged(folder, f"{Path(str(error.filename)).name} is missing") from error
    except OSError as error:
        raise StorageError(f"cannot read {error.filename}: {error.strerror}") from error


def _load(folder: Path) -> Checkpoint:
    try:
        values = json.loads((folder / CHECKPOINT).read_bytes())
        digest = values.pop("sha256")
        version = values["format_version"]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise _damaged(folder, f"{CHECKPOINT} cannot be read") from error
    if digest != sha256_of(to_bytes(values)):
        raise _damaged(folder, f"{CHECKPOINT} differs from its checksum")
    if version != FORMAT_VERSION:
        raise UsageError(
            f"{folder} has format {version}; this medcli reads {FORMAT_VERSION}",
            "Go on with the medcli that began it, or train again",
        )
    content = {}
    for name, expected in values["files"].items():
        content[name] = (folder / name).read_bytes()
        if sha256_of(content[name]) != expected:
            raise _damaged(folder, f"{name} differs from its checksum")
    (state_file,) = (name for name in content if name != DATA)
    plan = Plan(
        values["request"],
        values["generated"],
        values["origin"],
        TrainConfig.from_json(values["train"]),
        PreprocessConfig.from_json(values["preprocess"]),
        [ScanLine(*line) for line in json.loads(content[DATA])],
        values["made_on"],
    )
    state = TrainState(load(content[state_file]), values["state"])
    return Checkpoint(folder, plan, state, folder / state_file)


def _damaged(folder: Path, what: str) -> DamagedError:
    return DamagedError(
        f"the unfinished run {folder} is damaged: {what}",
        "Restore the folder from a backup; or remove it and train again",
    )


def check_scans(before: Sequence[ScanLine], now: Sequence[ScanLine]) -> None:
    """Raise where a run would go on with other data than it began with.

    Raises
    ------
    UsageError : scans, labels or parts differ; says how many, and names the first
    """

    def facts(lines: Sequence[ScanLine]) -> list[tuple[str, str, str]]:
        return [(line.pixel_sha256, line.label, line.part) for line in lines]

    if facts(before) == facts(now):
        return
    told = []
    for lines, others, what in ((before, now, "gone or changed"), (now, before, "new or changed")):
        rest = Counter(facts(lines)) - Counter(facts(others))
        if rest:
            first = next(line.path for line in lines if facts([line])[0] in rest)
            told.append(f"{rest.total()} of {len(lines)} scans are {what}, the first {first}")
    raise UsageError(
        "the data are not those that the run began with: "
        + ("; ".join(told) or "the order of the scans differs"),
        "Put the data back as they were, or train again without --resume",
    )


def check_machine(plan: Plan, now: Mapping[str, Any], warn: Callable[[str], None]) -> None:
    """Warn where the weights may come out otherwise than without interruption.

    Raises
    ------
    UsageError : another number of processes, each of which has its own random numbers
    """
    before = plan.made_on
    if before["processes"] != now["processes"]:
        raise UsageError(
            f"the run was begun by {before['processes']} processes, these are {now['processes']}",
            f"Start it with `torchrun --nproc_per_node={before['processes']}`"
            if before["processes"] > 1
            else "Start it without torchrun",
        )
    differs = [
        f"{name} {before.get(name)} → {now[name]}" for name in now if now[name] != before.get(name)
    ]
    if differs:
        warn(f"the last digits of the weights may differ: {', '.join(differs)}")


def as_json(value: Any) -> Any:
    """A dataclass of plain values, paths and settings as JSON."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, JsonConfig):
        return value.to_json()
    if isinstance(value, tuple | list):
        return [as_json(item) for item in value]
    fields = getattr(value, "__dataclass_fields__", None)
    return value if fields is None else {name: as_json(getattr(value, name)) for name in fields}


def from_json(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """The dataclass that `as_json` took apart.

    Raises
    ------
    KeyError, TypeError, ValueError : the values are those of something else
    """
    hints = typing.get_type_hints(kind)
    return kind(**{name: _revived(value, hints[name]) for name, value in values.items()})


def _revived(value: Any, hint: Any) -> Any:
    options = typing.get_args(hint) or (hint,)
    if isinstance(value, dict):
        for option in options:
            if isinstance(option, type) and issubclass(option, JsonConfig):
                return option.from_json(value)
    if isinstance(value, str) and Path in options:
        return Path(value)
    return tuple(value) if isinstance(value, list) else value


def to_bytes(value: Any) -> bytes:
    """JSON as it is written and hashed; NaN is refused."""
    return json.dumps(value, allow_nan=False).encode()


def sha256_of(content: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(content).hexdigest()
