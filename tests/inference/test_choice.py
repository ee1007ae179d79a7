"""Which engine runs a model, and that all of them say the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcli.errors import DamagedError, UsageError
from medcli.inference import choice, remembered
from medcli.inference.choice import FastestEngine, ReducedWhereSame, agreement, open_engine
from medcli.inference.engine import Engine, EngineOutput, OnnxEngine
from medcli.inference.openvino import OpenVinoEngine, has_bfloat16
from medcli.inference.predictor import Predictor
from medcli.models.package import GRAPH, ModelPackage

pytestmark = pytest.mark.usefixtures("one_thread")
KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def model(
    tmp_path_factory: pytest.TempPathFactory, make_package: Callable[..., ModelPackage]
) -> ModelPackage:
    return make_package(tmp_path_factory.mktemp("model") / "run")


@pytest.fixture(scope="module")
def graph(model: ModelPackage) -> Path:
    return model.path / GRAPH


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDCLI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def batch(model: ModelPackage) -> tuple[np.ndarray, np.ndarray]:
    """Scans of up to three slices, for the graph of `model`."""
    settings = model.preprocess
    shape = (8, 3, settings.channels, settings.size, settings.size)
    mask = np.ones((8, 3), bool)
    mask[::2, 2] = False
    return np.random.default_rng(0).normal(size=shape).astype(np.float32), mask


class Shifted:
    """An engine whose unit vectors are turned by noise of a given strength."""

    def __init__(self, inner: Engine, strength: float) -> None:
        self.inner, self.strength, self.runs = inner, strength, 0

    def run(self, images: np.ndarray, mask: np.ndarray) -> EngineOutput:
        self.runs += 1
        output = self.inner.run(images, mask)
        return output._replace(
            embedding=self._turned(output.embedding),
            slice_embeddings=self._turned(output.slice_embeddings),
        )

    def _turned(self, vectors: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(1).normal(size=vectors.shape) * self.strength
        turned = vectors + noise
        return (turned / np.linalg.norm(turned, axis=-1, keepdims=True)).astype(np.float32)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return float((1 - (one.astype(np.float64) * other).sum(axis=-1) / lengths).max())


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_engines_agree_whatever_the_batch_and_the_threads(
    graph: Path, batch: tuple[np.ndarray, np.ndarray], size: int, threads: int
) -> None:
    images, mask = batch
    expected = OnnxEngine(graph, 1).run(images, mask)
    other = OpenVinoEngine(graph, threads)
    parts = [other.run(images[i : i + size], mask[i : i + size]) for i in range(0, 8, size)]
    found = EngineOutput(*map(np.concatenate, zip(*parts, strict=True)))
    assert distance(found.embedding, expected.embedding) < 1e-6
    assert distance(found.slice_embeddings[mask], expected.slice_embeddings[mask]) < 1e-6
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)
    np.testing.assert_allclose(found.attention, expected.attention, atol=1e-5)


def test_a_predictor_gives_the_same_vectors_with_either_engine(
    model: ModelPackage, sample_folder: Path
) -> None:
    from medcli.data.sources import load_cases
    from medcli.imaging.batch import read_case
    from medcli.records import Scan

    scan = read_case(load_cases([str(sample_folder / "nodule.csv")]).cases[0])
    assert isinstance(scan, Scan)
    one, other = (Predictor(model, name).embed(scan) for name in ("onnxruntime", "openvino"))
    assert distance(one.vector, other.vector) < 1e-6
    assert distance(one.slice_vectors, other.slice_vectors) < 1e-6


# ---- the fastest ----


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Seconds a batch that a measurement finds; empty: it must not measure."""
    given: dict[str, float] = {}

    def seconds(engines: dict[str, Engine], *_: Any) -> dict[str, float]:
        assert given, "engines were measured"
        return {name: given[name] for name in engines}

    monkeypatch.setattr(choice, "seconds_of", seconds)
    monkeypatch.setattr("medcli.inference.openvino.has_bfloat16", lambda: False)
    return given


@pytest.mark.parametrize("fastest", ["onnxruntime", "openvino"])
def test_the_fastest_is_measured_once_and_remembered(
    graph: Path,
    batch: tuple[np.ndarray, np.ndarray],
    speeds: dict[str, float],
    home: Path,
    fastest: str,
) -> None:
    speeds.update({"onnxruntime": 2.0, "openvino": 2.0, fastest: 1.0})
    told: list[str] = []
    engine = FastestEngine(graph, KEY, told.append, patience=0.0)
    expected = OnnxEngine(graph).run(*batch)
    for _ in range(3):
        assert distance(engine.run(*batch).embedding, expected.embedding) < 1e-6
    kinds = {"onnxruntime": OnnxEngine, "openvino": OpenVinoEngine}
    assert isinstance(engine._engine, kinds[fastest])
    assert len(told) == 1
    assert told[0].startswith(f"{fastest} is the fastest engine here")
    assert json.loads((home / "engines.json").read_text())["choices"] == {KEY: fastest}
    speeds.clear()
    again = FastestEngine(graph, KEY, told.append, patience=0.0)
    again.run(*batch)
    assert isinstance(again._engine, kinds[fastest])
    assert len(told) == 1


