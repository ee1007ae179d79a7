"""From scans to predictions and embeddings, with one model load."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import groupby
from threading import Lock
from typing import NamedTuple

import numpy as np

from medcli.config import EngineName, Window
from medcli.evaluation.conformal import label_sets
from medcli.evaluation.out_of_distribution import Reference
from medcli.imaging.preprocess import Preprocessor, sample_slices
from medcli.imaging.region import whole_ct
from medcli.imaging.statistics import picture_views, slice_views
from medcli.inference.choice import check_engine, open_engine
from medcli.inference.engine import Engine, EngineOutput
from medcli.inference.remembered import Tell
from medcli.models.heads import Head
from medcli.models.package import GRAPH, ModelPackage, load_references
from medcli.records import Embedding, Failure, Prediction, Scan, Task

BATCH = 32  # single pictures, or slices of one series, that go through the graph together

WAITING_BYTES = 2**26  # of pictures whose batch is not full yet


class _Answer(NamedTuple):
    """A scan, its (W,) logits, and how far it lies from the training scans of each task."""

    scan: Scan
    logits: np.ndarray
    task_ood_scores: Mapping[str, float]


class _Pictures(NamedTuple):
    """The views of a scan of one slice: their names (V,), and (V, C, H, W) pictures in 0–1."""

    names: tuple[str, ...]
    units: np.ndarray


class _Batch(NamedTuple):
    """Pictures that are in the network: what will come out, and what was known before.

    Attributes
    ----------
    names : of the views of each scan, whose pictures follow each other
    """

    names: Sequence[tuple[str, ...]]
    task_ood_scores: Sequence[dict[str, float]]
    output: Future[EngineOutput]


class Predictor:
    """A model package ready to answer.

    Where the model knows several tasks its router picks one for each scan; `for_task` keeps
    to one.

    Parameters
    ----------
    engine : what runs the graph; "auto": ONNX Runtime, and what is fastest here once many
        pictures make that pay
    tell : takes a sentence about an engine that was chosen by a measurement

    Raises
    ------
    UsageError : OpenVINO is asked for and not installed
    """

    def __init__(
        self,
        package: ModelPackage,
        engine: EngineName = "auto",
        tell: Tell = lambda sentence: None,
    ) -> None:
        check_engine(engine)
        self._engine_asked = engine, tell
        self.package = package
        self.preprocessor = Preprocessor(package.preprocess)
        self._references = load_references(package.path)
        # The graph loads while the first scan is read.
        pool = ThreadPoolExecutor(1, thread_name_prefix="medcli-graph")
        self._loading = pool.submit(
            open_engine, package.path / GRAPH, engine, package.fingerprint, tell
        )
        pool.shutdown(wait=False)
        self._alone = Lock()  # an engine runs one batch at a time

    @property
    def _engine(self) -> Engine:
        return self._loading.result()

    @property
    def region_mm(self) -> float | None:
        """Side in mm of the region that the model answers about; None: of the scan as it is."""
        return _region_mm(self.package)

    def for_region(self) -> Predictor:
        """The same model, asked for the task that answers about a region; itself without one."""
        task = self.package.preprocess.region_task
        known = any(head.task.name == task for head in self.package.heads)
        return self.for_task(task) if task is not None and known else self

    def for_task(self, task: str) -> Predictor:
        """The same model, asked for one of its tasks whatever the scan.

        Raises
        ------
        UsageError : the model does not know the task
        """
        other = copy.copy(self)
        other.package = self.package.only(task)
        return other

    def predict(self, scans: Iterable[Scan | Failure]) -> Iterator[Prediction | Failure]:
        """The prediction of each scan, in order; failures pass through."""
        for answer in self._answers(scans):
            yield answer if isinstance(answer, Failure) else self._answered(*answer)

    def _answered(
        self, scan: Scan, logits: np.ndarray, task_ood_scores: Mapping[str, float]
    ) -> Prediction:
        """The prediction that `predict` gives."""
        return self.prediction(scan, logits, task_ood_scores)

    def prediction(
        self, scan: Scan, logits: np.ndarray, task_ood_scores: Mapping[str, float]
    ) -> Prediction:
        """What (W,) `logits` and the distances from the tasks' training scans say about `scan`.

        The scan is out of distribution by those of the task that answers: the scans of all
        tasks together have no one tone and layout to be far from.

        A whole CT given to a model that answers about a region is out of distribution, however
        near its tones lie, and a warning says how to name the region. The router, which sees
        pictures, is not asked about a CT where one task answers about regions of it.
        """
        shares = self._task_probabilities(logits)
        head, several = self._picked(scan, shares), len(self.package.heads) > 1
        task = head.task
        ood_score = task_ood_scores.get(task.name)
        whole = whole_ct(scan, _region_mm(self.package))
        foreign = None if ood_score is None else ood_score > 1
        probabilities = head.probabilities(logits)
        label_set = _label_set(head, probabilities)
        labels = _findings(task, probabilities)
        # Of findings the likeliest of those that are there, and none where none is.
        among = range(len(task.classes)) if labels is None else map(task.classes.index, labels)
        best = max(among, key=probabilities.__getitem__, default=None)
        return Prediction(
            path=scan.path,
            scan_id=scan.scan_id,
            files=scan.files,
            task=task.name,
            label=None if best is None else task.classes[best],
            probability=None if best is None else float(probabilities[best]),
            probabilities=dict(zip(task.classes, map(float, probabilities), strict=True)),
            positive=task.positive,
            model=self.package.fingerprint,
            synthetic=self.package.synthetic,
            uncertain=None if label_set is None else len(label_set) != 1,
            out_of_distribution=True if whole else foreign,
            ood_score=ood_score,
            warnings=(*scan.warnings, *whole),
            label_set=label_set,
            task_probabilities=shares,
            labels=labels,
            task_ood_scores=dict(task_ood_scores) if several and task_ood_scores else None,
        )

    def _task_probabilities(self, logits: np.ndarray) -> dict[str, float] | None:
        """Task → what the router gives it for a scan of (W,) logits; None without a router."""
        router = self.package.router
        if router is None:
            return None
        return dict(zip(router.tasks, map(float, router.probabilities(logits)), strict=True))

    def _picked(self, scan: Scan, shares: Mapping[str, float] | None) -> Head:
        """The head that answers: the likeliest of several; one alone was picked by who asks."""
        heads = self.package.heads
        if len(heads) == 1 or shares is None:
            return heads[0]
        asked = self.package.preprocess.region_task if scan.unit == "HU" else None
        for_ct = next((head for head in heads if head.task.name == asked), None)
        return for_ct or max(heads, key=lambda head: shares[head.task.name])

    def embed(self, scan: Scan) -> Embedding:
        """The vectors of a scan: one for all of it, and one a slice and view.

        A view is a rendering under which a slice enters a gallery; CT slices have
        several (see `Preprocessor.views`), so that a picture saved in any common
        window lies next to the slice it was made from.
        """
        return next(self.embed_all([scan]))

    def embed_all(self, scans: Iterable[Scan]) -> Iterator[Embedding]:
        """`embed` of each scan, in order; neighbouring scans of one slice share a batch.

        While a batch is in the network the next one is prepared.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="medcli-network") as network:
            running: list[_Batch] = []  # one at most
            for group in _groups(scans):
                if len(group[0].pixels) > 1:
                    yield from _embeddings(running)
                    yield self._embedded_stack(group[0])
                    continue
                begun = self._begun(network, [self._pictures(scan) for scan in group])
                yield from _embeddings(running)
                running.append(begun)
            yield from _embeddings(running)

    def _pictures(self, scan: Scan) -> _Pictures:
        """A scan of one slice through each of its views, the model's own first."""
        views = self.preprocessor.views(scan)
        units = [self.preprocessor.unit_input(scan, window=window) for _, window in views]
        return _Pictures(tuple(name for name, _ in views), np.concatenate(units))

    def _begun(self, network: Executor, pictures: Sequence[_Pictures]) -> _Batch:
        """Scans of one slice whose views are in the network from now on."""
        output = network.submit(self._run_pictures, np.concatenate([p.units for p in pictures]))
        scores = self._picture_ood_scores(np.stack([p.units[0] for p in pictures]))
        return _Batch([p.names for p in pictures], scores, output)

    def _embedded_stack(self, scan: Scan) -> Embedding:
        """The embedding of a scan of several slices."""
        units = self._unit_input(scan)
        output = self._run_scan(units)
        count, views = len(scan.pixels), self.preprocessor.views(scan)
        return Embedding(
            vector=output.embedding[0],
            logits=output.logits[0],
            slice_vectors=np.concatenate([self._slice_vectors(scan, each) for _, each in views]),
            slice_numbers=np.tile(np.arange(count, dtype=np.int64), len(views)),
            slice_views=tuple(name for name, _ in views for _ in range(count)),
            attention=output.attention[0],
            task_ood_scores=self._task_ood_scores(units),
        )

    def _slice_vectors(self, scan: Scan, window: Window | None) -> np.ndarray:
        """(S, D) vectors of all slices seen through one window."""
        return self._run_pictures(self.preprocessor.unit_input(scan, window=window)).embedding

    def _run_pictures(self, units: np.ndarray) -> EngineOutput:
        """The outputs for (N, C, H, W) pictures in 0–1, each a scan of one slice."""
        parts = []
        for start in range(0, len(units), BATCH):
            images = self.preprocessor.standardise(units[start : start + BATCH])
            mask = np.ones((len(images), 1), dtype=bool)
            parts.append(self._run(images[:, None], mask))
        return EngineOutput(*map(np.concatenate, zip(*parts, strict=True)))

    def _unit_input(self, scan: Scan) -> np.ndarray:
        """(S', C, H, W) sampled slices in 0–1."""
        chosen = sample_slices(len(scan.pixels), self.package.preprocess.slice_budget)
        return self.preprocessor.unit_input(scan, slices=chosen)

    def _run_scan(self, units: np.ndarray) -> EngineOutput:
        """The outputs for one scan of (S', C, H, W) slices in 0–1."""
        images = self.preprocessor.standardise(units)
        return self._run(images[None], np.ones((1, len(images)), dtype=bool))

    def _run(self, images: np.ndarray, mask: np.ndarray) -> EngineOutput:
        """The outputs for (N, S, C, H, W) standardised images, (N, S) mask of real slices."""
        with self._alone:
            return self._engine.run(images, mask)

    def _task_ood_scores(self, units: np.ndarray) -> dict[str, float]:
        """How far the scan of (S', C, H, W) slices in 0–1 lies from the scans of each task.

        Without the tasks whose scans the model does not remember.
        """
        known = self._known_references()
        views = picture_views(units) if known else {}
        return {task: float(reference.scores(views)) for task, reference in known.items()}

    def _picture_ood_scores(self, units: np.ndarray) -> list[dict[str, float]]:
        """The same of (N, C, H, W) pictures, each a scan of its own."""
        known = self._known_references()
        if not known:
            return [{}] * len(units)
        views = {name: rows.astype(np.float32) for name, rows in slice_views(units).items()}
        scores = {task: reference.scores(views) for task, reference in known.items()}
        return [{task: float(each[n]) for task, each in scores.items()} for n in range(len(units))]

    def _known_references(self) -> dict[str, Reference]:
        """What the scans of each task look like; without the tasks that are not remembered."""
        tasks = [head.task.name for head in self.package.heads]
        found = {task: self._references.get(task, self._references.get("")) for task in tasks}
        return {task: each for task, each in found.items() if each is not None}

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
                    yield _Answer(item, logits, self._task_ood_scores(units))
                continue
            yield from self._picture_answers(group)

    def _picture_answers(self, scans: Iterable[Scan | Failure]) -> Iterator[_Answer]:
        """The answers for scans of one slice; as in `embed_all` two batches overlap."""
        with ThreadPoolExecutor(1, thread_name_prefix="medcli-network") as network:
            running: list[tuple[list[Scan], _Batch]] = []  # one at most
            for batch in _groups(scan for scan in scans if isinstance(scan, Scan)):
                units = [_Pictures(("model",), self.preprocessor.unit_input(s)) for s in batch]
                begun = self._begun(network, units)
                yield from _answers(running)
                running.append((batch, begun))
            yield from _answers(running)


