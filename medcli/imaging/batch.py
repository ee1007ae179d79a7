"""Many scans, read ahead of who needs them and in order; a bad one never stops the rest."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice

from medcli.errors import ScanError
from medcli.imaging.isolation.together import Batch
from medcli.imaging.reader import read_safely, read_scan
from medcli.machine import cores
from medcli.records import Case, Failure, Scan

AHEAD = 8  # scans in memory beyond the one in use, however large
MOST_AHEAD = 48  # of small ones: while a batch is in the network, the next one is read
AHEAD_BYTES = 2**27  # of pixels, as expected, that more than `AHEAD` scans may hold
EXPANSION = 8  # bytes of pixels that are expected for a byte of a file


WORKERS = max(2, min(6, cores() // 2))
"""Or threads, unless told otherwise; the network has the other cores."""

FILES_IN_PROCESS = 64
"""Files that are read sooner than workers start; a scan alone is always read in process."""

Read = Callable[[Case], Scan]


def read_case(case: Case, read: Read = read_scan) -> Scan | Failure:
    """The scan, or why it cannot be read."""
    try:
        return read(case)
    except ScanError as error:
        return Failure(
            path=case.path,
            code=error.code,
            message=str(error),
            files=case.files,
            scan_id=case.scan_id,
        )


def read_all(
    cases: Iterable[Case | Failure], *, threads: int = WORKERS
) -> Iterator[tuple[Case | Failure, Scan | Failure]]:
    """Each case with its scan, in order; `AHEAD` scans are read ahead, of small ones more.

    A few files are read in this process by `threads` threads, since decoders and NumPy
    release the interpreter's lock; a big batch by so many worker processes, which read
    side by side and of which a damaged file can end one, but not this process.
    """
    upcoming = iter(cases)
    first = list(islice(upcoming, AHEAD + 1))
    batch, big = Batch(), _is_big(first)

    def read(case: Case) -> Scan:
        # Arrays share an archive that is inflated once, here; no decoder is involved.
        if not big or case.kind == "array":
            return read_safely(case, batch)
        from medcli.imaging.isolation.pool import read_in_worker

        return read_in_worker(case, batch)

    def answer(case: Case | Failure) -> Scan | Failure:
        return case if isinstance(case, Failure) else read_case(case, read)

    pool = ThreadPoolExecutor(threads, thread_name_prefix="medcli-read")
    waiting: deque[tuple[Case | Failure, Future[Scan | Failure]]] = deque()
    room = _Room()
    try:
        for case in chain(first, upcoming):
            waiting.append((case, pool.submit(answer, case)))
            room.enters(case)
            while room.is_full():
                yield waiting[0][0], room.leaves(waiting[0][1].result())
                waiting.popleft()
        while waiting:
            yield waiting[0][0], waiting[0][1].result()
            waiting.popleft()
    finally:
        if waiting:  # nobody wants the rest
            batch.cancel()
        pool.shutdown(cancel_futures=True)


class _Room:
    """How many scans may wait for who needs them, by their files and by the largest so far."""

    def __init__(self) -> None:
        self._expected: deque[int] = deque()  # bytes of the scans that wait
        self._largest = 0

    def enters(self, case: Case | Failure) -> None:
        """A scan is read, or will be."""
        self._expected.append(EXPANSION * sum(map(_size, case.files)))

    def leaves(self, scan: Scan | Failure) -> Scan | Failure:
        """The scan that entered first goes; it is given back."""
        self._expected.popleft()
        if isinstance(scan, Scan):
            self._largest = max(self._largest, scan.pixels.nbytes)
        return scan

    def is_full(self) -> bool:
        """Whether the first has to leave before another may enter."""
        count = len(self._expected)
        if count <= AHEAD:
            return False
        return count > MOST_AHEAD or max(*self._expected, self._largest) * count > AHEAD_BYTES


def _size(file: str) -> int:
    """Bytes of a file; what is wrong with it is found by who reads it."""
    try:
        return os.stat(file).st_size
    except (OSError, ValueError):
        return 0


def _is_big(first: list[Case | Failure]) -> bool:
    """Whether a batch that begins so is worth starting workers."""
    files = sum(len(case.files) for case in first)
    return len(first) > AHEAD or (len(first) > 1 and files > FILES_IN_PROCESS)
