"""What the C library does with memory that training frees."""

from __future__ import annotations

import ctypes
import resource

import numpy as np
import pytest

from medcli.training.allocation import freed_memory_kept


def faults() -> int:
    """Pages that the system hands out while 2 MB are asked for and freed 20 times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(2**21, dtype=np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc alone has it")
def test_freed_memory_stays_during_the_block_only() -> None:
    with freed_memory_kept():
        faults()
        inside = faults()
    assert inside < 200
    assert faults() > 10 * 512  # of 4 KB, 512 an array
