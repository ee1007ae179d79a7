"""Anchors stand around their fields, and every output belongs to its anchor."""

from __future__ import annotations

import pytest
import torch

from medcli.layers.region import Anchors, PooledRegions, RegionHead, TopDown, box_coder, decode


def test_anchors_stand_around_the_middle_of_their_fields() -> None:
    anchors = Anchors((10.0, 20.0), (0.5, 1.0, 2.0), 32, 8).boxes.reshape(4, 4, 6, 4)
    middle = (anchors[..., :2] + anchors[..., 2:]) / 2
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    expected = torch.stack([columns, rows], dim=-1) * 8 + 4.0
    assert torch.equal(middle, expected[:, :, None].expand(-1, -1, 6, -1))
    sides = anchors[0, 0, :, 2:] - anchors[0, 0, :, :2]
    assert sides.prod(dim=1).sqrt().tolist() == pytest.approx([10, 20, 10, 20, 10, 20], rel=0.06)


def test_outputs_are_in_the_order_of_the_anchors() -> None:
    torch.manual_seed(0)
    head = RegionHead(8, 3)
    features = torch.randn(2, 8, 4, 5)
    scores, shifts = head(features)
    hidden = torch.relu(head.conv(features))
    for row, column, kind in ((0, 0, 0), (2, 3, 1), (3, 4, 2)):
        place = (row * 5 + column) * 3 + kind
        assert scores[1, place] == head.objectness(hidden)[1, kind, row, column]
        own = head.shift(hidden)[1, 4 * kind : 4 * kind + 4, row, column]
        assert torch.equal(shifts[1, place], own)


@pytest.mark.parametrize("stage", ["first", "second"])
def test_decoding_undoes_encoding(stage: str) -> None:
    boxes = torch.tensor([[4.0, 4, 20, 30], [0, 0, 10, 10]])
    truths = torch.tensor([[6.0, 2, 22, 25], [3, 3, 9, 12]])
    shifts = box_coder(stage).encode_single(truths, boxes)
    assert torch.allclose(decode(shifts, boxes, stage, 64), truths, atol=1e-4)


def test_boxes_stay_inside_the_picture() -> None:
    moved = decode(torch.full((1, 4), 3.0), torch.tensor([[50.0, 50, 60, 60]]), "first", 64)
    assert ((moved >= 0) & (moved <= 64)).all()


def test_a_pooled_region_is_that_part_of_the_map() -> None:
    features = torch.zeros(2, 1, 16, 16)
    features[1, 0, :, 8:] = 1
    regions = torch.tensor([[1.0, 4, 4, 28, 28], [1, 36, 4, 60, 28], [0, 36, 4, 60, 28]])
    pooled = PooledRegions(4)(features, regions)
    assert pooled.mean(dim=(1, 2, 3)).tolist() == pytest.approx([0, 1, 0], abs=0.05)


def test_coarse_maps_reach_the_fine_one() -> None:
    torch.manual_seed(0)
    join = TopDown([3, 4], 8).eval()
    fine, coarse = torch.randn(1, 3, 8, 8), torch.randn(1, 4, 4, 4)
    joined = join([fine, coarse])
    assert joined.shape == (1, 8, 8, 8)
    assert not torch.equal(joined, join([fine, coarse + 1]))
