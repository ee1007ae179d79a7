"""What was decided for each labelled scan, and whether that was right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medcli.data.findings import NONE, SEPARATOR, findings_of
from medcli.imaging.display import display_slice
from medcli.models.package import ModelPackage, salted_patient
from medcli.records import Case, Prediction, Scan, Task
from medcli.report.evaluation_page import Mistake
from medcli.report.pictures import encode_jpeg

MISTAKE_SIDE = 160  # pixels of the longer side


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled scan that was predicted."""

    case: Case
    prediction: Prediction
    patient_id: str | None
    known: str | None  # its part in the training run
    same_pixels: bool  # the run has seen this very picture
    area: float
    pixels: str  # their hash
    picture: bytes | None  # of a scan that was decided wrongly, where pictures are wanted


def mistake_picture(scan: Scan) -> bytes:
    """The middle slice as a person sees it."""
    return encode_jpeg(display_slice(scan, len(scan.pixels) // 2, edge=MISTAKE_SIDE))


def decision(task: Task, prediction: Prediction) -> str:
    """The class that is decided for: by the threshold of two classes, else the most probable."""
    if task.positive is None or task.threshold is None or len(task.classes) != 2:
        return str(prediction.label)
    if prediction.probabilities[task.positive] >= task.threshold:
        return task.positive
    return next(name for name in task.classes if name != task.positive)


def is_wrong(task: Task, prediction: Prediction, label: str) -> bool:
    """Whether something else was decided for than the label says."""
    if task.multi_label:
        return bool(_wrong_findings(task, prediction, label))
    return decision(task, prediction) != label


def _wrong_findings(task: Task, prediction: Prediction, label: str) -> dict[str, float]:
    """Finding → how far its probability lies from the truth, of those decided wrongly."""
    there, called = findings_of(label), prediction.labels or ()
    wrong = [name for name in task.classes if (name in there) != (name in called)]
    return {name: abs((name in there) - prediction.probabilities[name]) for name in wrong}


def mistakes_of(package: ModelPackage, rows: Sequence[Row]) -> tuple[Mistake, ...]:
    """The rows that were decided wrongly, those furthest from the truth first."""
    found = []
    for number, row in enumerate(rows, start=1):
        if is_wrong(package.task, row.prediction, str(row.case.label)):
            decided, distance, probability, flags = _what_was_wrong(package.task, row)
            mistake = Mistake(
                number=number,
                true=str(row.case.label).replace(SEPARATOR, ", "),
                decided=decided,
                probability=probability,
                patient=salted_patient(row.patient_id, package.patient_salt)[:8] or None,
                picture=row.picture,
                flags=(*flags, *_doubted(row.prediction)),
            )
            found.append((-distance, number, mistake))
    return tuple(mistake for _, _, mistake in sorted(found, key=lambda each: each[:2]))


def _what_was_wrong(task: Task, row: Row) -> tuple[str, float, float | None, list[str]]:
    """What was decided, how far from the truth, its probability, and which findings were wrong."""
    shares, label = row.prediction.probabilities, str(row.case.label)
    if not task.multi_label:
        decided = decision(task, row.prediction)
        return decided, 1 - shares[label], shares[decided], []
    wrong = _wrong_findings(task, row.prediction, label)
    called = row.prediction.labels or ()
    told = [
        f"{'not there' if name in called else 'missed'}: {name} {shares[name]:.3f}"
        for name in wrong
    ]
    return ", ".join(called) or NONE, max(wrong.values()), None, told


def _doubted(prediction: Prediction) -> Iterator[str]:
    """What the model itself held against its answer."""
    if prediction.uncertain:
        yield "uncertain"
    if prediction.out_of_distribution:
        yield "out of distribution"
