"""What the C library does with memory that training frees."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# mallopt(3) and malloc.h of the GNU C library
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_USUAL = 128 * 1024  # both, in bytes, where nobody has set them
_KEPT = 2**30


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let freed memory stay with the process during the block, on Linux with glibc.

    A step of training asks for the same tensors of some MB over and over. Otherwise each goes
    back to the system when it is freed, and its pages are filled with zeros when the next one
    asks for them.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):  # macOS, musl
        yield
        return
    _set(library, _KEPT)
    try:
        yield
    finally:
        _set(library, _USUAL)
        library.malloc_trim(0)


def _set(library: ctypes.CDLL, size: int) -> None:
    library.mallopt(_MMAP_THRESHOLD, size)
    library.mallopt(_TRIM_THRESHOLD, size)
