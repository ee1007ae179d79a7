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
    majority_baseline,
    score_baseline,
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
