"""Which engine runs a model: the one asked for, or the fastest here once that pays.

Loading a second engine takes about a second, so a single scan is always answered by the first.
After `PATIENCE` seconds inside the network the engines are measured on the pictures at hand, and
which was fastest is remembered in the medcli home for this model, machine and these versions.

Engines in float32 agree to `SAME`, or the second is not used. bfloat16 is used only where the
`NEAREST` nearest of each of `SAMPLE` pictures of the user's own stay the same; that is looked at
again in each run, since it depends on the pictures.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from medcli.config import EngineName
from medcli.errors import MedcliError, UsageError
from medcli.inference.engine import Engine, EngineOutput, OnnxEngine
from medcli.inference.remembered import Tell, remember, remembered

PATIENCE = 2.0  # seconds inside the first engine before another is loaded
TURNS = 3  # that engines are measured in
SAME = 1e-6  # 1 - cos between engines in float32
SAMPLE = 128  # pictures that the nearest of bfloat16 are compared on
NEAREST = 10


@dataclass(frozen=True, slots=True)
class Agreement:
    """How an engine's embeddings of some pictures compare with those of float32.

    `distance` is the largest 1 - cos; `moved` counts the pictures whose nearest differ.
    """

    pictures: int
    distance: float
    moved: int

    def told(self) -> str:
        """In words."""
        nearest = f"the {NEAREST} nearest of each"
        kept = "stay the same" if not self.moved else f"differ for {self.moved}"
        return f"of {self.pictures} pictures {nearest} {kept}, 1 - cos at most {self.distance:.1e}"


def agreement(vectors: np.ndarray, reference: np.ndarray) -> Agreement:
    """Compare (N, D) embeddings with those of float32 of the same N > `NEAREST` pictures."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(reference, axis=1)
    cosines = (vectors.astype(np.float64) * reference).sum(axis=1) / lengths
    pairs = zip(_nearest(vectors), _nearest(reference), strict=True)
    moved = sum(own != other for own, other in pairs)
    return Agreement(len(vectors), max(0.0, float(1 - cosines.min())), moved)


