"""One pass over a data set: every scan read once, and what is compared of it kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from medcli.config import PreprocessConfig
from medcli.data.audit import Copies, find_copies
from medcli.data.likeness import SIDE, Look, look_of
from medcli.errors import ScanError
from medcli.imaging.batch import read_all
from medcli.imaging.hashing import pixel_sha256
from medcli.imaging.preprocess import Preprocessor, sample_slices
from medcli.records import Case, Failure, Scan, ScanWarning

MAX_UNREADABLE = 0.05  # share of scans that may be unreadable before work on a set stops
SLICES = 16  # of a scan that are looked at


@dataclass(frozen=True, slots=True)
class Survey:
    """The readable scans of a data set.

    Attributes
    ----------
    cases : with the patient of the manifest, else of the tags
    pixels : hash of each
    looks : of each, for the search for copies
    warnings : of the reader, about each
    failures : what could not be read
    """

    cases: tuple[Case, ...]
    pixels: tuple[str, ...]
    looks: tuple[Look, ...]
    warnings: tuple[tuple[ScanWarning, ...], ...]
    failures: tuple[Failure, ...]

    def copies(self, slack: float = 1.0) -> Copies:
        """Scans that are one picture; `slack` as for `near_copies`."""
        return find_copies(self.pixels, self.looks, slack)


def survey(
    cases: Sequence[Case],
    *,
    also: Callable[[Scan], None] = lambda scan: None,
    on_scan: Callable[[int, int], None] = lambda done, total: None,
    on_failure: Callable[[Failure], None] = lambda failure: None,
) -> Survey:
    """Read every scan once.

    Parameters
    ----------
    also : called with each scan, in the order of `Survey.cases`
    on_scan : called with (done, total)
    on_failure : called with what could not be read, as soon as it is known

    Raises
    ------
    ScanError : more than 5 % of the scans cannot be read
    """
    kept: list[tuple[Case, str, Look, tuple[ScanWarning, ...]]] = []
    failures: list[Failure] = []
    for done, (case, scan) in enumerate(read_all(cases), start=1):
        if isinstance(scan, Failure):
            failures.append(scan)
            on_failure(scan)
            stop_if_many(failures, len(cases))
        else:
            assert isinstance(case, Case)
            known = replace(case, patient_id=scan.patient_id)
            kept.append((known, pixel_sha256(scan), scan_look(scan), scan.warnings))
            also(scan)
        on_scan(done, len(cases))
    found, pixels, looks, warnings = zip(*kept, strict=True) if kept else ((), (), (), ())
    return Survey(tuple(found), tuple(pixels), tuple(looks), tuple(warnings), tuple(failures))


def scan_look(scan: Scan) -> Look:
    """What a scan looks like, as the default preprocessing shows it."""
    chosen = sample_slices(len(scan.pixels), SLICES)
    return look_of(_PREPROCESSOR.unit_input(scan, slices=chosen))


def stop_if_many(failures: Sequence[Failure], total: int) -> None:
    """Raise where too many of `total` scans are unreadable to go on with the rest.

    Raises
    ------
    ScanError : more than `MAX_UNREADABLE` of them
    """
    if len(failures) > MAX_UNREADABLE * total:
        first = failures[0]
        raise ScanError(
            first.code,
            f"more than {MAX_UNREADABLE:.0%} of {total:,} scans cannot be read "
            f"({len(failures):,} so far); the first: {first.message}",
            "Repair or remove them; up to 5 % are left out with a warning",
        )


_PREPROCESSOR = Preprocessor(PreprocessConfig(size=SIDE))
