"""The whole road on generated data: train, classify, index, search, and a page about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcli.data.gathering import gather_cases
from medcli.data.sources import load_cases
from medcli.data.synthetic import write_sample_data
from medcli.files import write_file
from medcli.imaging.batch import read_all
from medcli.inference.predictor import Predictor
from medcli.models.package import ModelPackage
from medcli.records import Case, Failure, Prediction, SearchResult
from medcli.report.demo_page import demo_page
from medcli.training.request import TrainEvents, TrainRequest
from medcli.training.run import train
from medcli.workflows.evaluating import evaluate
from medcli.workflows.indexing import build_gallery
from medcli.workflows.picturing import page_parts
from medcli.workflows.searching import Answer, open_gallery, search_scans

PATIENTS = 120
EPOCHS = 12
QUERIES = 4


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demonstration made, and what it saw on the way."""

    folder: Path
    package: ModelPackage
    metrics: dict[str, Any]
    predictions: tuple[Prediction, ...]
    results: tuple[SearchResult, ...]
    seconds: dict[str, float]
    page: Path


class _Clock:
    """Seconds of each step, in order; announces a step when it begins."""

    def __init__(self, on_step: Callable[[str], None]) -> None:
        self.seconds: dict[str, float] = {}
        self._on_step = on_step

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self._on_step(name)
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start


def demonstrate(
    folder: Path,
    *,
    seed: int = 0,
    patients: int = PATIENTS,
    epochs: int = EPOCHS,
    on_step: Callable[[str], None] = lambda name: None,
    events: TrainEvents | None = None,
) -> Demo:
    """Run every step in `folder`: scans/, run/, gallery/ and demo.html.

    The task is synthetic pulmonary nodules in CT. The queries are held-out series, and a
    picture of one slice that is to find its volume.
    """
    clock = _Clock(on_step)
    scans, run, archive = folder / "scans", folder / "run", folder / "gallery"
    with clock.step("generate scans"):
        write_sample_data(scans, seed=seed, patients=patients, tasks=("nodule",))
    manifest = str(scans / "nodule.csv")
    with clock.step("train"):
        request = TrainRequest(
            inputs=(manifest,),
            task="nodule",
            output=run,
            epochs=epochs,
            seed=seed,
            cache=False,
            measures=False,  # the scans are whole slices, not crops, and half a minute counts
        )
        package = train(request, events)
    predictor = Predictor(package)
    with clock.step("evaluate"):
        metrics = evaluate(predictor, [manifest], seed=seed).metrics
    queries = _queries(manifest, scans)
    with clock.step("classify"):
        answers = predictor.predict(scan for _, scan in read_all(queries))
        predictions = tuple(a for a in answers if isinstance(a, Prediction))
    with clock.step("index"):
        build_gallery(archive, predictor, load_cases([manifest]).cases)
    with clock.step("search"):
        gallery, searcher = open_gallery(archive)
        found = list(search_scans(gallery, searcher, queries, pictures=True))
    page = folder / "demo.html"
    with gallery:
        parts = page_parts(gallery, package, [a for a in found if isinstance(a, Answer)])
    split = {
        row["part"]: {"patients": row["patients"], "scans": row["scans"]}
        for row in package.provenance["split"]
    }
    html = demo_page(
        **parts,
        split=split,
        metrics=metrics,
        timings=clock.seconds,
        next_steps=NEXT_STEPS,
    )
    write_file(page, html.encode("utf-8", "replace"))
    results = tuple(parts["results"])
    return Demo(folder, package, metrics, predictions, results, clock.seconds, page)


NEXT_STEPS = (
    ("medcli train scans.csv --task nodule", "train on your own scans"),
    ("medcli classify scan.dcm", "classify a scan"),
    ("medcli index build", "make the current folder searchable"),
    ("medcli search query.png", "find similar scans"),
)


def _queries(manifest: str, scans: Path) -> list[Case | Failure]:
    """Series of different patients spread over the set, and the picture of one slice."""
    cases = load_cases([manifest]).cases
    spread = [cases[round(i * (len(cases) - 1) / (QUERIES - 1))] for i in range(QUERIES)]
    return [*spread, *gather_cases([str(scans / "query.png")])]
