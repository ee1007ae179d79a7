"""What `medcli classify` makes beside its answers: a page, a structured report, pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medcli.cli.output import Names, say
from medcli.cli.terminal import show_pictures, terminal_shows
from medcli.errors import UsageError
from medcli.files import check_file, write_file
from medcli.records import Case, Failure, Prediction, Scan

if TYPE_CHECKING:
    from medcli.models.package import ModelPackage
    from medcli.report.cards import PictureKey
    from medcli.workflows.evidence import Evidence

MOST_SHOWN = 12
"""So many scans are shown in the terminal."""

Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="HTML",
        help="Write a page: each scan with its heat map; takes seconds, as it loads torch.",
        show_default=False,
    ),
]
StructuredReport = Annotated[
    Path | None,
    typer.Option("--sr", metavar="DCM", help="Write the answer as a DICOM SR.", show_default=False),
]


@dataclass(frozen=True, slots=True)
class Outputs:
    """What was asked for."""

    report: Path | None = None
    structured: Path | None = None
    show: bool = False

    def check(self, *, overwrite: bool) -> None:
        """Refuse, before any work, what cannot be written.

        Raises
        ------
        UsageError : an output exists, or --sr without the extra highdicom
        """
        for path in filter(None, (self.report, self.structured)):
            check_file(path, overwrite=overwrite)
        if self.structured is not None:
            from medcli.imaging.dicom_derived import check_extra

            check_extra()

    def check_scans(self, cases: Sequence[Case | Failure]) -> None:
        """Refuse several scans where one is wanted.

        Raises
        ------
        UsageError : a structured report of several scans
        """
        found = sum(isinstance(case, Case) for case in cases)
        if self.structured is not None and found > 1:
            raise UsageError(
                f"{found} scans were found, and --sr takes one", "Classify them one by one"
            )

    def make(
        self,
        scans: Iterable[Scan | Failure],
        results: Sequence[Prediction | Evidence | Failure],
        package: ModelPackage,
        names: Names,
        pictures: Mapping[PictureKey, bytes] | None = None,
    ) -> None:
        """Look at the scans once more and make what was asked for.

        Parameters
        ----------
        scans : as they were answered, in the same order; read when they are needed
        results : the answer about each, with its neighbours where a gallery was asked
        pictures : of these neighbours
        """
        if all(isinstance(result, Failure) for result in results):
            return
        show = self.show and terminal_shows()
        if self.report is None and self.structured is None and not show:
            return
        from medcli.workflows.scan_reporting import ScanReport

        page = ScanReport(package, len(results)) if self.report is not None else None
        shown: list[tuple[str, Scan]] = []
        for scan, result in zip(scans, results, strict=False):
            if isinstance(scan, Failure) or isinstance(result, Failure):
                continue
            prediction = result if isinstance(result, Prediction) else result.prediction
            if page is not None and isinstance(result, Prediction):
                page.add(scan, result)
            elif page is not None and not isinstance(result, Prediction):
                page.add(scan, prediction, result.result, result.agrees)
            if self.structured is not None:
                _write_structured(self.structured, scan, prediction, names)
            if show and len(shown) < MOST_SHOWN:
                shown.append((f"{prediction.label or 'no finding'} {names.of(scan.path)}", scan))
        if page is not None and self.report is not None:
            failures = [result for result in results if isinstance(result, Failure)]
            html = page.html(
                pictures=pictures,
                failures=failures,
                hide_paths=names.hide,
                stand_ins={path: names.of(path) for path in map(_path, results)},
            )
            write_file(self.report, html.encode("utf-8", "replace"))
            say("wrote the page" if names.hide else f"wrote {self.report}")
        show_scans(shown)


def _path(result: Prediction | Evidence | Failure) -> str:
    return result.path if isinstance(result, Prediction | Failure) else result.prediction.path


def _write_structured(path: Path, scan: Scan, result: Prediction, names: Names) -> None:
    from medcli.imaging.dicom_answer import write_answer

    write_answer(path, scan, result)
    say("wrote the structured report" if names.hide else f"wrote {path}")


def show_scans(scans: Sequence[tuple[str, Scan]]) -> None:
    """The middle slice of each scan with its title."""
    if scans:
        from medcli.imaging.display import display_slice

        show_pictures(
            [(title, display_slice(scan, len(scan.pixels) // 2)) for title, scan in scans]
        )
