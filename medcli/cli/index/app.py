"""`medcli index`: the commands in the order in which the help lists them."""

from __future__ import annotations

import typer

from medcli.cli.index.choosing import tune
from medcli.cli.index.filling import add, build, remove, update
from medcli.cli.index.keeping import compact, forget, repair, verify
from medcli.cli.index.looking import audit, export, info
from medcli.cli.index.migrating import migrate

app = typer.Typer(help="Build and keep a gallery: the searchable archive.", no_args_is_help=True)

for command in (
    *(build, add, update, remove),
    *(info, verify, repair, compact),
    *(export, audit, forget),
    *(tune, migrate),
):
    app.command()(command)
