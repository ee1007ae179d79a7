"""From what the user typed to cases, and from results to an exit status."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from medcli.errors import ScanError
from medcli.records import Case, Failure

EXIT_UNREADABLE = 3


def found_scans(inputs: Sequence[str]) -> list[Case | Failure]:
    """Every scan that the inputs name; ``-`` reads names from stdin.

    Raises
    ------
    ScanError : not one scan was found, and nothing that failed would say so
    """
    from medcli.data.sources import gather_cases

    cases = gather_cases(inputs, stdin=sys.stdin)
    if all(isinstance(case, Failure) and case.status == "skipped" for case in cases):
        named = ", ".join(inputs)
        raise ScanError(
            "not_an_image",
            f"no scan found in {named}" + (f" ({len(cases)} files skipped)" if cases else ""),
            "Name DICOM, NIfTI, NRRD, MetaImage, PNG, JPEG, TIFF or BMP files or folders of them",
        )
    return cases


def exit_status(results: Iterable[object]) -> int:
    """3 where an input failed, else 0; what was skipped is no failure."""
    failed = any(isinstance(item, Failure) and item.status == "failed" for item in results)
    return EXIT_UNREADABLE if failed else 0
