"""A labelled data set → what leaks, what is there twice, which labels look wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medcli.data.check import Check, CheckedScan, add_warnings, relations, tell
from medcli.data.label_noise import LabelNoise, picture_features, rank_labels
from medcli.data.sources import DataSet
from medcli.data.survey import Survey, survey
from medcli.errors import ManifestError, ScanError, UsageError
from medcli.models.memory import run_memory
from medcli.records import Case, Failure, Scan

if TYPE_CHECKING:
    from medcli.inference.predictor import Predictor


@dataclass(frozen=True, slots=True)
class Suspect:
    """One label, judged.

    Attributes
    ----------
    rank : from 1, the most suspicious first
    label_quality : 0–1, lower is more suspicious
    suggested_label : what the judge takes the scan for
    suspicious : whether confident learning calls the label wrong
    """

    rank: int
    path: str
    scan_id: str
    label: str
    suggested_label: str
    label_quality: float
    suspicious: bool


@dataclass(frozen=True, slots=True)
class Audit:
    """What is to be known of a data set.

    Attributes
    ----------
    check : every scan with what was found about it, and the findings
    suspects : every label by rank; None where labels could not be judged
    judge_accuracy : share of labels with which the judge agrees
    notes : what the numbers stand for, or why there is no ranking
    """

    check: Check
    suspects: tuple[Suspect, ...] | None
    judge_accuracy: float | None
    notes: tuple[str, ...]


def audit(
    data: DataSet,
    predictor: Predictor | None = None,
    *,
    seed: int = 0,
    on_scan: Callable[[int, int], None] = lambda done, total: None,
    on_failure: Callable[[Failure], None] = lambda failure: None,
) -> Audit:
    """Read every scan once; find leaks and copies; judge each label by the other patients.

    The judge is a logistic regression on embeddings of a model, else on thumbnails and
    histograms.

    Parameters
    ----------
    data : as from `medcli.data.sources.load_cases`
    predictor : a model whose embeddings describe the scans

    Raises
    ------
    ScanError : none, or less than 95 % of the scans, can be read
    """
    features: list[np.ndarray] = []

    def describe(scan: Scan) -> None:
        features.append(predictor.embed(scan).vector if predictor else picture_features(scan))

    seen = survey(data.cases, also=describe, on_scan=on_scan, on_failure=on_failure)
    if not seen.cases:
        raise ScanError("no_scans", f"no scan of {data.source} can be read")
    copies = seen.copies()
    found = list(
        relations(
            identical=copies.identical,
            near=list(copies.near),
            patients=[case.patient_id for case in seen.cases],
            labels=[case.label for case in seen.cases],
            splits=[case.split for case in seen.cases],
        )
    )
    notes = _notes(seen, predictor)
    noise: LabelNoise | None = None
    try:
        noise = rank_labels(
            np.stack(features), seen.cases, data.classes, links=copies.links, seed=seed
        )
    except (ManifestError, UsageError) as error:
        notes.append(f"labels are not judged: {error.message}. {error.hint}")
    if noise is not None:
        places = noise.ranking[: int(noise.suspicious.sum())]
        found.append(("suspicious_label", [(int(place),) for place in places], ""))
    return Audit(
        check=_check(seen, [each for each in found if each[1]]),
        suspects=None if noise is None else _suspects(seen.cases, data.classes, noise),
        judge_accuracy=None if noise is None else noise.accuracy,
        notes=tuple(notes),
    )


def _check(seen: Survey, found: list[tuple[str, list[tuple[int, ...]], str]]) -> Check:
    """The scans with what was found; failures after them."""
    scans = [
        CheckedScan(case.path, case.scan_id, case.files, "ok", warnings)
        for case, warnings in zip(seen.cases, seen.warnings, strict=True)
    ]
    failed = [
        CheckedScan(each.path, each.scan_id, each.files, each.status, failure=each)
        for each in seen.failures
    ]
    names = [str(case.label) for case in seen.cases]
    return Check(
        scans=(*add_warnings(scans, found), *failed),
        findings=tuple(tell(scans, found)),
        labels={name: names.count(name) for name in sorted(set(names))},
        patients=len({case.patient_id for case in seen.cases} - {None}),
    )


def _suspects(
    cases: Sequence[Case], classes: Sequence[str], noise: LabelNoise
) -> tuple[Suspect, ...]:
    """Every label by rank."""
    return tuple(
        Suspect(
            rank=rank,
            path=cases[place].path,
            scan_id=cases[place].scan_id,
            label=str(cases[place].label),
            suggested_label=classes[int(noise.suggested[place])],
            label_quality=float(noise.quality[place]),
            suspicious=bool(noise.suspicious[place]),
        )
        for rank, place in enumerate(noise.ranking.tolist(), start=1)
    )


def _notes(seen: Survey, predictor: Predictor | None) -> list[str]:
    """What to bear in mind about the judge."""
    memory = run_memory(predictor.package) if predictor else None
    known = sum(memory.by_pixels.get(key) == "train" for key in seen.pixels) if memory else 0
    if not known:
        return []
    return [
        f"the model was trained on {known:,} of these scans with these labels: errors that it "
        "learnt by heart look right to it; leave --model out to be judged without it"
    ]
