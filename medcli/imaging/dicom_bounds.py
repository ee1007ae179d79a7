"""A bound on what a DICOM header may cost: so many elements, however they are packed.

pydicom makes objects of every element, item and number it meets. A crafted file of some
megabytes holds millions of them, which take minutes and gigabytes; no image needs as many.
They are counted in one `Budget` for each reading of a file, wherever they stand: in the
file itself, or in a value that is taken apart only when it is asked for.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_sequence
from pydicom.hooks import hooks, raw_element_value

from medcli.errors import ScanError

MAX_ELEMENTS = 2**19
"""Of a header, beside what its frames may take."""

FRAME_ELEMENTS = 256
"""Of each frame that a header announces: fifteen functional groups of eight tags."""

MAX_FRAME_ELEMENTS = 3 * 2**19
"""Of all frames."""

ITEM_COST = 8
"""Elements that an item of a sequence counts for: pydicom takes as long for it."""

BYTES_COST = 4
"""Bytes of text or numbers that count for an element: the shortest numbers of a list are two."""

_HEAD_BYTES = 8
_ZEROS = bytes(_HEAD_BYTES)
"""The head of a data element (0000,0000) without a value."""

_ITEMS = (b"\xfe\xff\0\xe0", b"\xff\xfe\xe0\0")
_FRAMES = (b"\x28\0\x08\0", b"\0\x28\0\x08")
_WHOLE = ("O", "UN")
"""How value representations begin that are not taken apart, however long."""


class ReadAllError(Exception):
    """Whoever parses asked for all the rest of a file, as pydicom does of a deflated one."""


@dataclass(slots=True)
class Budget:
    """What the header of `path` may still cost, in elements."""

    left: int
    path: str = ""
    frames_known: bool = False

    def announce(self, frames: bytes) -> None:
        """Allow for as many frames as the first value of NumberOfFrames says."""
        digits = frames.strip(b" \0")
        if not self.frames_known and len(digits) < 10 and digits.isdigit():
            self.left += min(FRAME_ELEMENTS * int(digits), MAX_FRAME_ELEMENTS)
        self.frames_known = True

    def spend(self, elements: int) -> None:
        """Count so many elements.

        Raises
        ------
        ScanError : too_large
        """
        self.left -= elements
        self.check()

    def check(self) -> None:
        """Raise where more was counted than there was.

        Raises
        ------
        ScanError : too_large
        """
        if self.left < 0:
            message = f"{self.path}: the header holds far more elements than an image needs"
            raise ScanError("too_large", message, "No scanner writes such a file")


_budget: ContextVar[Budget | None] = ContextVar("budget", default=None)


@contextmanager
def bounded() -> Iterator[None]:
    """Inside, this thread parses one file, within a budget of its own."""
    token = _budget.set(Budget(MAX_ELEMENTS))
    try:
        yield
    finally:
        _budget.reset(token)


@contextmanager
def bounded_values() -> Iterator[None]:
    """For the whole process: pydicom converts values within the budget of its thread."""
    usual = hooks.raw_element_value
    hooks.register_callback("raw_element_value", _value)
    try:
        yield
    finally:
        hooks.register_callback("raw_element_value", usual)


class BoundedFile:
    """A file for pydicom within a budget, which may end where its elements give way to zeros.

    Values of eight bytes are counted like heads of elements. Zeros read as data elements
    (0000,0000) without a value, eight bytes each: an interrupted copy, or a bomb, would
    become millions of them. Two in a row are never written on purpose: a value of eight
    bytes stands between the heads of two elements.
    """

    def __init__(self, file: BinaryIO, budget: Budget, *, up_to_zeros: bool) -> None:
        self._read = file.read
        self._budget = budget
        self._frames_follow = False
        self._zeros_allowed = 1 if up_to_zeros else math.inf
        self._zeros_left = self._zeros_allowed
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        """As of any file; nothing at the second head of an element that is all zeros.

        Raises
        ------
        ReadAllError : without `size`
        ScanError : too_large
        """
        if size < 0:
            raise ReadAllError
        data = self._read(size)
        if self._frames_follow:
            self._budget.announce(data)
            self._frames_follow = False
        if size == _HEAD_BYTES:
            self._budget.spend(ITEM_COST if data[:4] in _ITEMS else 1)
            self._frames_follow = data[:4] in _FRAMES
            if data == _ZEROS:
                self._zeros_left -= 1
                return data if self._zeros_left >= 0 else b""
        self._zeros_left = self._zeros_allowed
        return data


def up_to_zeros(file: BinaryIO, path: str) -> BinaryIO:
    """`file` for a parser, within the budget of this thread, whose errors name `path`."""
    budget = _budget.get() or Budget(MAX_ELEMENTS)
    budget.path = path
    return cast(BinaryIO, BoundedFile(file, budget, up_to_zeros=True))


def check_bounds() -> None:
    """Raise where the budget of this thread is spent: parsers turn that error into others.

    Raises
    ------
    ScanError : too_large
    """
    if budget := _budget.get():
        budget.check()


def _value(raw: RawDataElement, data: dict[str, Any], **more: Any) -> None:
    """Convert a value as pydicom does, within the budget.

    Raises
    ------
    ScanError : too_large
    """
    budget, value = _budget.get(), raw.value
    if budget is None or not value:
        raw_element_value(raw, data, **more)
    elif data["VR"] == "SQ":
        encoding = more.get("encoding") or "iso8859"
        encodings = [encoding] if isinstance(encoding, str) else encoding
        items = cast(BinaryIO, BoundedFile(io.BytesIO(value), budget, up_to_zeros=False))
        data["value"] = read_sequence(
            items, raw.is_implicit_VR, raw.is_little_endian, len(value), encodings, raw.value_tell
        )
    else:
        if not data["VR"].startswith(_WHOLE) and "OW" not in data["VR"]:
            budget.spend(len(value) // BYTES_COST)
        raw_element_value(raw, data, **more)
