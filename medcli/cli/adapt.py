"""`medcli adapt`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcli.cli.options import AsJson, Overwrite, Scans, Seed
from medcli.cli.output import (
    Names,
    counting,
    keep_and_show,
    note,
    print_json,
    print_line,
    say,
    warn,
)

if TYPE_CHECKING:
    from medcli.models.package import ModelPackage
    from medcli.training.adapting import Adaptation


def adapt(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A run folder, a model package, or 'latest'.")
    ],
    scans: Scans,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="RUN", help="The new model; MODEL stays."),
    ],
    overwrite: Overwrite = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Fit a model to the scanner of another site, without labels.

    The statistics of its normalisation are measured on the scans. Threshold and calibration
    are not refitted; evaluate the new model on labelled scans before it is used.

    Example: medcli adapt runs/lung new-site/ -o runs/lung-new-site
    """
    from medcli.cli.inputs import exit_status, found_scans
    from medcli.models.locate import find_model
    from medcli.models.package import load_package
    from medcli.records import Case, Failure
    from medcli.training.adapting import adapt as adapt_model

    names, failures = Names(hide=False), list[Failure]()
    package = load_package(find_model(model))
    on_failure = keep_and_show(failures, names)
    cases = []
    for item in found_scans(scans, names):
        if isinstance(item, Case):
            cases.append(item)
        else:
            on_failure(item)
    if not cases:
        raise typer.Exit(exit_status(failures, 0))
    with counting("reading") as on_read:
        made = adapt_model(
            package,
            cases,
            output,
            source=", ".join("/".join(Path(name).resolve().parts[-2:]) for name in scans),
            overwrite=overwrite,
            seed=seed,
            on_read=on_read,
            on_failure=on_failure,
            warn=warn,
        )
    if as_json:
        print_json(_json(package, made))
    else:
        say(
            f"{made.scans} scans, {made.slices} slices; the mean of a channel moved by "
            f"{made.shift:.2f} of its deviations"
        )
        note(
            "nothing was measured, and threshold and calibration were not refitted: "
            "medcli evaluate tells"
        )
        print_line(str(made.package.path))
    raise typer.Exit(exit_status(failures, len(cases)))


def _json(before: ModelPackage, made: Adaptation) -> dict[str, Any]:
    """What became of the model."""
    return {
        "path": str(made.package.path.absolute()),
        "task": before.task_names,
        "model": made.package.fingerprint,
        "from": before.fingerprint,
        "synthetic": before.synthetic,
        "scans": made.scans,
        "slices": made.slices,
        "shift": made.shift,
        "not_refitted": made.package.provenance["adaptations"][-1]["not_refitted"],
    }
