"""A patient is forgotten: every trace goes from the files of a gallery, and that is looked up.

Removed rows are overwritten (`secure_delete`), the catalogue is rewritten (`VACUUM`), its log
emptied, the caches made anew, drafts of killed builds removed. Then all files are searched,
byte by byte, for what the rows held: pieces of vectors and thumbnails, paths, names, hashes.
What scans that stay hold as well (the header of every JPEG) is no trace.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medcli.errors import LockedError, ScanError
from medcli.retrieval.folder import sweep, sweep_drafts
from medcli.retrieval.names import CATALOGUE, MODEL
from medcli.retrieval.sources import stored_sources
from medcli.retrieval.storage import peeking, storage_errors
from medcli.retrieval.upkeep import vacuum

if TYPE_CHECKING:
    from medcli.retrieval.gallery import Gallery

_PIECE = 48  # bytes
_STEP = 512  # a piece is taken every so many bytes: a page of SQLite holds 4,096
_SHORTEST = 8  # what is shorter stands in other data by chance
_CHUNK = 1 << 24


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was removed, and what a search of all bytes found.

    Parameters
    ----------
    traces : pieces of the patient's data that were searched for
    found_before, found_after : of these, found in the gallery's files before and after
    files, bytes : what was searched afterwards
    """

    scans: int
    vectors: int
    thumbnails: int
    traces: int
    found_before: int
    found_after: int
    files: int
    bytes: int


def forget_patient(gallery: Gallery, patient_id: str) -> Forgotten:
    """Remove all scans of a patient physically, and prove it.

    Raises
    ------
    ScanError : the gallery holds no scan of this patient (code "not_found")
    LockedError : the rows are removed, but a reader keeps an older state open
    DamagedError, StorageError : as `Gallery.open`
    """
    hashed = gallery.patient_hash(patient_id)
    with gallery.snapshot():
        ids = gallery.catalogue.find("patient", hashed) if hashed else []
        if not ids:
            raise ScanError(
                "not_found",
                f"{gallery.path} holds no scan of this patient",
                "give the PatientID as the tags or the manifest have it",
            )
        traces = sorted({*_traces(gallery, ids), *_told(patient_id, str(hashed))})
        vectors, thumbnails = _counts(gallery, ids)
    before = found_in(_file_chunks(gallery.path), traces)
    _remove(gallery, ids)
    after = found_in(_file_chunks(gallery.path), traces)
    if after:
        after -= found_in(_live_chunks(gallery), traces)
    files = _searched(gallery.path)
    return Forgotten(
        scans=len(ids),
        vectors=vectors,
        thumbnails=thumbnails,
        traces=len(traces),
        found_before=len(before),
        found_after=len(after),
        files=len(files),
        bytes=sum(file.stat().st_size for file in files),
    )


def _remove(gallery: Gallery, ids: Sequence[int]) -> None:
    """Delete the rows, then rewrite every file that held them."""
    with gallery.writing():
        for scan in ids:
            gallery.catalogue.delete(scan)
        _forget_root(gallery)
    with gallery.locked():
        sweep_drafts(gallery.path)
        with storage_errors(gallery.path):
            sweep(gallery.path, at_once=True)
        gallery.rebuild()
        try:
            vacuum(gallery)
        except LockedError as error:
            raise LockedError("the scans are removed, but " + error.message, error.hint) from error


def _forget_root(gallery: Gallery) -> None:
    """The folder that stored paths start from can name a patient: keep it only where it is used."""
    (used,) = gallery.catalogue.connection.execute(
        "SELECT EXISTS (SELECT 1 FROM scans WHERE path LIKE './%')"
    ).fetchone()
    if not used:
        gallery.catalogue.set_meta("root", "")


def _counts(gallery: Gallery, ids: Sequence[int]) -> tuple[int, int]:
    """How many vectors and thumbnails the scans have."""
    chosen = (json.dumps(list(ids)),)
    marks = "IN (SELECT value FROM json_each(?))"
    execute = gallery.catalogue.connection.execute
    (vectors,) = execute(f"SELECT COUNT(*) FROM vectors WHERE scan {marks}", chosen).fetchone()
    (thumbnails,) = execute(
        f"SELECT COUNT(thumbnail) FROM slices WHERE scan {marks}", chosen
    ).fetchone()
    return vectors, thumbnails


