"""How answers reach the terminal: tables on stdout or NDJSON, words and progress on stderr."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcli.files import write_file
from medcli.records import Failure, plain

if TYPE_CHECKING:
    from rich.console import Console


@functools.cache
def stdout() -> Console:
    """The console for data; a pipe gets lines of any length."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _piped_width())


@functools.cache
def stderr() -> Console:
    """The console for words and progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def _piped_width() -> int:
    """COLUMNS if it is set, else 80: a table in a log reads like one on a terminal."""
    import os

    return int(os.environ.get("COLUMNS") or 80)


def print_json(value: Mapping[str, Any]) -> None:
    """One object on one line; what is undefined is null."""
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=False, allow_nan=False) + "\n")


def say(message: str, style: str = "") -> None:
    """A sentence on stderr; nothing in it is read as markup."""
    stderr().print(message, style=style or None, markup=False, soft_wrap=True)


def note(message: str) -> None:
    """Something worth knowing, on stderr."""
    say(f"note: {message}", "dim")


def warn(message: str) -> None:
    """Something that went otherwise than asked, on stderr."""
    say(f"warning: {message}", "yellow")


def show_error(message: str, hint: str = "") -> None:
    """What is wrong and what to do next, on stderr."""
    say(f"error: {message}", "bold red")
    if hint:
        say(f"  {hint}")


class Names:
    """What stands for a path in the output: the path itself, or with `hide` a running number.

    The same path keeps its number within one run of a command.
    """

    def __init__(self, *, hide: bool) -> None:
        self.hide = hide
        self._numbers: dict[str, int] = {}

    def of(self, path: str) -> str:
        """`path`, or its stand-in."""
        if not self.hide:
            return path
        return f"scan-{self._numbers.setdefault(path, len(self._numbers) + 1)}"

    def files(self, path: str, files: Iterable[str]) -> list[str]:
        """The files of the scan at `path`, or their stand-ins."""
        if not self.hide:
            return list(files)
        return [f"{self.of(path)}/{number}" for number, _ in enumerate(files, start=1)]

    def failure(self, failure: Failure) -> str:
        """What went wrong; with `hide` the meaning of its code, as messages name files."""
        if not self.hide:
            return failure.message
        from medcli.imaging.codes import ERRORS

        return f"{self.of(failure.path)}: {ERRORS.get(failure.code, failure.code)}"


def failure_json(failure: Failure, names: Names) -> dict[str, Any]:
    """The object of an input that gave no answer."""
    return {
        "path": names.of(failure.path),
        "scan_id": None if names.hide else failure.scan_id,
        "files": names.files(failure.path, failure.files),
        "status": failure.status,
        "warnings": [],
        "error": {"code": failure.code, "message": names.failure(failure)},
    }


def show_failure(failure: Failure, names: Names) -> None:
    """One line on stderr: skipped inputs are a note, failed ones an error."""
    line = f"{failure.status}: {names.failure(failure)} [{failure.code}]"
    say(line, "dim" if failure.status == "skipped" else "red")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of one shape as CSV, written whole or not at all."""
    import csv
    import io

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    write_file(path, text.getvalue().encode())


def shorten(text: str, width: int) -> str:
    """`text` with its middle left out where it is longer than `width`."""
    if len(text) <= width:
        return text
    tail = (width - 1) * 2 // 3
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


@contextlib.contextmanager
def counting(description: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr for as long as the block runs; call with (done, total)."""
    from rich import progress

    with progress.Progress(
        progress.TextColumn(description),
        progress.BarColumn(bar_width=24),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(compact=True),
        progress.TextColumn("left"),
        console=stderr(),
        transient=True,
        disable=not stderr().is_terminal,
    ) as shown:
        bar = shown.add_task("", total=None)
        yield lambda done, total: shown.update(bar, completed=done, total=total)
