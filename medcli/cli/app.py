"""The `medcli` command: one Typer app, one place where errors become an exit status."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from medcli.cli.classify import classify
from medcli.cli.demo import demo
from medcli.cli.evaluate import evaluate
from medcli.cli.index import app as index_app
from medcli.cli.output import show_error
from medcli.cli.search import search
from medcli.cli.train import train
from medcli.errors import MedcliError

EXIT_STORAGE = 7
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
app.add_typer(index_app, name="index", rich_help_panel="Archive")
app.command(rich_help_panel="Archive")(search)


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


def main() -> None:
    """Run the command line; the exit status is that of `medcli.errors`."""
    try:
        app()
    except MedcliError as error:
        show_error(error.message, error.hint)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        show_error("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has gone; nothing is wrong here.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        name = f" {error.filename}" if error.filename else ""
        show_error(f"input/output error{name}: {error.strerror or error}")
        sys.exit(EXIT_STORAGE)
