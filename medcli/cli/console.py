"""The terminal: nothing that comes from a file can move its cursor or change its colours."""

from __future__ import annotations

import io
import os
import re
import sys
from functools import cache
from typing import Any

from rich.console import Console
from rich.text import Text

PIPE_WIDTH = 10_000  # a pipe gets lines of any length
# Control characters, line and paragraph separators, bidirectional overrides, and what is
# left of bytes that are no UTF-8.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""`text` with everything that is no printable character as an escape, as in ``\x1b``."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


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


def prepare_streams() -> None:
    """Let the standard streams take file names that their encoding cannot hold."""
    for stream, errors in (
        (sys.stdin, "surrogateescape"),
        (sys.stdout, "backslashreplace"),
        (sys.stderr, "backslashreplace"),
    ):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