def _traces(gallery: Gallery, ids: Sequence[int]) -> Iterator[bytes]:
    """Pieces of all that the catalogue holds of the scans."""
    catalogue = gallery.catalogue
    for scan in catalogue.stored(ids):
        for vector in scan.vectors:
            yield from _pieces(np.ascontiguousarray(vector).tobytes())
        for number in range(scan.row.n_slices):
            row = catalogue.slice(scan.id, number)
            if row is not None:
                yield from _pieces(row.thumbnail or b"")
    for known in stored_sources(catalogue, ids):
        below = known.row.below(catalogue.root)
        yield from _told(below.path, below.scan_id, *below.files, known.row.pixel_sha256 or "")
        yield from _told(known.source.sha256 if known.source else "")


def _pieces(blob: bytes) -> Iterator[bytes]:
    """Parts of a blob, which SQLite may have spread over several pages."""
    for start in range(0, max(len(blob) - _PIECE, 1), _STEP):
        piece = blob[start : start + _PIECE]
        if len(piece) >= _SHORTEST and len(set(piece)) > 4:  # runs of zeros are no trace
            yield piece


def _told(*texts: str) -> Iterator[bytes]:
    """Texts as they stand in a cell, plain or within JSON."""
    for text in texts:
        plain = text.removeprefix("./")
        for form in {plain, json.dumps(plain)[1:-1]}:
            encoded = form.encode("utf-8", "surrogateescape")
            if len(encoded) >= _SHORTEST:
                yield encoded


def found_in(chunks: Iterable[bytes], traces: Sequence[bytes]) -> set[bytes]:
    """Which of `traces`, each of 8 bytes or more, stand in the chunks, at any position."""
    found: set[bytes] = set()
    by_head: dict[int, list[bytes]] = {}
    for trace in traces:
        by_head.setdefault(int.from_bytes(trace[:8], "little"), []).append(trace)
    heads = np.array(sorted(by_head), dtype="<u8")
    begins = np.zeros(1 << 16, bool)  # by the first two bytes
    begins[heads & np.uint64(0xFFFF)] = True
    for chunk in chunks:
        for offset in range(min(8, max(len(chunk) - 7, 0))):
            words = np.frombuffer(chunk, "<u8", (len(chunk) - offset) // 8, offset)
            (near,) = begins[words & np.uint64(0xFFFF)].nonzero()
            for index in near[np.isin(words[near], heads)].tolist():
                start = offset + 8 * index
                head = int(words[index])
                found.update(t for t in by_head[head] if chunk.startswith(t, start))
    return found


def _searched(folder: Path) -> list[Path]:
    """The files of a gallery and of the drafts beside it, without the copy of the model."""
    drafts = folder.parent.glob(".*.draft/*")
    files = [file for file in (*folder.rglob("*"), *drafts) if file.is_file()]
    return [file for file in files if MODEL not in file.relative_to(folder.parent).parts[1:]]


def _file_chunks(folder: Path) -> Iterator[bytes]:
    """The bytes of all files, in chunks that overlap by more than a trace is long."""
    overlap = 1 << 16
    locked = {folder / CATALOGUE, folder / f"{CATALOGUE}-shm"}
    for file in _searched(folder):
        with storage_errors(file), peeking(file) if file in locked else file.open("rb") as stream:
            tail = b""
            while part := stream.read(_CHUNK):
                yield tail + part
                tail = part[-overlap:]


def _live_chunks(gallery: Gallery) -> Iterator[bytes]:
    """All cells of the catalogue as it is now, and the settings."""
    waiting: list[bytes] = []
    size = 0
    with gallery.snapshot():
        for table in ("scans", "vectors", "slices", "sources", "canaries", "meta"):
            for row in gallery.catalogue.connection.execute(f"SELECT * FROM {table}"):
                for cell in row:
                    waiting.append(cell if isinstance(cell, bytes) else str(cell).encode())
                    size += len(waiting[-1])
                if size > _CHUNK:
                    yield b"\n".join(waiting)
                    waiting, size = [], 0
    yield b"\n".join(waiting)