def _region_mm(package: ModelPackage) -> float | None:
    """The side of the region; None where the task that answers about one is not asked."""
    settings = package.preprocess
    asked = settings.region_task
    left_out = asked is not None and all(head.task.name != asked for head in package.heads)
    return None if left_out else settings.region_mm


def _label_set(head: Head, probabilities: np.ndarray) -> tuple[str, ...] | None:
    """The classes of (K,) `probabilities` that reach their levels; None without levels."""
    levels = head.calibration.label_set_levels
    if levels is None:
        return None
    inside = label_sets(probabilities, levels)
    return tuple(name for name, held in zip(head.task.classes, inside, strict=True) if held)


def _findings(task: Task, probabilities: np.ndarray) -> tuple[str, ...] | None:
    """The findings of (F,) `probabilities` that reach their thresholds; None of classes."""
    if not task.multi_label:
        return None
    there = probabilities >= np.asarray(task.thresholds or [0.5] * len(task.classes))
    return tuple(name for name, held in zip(task.classes, there, strict=True) if held)


def _is_single(item: Scan | Failure) -> bool:
    return isinstance(item, Scan) and len(item.pixels) == 1


def _groups(scans: Iterable[Scan]) -> Iterator[list[Scan]]:
    """Neighbours of one slice together, up to a batch or `WAITING_BYTES`; each stack alone."""
    group: list[Scan] = []
    for scan in scans:
        single = len(scan.pixels) == 1
        if single:
            group.append(scan)
        held = sum(each.pixels.nbytes for each in group)
        if group and (not single or len(group) == BATCH or held >= WAITING_BYTES):
            yield group
            group = []
        if not single:
            yield [scan]
    if group:
        yield group


def _embeddings(running: list[_Batch]) -> Iterator[Embedding]:
    """What came out of the network for the scans of the batch that runs, which is then done."""
    for batch in running:
        output, start = batch.output.result(), 0
        for names, scores in zip(batch.names, batch.task_ood_scores, strict=True):
            vectors = output.embedding[start : start + len(names)]
            several = len(names) > 1
            yield Embedding(
                vector=vectors[0],
                logits=output.logits[start],
                slice_vectors=vectors if several else vectors[:0],
                slice_numbers=np.zeros(len(names) if several else 0, dtype=np.int64),
                slice_views=names if several else (),
                attention=output.attention[start],
                task_ood_scores=scores,
            )
            start += len(names)
    running.clear()


def _answers(running: list[tuple[list[Scan], _Batch]]) -> Iterator[_Answer]:
    """The answers of the batch that runs, which is then done."""
    for scans, batch in running:
        yield from map(_Answer, scans, batch.output.result().logits, batch.task_ood_scores)
    running.clear()
