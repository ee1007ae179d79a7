"""What the validation part settles, against the parts it is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medcli.data.arrays import ScanArrays
from medcli.errors import UsageError
from medcli.evaluation.calibration import fit_scaling, softmax
from medcli.evaluation.conformal import label_set_levels
from medcli.evaluation.thresholds import youden_threshold
from medcli.imaging.statistics import picture_views
from medcli.models.heads import answer_probabilities
from medcli.models.package import CARD
from medcli.records import Case, Task
from medcli.training.calibrating import (
    calibrate,
    check_sensitivity,
    held_out_answers,
    operating_point,
    reference_scans,
    scan_views,
)
from medcli.training.request import TrainRequest
from medcli.training.run import train


def validation(n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n_classes)
    labels = rng.integers(n_classes, size=200)
    return labels, rng.normal(0, 3, (200, n_classes)) + 3 * np.eye(n_classes)[labels]


def test_the_threshold_lies_on_the_calibrated_probabilities() -> None:
    labels, logits = validation(2)
    task, calibration = calibrate(Task("t", ("sick", "well"), "sick"), labels, logits)
    assert (calibration.temperature, calibration.offsets) == fit_scaling(labels, logits)
    scores = softmax(logits, calibration.temperature, calibration.offsets)[:, 0]
    assert task.threshold == youden_threshold(labels == 0, scores)
    assert task.threshold != pytest.approx(youden_threshold(labels == 0, softmax(logits)[:, 0]))


def test_a_wanted_sensitivity_moves_the_threshold_and_is_kept_with_what_it_reached() -> None:
    labels, logits = validation(2)
    task = Task("t", ("sick", "well"), "sick")
    chosen, calibration = calibrate(task, labels, logits, 0.99)
    choice = operating_point(task, calibration, labels, logits, 0.99)
    assert choice is not None
    scores = softmax(logits, calibration.temperature, calibration.offsets)[:, 0]
    assert chosen.threshold == choice.threshold < youden_threshold(labels == 0, scores)
    assert (scores[labels == 0] >= choice.threshold).mean() == choice.sensitivity >= 0.99


def test_a_sensitivity_of_more_than_two_classes_is_refused() -> None:
    check_sensitivity(Task("t", ("a", "b", "c")), None)
    check_sensitivity(Task("t", ("a", "b"), "b"), 1.0)
    with pytest.raises(UsageError, match="has 3, and its answer"):
        check_sensitivity(Task("t", ("a", "b", "c")), 0.9)
    with pytest.raises(UsageError, match="not above 0"):
        check_sensitivity(Task("t", ("a", "b"), "b"), 0.0)


def test_more_than_two_classes_have_no_threshold() -> None:
    labels, logits = validation(3)
    task, calibration = calibrate(Task("t", ("a", "b", "c")), labels, logits)
    assert task.threshold is None
    assert (calibration.temperature, calibration.offsets) == fit_scaling(labels, logits)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_label_sets_lie_on_the_same_probabilities_as_answers(n_classes: int) -> None:
    labels, logits = validation(n_classes)
    classes = tuple("abc"[:n_classes])
    task, calibration = calibrate(
        Task("t", classes, "b" if n_classes == 2 else None), labels, logits
    )
    answers = answer_probabilities(task, calibration, logits)
    levels = label_set_levels(labels, answers, calibration.coverage)
    assert calibration.label_set_levels == tuple(levels)
    cases = [Case("a.png", ("a.png",), "picture", "a")] * len(labels)
    kept = held_out_answers(task, calibration, labels, logits, cases)
    np.testing.assert_array_equal(kept.probabilities, answers)


def test_the_reference_sees_what_prediction_sees() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 1, 16, 16), dtype=np.uint8)
    scans = ScanArrays(images, np.array([1, 4, 2]), np.zeros(3, np.int64))
    views = scan_views(scans)
    expected = picture_views(images[1:5] / np.float32(255))
    for name, rows in views.items():
        assert len(rows) == 3
        np.testing.assert_allclose(rows[1], expected[name], atol=1e-6)
    reference = reference_scans(scans, scans)
    assert reference.scores(views).max() == pytest.approx(1, rel=1e-5)


@pytest.mark.usefixtures("without_export", "one_thread")
def test_a_run_on_a_shortcut_shows_it_beside_its_own_numbers(tmp_path: Path) -> None:
    lines = ["path,label"]
    for number in range(60):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32), dtype=np.uint8)
        corner = slice(0, 4) if number % 2 else slice(28, 32)
        pixels[corner, corner] = 255
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{'ab'[number % 2]}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    inputs = (str(tmp_path / "manifest.csv"),)
    request = TrainRequest(inputs, output=tmp_path / "run", size=32, epochs=1, device="cpu")
    package = train(request)
    baselines = package.metrics["baselines"]
    assert baselines["thumbnail"]["auroc"] == 1
    assert baselines["histogram"]["auroc"] < 1
    assert "| thumbnail | 1.000" in (package.path / CARD).read_text()
