"""Commands that are imported when they are asked for; a list of them needs a line of each."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


def flowing(text: str) -> str:
    """A docstring with each paragraph on one line: the terminal says where lines end.

    Typer would keep the line ends of all but the first paragraph, and wrap in between.
    """
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


class Later(TyperCommand):
    """A command, or a group of commands, that is imported and built when it is used.

    Parameters
    ----------
    where : "module:name" of the command's function, of a `typer.Typer` or of a `TyperGroup`
    line : the first line of its help
    """

    def __init__(self, name: str, where: str, line: str, panel: str | None = None) -> None:
        super().__init__(name=name, help=line, rich_help_panel=panel)
        self._where = where

    def real(self) -> Any:
        """The command itself."""
        module, _, part = self._where.partition(":")
        found = getattr(importlib.import_module(module), part)
        if isinstance(found, TyperGroup):
            return found  # of commands that come later, too
        if not isinstance(found, typer.Typer):
            alone = typer.Typer(add_completion=False)
            alone.command(self.name)(found)
            found = alone
        command = typer.main.get_command(found)
        command.name = self.name
        for each in (command, *getattr(command, "commands", {}).values()):
            each.help = flowing(each.help or "")
        return command

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        """The context of the command itself: what typer parses and invokes from here on."""
        return self.real().make_context(*arguments, **settings)
