"""Many scans, read ahead of who needs them and in order; a bad one never stops the rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from medcli.errors import ScanError
from medcli.imaging.reader import read_scan
from medcli.records import Case, Failure, Scan

AHEAD = 8  # scans in memory beyond the one in use


def read_case(case: Case) -> Scan | Failure:
    """The scan, or why it cannot be read."""
    try:
        return read_scan(case)
    except ScanError as error:
        return Failure(
            path=case.path,
            code=error.code,
            message=str(error),
            files=case.files,
            scan_id=case.scan_id,
        )


def read_all(
    cases: Iterable[Case | Failure], *, threads: int = 2
) -> Iterator[tuple[Case | Failure, Scan | Failure]]:
    """Each case with its scan, in order; at most `AHEAD` scans are read ahead.

    Decoders and NumPy release the interpreter's lock, so reading overlaps with
    inference in the caller's thread.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="medcli-read") as pool:
        waiting: deque[tuple[Case | Failure, Future[Scan | Failure]]] = deque()
        for case in cases:
            waiting.append((case, pool.submit(_read, case)))
            if len(waiting) > AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()


def _read(case: Case | Failure) -> Scan | Failure:
    return case if isinstance(case, Failure) else read_case(case)
