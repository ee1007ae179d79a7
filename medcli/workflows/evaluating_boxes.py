"""Scans whose boxes are known → the numbers of a detector, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from medcli.data.boxes import load_boxes
from medcli.detection.measuring import MeasuredScan, box_metrics, measure_scans
from medcli.inference.detector import Detector
from medcli.models.memory import RunMemory, run_memory
from medcli.workflows.evaluating import Evaluation, leakage, own_note


def evaluate_boxes(
    detector: Detector,
    inputs: Sequence[str],
    *,
    allow_overlap: bool = False,
    seed: int = 0,
    on_scan: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Find boxes in scans whose boxes a manifest gives, and measure.

    Scans evaluated: those with `split=test`; else the run's own held-out patients where it
    knows the data; else all.

    Raises
    ------
    ManifestError : unusable data, a box outside its picture, a label the detector lacks
    LeakageError : patients or pixels of the training part are among the scans, and not
        `allow_overlap`
    ScanError : nothing can be read
    """
    package = detector.package
    data = load_boxes(inputs, known=package.task.classes)
    pairs = list(zip(data.cases, data.boxes, strict=True))
    given = [pair for pair in pairs if pair[0].split == "test"]
    cases, truths = zip(*(given or pairs), strict=True)
    rows, failures = measure_scans(detector, cases, truths, on_scan=on_scan)
    notes: list[str] = []
    part = "test" if given else "all"
    if (memory := run_memory(package)) is not None:
        rows, part = _apart(rows, part, memory, notes, allow_overlap)
    metrics = {
        "task": package.task.name,
        "classes": package.task.classes,
        "split": part,
        **box_metrics(rows, len(package.task.classes), seed=seed),
        "threshold": package.task.threshold,
        "synthetic": package.synthetic,
        "model": package.fingerprint,
    }
    return Evaluation(metrics, tuple(failures), data.warnings, tuple(notes))


def _apart(
    rows: list[MeasuredScan],
    part: str,
    memory: RunMemory,
    notes: list[str],
    allow_overlap: bool,
) -> tuple[list[MeasuredScan], str]:
    """The scans that the run has not learnt from; a refusal where these are mixed."""
    known = [memory.part(row.patient_id, row.pixel_sha256) for row in rows]
    knows = any(row.pixel_sha256 in memory.by_pixels for row in rows)
    if part == "all" and knows and "test" in known:
        own = [row for row, where in zip(rows, known, strict=True) if where == "test"]
        notes.append(own_note(len(own)))
        return own, "held-out"
    leaked = [row.case for row, where in zip(rows, known, strict=True) if where == "train"]
    if leaked and not allow_overlap:
        raise leakage(leaked, len(rows), knows)
    if chose := known.count("val"):
        notes.append(
            f"{chose} of {len(rows)} scans come from the run's validation part, "
            "which chose the weights and the threshold"
        )
    return rows, part