def test_few_pictures_are_not_worth_a_second_engine(
    graph: Path, batch: tuple[np.ndarray, np.ndarray], speeds: dict[str, float], home: Path
) -> None:
    engine = FastestEngine(graph, KEY, pytest.fail)
    engine.run(*batch)
    assert isinstance(engine._engine, OnnxEngine)
    assert not home.exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_text("{"),
        lambda file: file.write_text(json.dumps({"format": 2, "choices": {KEY: "openvino"}})),
        lambda file: file.write_text(file.read_text().replace("cores", "nuclei")),
        lambda file: file.write_text(file.read_text().replace('"openvino"', '"other"')),
    ],
)
def test_what_cannot_be_read_or_is_of_another_machine_is_measured_again(
    graph: Path,
    batch: tuple[np.ndarray, np.ndarray],
    speeds: dict[str, float],
    home: Path,
    spoil: Callable[[Path], object],
) -> None:
    remembered.remember(KEY, "openvino", pytest.fail)
    spoil(home / "engines.json")
    assert remembered.remembered(KEY) is None
    speeds.update({"onnxruntime": 1.0, "openvino": 2.0})
    FastestEngine(graph, KEY, lambda sentence: None, patience=0.0).run(*batch)
    assert remembered.remembered(KEY) == "onnxruntime"


def test_a_home_that_cannot_be_written_is_told_of(home: Path) -> None:
    home.write_text("a file in the place of the folder")
    told: list[str] = []
    remembered.remember(KEY, "openvino", told.append)
    assert len(told) == 1
    assert told[0].startswith("the choice of the engine could not be kept")


def test_an_engine_that_fails_is_told_of_and_the_first_goes_on(
    graph: Path,
    batch: tuple[np.ndarray, np.ndarray],
    speeds: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> Engine:
        raise DamagedError("OpenVINO cannot load the graph")

    monkeypatch.setattr("medcli.inference.openvino.OpenVinoEngine", refuse)
    told: list[str] = []
    engine = FastestEngine(graph, KEY, told.append, patience=0.0)
    assert np.isfinite(engine.run(*batch).embedding).all()
    engine.run(*batch)
    assert told == ["OpenVINO is not used: OpenVINO cannot load the graph"]


def test_an_engine_that_says_otherwise_is_not_used(
    graph: Path,
    batch: tuple[np.ndarray, np.ndarray],
    speeds: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = Shifted(OnnxEngine(graph), 0.01)
    monkeypatch.setattr("medcli.inference.openvino.OpenVinoEngine", lambda *_: other)
    told: list[str] = []
    engine = FastestEngine(graph, KEY, told.append, patience=0.0)
    expected = OnnxEngine(graph).run(*batch)
    np.testing.assert_array_equal(engine.run(*batch).embedding, expected.embedding)
    assert "its vectors differ" in told[0]
    assert remembered.remembered(KEY) == "onnxruntime"


# ---- bfloat16 ----


@pytest.mark.parametrize(("strength", "used"), [(0.0, True), (0.3, False)])
def test_bfloat16_is_used_only_where_the_nearest_stay(
    graph: Path, batch: tuple[np.ndarray, np.ndarray], strength: float, used: bool
) -> None:
    exact, reduced = OnnxEngine(graph), Shifted(OnnxEngine(graph), strength)
    told: list[str] = []
    engine = ReducedWhereSame(exact, reduced, told.append)
    expected = exact.run(*batch).embedding
    while not told:
        np.testing.assert_array_equal(engine.run(*batch).embedding, expected)  # until then exact
    assert reduced.runs * batch[1].sum() >= choice.SAMPLE
    before = reduced.runs
    engine.run(*batch)
    assert (reduced.runs == before + 1) is used
    assert told[0].startswith(f"bfloat16 is {'used' if used else 'not used'}: of ")
    assert len(told) == 1


def test_agreement_counts_the_pictures_whose_nearest_differ() -> None:
    vectors = np.random.default_rng(0).normal(size=(64, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert agreement(vectors, vectors).moved == 0
    moved = vectors.copy()
    moved[0] = -moved[0]
    found = agreement(moved, vectors)
    assert found.distance == pytest.approx(2)
    assert 1 <= found.moved < 64


@pytest.mark.skipif(has_bfloat16(), reason="this processor multiplies in bfloat16")
def test_bfloat16_is_refused_where_the_processor_has_none(graph: Path) -> None:
    with pytest.raises(UsageError, match="bfloat16"):
        open_engine(graph, "openvino-bf16", KEY, pytest.fail)


# ---- not installed, and without a trace ----


def test_without_openvino_it_is_named_with_the_way_to_get_it(
    make_package: Callable[..., ModelPackage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    package = make_package(tmp_path / "run")
    with pytest.raises(UsageError, match="not installed") as caught:
        Predictor(package, "openvino")
    assert "medcli[openvino]" in caught.value.hint
    assert isinstance(open_engine(package.path / GRAPH, "auto", KEY, pytest.fail), OnnxEngine)


def test_openvino_leaves_nothing_in_the_home_of_the_user(graph: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from medcli.inference.openvino import OpenVinoEngine\n"
        f"OpenVinoEngine(Path({str(graph)!r}))\n"
        "assert 'openvino_telemetry' not in sys.modules"
    )
    places = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=places)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_after_openvino_is_an_interrupt(graph: Path) -> None:
    code = (
        "import signal, threading, time\nfrom pathlib import Path\n"
        "from medcli.inference.openvino import OpenVinoEngine\n"
        f"engines = [OpenVinoEngine(Path({str(graph)!r}))]\n"
        "dropping = threading.Thread(target=engines.clear)\n"
        "dropping.start()\ndropping.join()\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "me = threading.main_thread().ident\n"
        "threading.Timer(0.2, lambda: signal.pthread_kill(me, signal.SIGINT)).start()\n"
        "try:\n    time.sleep(20)\nexcept KeyboardInterrupt:\n    print('interrupted')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
