"""Planted label noise is found; the judge of a scan has not seen its patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medcli.data.label_noise import picture_features, rank_labels
from medcli.data.sources import load_cases
from medcli.data.survey import survey
from medcli.errors import ManifestError
from medcli.records import Case

pytest.importorskip("cleanlab", reason="the extra medcli[cleanlab] is not installed")


def labelled(labels: np.ndarray, names: tuple[str, ...], scans: int = 2) -> list[Case]:
    """Cases with these class indices, `scans` of each patient."""
    return [
        Case(f"{n}.png", (f"{n}.png",), "picture", f"s{n}", names[label], f"p{n // scans}")
        for n, label in enumerate(labels)
    ]


def planted(
    labels: np.ndarray, share: float, classes: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a share is wrong, and where."""
    wrong = rng.choice(len(labels), round(share * len(labels)), replace=False)
    noisy = labels.copy()
    noisy[wrong] = (labels[wrong] + rng.integers(1, classes, len(wrong))) % classes
    return noisy, wrong


def test_planted_errors_lead_the_ranking() -> None:
    rng = np.random.default_rng(0)
    names = ("a", "b", "c")
    true = rng.integers(0, 3, 300)
    features = rng.normal(size=(300, 20)) + 4 * np.eye(3, 20)[true]
    noisy, wrong = planted(true, 0.1, 3, rng)
    noise = rank_labels(features, labelled(noisy, names), names)
    top = noise.ranking[: len(wrong)]
    assert np.isin(top, wrong).mean() >= 0.9
    assert (noise.suggested[wrong] == true[wrong]).mean() >= 0.9
    assert noise.suspicious[wrong].mean() >= 0.8
    assert noise.suspicious.sum() <= 1.3 * len(wrong)
    assert noise.accuracy == pytest.approx((noise.suggested == noisy).mean())


def test_labels_without_noise_are_left_alone() -> None:
    rng = np.random.default_rng(1)
    true = rng.integers(0, 2, 200)
    features = rng.normal(size=(200, 5)) + 8 * np.eye(2, 5)[true]
    noise = rank_labels(features, labelled(true, ("a", "b")), ("a", "b"))
    assert noise.suspicious.sum() == 0
    assert noise.accuracy == 1


def test_a_judge_never_sees_the_patient_it_judges() -> None:
    """Features that name the patient and nothing else tell a judge of others nothing."""
    rng = np.random.default_rng(2)
    patients = np.arange(200) // 4
    labels = rng.integers(0, 2, 50)[patients]
    features = np.eye(50)[patients]
    noise = rank_labels(features, labelled(labels, ("a", "b"), scans=4), ("a", "b"))
    assert noise.accuracy < 0.65


def test_a_class_of_one_patient_cannot_be_judged() -> None:
    cases = labelled(np.array([0, 0, 0, 0, 1, 1]), ("a", "b"))
    with pytest.raises(ManifestError, match="class 'b' has 1 patient"):
        rank_labels(np.zeros((6, 2)), cases, ("a", "b"))


@pytest.mark.real
@pytest.mark.slow
def test_planted_errors_are_found_in_real_radiographs(real_data: Path) -> None:
    """Of 5 % planted in PneumoniaMNIST, most stand in the first tenth of the ranking."""
    data = load_cases([str(real_data / "medmnist" / "pneumoniamnist_train_val.npz")])
    some = data.cases[::3]
    features: list[np.ndarray] = []
    seen = survey(some, also=lambda scan: features.append(picture_features(scan)))
    labels = np.array([data.classes.index(str(case.label)) for case in seen.cases])
    noisy, wrong = planted(labels, 0.05, 2, np.random.default_rng(0))
    cases = [
        Case(c.path, c.files, c.kind, c.scan_id, data.classes[n])
        for c, n in zip(seen.cases, noisy, strict=True)
    ]
    noise = rank_labels(np.stack(features), cases, data.classes, links=seen.copies().links)
    top = noise.ranking[: 2 * len(wrong)]
    assert np.isin(wrong, top).mean() >= 0.8
