"""The terminal: nothing that comes from a file can move its cursor or change its colours."""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import Any

from rich.console import Console
from rich.text import Text

from medcli.cli.streams import visible

PIPE_WIDTH = 10_000  # a pipe gets lines of any length


class SafeConsole(Console):
    """A console that takes every string, table cells included, for plain text."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """`text` as Rich shows it."""
        return super().render_str(visible(text), **options)


@cache
def stdout() -> Console:
    """The console for data."""
    is_terminal = sys.stdout.isatty() or "COLUMNS" in os.environ
    return SafeConsole(width=None if is_terminal else PIPE_WIDTH)


@cache
def stderr() -> Console:
    """The console for words and progress."""
    return SafeConsole(stderr=True)
