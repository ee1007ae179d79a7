"""The `medcli` command: one Typer app, one place where errors become an exit status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from medcli.cli.adapt import adapt
from medcli.cli.bench import bench
from medcli.cli.classify import classify
from medcli.cli.data import app as data_app
from medcli.cli.demo import demo
from medcli.cli.detect import detect
from medcli.cli.doctor import doctor
from medcli.cli.evaluate import evaluate
from medcli.cli.explain import explain
from medcli.cli.index.app import app as index_app
from medcli.cli.inspect import inspect
from medcli.cli.models import app as models_app
from medcli.cli.output import hidden_error, show_error
from medcli.cli.replay import replay
from medcli.cli.report import report
from medcli.cli.search import search
from medcli.cli.train import train
from medcli.errors import MedcliError, StorageError, UsageError

EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="medcli",
    help="Train, classify, index and search medical images. Research use, not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # they hold patient data
)
app.command(rich_help_panel="Start")(demo)
app.command(rich_help_panel="Models")(train)
app.command(rich_help_panel="Models")(evaluate)
app.command(rich_help_panel="Models")(classify)
app.command(rich_help_panel="Models")(detect)
app.command(rich_help_panel="Models")(explain)
app.command(rich_help_panel="Models")(report)
app.add_typer(models_app, name="models", rich_help_panel="Models")
app.command(rich_help_panel="Models")(adapt)
app.add_typer(index_app, name="index", rich_help_panel="Archive")
app.command(rich_help_panel="Archive")(search)
app.command(rich_help_panel="Archive")(replay)
app.command(rich_help_panel="Data")(inspect)
app.add_typer(data_app, name="data", rich_help_panel="Data")
app.command(rich_help_panel="Start")(doctor)
app.command(rich_help_panel="Start")(bench)


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
    return UsageError(error.format_message().rstrip("."), f"See `{command} --help`")
