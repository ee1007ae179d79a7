"""Many scans, read ahead of who needs them and in order; a bad one never stops the rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice

from medcli.errors import ScanError
from medcli.imaging.isolation.together import Batch
from medcli.imaging.reader import read_safely, read_scan
from medcli.records import Case, Failure, Scan

AHEAD = 8  # scans in memory beyond the one in use

WORKERS = 2  # or threads, unless told otherwise

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
    """Each case with its scan, in order; at most `AHEAD` scans are read ahead.

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
    try:
        for case in chain(first, upcoming):
            waiting.append((case, pool.submit(answer, case)))
            if len(waiting) > AHEAD:
                yield waiting[0][0], waiting[0][1].result()
                waiting.popleft()
        while waiting:
            yield waiting[0][0], waiting[0][1].result()
            waiting.popleft()
    finally:
        if waiting:  # nobody wants the rest
            batch.cancel()
        pool.shutdown(cancel_futures=True)


def _is_big(first: list[Case | Failure]) -> bool:
    """Whether a batch that begins so is worth starting workers."""
    files = sum(len(case.files) for case in first)
    return len(first) > AHEAD or (len(first) > 1 and files > FILES_IN_PROCESS)
