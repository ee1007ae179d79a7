"""Warnings of libraries in several threads at once."""

from __future__ import annotations

import logging
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import config

from medcli.imaging.quiet import collected_warnings
from medcli.imaging.series import read_series


def test_every_thread_collects_its_own_warnings_and_the_filters_come_back() -> None:
    before, shown = list(warnings.filters), warnings.showwarning
    both_inside = threading.Barrier(2)

    def collect(name: str) -> list[str]:
        with collected_warnings() as notes:
            both_inside.wait(5)
            for _ in range(50):
                warnings.warn(name, stacklevel=1)
            both_inside.wait(5)
        return [str(note) for note in notes]

    with ThreadPoolExecutor(2) as pool:
        assert [set(each) for each in pool.map(collect, ("a", "b"))] == [{"a"}, {"b"}]
    assert warnings.filters == before
    assert warnings.showwarning is shown


def test_a_thread_outside_keeps_its_warnings() -> None:
    with warnings.catch_warnings(record=True) as usual:
        warnings.simplefilter("always")
        with collected_warnings() as notes, ThreadPoolExecutor(1) as pool:
            pool.submit(warnings.warn, "outside").result()
    assert notes == []
    assert [str(each.message) for each in usual] == ["outside"]


def test_series_read_in_threads_are_whole_and_leave_no_trace(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any, dicom_case: Any
) -> None:
    before = list(warnings.filters)
    volumes = [hu_volume(5, seed=seed) for seed in range(6)]
    read = [
        dicom_case(write_ct_series(tmp_path / str(number), volume))
        for number, volume in enumerate(volumes)
    ]
    with ThreadPoolExecutor(3) as pool:
        scans = list(pool.map(read_series, read))
    for scan, volume in zip(scans, volumes, strict=True):
        np.testing.assert_array_equal(scan.pixels[..., 0], volume)
    assert warnings.filters == before
    assert not logging.getLogger("pydicom").disabled
    assert config.settings.reading_validation_mode == config.WARN
