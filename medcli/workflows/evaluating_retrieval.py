"""Labelled queries and a gallery → how often neighbours agree, and what else they share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medcli.data.sources import load_cases
from medcli.errors import ManifestError, ScanError
from medcli.evaluation.retrieval import METRICS, retrieval_metrics
from medcli.evaluation.shortcuts import Known, shortcuts, third
from medcli.models.memory import run_memory
from medcli.records import Case, Failure
from medcli.retrieval.auditing import PROPERTIES
from medcli.retrieval.query import Compare, Wanted
from medcli.retrieval.rows import ScanRow
from medcli.retrieval.search import search_many
from medcli.workflows.evaluating import Evaluation, given_part, own_note
from medcli.workflows.sources import AREA
from medcli.workflows.task_choice import for_data

if TYPE_CHECKING:
    from medcli.inference.predictor import Predictor
    from medcli.retrieval.gallery import Gallery
    from medcli.workflows.searching import Answer

DEPTH = 10  # hits of a query
_NEAREST = 5  # of them that are asked what else they share


def evaluate_retrieval(
    predictor: Predictor,
    gallery_path: Path,
    inputs: Sequence[str],
    *,
    compare: Compare = "slices",
    seed: int = 0,
    on_scan: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Search a gallery with labelled scans and measure how often labels agree.

    The query itself and its own patient are left out. Queries are the same scans that
    `evaluate` takes: of data the run knows, its held-out part.

    Raises
    ------
    ManifestError : unusable data, or no label that the gallery holds
    MismatchError : the gallery was built with another model
    ScanError : nothing can be read
    """
    from medcli.retrieval.gallery import Gallery
    from medcli.workflows.searching import search_scans

    predictor = for_data(predictor, inputs)
    task = predictor.package.task.name
    data = load_cases(inputs, task=task)
    cases, part = given_part(data.cases)
    answers: list[Answer] = []
    failures: list[Failure] = []
    with Gallery.open(gallery_path) as gallery:
        gallery.check_fingerprint(predictor.package.fingerprint)
        info = gallery.info()
        notes = _absent_labels(cases, info["classes"])
        found = search_scans(gallery, predictor, cases, Wanted(k=DEPTH, compare=compare))
        for done, answer in enumerate(found, start=1):
            on_scan(done, len(cases))
            if isinstance(answer, Failure):
                failures.append(answer)
            else:
                answers.append(answer)
        recall = _ann_recall(gallery, answers, compare)
        with gallery.snapshot():
            stored = {scan.id: scan.row for scan in gallery.catalogue.stored()}
    if not answers:
        raise ScanError(failures[0].code, f"no scan could be read: {failures[0].message}")
    known = run_memory(predictor.package)
    if part is None and known and any(a.pixel_sha256 in known.by_pixels for a in answers):
        own = [
            answer
            for answer in answers
            if known.part(answer.patient_id, answer.pixel_sha256 or "", task) == "test"
        ]
        if own:
            answers, part = own, "held-out"
            notes.append(own_note(len(own)))
    counts = {**info["classes"], None: info["unlabelled"]}
    metrics = {
        "task": task,
        "split": part or "all",
        "compare": compare,
        "ann_recall_at_10": recall,
        **_measured([[hit.label for hit in a.result.hits] for a in answers], answers, counts, seed),
        "baselines": _baselines(answers, stored, counts, seed),
        "shortcuts": _shortcuts(answers, stored),
    }
    return Evaluation(metrics, tuple(failures), data.warnings, tuple(notes))


def _ann_recall(gallery: Gallery, answers: Sequence[Answer], compare: Compare) -> float | None:
    """Share of the hits of exact search that were found; None where the gallery is exact."""
    with gallery.snapshot():
        if gallery.caches.choice() is None:
            return None
    shares = []
    asked = [answer.asked for answer in answers]
    truths = search_many(gallery, asked, Wanted(k=DEPTH, compare=compare, exact=True))
    for answer, exact in zip(answers, truths, strict=True):
        nearest = {hit.id for hit in exact.hits}
        found = {hit.id for hit in answer.result.hits}
        shares.append(len(nearest & found) / max(1, len(nearest)))
    return float(np.mean(shares)) if shares else None


