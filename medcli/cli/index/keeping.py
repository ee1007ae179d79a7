"""`medcli index verify`, `repair`, `compact`, `forget`: what keeps a gallery true."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcli.cli.options import AsJson, GalleryPath, HidePaths, LockTimeout, Model
from medcli.cli.output import (
    Names,
    counting,
    meaning,
    note,
    print_json,
    print_words,
    say,
    show_error,
)
from medcli.errors import DamagedError, MedcliError
from medcli.home import default_gallery

if TYPE_CHECKING:
    from medcli.retrieval.checking import Problem
    from medcli.workflows.maintaining import VerifyReport


def verify(
    gallery: GalleryPath = None,
    sample: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="How many scans are embedded anew and compared."),
    ] = 8,
    seed: Annotated[int, typer.Option(metavar="N", help="Which scans these are.")] = 0,
    as_json: AsJson = False,
    hide_paths: HidePaths = False,
) -> None:
    """Compare everything in a gallery with its checksums, and some scans with their files.

    Nothing is changed. The exit status is 4 where something is wrong.

    Example: medcli index verify -g archive --sample 100
    """
    from medcli.workflows.maintaining import verify_gallery

    target = gallery or default_gallery()
    with counting("embedding anew") as on_scan:
        report = verify_gallery(target, sample=sample, seed=seed, on_scan=on_scan)
    names = Names(hide=hide_paths)
    if as_json:
        print_json(_report_json(target, report, names))
    else:
        _show_problems(report.problems, names)
        _show_verified(report, target, names)
    raise typer.Exit(DamagedError.exit_status if report.problems else 0)


def repair(
    gallery: GalleryPath = None,
    model: Model = None,
    lock_timeout: LockTimeout = 60.0,
    as_json: AsJson = False,
    hide_paths: HidePaths = False,
) -> None:
    """Rebuild what is derived, and damaged rows from their files where that is proven.

    Nothing is deleted: what cannot be put right is named. The place of a damaged copy of the
    model is taken by the bundled model or run that is the same, or by that of --model.

    Example: medcli index repair -g archive
    """
    from medcli.models.locate import find_model
    from medcli.workflows.maintaining import repair_gallery

    target = gallery or default_gallery()
    with counting("repairing") as on_scan:
        report = repair_gallery(
            target,
            model=find_model(model) if model is not None else None,
            lock_timeout=lock_timeout,
            on_scan=on_scan,
        )
    names = Names(hide=hide_paths)
    left = report.checked.problems
    if as_json:
        print_json({**_report_json(target, report.checked, names), "repaired": report.repaired})
    else:
        for each in report.repaired:
            print_words(f"repaired: {each}")
        _show_problems(left, names)
        if not left:
            print_words("all is well" if report.repaired else "nothing was wrong")
        elif report.checked.hint:
            note(names.hint(report.checked.hint, target))
        elif any(each.scan is not None for each in left):
            ids = " ".join(str(scan) for scan in sorted({e.scan for e in left if e.scan}))
            remove = names.command(f"medcli index remove {ids}", target)
            note(f"take these scans out with `{remove}`; then add their files")
    raise typer.Exit(DamagedError.exit_status if left else 0)


def compact(
    gallery: GalleryPath = None,
    lock_timeout: LockTimeout = 60.0,
    as_json: AsJson = False,
    hide_paths: HidePaths = False,
) -> None:
    """Give back the space of removed scans, and of what killed builds have left.

    Searches go on meanwhile.

    Example: medcli index compact -g archive
    """
    from medcli.retrieval.gallery import Gallery
    from medcli.retrieval.upkeep import compact as compact_gallery

    target = gallery or default_gallery()
    with Gallery.open(target, write=True, lock_timeout=lock_timeout) as opened:
        done = compact_gallery(opened)
    if as_json:
        print_json(
            {
                "gallery": Names(hide=hide_paths).shown(target),
                "bytes_before": done.before,
                "bytes_after": done.after,
                "drafts_removed": done.drafts,
            }
        )
        return
    say(f"{done.before / 1e6:.1f} MB → {done.after / 1e6:.1f} MB")
    if done.drafts:
        say(f"{done.drafts} drafts of killed builds removed")


def forget(
    patient: Annotated[
        str,
        typer.Option(
            metavar="ID",
            help="The PatientID, as in the tags or the manifest; - reads it from stdin.",
            show_default=False,
        ),
    ],
    issuer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="IssuerOfPatientID, where the tags have one.", show_default=False
        ),
    ] = None,
    gallery: GalleryPath = None,
    lock_timeout: LockTimeout = 60.0,
    as_json: AsJson = False,
    hide_paths: HidePaths = False,
) -> None:
    """Remove every trace of a patient, and search all bytes of the gallery for what is left.

    The id is hashed with the gallery's key, and neither shown nor kept. Source files, backups
    and exports are not touched.

    Example: medcli index forget --patient 12345 -g archive
    """
    from medcli.retrieval.forgetting import forget_patient
    from medcli.retrieval.gallery import Gallery

    target = gallery or default_gallery()
    if patient == "-":  # other users of the machine can see a command's arguments
        patient = sys.stdin.readline().strip()
    whole = f"{issuer}\\{patient}" if issuer else patient
    with Gallery.open(target, write=True, lock_timeout=lock_timeout) as opened:
        done = forget_patient(opened, whole)
    values = {
        "removed": {
            "scans": done.scans,
            "vectors": done.vectors,
            "thumbnails": done.thumbnails,
        },
        "traces": done.traces,
        "found_before": done.found_before,
        "found_after": done.found_after,
        "searched": {"files": done.files, "bytes": done.bytes},
    }
    if as_json:
        print_json({"gallery": Names(hide=hide_paths).shown(target), **values})
    else:
        print_words(
            f"removed: scans {done.scans}, vectors {done.vectors}, thumbnails {done.thumbnails}"
        )
        print_words(
            f"searched {done.files} files ({done.bytes / 1e6:.1f} MB) for {done.traces} traces: "
            f"{done.found_before} were found before, {done.found_after} are left"
        )
        note("source files, backups and exports are not touched")
    if done.found_after:
        show_error("traces of the patient are left in the gallery", "run the command again")
        raise typer.Exit(MedcliError.exit_status)


def _report_json(path: Path, report: VerifyReport, names: Names) -> dict[str, Any]:
    return {
        "gallery": names.shown(path),
        "status": report.status,
        "rows": report.rows,
        "problems": [
            {"code": each.code, "message": _message(each, names), "id": each.scan}
            for each in report.problems
        ],
        "recomputed": report.recomputed,
        "unavailable": report.unavailable,
        "canaries": report.canaries,
    }


def _message(problem: Problem, names: Names) -> str:
    """What is wrong; hidden, what its code means."""
    if not names.hide:
        return problem.message
    about = "" if problem.scan is None else f"scan {problem.scan}: "
    return f"{about}{meaning(problem.code)}"


def _show_problems(problems: Sequence[Problem], names: Names) -> None:
    for each in problems:
        show_error(f"{_message(each, names)} [{each.code}]")


def _show_verified(report: VerifyReport, target: Path, names: Names) -> None:
    if report.problems:
        count = len(report.problems)
        problems = f"{count} problem{'s' if count > 1 else ''} in {report.rows or '?'} scans"
        say(f"{problems}; {_way_out(report, target, names)}")
        return
    print_words(
        f"{report.rows} scans: every checksum matches; {report.recomputed} embedded anew "
        f"and {report.canaries} canaries have the stored vectors"
    )
    if report.unavailable:
        note(
            f"{report.unavailable} scans of the sample could not be embedded anew: "
            "their files are gone or have changed "
            f"({names.command('medcli index update', target)})"
        )


def _way_out(report: VerifyReport, target: Path, names: Names) -> str:
    """What to do about the problems."""
    codes = {each.code for each in report.problems}
    if report.hint:
        return names.hint(report.hint, target)
    if codes == {"engine_changed"}:
        return "build it anew, so that queries and stored scans have vectors of one engine"
    if codes == {"key_damaged"}:
        return "restore it from a backup"
    return f"mend it with: {names.command('medcli index repair', target)}"
