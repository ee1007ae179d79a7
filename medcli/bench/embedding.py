"""From files to answers and vectors, beside what the network alone needs for decoded tensors."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from medcli.bench.made import write_ct_slices, write_pictures
from medcli.bench.measure import Measure, compared, seconds_in_turns
from medcli.config import EngineName
from medcli.imaging.batch import read_all
from medcli.imaging.discovery import find_scans
from medcli.imaging.isolation.pool import close_workers
from medcli.inference.choice import open_engine
from medcli.inference.predictor import BATCH, Predictor
from medcli.models.package import GRAPH, ModelPackage
from medcli.records import Case, Failure, Prediction
from medcli.workflows.indexing import build_gallery

Write = Callable[[Path, int], list[str]]
KINDS: dict[str, Write] = {"PNG": write_pictures, "CT slices": write_ct_slices}


def measure_embedding(package: ModelPackage, scans: int, turns: int) -> Iterator[Measure]:
    """Folders of `scans` files of each kind, classified and indexed."""
    predictor = Predictor(package)
    for kind, write in KINDS.items():
        with TemporaryDirectory(prefix="medcli-bench-") as scratch:
            folder = Path(scratch) / "scans"
            write(folder, scans)
            cases = find_scans([str(folder)])
            yield from _measured(predictor, kind, cases, Path(scratch) / "gallery", turns)
    close_workers()


def _measured(
    predictor: Predictor, kind: str, cases: Sequence[Case | Failure], gallery: Path, turns: int
) -> Iterator[Measure]:
    count, views = len(cases), vectors_of(predictor, cases[0])
    network = Network(predictor.package)
    ways = {
        "classify": lambda: classify_all(predictor, cases),
        "its network": lambda: network.run(count),
        "index": lambda: build_all(predictor, cases, gallery),
        "all its views": lambda: network.run(count * views),
    }
    seconds = seconds_in_turns(ways, turns)
    told = {
        "classify": (f"classify {count} {kind}", "network alone"),
        "index": (f"index {count} {kind}", f"network alone{f', {views} views' * (views > 1)}"),
    }
    for (way, (name, beside)), alone in zip(
        told.items(), ("its network", "all its views"), strict=True
    ):
        yield compared("embed", name, "scans/s", seconds[way], beside, seconds[alone], count)


def classify_all(predictor: Predictor, cases: Sequence[Case | Failure]) -> int:
    """As `medcli classify FOLDER` answers; the number of predictions."""
    answers = predictor.predict(scan for _, scan in read_all(cases))
    return sum(isinstance(answer, Prediction) for answer in answers)


def build_all(predictor: Predictor, cases: Sequence[Case | Failure], gallery: Path) -> int:
    """As `medcli index build` makes a gallery, which is removed again; its scans."""
    try:
        return build_gallery(gallery, predictor, cases).stored.added
    finally:
        shutil.rmtree(gallery, ignore_errors=True)


class Network:
    """The graph of a model on pictures that are in memory, in batches as the commands make them."""

    def __init__(self, package: ModelPackage, engine: EngineName = "onnxruntime") -> None:
        settings = package.preprocess
        shape = (BATCH, 1, settings.channels, settings.size, settings.size)
        self._images = np.random.default_rng(0).random(shape, np.float32)
        name = "onnxruntime" if engine == "auto" else engine
        self._engine = open_engine(package.path / GRAPH, name, package.fingerprint, _nothing)

    def run(self, count: int) -> None:
        """Ask for `count` pictures."""
        for start in range(0, count, BATCH):
            images = self._images[: min(BATCH, count - start)]
            self._engine.run(images, np.ones((len(images), 1), bool))


def _nothing(sentence: str) -> None:
    """What an engine says of itself is no measure."""


def vectors_of(predictor: Predictor, case: Case | Failure) -> int:
    """How many pictures of a scan of one slice the network sees for a gallery."""
    (scan,) = (scan for _, scan in read_all([case]))
    assert not isinstance(scan, Failure)
    return len(predictor.preprocessor.views(scan))
