"""Boxes of slices become lesions; boxes find their way between slice and square."""

from __future__ import annotations

import numpy as np
import pytest

from medcli.config import DetectionConfig
from medcli.imaging.placing import into_square, out_of_square
from medcli.imaging.resize import resize
from medcli.inference.lesions import join_slices
from medcli.inference.regions import answer, choose_proposals
from medcli.records import FoundBox


def box(number: int, x: float = 10, score: float = 0.5, label: str = "nodule") -> FoundBox:
    return FoundBox(x, 10, x + 10, 20, score, number, label)


def test_boxes_through_slices_are_one_lesion() -> None:
    boxes, lesions = join_slices([box(3), box(4, 11, 0.9), box(6, 12), box(4, 60, 0.7)])
    best, other = lesions
    assert (best.first_slice, best.last_slice, best.boxes, best.score) == (3, 6, 3, 0.9)
    assert (other.first_slice, other.last_slice, other.boxes) == (4, 4, 1)
    assert [each.score for each in boxes] == [0.9, 0.7, 0.5, 0.5]
    assert [each.lesion for each in boxes] == [0, 1, 0, 0]


def test_a_wide_gap_or_another_label_begins_a_new_lesion() -> None:
    assert len(join_slices([box(1), box(4)])[1]) == 2
    assert len(join_slices([box(1), box(2, label="mass")])[1]) == 2


def test_of_two_boxes_the_nearer_continues_a_lesion() -> None:
    boxes, lesions = join_slices([box(1, 10), box(2, 14, 0.8), box(2, 11, 0.6)])
    assert len(lesions) == 2
    lesion_of = {(each.slice, each.x0): each.lesion for each in boxes}
    assert lesion_of[1, 10] == lesion_of[2, 11] != lesion_of[2, 14]


def test_no_boxes_make_no_lesion() -> None:
    assert join_slices([]) == ((), ())


@pytest.mark.parametrize("spacing", [(None, None), (2.0, 1.0)])
def test_a_box_goes_into_the_square_and_back(spacing: tuple[float | None, float | None]) -> None:
    picture = np.zeros((1, 60, 90, 1), np.float32)
    picture[0, 20:40, 30:60] = 1
    truth = np.array([[30.0, 20, 60, 40]])
    seen = into_square(truth, (60, 90), 48, spacing)
    square = resize(picture, 48, spacing)[0, ..., 0]
    rows, columns = np.flatnonzero((square > 0.5).any(1)), np.flatnonzero((square > 0.5).any(0))
    drawn = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert seen[0] == pytest.approx(drawn, abs=1)
    assert out_of_square(seen, (60, 90), 48, spacing) == pytest.approx(truth, abs=1e-3)


def test_what_leaves_the_slice_is_cut() -> None:
    cut = out_of_square(np.array([[-5.0, -5, 100, 100]]), (60, 90), 48)
    assert cut.tolist() == [[0, 0, 90, 60]]


def test_proposals_are_the_best_that_do_not_overlap() -> None:
    boxes = np.array([[[0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30], [5, 5, 5, 9]]], float)
    scores = np.array([[3.0, 2, 1, 9]])
    regions = choose_proposals(scores, boxes, DetectionConfig(proposal_overlap=0.5))
    assert regions.tolist() == [[0, 0, 0, 10, 10], [0, 20, 20, 30, 30]]


def test_an_answer_has_likely_boxes_of_each_slice_once() -> None:
    regions = np.array([[0, 0, 0, 9, 9], [0, 1, 1, 9, 9], [2, 0, 0, 9, 9]], np.float32)
    logits = np.array([[0, 3.0, 0], [0, 4.0, 0], [9.0, 0, 0]])
    config = DetectionConfig(score=0.1, overlap=0.5)
    found = answer(regions, logits, regions[:, 1:], 3, config)
    assert [len(each.boxes) for each in found] == [1, 0, 0]
    assert found[0].boxes[0].tolist() == [1, 1, 9, 9]
    assert found[0].classes.tolist() == [0]
