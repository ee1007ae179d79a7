from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from medcli.config import Calibration
from medcli.data.gathering import gather_cases
from medcli.data.sources import load_cases
from medcli.errors import DamagedError
from medcli.evaluation.out_of_distribution import fit_reference, stack_views
from medcli.imaging.batch import read_case
from medcli.imaging.intensity import apply_window
from medcli.imaging.statistics import picture_views
from medcli.inference.engine import OnnxEngine
from medcli.inference.predictor import BATCH, Predictor
from medcli.models.package import GRAPH, WEIGHTS, ModelPackage, load_package
from medcli.records import Case, Failure, Prediction, Scan, ScanWarning

pytestmark = pytest.mark.usefixtures("one_thread")
FAILED = Failure("bad.dcm", "truncated", "bad.dcm: the file ends early")


@pytest.fixture(scope="module")
def predictor(tiny_run: Path) -> Predictor:
    return Predictor(load_package(tiny_run))


@pytest.fixture(scope="module")
def series(sample_folder: Path) -> Scan:
    """A CT series of the generated data."""
    scan = read_case(load_cases([str(sample_folder / "nodule.csv")]).cases[0])
    assert isinstance(scan, Scan)
    assert len(scan.pixels) > 5
    return scan


def picture(seed: int, slices: int = 1) -> Scan:
    """An 8-bit picture, or a stack of them."""
    pixels = np.random.default_rng(seed).integers(0, 256, (slices, 20, 30, 1), dtype=np.uint8)
    return Scan(
        pixels=pixels,
        path=f"{seed}.png",
        files=(f"{seed}.png",),
        slice_files=(f"{seed}.png",) * slices,
        scan_id=f"scan {seed}",
        format="png",
        unit="display",
        warnings=(ScanWarning("first_frame", "several frames"),) if seed == 3 else (),
    )


def probabilities(results: Iterator[Prediction | Failure]) -> np.ndarray:
    return np.array([list(r.probabilities.values()) for r in results if isinstance(r, Prediction)])


# ---- predictions ----


def test_predictions_are_those_of_the_torch_model(predictor: Predictor, series: Scan) -> None:
    import torch
    from safetensors.torch import load_file

    from medcli.models.scan_model import build_model

    package = predictor.package
    settings, calibration = package.preprocess, package.calibration
    model = build_model(package.model, settings.channels, settings.size, len(package.task.classes))
    model.load_state_dict(load_file(package.path / WEIGHTS))
    for scan in (series, picture(0)):
        images = torch.from_numpy(predictor.preprocessor.model_input(scan))[None]
        with torch.inference_mode():
            output = model.eval()(images, torch.ones(images.shape[:2], dtype=torch.bool))
        moved = output.logits / calibration.temperature + torch.tensor(calibration.offsets or 0.0)
        expected = torch.softmax(moved, dim=1).numpy()
        np.testing.assert_allclose(probabilities(predictor.predict([scan])), expected, atol=1e-4)
        embedding = predictor.embed(scan)
        np.testing.assert_allclose(embedding.vector, output.embedding[0], atol=1e-4)
        np.testing.assert_allclose(embedding.logits, output.logits[0], atol=1e-4)
        np.testing.assert_allclose(embedding.attention, output.attention[0], atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, BATCH + 1])
def test_pictures_in_a_batch_get_the_answer_they_get_alone(
    predictor: Predictor, count: int
) -> None:
    scans = [picture(seed) for seed in range(count)]
    together = probabilities(predictor.predict(scans))
    alone = np.concatenate([probabilities(predictor.predict([scan])) for scan in scans])
    assert together.shape == (count, 2)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_order_is_kept_with_failures_and_stacks_in_between(
    predictor: Predictor, series: Scan
) -> None:
    inputs = [FAILED, picture(1), picture(2), FAILED, series, picture(3, slices=4), picture(4)]
    results = list(predictor.predict(iter(inputs)))
    assert [result.path for result in results] == [item.path for item in inputs]
    assert results[0] is results[3] is FAILED
    alone = [next(predictor.predict([item])) for item in inputs]
    for together, single in zip(results, alone, strict=True):
        if isinstance(together, Prediction):
            assert isinstance(single, Prediction)
            assert together.probability == pytest.approx(single.probability, abs=1e-5)


def test_results_come_before_all_scans_are_read(predictor: Predictor, series: Scan) -> None:
    def scans() -> Iterator[Scan]:
        yield series
        pytest.fail("the second scan was asked for before the first was answered")

    assert next(predictor.predict(scans())).path == series.path


