"""From what the user typed to cases, and from results to an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from medcli.cli.output import Names, show_error, show_skipped
from medcli.records import Case, Failure

EXIT_UNREADABLE = 3


def found_scans(
    inputs: Sequence[str], names: Names, time_point: int | None = None
) -> list[Case | Failure]:
    """Every scan that the inputs name, and what is none; ``-`` reads names from stdin.

    `names` numbers them in this order. Of files with several time points `time_point` is
    meant, where a manifest does not say which.
    """
    return labelled_scans(inputs, "manifest", names, time_point)


def labelled_scans(
    inputs: Sequence[str],
    labels: str,
    names: Names,
    time_point: int | None = None,
    on_note: Callable[[str], None] = lambda note: None,
    any_boxes: bool = False,
) -> list[Case | Failure]:
    """`found_scans`; with `labels` "folder" each has the name of its class folder as label.

    `any_boxes` is that of `medcli.data.gathering.gather_cases`.
    """
    from medcli.data.gathering import gather_cases
    from medcli.imaging.isolation.foresight import foresee

    foresee(inputs)
    cases = gather_cases(
        inputs, stdin=sys.stdin, on_note=on_note, time_point=time_point, any_boxes=any_boxes
    )
    if labels == "folder":
        from medcli.data.sources import class_folder_labels

        for root in filter(os.path.isdir, inputs):
            cases = class_folder_labels(cases, root)
    names.number(cases)
    return cases


def exit_status(failures: Sequence[Failure], answered: int) -> int:
    """3 where an input failed or none was answered, else 0; what is skipped is counted only."""
    show_skipped(failures)
    if any(failure.status == "failed" for failure in failures):
        return EXIT_UNREADABLE
    if answered:
        return 0
    show_error(
        "no scan found",
        "Name DICOM, NIfTI, NRRD, MetaImage, PNG, JPEG, TIFF or BMP files or folders of them",
    )
    return EXIT_UNREADABLE
