"""Digests of files and of pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np

from medcli.imaging.files import MEMBER, open_file, os_failure
from medcli.records import Scan


def file_sha256(path: str) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises
    ------
    ScanError : not_found, unreadable
    """
    if MEMBER in path:
        from medcli.imaging.archive import member_chunks

        chunks = member_chunks(path)
        if chunks is not None:
            digest = hashlib.sha256()
            for chunk in chunks:
                digest.update(chunk)
            return digest.hexdigest()
    with open_file(path) as file:
        try:
            return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
        except OSError as error:
            raise os_failure(path, error) from error


def files_sha256(paths: Sequence[str]) -> str:
    """SHA-256 of one file; of several that of their sorted digests, one a line."""
    digests = sorted(file_sha256(path) for path in paths)
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()


def pixel_sha256(scan: Scan) -> str:
    """SHA-256 of what was seen, whatever file format or number type held it.

    Hashed are the four dimensions as little-endian uint64, then the modality values
    as little-endian float32 in (S, H, W, C) order, −0 as 0. Values beyond 2**24 may
    coincide after rounding; no pixel data medcli reads have them.
    """
    digest = hashlib.sha256(np.array(scan.pixels.shape, dtype="<u8").tobytes())
    for image in scan.pixels:
        digest.update(np.add(image, np.float32(0), dtype="<f4", order="C", casting="unsafe"))
    return digest.hexdigest()


def set_fingerprint(pixel_hashes: Iterable[str]) -> str:
    """16 hex digits that stand for a set of scans, whatever their order."""
    joined = "\n".join(sorted(pixel_hashes))
    return hashlib.sha256(joined.encode()).hexdigest()[:16]
