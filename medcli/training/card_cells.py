"""What the cells of a model card hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medcli.config import Calibration
from medcli.models.package import ModelPackage
from medcli.records import Task

_FACTS = """\
Trained by medcli {medcli} on {created}. **Research use, not a medical device.**{synthetic}

| | |
|---|---|
| fingerprint | `{fingerprint}` |
| network | {network}, {dim}-dimensional embedding of unit length |
| input | {size} × {size} px, {channels} channel(s) |
| trained on | {source} |
| started from | {weights} |
| training | seed {seed}, {epochs_run} epochs, best {best_epoch}, ended by {stopped} |
| time | {seconds:.0f} s on {device} |
| ONNX graph | differs from torch by at most {onnx_difference:.1e} |
| versions | {versions} |"""


def run_facts(package: ModelPackage) -> str:
    """Who trained it, when, on what and how: the head of a card."""
    provenance, versions = package.provenance, package.provenance["versions"]
    synthetic = "\n\n**Trained on generated pictures: it says nothing about a patient.**"
    return _FACTS.format(
        medcli=versions["medcli"],
        versions=", ".join(f"{name} {number}" for name, number in versions.items()),
        created=package.created[:10],
        synthetic=synthetic if package.synthetic else "",
        fingerprint=package.fingerprint,
        network=package.model.network,
        dim=package.model.vector_dim,
        size=package.preprocess.size,
        channels=package.preprocess.channels,
        source=provenance["source"],
        weights=provenance["weights"] or "scratch",
        seed=provenance["train"]["seed"],
        epochs_run=provenance["epochs_run"],
        best_epoch=provenance["best_epoch"],
        stopped=provenance["stopped"],
        seconds=provenance["seconds"],
        device=provenance["device"],
        onnx_difference=provenance["onnx_difference"],
    )


def split_row(row: Mapping[str, Any]) -> str:
    """A line of the table of the parts."""
    per_class = ", ".join(f"{name} {count}" for name, count in row["per_class"].items())
    return f"| {row['part']} | {row['patients']} | {row['scans']} | {per_class} |"


def scaling(calibration: Calibration, task: Task) -> str:
    """How logits of classes became probabilities."""
    told = f"one temperature, {calibration.temperature:.3f} (1 changes nothing)"
    if calibration.offsets is None:
        return told
    each = zip(task.classes, calibration.offsets, strict=True)
    offsets = ", ".join(f"{name} {offset:+.3f}" for name, offset in each)
    return f"{told}, and an offset for each class ({offsets})"


def of(metrics: Mapping[str, Any], name: str) -> str:
    """A metric with its interval, where it has one."""
    return value(metrics[name], metrics.get(f"{name}_ci"))


def value(number: float | None, bounds: Any = None) -> str:
    """A number, its interval behind it; a dash where it is undefined."""
    return "–" if number is None else f"{number:.3f}{interval(bounds)}"


def interval(bounds: Any) -> str:
    """Two bounds in brackets; nothing where there are none."""
    return "" if bounds is None else f" ({bounds[0]:.3f}–{bounds[1]:.3f})"


def percent(share: float | None) -> str:
    """A share in percent."""
    return "–" if share is None else f"{share:.1%}"