def test_a_prediction_carries_what_the_answer_needs(predictor: Predictor) -> None:
    scan = picture(3)
    (result,) = predictor.predict([scan])
    assert isinstance(result, Prediction)
    package = predictor.package
    assert tuple(result.probabilities) == package.task.classes
    assert sum(result.probabilities.values()) == pytest.approx(1)
    assert result.probability == max(result.probabilities.values())
    assert result.probabilities[result.label] == result.probability
    assert (result.task, result.positive) == ("nodule", "malignant")
    assert result.model == package.fingerprint
    assert result.synthetic
    assert (result.scan_id, result.files) == (scan.scan_id, scan.files)
    assert result.warnings == scan.warnings


def test_probabilities_are_those_of_the_logits_over_the_temperature_with_offsets(
    make_package: Callable[..., ModelPackage], tmp_path: Path
) -> None:
    plain = Predictor(make_package(tmp_path / "plain"))
    calibration = Calibration(temperature=2.5, offsets=(0.25, -0.25))
    calibrated = Predictor(make_package(tmp_path / "two", calibration=calibration))
    logits = plain.embed(picture(1)).logits.astype(np.float64)
    odds = np.exp(logits / 2.5 + [0.25, -0.25])
    expected = odds / odds.sum()
    np.testing.assert_allclose(probabilities(calibrated.predict([picture(1)])), [expected])
    assert np.abs(probabilities(plain.predict([picture(1)])) - expected).max() > 0.01
    assert plain.package.fingerprint == calibrated.package.fingerprint


def test_the_distance_is_that_of_the_picture_from_the_reference(
    make_package: Callable[..., ModelPackage], tmp_path: Path
) -> None:
    plain = Predictor(make_package(tmp_path / "plain"))
    scans = [picture(1), picture(2), picture(3, slices=4)]
    units = [plain.preprocessor.unit_input(scan) for scan in scans]
    views = stack_views([picture_views(each) for each in units])
    near = {name: rows[:1] + 0.01 for name, rows in views.items()}
    reference = fit_reference({name: np.repeat(rows, 9, 0) for name, rows in near.items()}, near)
    expected = reference.scores(views)
    predictor = Predictor(make_package(tmp_path / "two", reference=reference))
    for scan, score, answer in zip(scans, expected, predictor.predict(scans), strict=True):
        assert isinstance(answer, Prediction)
        assert answer.ood_score == pytest.approx(score, rel=1e-4)
        assert answer.out_of_distribution is bool(score > 1)
        assert list(predictor.embed(scan).task_ood_scores.values()) == pytest.approx(
            [score], rel=1e-4
        )
    (unknown,) = plain.predict([picture(1)])
    assert isinstance(unknown, Prediction)
    assert unknown.ood_score is unknown.out_of_distribution is None


def test_even_pictures_and_photographs_are_foreign_to_a_trained_model(
    predictor: Predictor, series: Scan
) -> None:
    even = replace(picture(0), pixels=np.full((1, 40, 40, 1), 128, np.uint8))
    flower = load_sample_image("flower.jpg")[None, :300, :300]
    answers = list(predictor.predict([even, replace(picture(0), pixels=flower), picture(1)]))
    assert [answer.out_of_distribution for answer in answers] == [True] * 3  # type: ignore[union-attr]
    (own,) = predictor.predict([series])
    assert isinstance(own, Prediction)
    assert own.ood_score is not None
    assert own.ood_score < min(answer.ood_score for answer in answers)  # type: ignore[union-attr]


def test_nothing_in_gives_nothing_out(predictor: Predictor) -> None:
    assert list(predictor.predict([])) == []


def test_a_graph_that_is_none_is_damage(tmp_path: Path) -> None:
    (tmp_path / GRAPH).write_bytes(b"not a graph")
    with pytest.raises(DamagedError, match="cannot load the graph"):
        OnnxEngine(tmp_path / GRAPH)


# ---- embeddings ----


def test_a_ct_series_has_a_unit_vector_for_each_slice_and_view(
    predictor: Predictor, series: Scan
) -> None:
    embedding = predictor.embed(series)
    names = [name for name, _ in predictor.preprocessor.views(series)]
    count = len(series.pixels)
    assert len(names) > 1
    assert embedding.slice_vectors.shape == (count * len(names), len(embedding.vector))
    assert embedding.slice_numbers.tolist() == list(range(count)) * len(names)
    assert embedding.slice_views == tuple(name for name in names for _ in range(count))
    for vectors in (embedding.vector[None], embedding.slice_vectors):
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert embedding.attention.sum() == pytest.approx(1, abs=1e-5)


def test_slice_vectors_are_those_of_the_slices_alone(predictor: Predictor) -> None:
    stack = picture(5, slices=BATCH + 2)
    embedding = predictor.embed(stack)
    assert set(embedding.slice_views) == {"model"}
    for number in (0, BATCH - 1, BATCH, BATCH + 1):
        one = Scan(
            pixels=stack.pixels[number : number + 1],
            path="one.png",
            files=("one.png",),
            slice_files=("one.png",),
            scan_id="one",
            format="png",
            unit="display",
        )
        np.testing.assert_allclose(
            predictor.embed(one).vector, embedding.slice_vectors[number], atol=1e-5
        )