def _measured(
    hit_labels: Sequence[Sequence[str | None]],
    answers: Sequence[Answer],
    counts: Mapping[str | None, int],
    seed: int,
) -> dict[str, Any]:
    return retrieval_metrics(
        hit_labels,
        [_label(answer) for answer in answers],
        counts,
        patients=[answer.patient_id for answer in answers],
        seed=seed,
    )


def _label(answer: Answer) -> str:
    assert answer.case is not None  # it was read from a file
    return str(answer.case.label)


def _baselines(
    answers: Sequence[Answer],
    stored: Mapping[int, ScanRow],
    counts: Mapping[str | None, int],
    seed: int,
) -> dict[str, Any]:
    """What comes out if the nearest are those whose foreground is as large; {} if unknown."""
    ids = [scan for scan, row in stored.items() if _area(row.metadata) is not None]
    asked = [answer for answer in answers if _area(answer.facts) is not None]
    if not ids or len(asked) < len(answers):
        return {}
    areas = np.array([_area(stored[scan].metadata) for scan in ids], dtype=float)
    labels = []
    for answer in answers:
        near = np.argsort(np.abs(areas - float(_area(answer.facts) or 0)), kind="stable")
        rows = (stored[ids[place]] for place in near.tolist())
        own = (answer.asked.patient, answer.asked.pixel_sha256)
        others = (row for row in rows if not _is_own(row, *own))
        labels.append([row.label for row, _ in zip(others, range(DEPTH), strict=False)])
    found = _measured(labels, answers, counts, seed)
    return {"nearest_area": {**{name: found[name] for name in METRICS}, "ci": found["ci"]}}


def _is_own(row: ScanRow, patient: str | None, pixels: str | None) -> bool:
    """Whether a stored scan is the query or of its patient."""
    return (patient is not None and row.patient == patient) or row.pixel_sha256 == pixels


def _area(facts: Mapping[str, str]) -> float | None:
    return float(facts[AREA]) if AREA in facts else None


def _shortcuts(answers: Sequence[Answer], stored: Mapping[int, ScanRow]) -> dict[str, Any]:
    """How often the first five hits share what tells nothing of the disease."""
    areas = [area for row in stored.values() if (area := _area(row.metadata)) is not None]
    bounds = np.quantile(areas, (1 / 3, 2 / 3)).tolist() if areas else [0.0, 0.0]

    def known_of(row: ScanRow) -> Known:
        facts = {name: value(row) for name, value in PROPERTIES.items()}
        return Known({**facts, "size": third(_area(row.metadata), bounds)}, row.patient)

    known = {scan: known_of(row) for scan, row in stored.items()}
    return shortcuts(
        [known_of(_as_row(answer)) for answer in answers],
        [[known[hit.id] for hit in answer.result.hits[:_NEAREST]] for answer in answers],
        list(known.values()),
        [*PROPERTIES, "size"],
    )


def _as_row(answer: Answer) -> ScanRow:
    """The query as a gallery would store it."""
    return ScanRow(
        scan_id="",
        path="",
        files=(),
        n_slices=0,
        label=_label(answer),
        patient=answer.asked.patient,
        modality=answer.modality,
        format=answer.format,
        metadata=answer.facts,
    )


def _absent_labels(cases: Sequence[Case], stored: Collection[str]) -> list[str]:
    """A note where no stored scan can be right for some of the queries.

    Raises
    ------
    ManifestError : for none of them
    """
    labels = [str(case.label) for case in cases]
    absent = [label for label in labels if label not in stored]
    if not absent:
        return []
    names = ", ".join(sorted(set(absent)))
    if len(absent) == len(labels):
        raise ManifestError(
            f"the gallery holds no scan with a label of the queries ({names})",
            f"labels in the gallery: {', '.join(sorted(stored)) or 'none'}",
        )
    return [f"{len(absent)} of {len(labels)} queries have a label that the gallery lacks: {names}"]
