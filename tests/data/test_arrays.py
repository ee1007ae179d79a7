from __future__ import annotations

import numpy as np
import pytest

from medcli.data.arrays import ScanArrays


def arrays(lengths: list[int], channels: int = 1, side: int = 4) -> ScanArrays:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (sum(lengths), channels, side, side), dtype=np.uint8)
    return ScanArrays(images, np.array(lengths), np.arange(len(lengths)))


def test_offsets_bound_the_slices_of_each_scan() -> None:
    assert arrays([3, 1, 2]).offsets.tolist() == [0, 3, 4, 6]
    assert arrays([]).offsets.tolist() == [0]


def test_select_takes_whole_scans_in_the_order_asked_for() -> None:
    scans = arrays([3, 1, 2])
    chosen = scans.select(np.array([2, 0]))
    expected = np.concatenate([scans.images[4:6], scans.images[0:3]])
    assert np.array_equal(chosen.images, expected)
    assert chosen.lengths.tolist() == [2, 3]
    assert chosen.labels.tolist() == [2, 0]


def test_no_scan_can_be_selected() -> None:
    chosen = arrays([3, 1]).select(np.array([], dtype=int))
    assert chosen.images.shape == (0, 1, 4, 4)
    assert len(chosen.lengths) == len(chosen.labels) == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_are_numpys_mean_and_deviation_per_channel(channels: int) -> None:
    scans = arrays([700, 3], channels)  # more slices than are squared at a time
    mean, std = scans.statistics()
    values = scans.images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, values.mean(axis=(0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(std, values.std(axis=(0, 2, 3)), rtol=1e-9)


def test_the_deviation_of_a_constant_is_not_zero() -> None:
    constant = ScanArrays(np.full((5, 1, 4, 4), 77, np.uint8), np.array([5]), np.array([0]))
    mean, std = constant.statistics()
    assert mean == pytest.approx((77 / 255,))
    assert std[0] > 0
