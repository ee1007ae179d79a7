"""Labelled scans → the numbers of a model, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from medcli.data.domains import sites_of
from medcli.data.findings import indicator
from medcli.data.sources import load_cases
from medcli.errors import DamagedError, LeakageError, ScanError
from medcli.evaluation.area import foreground_area
from medcli.evaluation.baselines import area_baseline, majority_baseline
from medcli.evaluation.conformal import label_set_metrics
from medcli.evaluation.findings import finding_metrics
from medcli.evaluation.intervals import patient_groups
from medcli.evaluation.metrics import classification_metrics
from medcli.imaging.batch import read_all
from medcli.imaging.hashing import pixel_sha256, set_fingerprint
from medcli.models.held_out import HeldOut
from medcli.models.memory import run_memory
from medcli.models.package import ModelPackage
from medcli.records import Case, Failure, Prediction, Scan
from medcli.report.evaluation_page import Mistake
from medcli.workflows.judging import Row, is_wrong, mistake_picture, mistakes_of
from medcli.workflows.task_choice import for_data

if TYPE_CHECKING:
    from medcli.inference.predictor import Predictor

NAMED = 3  # scans that an error names


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The fields of `medcli evaluate`, and what could not be read.

    Attributes
    ----------
    warnings : what was noticed about the data; these sentences may name them
    notes : what the numbers stand for; these name nothing
    answers : the answers behind the metrics, but those of retrieval
    mistakes : scans that were decided wrongly, the surest first; with `pictures` only
    """

    metrics: dict[str, Any]
    failures: tuple[Failure, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    answers: HeldOut | None = None
    mistakes: tuple[Mistake, ...] = ()


def evaluate(
    predictor: Predictor,
    inputs: Sequence[str],
    *,
    allow_overlap: bool = False,
    pictures: bool = False,
    seed: int = 0,
    on_scan: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Predict labelled scans and measure.

    Rows evaluated: those with `split=test`; else the run's own held-out patients where
    it knows the data (has seen some of their pixels: equal patient numbers alone may come
    from another hospital); else all. Of an `.npz`: test, else val.

    Parameters
    ----------
    pictures : keep a picture of each scan that is decided wrongly, for a report

    Raises
    ------
    ManifestError : unusable data, or a label that the model does not know
    LeakageError : patients or pixels of the training part are among the rows, and not
        `allow_overlap`
    ScanError : nothing can be read
    """
    predictor = for_data(predictor, inputs)
    package = predictor.package
    asked = package.task
    data = load_cases(inputs, task=asked.name, known=asked.classes, multi_label=asked.multi_label)
    cases, part = given_part(data.cases)
    rows, failures = _predict(predictor, cases, on_scan, pictures=pictures)
    notes: list[str] = []
    knows = any(row.same_pixels for row in rows)
    if part is None and knows:
        own = [row for row in rows if row.known == "test"]
        if own:
            rows, part = own, "held-out"
            notes.append(own_note(len(own)))
    leaked = [row for row in rows if row.known == "train"]
    if leaked and part in ("test", "val") and all(row.case.kind == "array" for row in leaked):
        # The parts of a published archive are kept whole, so that numbers stay comparable;
        # PneumoniaMNIST itself has pictures twice, once in train and once in val.
        notes.append(
            f"{len(leaked)} of {len(rows)} pictures of the archive's {part} part are copies "
            "of training pictures; they are evaluated too"
        )
    elif leaked and not allow_overlap:
        raise leakage([row.case for row in leaked], len(rows), knows)
    marked = sum(row.case.split is not None for row in rows) if part is None else 0
    if marked:
        notes.append(
            f"the data have no test part: all {len(rows)} scans are evaluated, {marked} of them "
            "marked for training or validation"
        )
    if part == "val":
        notes.append("no test part: the validation part is evaluated, which chose the weights")
    elif chose := sum(row.known == "val" for row in rows):
        notes.append(
            f"{chose} of {len(rows)} scans come from the run's validation part, "
            "which chose the weights and the threshold"
        )
    measure = _finding_numbers if asked.multi_label else _metrics
    metrics = measure(package, rows, part or "all", seed)
    return Evaluation(
        metrics,
        tuple(failures),
        data.warnings,
        tuple(notes),
        answers=_answers(package, rows),
        mistakes=mistakes_of(package, rows) if pictures else (),
    )


def own_note(count: int) -> str:
    """Which scans are evaluated of data that the run knows."""
    return f"the run knows these data: its {count} held-out scans are evaluated"


def leakage(leaked: Sequence[Case], total: int, knows: bool) -> LeakageError:
    """The refusal, with the first scans; and what speaks for another set numbered alike."""
    first = ", ".join("/".join(PurePath(case.path).parts[-2:]) for case in leaked[:NAMED])
    named = f"{first} and {len(leaked) - NAMED} more" if len(leaked) > NAMED else first
    count = f"{len(leaked)} of {total} scans"
    if knows:
        return LeakageError(
            f"{count} come from patients, or are pictures, that the model was trained on: {named}",
            "Evaluate on other patients, or give --allow-overlap to do it all the same",
        )
    return LeakageError(
        f"{count} have the patient_id of a patient that the model was trained on: {named}",
        "If these are other people numbered alike, give --allow-overlap",
    )


def given_part(cases: Sequence[Case]) -> tuple[list[Case], str | None]:
    """The cases of the given test part, else of the given validation part of an archive."""
    for part in ("test", "val"):
        chosen = [case for case in cases if case.split == part]
        if chosen and (part == "test" or chosen[0].kind == "array"):
            return chosen, part
    return list(cases), None


def _predict(
    predictor: Predictor,
    cases: Sequence[Case],
    on_scan: Callable[[int, int], None],
    *,
    pictures: bool = False,
) -> tuple[list[Row], list[Failure]]:
    package = predictor.package
    known = run_memory(package)
    seen: list[tuple[Case, Scan]] = []
    failures: list[Failure] = []

    def scans() -> Iterable[Scan]:
        for done, (case, scan) in enumerate(read_all(cases), start=1):
            on_scan(done, len(cases))
            if isinstance(scan, Failure):
                failures.append(scan)
            else:
                assert isinstance(case, Case)
                seen.append((case, scan))
                yield scan

    rows, task = [], predictor.package.task
    for prediction in predictor.predict(scans()):
        case, scan = seen.pop(0)
        assert isinstance(prediction, Prediction)
        pixels = pixel_sha256(scan)
        wrong = pictures and is_wrong(task, prediction, str(case.label))
        rows.append(
            Row(
                case=case,
                prediction=prediction,
                patient_id=scan.patient_id,
                known=known.part(scan.patient_id, pixels, package.task.name) if known else None,
                same_pixels=known is not None and pixels in known.by_pixels,
                area=foreground_area(scan.pixels),
                pixels=pixels,
                picture=mistake_picture(scan) if wrong else None,
            )
        )
    if not rows:
        raise ScanError(failures[0].code, f"no scan could be read: {failures[0].message}")
    return rows, failures


def _answers(package: ModelPackage, rows: Sequence[Row]) -> HeldOut:
    """What the model said of each row, for curves."""
    task = package.task
    labels, probabilities = (_finding_labels if task.multi_label else _labels)(package, rows)
    limits = task.thresholds if task.multi_label else task.threshold
    thresholds = np.broadcast_to(np.nan if limits is None else np.array(limits), labels.shape)
    return HeldOut(
        groups=patient_groups([row.patient_id for row in rows], len(rows)),
        folds=np.zeros(len(rows), dtype=np.intp),
        labels=labels,
        probabilities=probabilities,
        thresholds=thresholds,
    )


def _labels(package: ModelPackage, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """(N,) class indices and (N, K) probabilities of the rows.

    Raises
    ------
    DamagedError : numbers that are no probabilities, or do not sum to 1
    """
    classes = package.task.classes
    labels = np.array([classes.index(str(row.case.label)) for row in rows])
    probabilities = np.array(
        [[row.prediction.probabilities[name] for name in classes] for row in rows]
    )
    off = ~(np.abs(probabilities.sum(axis=1) - 1) < 1e-3)  # NaN is off too
    if off.any():
        why = "are none, or do not sum to 1,"
        raise _no_probabilities(package, int(off.sum()), len(rows), why)
    return labels, probabilities


def _no_probabilities(package: ModelPackage, count: int, total: int, why: str) -> DamagedError:
    return DamagedError(
        f"{package.path}: the model's probabilities {why} for {count} of {total} scans",
        "Train again, or look for scans with broken values with `medcli data check`",
    )


def _metrics(package: ModelPackage, rows: Sequence[Row], part: str, seed: int) -> dict[str, Any]:
    task = package.task
    labels, probabilities = _labels(package, rows)
    patients = [row.patient_id for row in rows]
    domain = package.provenance.get("train", {}).get("domain")
    baselines: dict[str, Any] = {"majority": majority_baseline(labels)}
    if task.positive is not None:
        is_positive = labels == task.classes.index(task.positive)
        areas = np.array([row.area for row in rows])
        baselines["area"] = area_baseline(is_positive, areas, patients=patients, seed=seed)
    return {
        **_facts(package, part),
        **classification_metrics(
            labels,
            probabilities,
            classes=task.classes,
            positive=task.positive,
            threshold=task.threshold,
            patients=patients,
            sites=sites_of([row.case for row in rows], domain),
            seed=seed,
        ),
        "label_sets": _label_sets(package, rows, labels, seed),
        **_doubts(package, rows),
        "operating_point": package.metrics.get("operating_point"),
        "data_fingerprint": set_fingerprint(row.pixels for row in rows),
        "baselines": baselines | _own_baselines(package, rows),
    }


def _finding_labels(package: ModelPackage, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """(N, F) which findings the rows have, and (N, F) their probabilities.

    Raises
    ------
    DamagedError : numbers that are no probabilities
    """
    findings = package.task.classes
    shares = np.array([[row.prediction.probabilities[name] for name in findings] for row in rows])
    off = ~((shares >= 0) & (shares <= 1)).all(axis=1)  # NaN is off too
    if off.any():
        raise _no_probabilities(package, int(off.sum()), len(rows), "are none")
    return indicator([str(row.case.label) for row in rows], findings), shares


def _finding_numbers(
    package: ModelPackage, rows: Sequence[Row], part: str, seed: int
) -> dict[str, Any]:
    """The same where a scan may have several findings."""
    task = package.task
    truth, shares = _finding_labels(package, rows)
    sites = [row.case.columns.get("site") for row in rows]
    return {
        **_facts(package, part),
        **finding_metrics(
            truth,
            shares,
            findings=task.classes,
            thresholds=task.thresholds,
            patients=[row.patient_id for row in rows],
            sites=sites if any(sites) else None,
            seed=seed,
        ),
        "label_sets": None,
        **_doubts(package, rows),
        "operating_point": None,
        "data_fingerprint": set_fingerprint(row.pixels for row in rows),
        "baselines": _own_baselines(package, rows),
    }


def _facts(package: ModelPackage, part: str) -> dict[str, Any]:
    """What the numbers are of."""
    return {
        "task": package.task.name,
        "model": package.fingerprint,
        "synthetic": package.synthetic,
        "split": part,
    }


def _doubts(package: ModelPackage, rows: Sequence[Row]) -> dict[str, float | None]:
    """How many of the scans look foreign, and how many the router knows."""
    return {
        "out_of_distribution": _flagged_share(rows),
        "router_accuracy": _routed_share(package.task.name, rows),
    }


def _own_baselines(package: ModelPackage, rows: Sequence[Row]) -> dict[str, Any]:
    """The baselines of the run, where it measured these same scans."""
    if len(rows) == package.metrics.get("n") and all(row.known == "test" for row in rows):
        return dict(package.metrics.get("baselines", {}))
    return {}


def _flagged_share(rows: Sequence[Row]) -> float | None:
    """Share of the scans out of distribution; None for a model that cannot tell."""
    flags = [row.prediction.out_of_distribution for row in rows]
    return None if None in flags else float(np.mean(np.array(flags, dtype=bool)))


def _routed_share(task: str, rows: Sequence[Row]) -> float | None:
    """Share of the scans that the router would give to their task; None for one task."""
    shares = [row.prediction.task_probabilities for row in rows]
    right = [max(each, key=each.__getitem__) == task for each in shares if each is not None]
    return float(np.mean(right)) if right else None


def _label_sets(
    package: ModelPackage, rows: Sequence[Row], labels: np.ndarray, seed: int
) -> dict[str, Any] | None:
    """How often the label sets hold the true class; None for a model that gives none."""
    if package.calibration.label_set_levels is None:
        return None
    sets = [
        [name in (row.prediction.label_set or ()) for name in package.task.classes] for row in rows
    ]
    return label_set_metrics(
        labels,
        np.array(sets),
        patient_groups([row.patient_id for row in rows], len(rows)),
        classes=package.task.classes,
        target=package.calibration.coverage,
        seed=seed,
    )
