"""The `medcli` command: one Typer app, one place where errors become an exit status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from medcli.cli.later import Later
from medcli.cli.output import hidden_error, show_error
from medcli.errors import MedcliError, StorageError, UsageError

EXIT_INTERRUPTED = 130

_COMMANDS = {
    "Start": {
        "demo": "Show the whole road on generated scans, in about three minutes.",
        "doctor": "Show what this machine offers: decoders, engines, devices, versions.",
        "bench": "Measure the speed of this machine, beside limits taken in the same run.",
    },
    "Models": {
        "train": "Train a classifier and write it as a run folder.",
        "evaluate": "Measure a model on labelled scans, with intervals over patients.",
        "classify": "Predict the class of each scan.",
        "detect": "Find candidate lesions as boxes, slice by slice.",
        "explain": "Show where in a scan the model looks.",
        "report": "Write one HTML page about a run or a gallery.",
        "adapt": "Fit a model to the scanner of another site, without labels.",
        "models": "List, show and export trained models.",
    },
    "Archive": {
        "search": "Find the stored scans most like each query scan.",
        "index": "Build and keep a gallery: the searchable archive.",
        "replay": "Ask a gallery again what a receipt says was asked, and name what has changed.",
    },
    "Data": {
        "inspect": "Show what was read of each scan: geometry, intensities, decoder, warnings.",
        "data": "Check, split, convert and audit data sets.",
    },
}
_APPS = {  # where a command is more than a function of its name
    "evaluate": "medcli.cli.evaluate:app",
    "models": "medcli.cli.models:app",
    "index": "medcli.cli.index.app:app",
    "data": "medcli.cli.data:app",
}


class _Commands(TyperGroup):
    """medcli's commands, which are imported when they are asked for."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for panel, commands in _COMMANDS.items():
            for name, line in commands.items():
                where = _APPS.get(name, f"medcli.cli.{name}:{name}")
                self.add_command(Later(name, where, line, panel))


app = typer.Typer(
    name="medcli",
    cls=_Commands,
    help="Train, classify, index and search medical images. Research use, not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # they hold patient data
)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"medcli {version('medcli')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit status, which is that of `medcli.errors`.

    What a user can cause becomes a line on stderr. Anything else keeps its traceback.
    """
    from medcli.cli.streams import prepare_streams

    prepare_streams()
    try:
        status = app(args=list(arguments), prog_name="medcli", standalone_mode=False)
    except MedcliError as error:
        return _show(error, arguments)
    except typer.TyperException as error:
        if not error.format_message():  # a group without a command has shown its help
            return UsageError.exit_status
        return _show(_usage_error(error), arguments)
    except OSError as error:
        about = f"{error.filename}: " if error.filename else ""
        return _show(StorageError(f"{about}{error.strerror or error}"), arguments)
    if status == EXIT_INTERRUPTED:
        show_error("interrupted")
    return int(status or 0)


def _show(error: MedcliError, arguments: Sequence[str]) -> int:
    """Show an error, without paths where that is asked for; return its exit status."""
    hide = "--hide-paths" in arguments
    show_error(*(hidden_error(error, arguments) if hide else (error.message, error.hint)))
    return error.exit_status


def _usage_error(error: typer.TyperException) -> UsageError:
    """What is wrong with the options, and whose help says more."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "medcli"
    message = error.format_message().rstrip(".").replace("Value error, ", "")  # pydantic's
    return UsageError(message, f"See `{command} --help`")
