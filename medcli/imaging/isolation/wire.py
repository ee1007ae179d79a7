"""Messages between the reader and its workers: JSON, then the bytes of the arrays.

Nothing is pickled: a worker that was taken over by the file it reads can answer with
records, texts and numbers, and with nothing that runs.

A message is the length of its JSON (8 bytes, big endian), the JSON, and the arrays it
names, in order, each as C-contiguous bytes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, BinaryIO

import numpy as np

from medcli import records
from medcli.imaging import header

_LENGTH = struct.Struct(">Q")
_MAX_TEXT = 2**28
_MAX_ARRAY = 2**32  # bytes: the pixel budget in float64
_RECORDS = {
    name: kind
    for module in (records, header)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and is_dataclass(kind)
}


class WireError(Exception):
    """The other side is gone, or what it said is no message."""


def send(stream: BinaryIO, message: object) -> None:
    """Write one message: records, arrays, and plain values in containers.

    Raises
    ------
    OSError : nobody reads
    TypeError : `message` holds anything else
    """
    arrays: list[np.ndarray] = []
    text = json.dumps(_encode(message, arrays)).encode()
    stream.write(_LENGTH.pack(len(text)) + text)
    for array in arrays:
        if array.size:
            stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Read one message.

    Raises
    ------
    WireError : the stream ended, or holds no message
    """
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    if length > _MAX_TEXT:
        raise WireError("a message that is too long")
    try:
        return _decode(json.loads(_exactly(stream, length)), stream)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise WireError("no message") from error


def _encode(value: object, arrays: list[np.ndarray]) -> Any:
    """`value` as JSON; its arrays are appended to `arrays`."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": [value.dtype.str, list(value.shape)]}
    if isinstance(value, tuple):
        return {"tuple": [_encode(item, arrays) for item in value]}
    if isinstance(value, list):
        return [_encode(item, arrays) for item in value]
    if isinstance(value, Mapping):
        return {"dict": [[key, _encode(item, arrays)] for key, item in value.items()]}
    name = type(value).__name__
    if _RECORDS.get(name) is type(value):
        parts = [getattr(value, each.name) for each in fields(_RECORDS[name])]
        return {"record": [name, *(_encode(part, arrays) for part in parts)]}
    raise TypeError(f"{name} cannot be sent")


def _decode(value: Any, stream: BinaryIO) -> Any:
    """The value behind `_encode`d JSON; arrays are read from `stream` as they come."""
    if isinstance(value, list):
        return [_decode(item, stream) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "array":
        return _array(content, stream)
    if kind == "tuple":
        return tuple(_decode(item, stream) for item in content)
    if kind == "dict":
        return {key: _decode(item, stream) for key, item in content}
    if kind == "record":
        name, *parts = content
        return _RECORDS[name](*(_decode(part, stream) for part in parts))
    raise WireError("a value of an unknown kind")


def _array(description: Any, stream: BinaryIO) -> np.ndarray:
    """An array of numbers whose type and shape are given, from `stream`."""
    kind, shape = np.dtype(description[0]), tuple(map(int, description[1]))
    if kind.kind not in "biuf" or min(shape, default=0) < 0:
        raise WireError("no array of numbers")
    if math.prod(shape) * kind.itemsize > _MAX_ARRAY:
        raise WireError("an array that is too large")
    array = np.empty(shape, kind)
    if array.size:
        _fill(stream, array.reshape(-1).view(np.uint8).data)
    return array


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = bytearray(count)
    _fill(stream, memoryview(data))
    return bytes(data)


def _fill(stream: BinaryIO, target: memoryview) -> None:
    """Read until `target` is full."""
    while target:
        count = stream.readinto(target)  # type: ignore[attr-defined]
        if not count:
            raise WireError("the stream has ended")
        target = target[count:]