def test_scans_that_share_a_batch_have_the_vectors_they_have_alone(
    predictor: Predictor, series: Scan, sample_folder: Path
) -> None:
    (case,) = gather_cases([str(sample_folder / "scan.dcm")])
    assert isinstance(case, Case)
    slice_of_ct = read_case(case)
    assert isinstance(slice_of_ct, Scan)
    scans = [picture(1), slice_of_ct, picture(2), series, *map(picture, range(3, BATCH + 5))]
    together = list(predictor.embed_all(iter(scans)))
    assert len(together) == len(scans)
    for scan, embedding in zip(scans, together, strict=True):
        alone = predictor.embed(scan)
        assert embedding.slice_views == alone.slice_views
        assert embedding.slice_numbers.tolist() == alone.slice_numbers.tolist()
        assert embedding.task_ood_scores == pytest.approx(alone.task_ood_scores, rel=1e-5)
        rows = np.vstack([embedding.vector, embedding.slice_vectors])
        cosines = (rows * np.vstack([alone.vector, alone.slice_vectors])).sum(axis=1, dtype=float)
        assert (1 - cosines <= 1e-6).all()
        np.testing.assert_allclose(embedding.logits, alone.logits, atol=1e-5)


@pytest.mark.parametrize("ask", ["predict", "embed_all"])
def test_large_pictures_do_not_wait_for_a_full_batch(
    predictor: Predictor, ask: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def scans() -> Iterator[Scan]:
        for number in range(BATCH):
            drawn.append(picture(number))
            yield drawn[-1]

    size = picture(0).pixels.nbytes
    monkeypatch.setattr("medcli.inference.predictor.WAITING_BYTES", 3 * size)
    answers = getattr(predictor, ask)(scans())
    next(answers)
    assert len(drawn) == 2 * 3  # one batch in the network, one that is prepared
    assert len(list(answers)) == BATCH - 1


def test_a_single_picture_is_its_own_slice(predictor: Predictor) -> None:
    embedding = predictor.embed(picture(0))
    assert embedding.slice_vectors.shape == (0, len(embedding.vector))
    assert embedding.slice_numbers.shape == (0,)
    assert embedding.slice_views == ()
    assert embedding.attention.tolist() == [1.0]


def test_a_single_ct_slice_is_seen_through_every_window(
    predictor: Predictor, sample_folder: Path
) -> None:
    (case,) = gather_cases([str(sample_folder / "scan.dcm")])
    assert isinstance(case, Case)
    scan = read_case(case)
    assert isinstance(scan, Scan)
    embedding = predictor.embed(scan)
    names = [name for name, _ in predictor.preprocessor.views(scan)]
    assert embedding.slice_views == tuple(names)
    assert set(embedding.slice_numbers.tolist()) == {0}
    np.testing.assert_allclose(embedding.slice_vectors[0], embedding.vector, atol=1e-5)


def test_long_series_are_sampled_for_the_scan_but_not_for_its_slices(
    predictor: Predictor,
) -> None:
    budget = predictor.package.preprocess.slice_budget
    embedding = predictor.embed(picture(6, slices=budget + 5))
    assert len(embedding.attention) == budget
    assert embedding.slice_numbers.tolist() == list(range(budget + 5))


@pytest.mark.parametrize("window", [(-600.0, 1500.0), (40.0, 400.0)], ids=str)
def test_a_picture_saved_through_a_window_lies_nearest_to_its_slice(
    predictor: Predictor, series: Scan, window: tuple[float, float]
) -> None:
    stored = predictor.embed(series)
    for number in range(0, len(series.pixels), 3):
        grey = np.rint(apply_window(series.pixels[number : number + 1], *window) * 255)
        saved = Scan(
            pixels=grey.astype(np.uint8),
            path="saved.png",
            files=("saved.png",),
            slice_files=("saved.png",),
            scan_id="saved",
            format="png",
            unit="display",
        )
        cosines = stored.slice_vectors @ predictor.embed(saved).vector
        assert stored.slice_numbers[cosines.argmax()] == number


# ---- without torch ----


def test_classifying_a_dicom_imports_no_torch_and_leaves_no_trace(
    tiny_run: Path, sample_folder: Path, tmp_path: Path
) -> None:
    arguments = ["classify", str(sample_folder / "scan.dcm"), "--model", str(tiny_run), "--json"]
    code = (
        f"import sys; sys.argv = ['medcli', *{arguments!r}]\n"
        "from medcli.cli.start import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('torch' in sys.modules, file=sys.stderr)\n"
    )
    places = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "MEDCLI_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, **places},
    )
    assert not list(tmp_path.iterdir())  # ONNX Runtime would keep a record of its use
    assert '"status": "ok"' in done.stdout or '"status":"ok"' in done.stdout
    assert done.stderr.splitlines()[-1] == "False"
