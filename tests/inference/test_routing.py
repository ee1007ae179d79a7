"""The shared model picks the task, its specialist answers, and what is like nothing is flagged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medcli.evaluation.out_of_distribution import Reference
from medcli.imaging.statistics import picture_views
from medcli.inference.predictor import Predictor
from medcli.inference.routing import RoutedPredictor, routed
from medcli.models.package import ModelPackage, load_package
from medcli.records import Prediction, Scan

MakePackage = Callable[..., ModelPackage]
TASKS = ("nodule", "lung", "gi")
SIDE = 32


def make_scan(seed: int = 0, slices: int = 1, **facts: object) -> Scan:
    pixels = np.random.default_rng(seed).integers(0, 256, (slices, SIDE, SIDE, 1), np.uint8)
    scan = Scan(pixels, f"{seed}.png", (f"{seed}.png",), (f"{seed}.png",), str(seed), "png")
    return replace(scan, unit="display", **facts)  # type: ignore[arg-type]


def reference(limit: float) -> Reference:
    """Scores are the distance from black, divided by `limit`."""
    views = picture_views(np.zeros((1, 1, SIDE, SIDE), np.float32))
    return Reference(
        {name: np.zeros_like(view) for name, view in views.items()},
        {name: np.eye(len(view), dtype=np.float32) / limit for name, view in views.items()},
    )


@pytest.fixture
def make_zoo(
    tmp_path: Path, make_package: MakePackage, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ModelPackage]:
    """Put a shared model and specialists for `tasks` into the zoo."""

    def make(*tasks: str, shared: float = 1e6, own: float = 1e6) -> ModelPackage:
        folder = tmp_path / "zoo"
        monkeypatch.setattr("medcli.home.ZOO", folder)
        for task in tasks:
            make_package(folder / task, task=task, seed=7, region_mm=50.0, reference=reference(own))
        return make_package(folder / "shared", tasks=TASKS, reference=reference(shared))

    return make


def answer(predictor: Predictor, scan: Scan) -> Prediction:
    (found,) = predictor.predict([scan])
    assert isinstance(found, Prediction)
    return found


def test_the_specialist_of_the_picked_task_answers(make_zoo: Callable[..., ModelPackage]) -> None:
    shared = make_zoo(*TASKS)
    scans = [make_scan(0), make_scan(1, slices=3), make_scan(2), make_scan(3)]
    predictor = routed(shared)
    for scan, found in zip(scans, predictor.predict(scans), strict=True):
        first = answer(Predictor(shared), scan)
        package = load_package(shared.path.parent / first.task)
        own = answer(Predictor(package), scan)
        assert isinstance(found, Prediction)
        assert (found.path, found.task) == (scan.path, first.task)
        assert found.model == package.fingerprint != shared.fingerprint
        assert found.probabilities == pytest.approx(own.probabilities)
        assert found.task_probabilities == first.task_probabilities
        assert found.out_of_distribution is False


def test_without_a_specialist_the_shared_model_answers(
    make_zoo: Callable[..., ModelPackage],
) -> None:
    shared = make_zoo()
    found = answer(routed(shared), make_scan())
    assert found.model == shared.fingerprint
    assert set(found.task_ood_scores or {}) == set(TASKS)


def test_a_specialist_with_other_classes_is_not_asked(
    make_zoo: Callable[..., ModelPackage], make_package: MakePackage
) -> None:
    shared = make_zoo()
    for task in TASKS:
        make_package(shared.path.parent / task, task=task, classes=("a", "b", "c"))
    assert answer(routed(shared), make_scan()).model == shared.fingerprint


def test_other_models_have_no_specialists(
    make_zoo: Callable[..., ModelPackage], make_package: MakePackage, tmp_path: Path
) -> None:
    make_zoo(*TASKS)
    own = make_package(tmp_path / "own", tasks=TASKS)
    assert not isinstance(routed(own), RoutedPredictor)
    assert not isinstance(routed(load_package(tmp_path / "zoo" / "lung")), RoutedPredictor)


@pytest.mark.parametrize(
    ("shared", "own", "flagged", "like_none"),
    [(1e6, 1e6, False, False), (1e-6, 1e6, True, True), (1e6, 1e-6, True, False)],
)
def test_what_is_like_the_scans_of_no_task_is_flagged(
    make_zoo: Callable[..., ModelPackage],
    shared: float,
    own: float,
    flagged: bool,
    like_none: bool,
) -> None:
    found = answer(routed(make_zoo(*TASKS, shared=shared, own=own)), make_scan())
    assert found.out_of_distribution is flagged
    assert found.like_no_task is like_none
    assert found.ood_score is not None
    assert (found.ood_score > 1) is flagged


def test_a_whole_ct_is_flagged_however_near_it_lies(
    make_zoo: Callable[..., ModelPackage],
) -> None:
    predictor = routed(make_zoo(*TASKS))
    assert predictor.region_mm == 50.0
    ct = replace(make_scan(), unit="HU", spacing_mm=(5.0, 10.0, 10.0))
    found = answer(predictor, ct)
    assert found.out_of_distribution is True
    assert [warning.code for warning in found.warnings] == ["whole_ct"]
    crop = replace(ct, spacing_mm=(5.0, 1.0, 1.0))
    assert answer(predictor, crop).out_of_distribution is False
