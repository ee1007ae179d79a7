"""From scans to predictions and embeddings, with one model load."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import NamedTuple

import numpy as np

from medcli.config import Window
from medcli.evaluation.calibration import softmax
from medcli.evaluation.conformal import label_sets
from medcli.imaging.preprocess import Preprocessor, sample_slices
from medcli.imaging.statistics import picture_views
from medcli.inference.engine import EngineOutput, OnnxEngine
from medcli.models.package import GRAPH, ModelPackage, load_reference
from medcli.records import Embedding, Failure, Prediction, Scan

BATCH = 32  # single pictures, or slices of one series, that go through the graph together


class _Answer(NamedTuple):
    """A scan, its (K,) logits, and how far it lies from the training scans."""

    scan: Scan
    logits: np.ndarray
    ood_score: float | None


class Predictor:
    """A model package ready to answer."""

    def __init__(self, package: ModelPackage) -> None:
        self.package = package
        self.preprocessor = Preprocessor(package.preprocess)
        self._reference = load_reference(package.path)
        # The graph loads while the first scan is read.
        pool = ThreadPoolExecutor(1, thread_name_prefix="medcli-graph")
        self._loading = pool.submit(OnnxEngine, package.path / GRAPH)
        pool.shutdown(wait=False)

    @property
    def _engine(self) -> OnnxEngine:
        return self._loading.result()

    def predict(self, scans: Iterable[Scan | Failure]) -> Iterator[Prediction | Failure]:
        """The prediction of each scan, in order; failures pass through."""
        for answer in self._answers(scans):
            yield answer if isinstance(answer, Failure) else self.prediction(*answer)

    def prediction(
        self, scan: Scan, logits: np.ndarray, ood_score: float | None = None
    ) -> Prediction:
        """What (K,) `logits` and the distance from the training scans say about `scan`."""
        task = self.package.task
        probabilities = softmax(logits, self.package.calibration.temperature)
        best = int(np.argmax(probabilities))
        label_set = self._label_set(probabilities)
        return Prediction(
            path=scan.path,
            scan_id=scan.scan_id,
            files=scan.files,
            task=task.name,
            label=task.classes[best],
            probability=float(probabilities[best]),
            probabilities=dict(zip(task.classes, map(float, probabilities), strict=True)),
            positive=task.positive,
            model=self.package.fingerprint,
            synthetic=self.package.synthetic,
            uncertain=None if label_set is None else len(label_set) != 1,
            out_of_distribution=None if ood_score is None else ood_score > 1,
            ood_score=ood_score,
            warnings=scan.warnings,
            label_set=label_set,
        )

    def _label_set(self, probabilities: np.ndarray) -> tuple[str, ...] | None:
        """The classes of (K,) `probabilities` that reach their levels; None without levels."""
        levels = self.package.calibration.label_set_levels
        if levels is None:
            return None
        inside = label_sets(probabilities, levels)
        return tuple(
            name for name, held in zip(self.package.task.classes, inside, strict=True) if held
        )

    def embed(self, scan: Scan) -> Embedding:
        """The vectors of a scan: one for all of it, and one a slice and view.

        A view is a rendering under which a slice enters a gallery; CT slices have
        several (see `Preprocessor.views`), so that a picture saved in any common
        window lies next to the slice it was made from.
        """
        units = self._unit_input(scan)
        output = self._run_scan(units)
        count = len(scan.pixels)
        dim = output.embedding.shape[1]
        vectors = [np.empty((0, dim), np.float32)]
        numbers: list[int] = []
        names: list[str] = []
        views = self.preprocessor.views(scan)
        if count > 1 or len(views) > 1:
            for name, window in views:
                vectors.append(self._slice_vectors(scan, window))
                numbers += range(count)
                names += [name] * count
        return Embedding(
            vector=output.embedding[0],
            logits=output.logits[0],
            slice_vectors=np.concatenate(vectors),
            slice_numbers=np.array(numbers, dtype=np.int64),
            slice_views=tuple(names),
            attention=output.attention[0],
            ood_score=self._ood_score(units),
        )

    def _slice_vectors(self, scan: Scan, window: Window | None) -> np.ndarray:
        """(S, D) vectors of all slices seen through one window."""
        images = self.preprocessor.model_input(scan, window=window)
        parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        return np.concatenate([self._run_singles(part).embedding for part in parts])

    def _run_singles(self, images: np.ndarray) -> EngineOutput:
        """(N, C, H, W) pictures, each a scan of one slice."""
        return self._engine.run(images[:, None], np.ones((len(images), 1), dtype=bool))

    def _unit_input(self, scan: Scan) -> np.ndarray:
        """(S', C, H, W) sampled slices in 0–1."""
        chosen = sample_slices(len(scan.pixels), self.package.preprocess.slice_budget)
        return self.preprocessor.unit_input(scan, slices=chosen)

    def _run_scan(self, units: np.ndarray) -> EngineOutput:
        """The outputs for one scan of (S', C, H, W) slices in 0–1."""
        images = self.preprocessor.standardise(units)
        return self._engine.run(images[None], np.ones((1, len(images)), dtype=bool))

    def _ood_score(self, units: np.ndarray) -> float | None:
        """How far the scan of (S', C, H, W) slices in 0–1 lies from the training scans."""
        if self._reference is None:
            return None
        return float(self._reference.scores(picture_views(units)))

    def _answers(self, scans: Iterable[Scan | Failure]) -> Iterator[Failure | _Answer]:
        """Each input's answer; neighbouring single pictures share a batch."""
        for single, group in groupby(scans, key=_is_single):
            if not single:
                for item in group:
                    if isinstance(item, Failure):
                        yield item
                        continue
                    units = self._unit_input(item)
                    logits = self._run_scan(units).logits[0]
                    yield _Answer(item, logits, self._ood_score(units))
                continue
            for batch in _chunks(group, BATCH):
                units = np.concatenate([self.preprocessor.unit_input(scan) for scan in batch])
                output = self._run_singles(self.preprocessor.standardise(units))
                scores = [self._ood_score(each[None]) for each in units]
                yield from map(_Answer, batch, output.logits, scores)


def _is_single(item: Scan | Failure) -> bool:
    return isinstance(item, Scan) and len(item.pixels) == 1


def _chunks(items: Iterator[Scan | Failure], size: int) -> Iterator[list[Scan]]:
    batch: list[Scan] = []
    for item in items:
        assert isinstance(item, Scan)
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
