"""Baselines by hand, and the known area baseline on real nodules."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from medcli.evaluation.baselines import (
    area_baseline,
    area_scores,
    foreground_area,
    histogram_features,
    logistic_baseline,
    majority_baseline,
    score_baseline,
    thumbnail_features,
)


def test_the_area_is_that_of_the_largest_slice() -> None:
    pixels = np.zeros((3, 8, 8, 1), dtype=np.uint8)
    pixels[0, :2, :2] = 9
    pixels[1, :3, :4] = 200
    assert foreground_area(pixels) == 12


def test_a_colour_pixel_counts_once() -> None:
    pixels = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    pixels[0, 0, 0] = [5, 0, 7]
    assert foreground_area(pixels) == 1


def test_stacks_may_come_one_by_one() -> None:
    stacks = (np.full((1, 2, n, 1), 1.0) for n in (1, 3))
    assert area_scores(stacks).tolist() == [2, 6]


def test_the_majority_is_chosen_on_the_training_part() -> None:
    labels = np.array([0, 1, 1, 1])
    assert majority_baseline(labels) == {"accuracy": 0.75, "auroc": 0.5}
    assert majority_baseline(labels, np.array([0, 0, 1])) == {"accuracy": 0.25, "auroc": 0.5}


def test_the_majority_has_no_auroc_on_one_class() -> None:
    assert majority_baseline(np.array([1, 1]))["auroc"] is None


def test_the_direction_of_the_area_comes_from_the_training_part() -> None:
    positive, areas = np.array([True, True, False, False]), np.array([1.0, 2.0, 3.0, 4.0])
    assert area_baseline(positive, areas)["auroc"] == 0
    settled = area_baseline(positive, areas, training=(positive, areas))
    assert (settled["auroc"], settled["direction"]) == (1, "smaller")
    opposite = area_baseline(positive, areas, training=(~positive, areas))
    assert (opposite["auroc"], opposite["direction"]) == (0, "larger")


def test_a_thumbnail_holds_the_means_of_its_fields() -> None:
    images = np.random.default_rng(0).random((3, 2, 32, 64))
    expected = images.mean(axis=0).reshape(2, 16, 2, 16, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(thumbnail_features(images), expected.ravel())
    small = np.random.default_rng(0).random((1, 1, 8, 8))
    np.testing.assert_allclose(thumbnail_features(small)[::2][:8], small[0, 0, 0])


def test_a_histogram_counts_each_level_of_each_channel() -> None:
    images = np.zeros((2, 3, 4, 4))
    images[:, 1], images[0, 2] = 1, 0.5
    shares = histogram_features(images).reshape(3, 32)
    assert shares[0, 0] == shares[1, 31] == 1
    assert shares[2, 0] == shares[2, 16] == 0.5


def test_a_mark_in_the_corner_is_found_by_the_thumbnail_alone() -> None:
    rng = np.random.default_rng(1)

    def part(n: int) -> tuple[list[np.ndarray], np.ndarray]:
        labels = np.arange(n) % 2
        images = rng.random((n, 1, 1, 32, 32))
        for image, label in zip(images, labels, strict=True):
            corner = slice(0, 3) if label else slice(29, 32)
            image[..., corner, corner] = 1
        return list(images), labels

    training, held_out = part(120), part(80)
    reached = {}
    for describe in (thumbnail_features, histogram_features):
        parts = [
            (np.stack([describe(image) for image in images]), labels)
            for images, labels in (training, held_out)
        ]
        reached[describe] = logistic_baseline(*parts, classes=["no", "yes"], positive="yes")
    assert reached[thumbnail_features]["auroc"] > 0.97
    assert reached[thumbnail_features]["accuracy"] > 0.9
    assert reached[histogram_features]["auroc"] < 0.7


def test_the_regression_of_three_classes_gives_a_macro_mean() -> None:
    rng = np.random.default_rng(2)
    labels = np.arange(150) % 3
    features = rng.normal(size=(150, 2)) + 3 * np.eye(3)[labels][:, :2]
    held_out = features[100:], labels[100:]
    reached = logistic_baseline(
        (features[:100], labels[:100]), held_out, classes=["a", "b", "c"], positive=None
    )
    low, high = reached["auroc_ci"]
    assert 0.8 < low < reached["auroc"] <= high


@pytest.mark.real
def test_nodule_area_alone_reaches_the_known_auroc(real_data: Path) -> None:
    folder = real_data / "nodule_slices"
    slices, labels, patients = defaultdict(list), {}, {}
    with (folder / "manifest.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            slices[row["scan_id"]].append(folder / row["path"])
            labels[row["scan_id"]] = row["label"] == "malignant"
            patients[row["scan_id"]] = row["patient_id"]
    areas = area_scores(
        np.stack([np.asarray(Image.open(path))[..., None] for path in paths])
        for paths in slices.values()
    )
    baseline = area_baseline(
        np.array([labels[scan] for scan in slices]),
        areas,
        patients=[patients[scan] for scan in slices],
    )
    assert baseline["auroc"] == pytest.approx(0.88, abs=0.005)
    low, high = baseline["auroc_ci"]
    assert low < 0.88 < high


def test_the_auroc_of_scores_is_scikit_learns_with_an_interval_around_it() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 90)
    scores = rng.normal(size=(90, 3)) + np.eye(3)[labels]
    found = score_baseline(labels, scores, resamples=200)
    each = [roc_auc_score(labels == k, scores[:, k]) for k in range(3)]
    assert found["auroc"] == pytest.approx(np.mean(each))
    low, high = found["auroc_ci"]
    assert low < found["auroc"] < high


def test_scores_of_one_class_have_no_auroc() -> None:
    found = score_baseline(np.zeros(4, int), np.zeros((4, 2)))
    assert found == {"auroc": None, "auroc_ci": None}
