"""The files of a scan: their state when it was read, and whether they have changed since."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from medcli.errors import ScanError
from medcli.evaluation.area import foreground_area
from medcli.imaging.files import MEMBER
from medcli.imaging.hashing import file_sha256, files_sha256
from medcli.records import Case, Failure, Scan, Source
from medcli.retrieval.sources import StoredSource

Stats = tuple[tuple[int, int | None], ...]
State = Literal["same", "same content", "changed", "gone"]

SITE, SPLIT = "site", "split"
"""The columns of a manifest that are kept with a scan: do neighbours follow the one, does
anything leak between the parts of the other?"""

AREA = "area"
"""Pixels above zero in the slice that has most of them; kept for the same reason."""

_SETTLED_NS = 2_000_000_000
"""A file changed within this time of being read may change again under the same time."""


def absolute(path: str) -> str:
    """`path` from the root, so that a gallery's answer holds from any folder."""
    return str(Path(path).absolute())


def outer_file(path: str) -> str:
    """The file on disk: of a member of an archive, the archive."""
    if MEMBER not in path or os.path.exists(path):
        return path
    from medcli.imaging.archive import split_path

    parts = split_path(path)
    return parts[0] if parts else path


def stats_of(files: Sequence[str]) -> Stats | None:
    """Size and time of change of each file; None where one cannot be asked.

    A change within `_SETTLED_NS` of now has no time: see `Source.stats`.
    """
    now = time.time_ns()
    found = []
    try:
        for file in files:
            status = os.stat(outer_file(file))
            settled = status.st_mtime_ns < now - _SETTLED_NS
            found.append((status.st_size, status.st_mtime_ns if settled else None))
    except (OSError, ValueError):
        return None
    return tuple(found)


class SourceWatch:
    """Looks at the files of each case before they are read, and again afterwards."""

    def __init__(self) -> None:
        self._before: dict[int, Stats | None] = {}
        self._digests: dict[tuple[str, Stats], str] = {}  # of files that hold many scans

    def watched(self, cases: Iterable[Case | Failure]) -> Iterator[Case | Failure]:
        """The cases, each noted when it is drawn, which is before it is read."""
        for case in cases:
            if isinstance(case, Case):
                self._before[id(case)] = stats_of(case.files)
            yield case

    def source(self, case: Case, scan: Scan) -> Source | None:
        """The state of the files that `scan` was read from; None if they changed meanwhile."""
        before = self._before.pop(id(case), None)
        if before is None:
            return None
        try:
            sha256 = self.content(scan.files)
        except ScanError:
            return None
        after, all_after = stats_of(case.files), stats_of(scan.files)
        if after is None or all_after is None or not _alike(before, after):
            return None
        known = dict(zip(case.files, before, strict=True))
        stats = tuple(
            known.get(file, (size, None))
            for file, (size, _) in zip(scan.files, all_after, strict=True)
        )
        return Source(case.kind, stats, sha256, case.member, case.series_uid, case.time_point)

    def content(self, files: Sequence[str]) -> str:
        """SHA-256 of the content of `files`; a file alone is read once while it stays the same.

        Raises
        ------
        ScanError : not_found, unreadable, and what is wrong with an archive
        """
        stats = stats_of(files)
        if len(files) != 1 or stats is None or stats[0][1] is None:
            return files_sha256(files)
        key = (files[0], stats)
        if key not in self._digests:
            if len(self._digests) > 64:
                self._digests.clear()
            self._digests[key] = file_sha256(files[0])
        return self._digests[key]

    def state(self, stored: StoredSource) -> State:
        """What has become of the files of a stored scan.

        "changed" where one of several is gone, or nothing is known of them.

        Raises
        ------
        ScanError : a file cannot be read
        """
        files, source = stored.row.files, stored.source
        there = [os.path.exists(outer_file(file)) for file in files]
        if not any(there):
            return "gone"
        if source is None or not all(there):
            return "changed"
        now = stats_of(files)
        if now == source.stats and all(mtime is not None for _, mtime in source.stats):
            return "same"
        return "same content" if self.content(files) == source.sha256 else "changed"


def _alike(before: Stats, after: Stats) -> bool:
    """Whether nothing changed between two looks; a time may have settled meanwhile."""
    return all(
        old[0] == new[0] and (old[1] == new[1] or old[1] is None)
        for old, new in zip(before, after, strict=True)
    )


def case_of(stored: StoredSource) -> Case | None:
    """The case that reads a stored scan again; None where it is not known how."""
    row, source = stored.row, stored.source
    if source is None:
        return None
    return Case(
        path=row.path,
        files=row.files,
        kind=source.kind,
        scan_id=row.scan_id,
        label=row.label,
        split=row.metadata.get(SPLIT),
        columns={SITE: row.metadata[SITE]} if SITE in row.metadata else {},
        member=source.member,
        series_uid=source.series_uid,
        time_point=source.time_point,
    )


def kept_metadata(case: Case, scan: Scan) -> dict[str, str]:
    """What a gallery keeps of a scan: its tags, its size, and what its manifest says."""
    area = {AREA: f"{foreground_area(scan.pixels):.6g}"}
    return {**scan.metadata, **area, **told_by_manifest(case)}


def told_by_manifest(case: Case) -> dict[str, str]:
    """Site and part (train, val, test) of a scan, where its manifest names them."""
    told = {SITE: case.columns.get(SITE, "").strip(), SPLIT: case.split or ""}
    return {name: value for name, value in told.items() if value}


def common_root(cases: Iterable[Case | Failure]) -> str | None:
    """The folder in which all files of `cases` lie; None where that is all of the disk."""
    files = (file for case in cases if isinstance(case, Case) for file in case.files)
    folders = {os.path.dirname(absolute(file.split(MEMBER)[0])) for file in files}
    try:
        root = os.path.commonpath(folders) if folders else os.sep
    except ValueError:  # several drives
        return None
    return None if os.path.dirname(root) == root else root
