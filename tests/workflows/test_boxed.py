"""What lies in a box is searched with and classified as a scan of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcli.imaging.discovery import find_scans
from medcli.imaging.png_writer import write_png
from medcli.inference.lesions import join_slices
from medcli.inference.predictor import Predictor
from medcli.models.package import ModelPackage
from medcli.records import Detection, Failure, FoundBox, Scan
from medcli.workflows.boxed import (
    best_of_lesions,
    classify_boxes,
    cut_out,
    search_boxes,
    with_boxes,
)
from medcli.workflows.indexing import build_gallery
from medcli.workflows.searching import open_gallery


def scan_of(pixels: np.ndarray, spacing: tuple[float | None, ...] = (None, None, None)) -> Scan:
    names = tuple(f"{number}.png" for number in range(len(pixels)))
    return Scan(pixels, "scan", names, names, "scan", "png", unit="display", spacing_mm=spacing)  # type: ignore[arg-type]


def test_a_box_is_cut_out_with_a_rim() -> None:
    pixels = np.zeros((3, 60, 80, 1), np.uint8)
    pixels[1, 20:40, 30:50] = 9
    cut = cut_out(scan_of(pixels), FoundBox(30, 20, 50, 40, 0.9, 1, "x"), None)
    assert cut.pixels.shape == (1, 26, 26, 1)
    assert cut.pixels[0, 3:23, 3:23].min() == 9
    assert int((cut.pixels == 9).sum()) == 400


def test_a_box_at_the_border_stays_inside() -> None:
    pixels = np.zeros((1, 20, 20, 1), np.uint8)
    cut = cut_out(scan_of(pixels), FoundBox(0, 12.5, 4, 20, 0.9, 0, "x"), None)
    assert cut.pixels.shape == (1, 9, 5, 1)


def test_a_model_of_a_region_sees_its_side_in_mm() -> None:
    pixels = np.zeros((5, 40, 40, 1), np.uint8)
    box = FoundBox(10, 10, 14, 14, 0.9, 2, "x")
    cut = cut_out(scan_of(pixels, (2.0, 1.0, 1.0)), box, 6.0)
    assert cut.pixels.shape == (3, 6, 6, 1)
    # Without a known size of the pixels the box itself has to do.
    assert cut_out(scan_of(pixels), box, 6.0).pixels.shape == (1, 6, 6, 1)


def test_a_lesion_is_asked_about_by_its_best_box() -> None:
    boxes, lesions = join_slices(
        [
            FoundBox(0, 0, 9, 9, 0.4, 1, "x"),
            FoundBox(0, 0, 9, 9, 0.8, 2, "x"),
            FoundBox(40, 40, 49, 49, 0.6, 2, "x"),
        ]
    )
    found = Detection("s", "s", ("s",), "t", boxes, lesions, "m", False)
    assert [box.score for box in best_of_lesions(found)] == [0.8, 0.6]


@pytest.fixture(scope="module")
def patches() -> list[np.ndarray]:
    """Three blocky pictures of 64 px that nothing confuses."""
    rng = np.random.default_rng(5)
    return [
        np.kron(rng.integers(0, 255, (4, 4)), np.ones((16, 16))).astype(np.uint8) for _ in "abc"
    ]


def test_each_box_finds_what_it_holds(
    tmp_path: Path, make_package: Callable[..., ModelPackage], patches: list[np.ndarray]
) -> None:
    for name, patch in zip("abc", patches, strict=True):
        write_png(tmp_path / f"{name}.png", patch)
    predictor = Predictor(make_package(tmp_path / "model"))
    stored = [tmp_path / f"{name}.png" for name in "abc"]
    build_gallery(tmp_path / "gallery", predictor, find_scans(map(str, stored)))
    whole = np.zeros((1, 200, 300, 1), np.uint8)
    whole[0, 20:84, 30:94, 0], whole[0, 100:164, 200:264, 0] = patches[2], patches[0]
    boxes = [FoundBox(30, 20, 94, 84, 0.9, 0, "x"), FoundBox(200, 100, 264, 164, 0.8, 0, "x")]
    gallery, own = open_gallery(tmp_path / "gallery")
    with gallery:
        results = search_boxes(gallery, own, scan_of(whole), boxes, k=2)
    assert [Path(result.hits[0].path).name for result in results] == ["c.png", "a.png"]
    assert [len(result.hits) for result in results] == [2, 2]


def test_each_box_has_the_class_of_its_crop(
    tmp_path: Path, make_package: Callable[..., ModelPackage], patches: list[np.ndarray]
) -> None:
    predictor = Predictor(make_package(tmp_path / "model"))
    whole = np.zeros((1, 100, 200, 1), np.uint8)
    whole[0, 10:74, 20:84, 0] = patches[1]
    scan, box = scan_of(whole), FoundBox(20, 10, 84, 74, 0.9, 0, "x")
    (judged,) = classify_boxes(predictor, scan, [box])
    (expected,) = predictor.predict([cut_out(scan, box, None)])
    (of_whole,) = predictor.predict([scan])
    assert isinstance(expected, type(judged.prediction))
    assert judged.prediction.probabilities == expected.probabilities
    assert judged.prediction.probabilities != of_whole.probabilities  # type: ignore[union-attr]


def test_boxes_stay_beside_their_scans(
    tmp_path: Path, make_package: Callable[..., ModelPackage]
) -> None:
    class OneBox:
        """Stands for a detector."""

        def detect(self, scan: Scan) -> Any:
            boxes, lesions = join_slices([FoundBox(0, 0, 9, 9, 0.9, 0, scan.path)])
            return Detection(scan.path, "s", (), "t", boxes, lesions, "m", False)

    predictor = Predictor(make_package(tmp_path / "model"))
    scan = scan_of(np.zeros((1, 20, 20, 1), np.uint8))
    judged: deque[Any] = deque()
    read = [Failure("bad", "truncated", "bad"), scan]
    assert list(with_boxes(read, OneBox(), predictor, judged)) == read  # type: ignore[arg-type]
    assert [[each.box.label for each in own] for own in judged] == [[], ["scan"]]