def _nearest(vectors: np.ndarray) -> list[set[int]]:
    """The rows nearest to each of (N, D) vectors, itself left out."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return [set(row) for row in np.argsort(-scores, axis=1)[:, :NEAREST].tolist()]


def open_engine(graph: Path, name: EngineName, key: str, tell: Tell) -> Engine:
    """The engine called `name` for the graph of the model with the fingerprint `key`.

    Raises
    ------
    UsageError : OpenVINO is asked for and not installed, or bfloat16 and not there
    DamagedError : the engine cannot read the graph
    """
    if name == "onnxruntime":
        return OnnxEngine(graph)
    if name == "auto":
        return FastestEngine(graph, key, tell) if has_openvino() else OnnxEngine(graph)
    from medcli.inference.openvino import OpenVinoEngine

    exact = OpenVinoEngine(graph)
    if name == "openvino":
        return exact
    return ReducedWhereSame(exact, OpenVinoEngine(graph, bfloat16=True), tell)


def has_openvino() -> bool:
    """Whether the extra `openvino` is there; nothing is loaded."""
    return find_spec("openvino") is not None


def check_engine(name: EngineName) -> None:
    """Raise where the engine `name` cannot be loaded here.

    Raises
    ------
    UsageError : OpenVINO is asked for and not installed
    """
    if name.startswith("openvino") and not has_openvino():
        raise UsageError(
            "OpenVINO is not installed", "pip install 'medcli[openvino]', or leave out --engine"
        )


class FastestEngine:
    """ONNX Runtime at first; what is fastest here once that pays.

    Parameters
    ----------
    key : the model's fingerprint, under which the choice is remembered
    tell : takes a sentence about what was chosen, when it was measured
    patience : seconds inside ONNX Runtime before others are loaded
    """

    def __init__(self, graph: Path, key: str, tell: Tell, patience: float = PATIENCE) -> None:
        self._graph, self._key, self._tell, self._patience = graph, key, tell, patience
        self._engine: Engine = OnnxEngine(graph)
        self._spent, self._settled = 0.0, False

    def run(self, images: np.ndarray, mask: np.ndarray) -> EngineOutput:
        """(N, S, C, H, W) float32 images, (N, S) bool mask of real slices → outputs."""
        if not self._settled and self._spent >= self._patience:
            self._settled = True
            self._engine = self._fastest(images, mask)
        start = time.perf_counter()
        output = self._engine.run(images, mask)
        self._spent += time.perf_counter() - start
        return output

    def _fastest(self, images: np.ndarray, mask: np.ndarray) -> Engine:
        """The engine that is remembered for this model, else the one that wins on a batch."""
        known = remembered(self._key)
        if known == "onnxruntime":
            return self._engine
        try:
            return self._measured(known, images, mask)
        except MedcliError as error:  # the engine at hand goes on
            self._tell(f"OpenVINO is not used: {error.message}")
            return self._engine

    def _measured(self, known: str | None, images: np.ndarray, mask: np.ndarray) -> Engine:
        from medcli.inference.openvino import OpenVinoEngine, has_bfloat16

        exact = OpenVinoEngine(self._graph)
        apart = _distance(exact.run(images, mask), self._engine.run(images, mask))
        if apart > SAME:
            remember(self._key, "onnxruntime", self._tell)
            self._tell(f"OpenVINO is not used: its vectors differ by {apart:.1e} (1 - cos)")
            return self._engine
        ways: dict[str, Engine] = {"onnxruntime": self._engine, "openvino": exact}
        if known == "openvino-bf16" or (known is None and has_bfloat16()):
            ways["openvino-bf16"] = OpenVinoEngine(self._graph, bfloat16=True)
        if known is None:
            seconds = seconds_of(ways, images, mask)
            known = min(seconds, key=seconds.__getitem__)
            remember(self._key, known, self._tell)
            ratios = ", ".join(
                f"{name} {seconds['onnxruntime'] / took:.1f}" for name, took in seconds.items()
            )
            self._tell(f"{known} is the fastest engine here (speed: {ratios}); remembered")
        chosen = ways[known]
        return ReducedWhereSame(exact, chosen, self._tell) if known == "openvino-bf16" else chosen


class ReducedWhereSame:
    """float32 for the first pictures, on which bfloat16 is compared; then bfloat16 if it may."""

    def __init__(self, exact: Engine, reduced: Engine, tell: Tell) -> None:
        self._exact, self._reduced, self._tell = exact, reduced, tell
        self._engine, self._settled = exact, False
        self._pairs: list[tuple[np.ndarray, np.ndarray]] = []  # bfloat16, float32

    def run(self, images: np.ndarray, mask: np.ndarray) -> EngineOutput:
        """(N, S, C, H, W) float32 images, (N, S) bool mask of real slices → outputs."""
        output = self._engine.run(images, mask)
        if not self._settled:
            self._compare(self._reduced.run(images, mask), output, mask)
        return output

    def _compare(self, reduced: EngineOutput, exact: EngineOutput, mask: np.ndarray) -> None:
        self._pairs.append((reduced.slice_embeddings[mask], exact.slice_embeddings[mask]))
        if sum(len(own) for own, _ in self._pairs) < SAMPLE:
            return
        found = agreement(*map(np.concatenate, zip(*self._pairs, strict=True)))
        self._settled, self._pairs = True, []
        if found.moved:
            self._tell(f"bfloat16 is not used: {found.told()}")
            return
        self._engine = self._reduced
        self._tell(f"bfloat16 is used: {found.told()}")


def _distance(output: EngineOutput, reference: EngineOutput) -> float:
    """The largest 1 - cos between the embeddings of two engines, which have unit length."""
    cosines = (output.embedding.astype(np.float64) * reference.embedding).sum(axis=1)
    return float(1 - cosines.min())


def seconds_of(
    engines: Mapping[str, Engine], images: np.ndarray, mask: np.ndarray, turns: int = TURNS
) -> dict[str, float]:
    """The median seconds of each engine for a batch, in turns after one that warms up."""
    taken: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(turns + 1):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine.run(images, mask)
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(each[1:]) for name, each in taken.items()}
