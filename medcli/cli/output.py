"""How answers reach the user: tables or NDJSON on stdout, words and progress on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcli.cli.streams import visible
from medcli.errors import LeakageError, ManifestError, MedcliError, ScanError
from medcli.files import write_file
from medcli.home import for_gallery
from medcli.records import Case, Failure, ScanWarning, plain

if TYPE_CHECKING:
    from rich.table import Table


def print_json(value: Mapping[str, Any]) -> None:
    """One object on one line of ASCII, for any encoding; what is undefined is null."""
    sys.stdout.write(json.dumps(plain(value), allow_nan=False) + "\n")
    sys.stdout.flush()


def print_line(text: str) -> None:
    """A line of data on stdout, however long."""
    from medcli.cli.console import stdout

    stdout().print(text, soft_wrap=True)


def print_words(text: str) -> None:
    """A sentence on stdout, wrapped where it is longer than a terminal is wide."""
    from medcli.cli.console import stdout

    stdout().print(text)


def print_table(table: Table) -> None:
    """A table on stdout; in a pipe or file without the blanks that fill its last column."""
    from medcli.cli.console import stdout

    console = stdout()
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as drawn:
        console.print(table)
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in drawn.get().rstrip("\n").split("\n"))
    sys.stdout.flush()


def say(message: str, style: str = "") -> None:
    """A sentence on stderr."""
    if not sys.stderr.isatty():  # a log needs no Rich, which takes a while to load
        sys.stderr.write(visible(message) + "\n")
        return
    from medcli.cli.console import stderr

    stderr().print(message, style=style or None, soft_wrap=True)


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

    Scans are numbered in the order in which they were found, whatever is told of them
    first, and keep their numbers within one run of a command. What a message says about
    a scan may name its files, so with `hide` the meaning of its code stands for it.
    """

    def __init__(self, *, hide: bool) -> None:
        self.hide = hide
        self._numbers: dict[str, int] = {}

    def number(self, scans: Iterable[Case | Failure]) -> None:
        """Fix the stand-ins of `scans`, in their order."""
        for scan in scans:
            self.of(scan.path)

    def of(self, path: str) -> str:
        """`path`, or its stand-in."""
        if not self.hide:
            return path
        return f"scan-{self._numbers.setdefault(path, len(self._numbers) + 1)}"

    def id_of(self, path: str, scan_id: str | None) -> str | None:
        """The `scan_id` of the scan at `path`, or its stand-in: an id may be made of a path."""
        return self.of(path) if self.hide and scan_id is not None else scan_id

    def files(self, path: str, files: Iterable[str]) -> list[str]:
        """The files of the scan at `path`, or their stand-ins."""
        if not self.hide:
            return list(files)
        return [f"{self.of(path)}/{number}" for number, _ in enumerate(files, start=1)]

    def failure(self, failure: Failure) -> str:
        """What went wrong with an input."""
        if not self.hide:
            return failure.message
        return f"{self.of(failure.path)}: {meaning(failure.code)}"

    def warnings(self, warnings: Iterable[ScanWarning]) -> list[dict[str, str]]:
        """Warnings as JSON objects."""
        return [
            {"code": each.code, "message": meaning(each.code) if self.hide else each.message}
            for each in warnings
        ]

    def command(self, command: str, gallery: Path) -> str:
        """A command line for a gallery, to be pasted; hidden, `…` stands for the gallery's path."""
        return self.hint(for_gallery(command, gallery), gallery)

    def hint(self, hint: str, gallery: Path) -> str:
        """What to do about a gallery; hidden, `…` stands for its path."""
        if not self.hide:
            return hint
        for path in (gallery, gallery.resolve()):
            hint = hint.replace(shlex.quote(str(path)), "…")
        return hint

    def shown(self, path: Path | str) -> str | None:
        """A path of an output or a gallery; None where it is hidden."""
        return None if self.hide else str(path)


def meaning(code: str) -> str:
    """What a code means in general, without names."""
    from medcli.codes import ERRORS, FINDINGS, PROBLEMS, WARNINGS

    return {**ERRORS, **WARNINGS, **FINDINGS, **PROBLEMS}.get(code, code)


def hidden_error(error: MedcliError, arguments: Iterable[str]) -> tuple[str, str]:
    """Message and hint of `error` without the paths among the command's arguments.

    What is wrong inside a manifest or a scan may name further files: its code's meaning
    stands for it.
    """
    if isinstance(error, ScanError):
        return meaning(error.code), ""
    if isinstance(error, ManifestError):
        return "the manifest or data set cannot be used", "Leave out --hide-paths to see why"
    message, hint = error.message, error.hint
    if isinstance(error, LeakageError):
        message = message.partition(": ")[0]  # behind it scans are named
    places = _places(arguments)
    places |= set(map(shlex.quote, places))  # as in a command to be pasted
    for place in sorted(places, key=len, reverse=True):
        message, hint = message.replace(place, "…"), hint.replace(place, "…")
    return message, hint


def _places(arguments: Iterable[str]) -> set[str]:
    """The paths among a command's arguments and what lies above, in and behind them."""
    from medcli.home import medcli_home

    values = {part for argument in arguments for part in (argument, argument.partition("=")[2])}
    named = {value for value in values if os.sep in value or (value and os.path.lexists(value))}
    # An output that does not exist yet may be any argument, and a message names it in full.
    paths = {Path(path) for path in (*named, *map(os.path.realpath, values))}
    paths |= {medcli_home(), Path.cwd()}
    around = {parent for path in paths for parent in path.parents}
    inside = {entry.name for path in paths if path.is_dir() for entry in path.iterdir()}
    return {*named, *map(str, paths | around), *inside} - {".", os.sep}


def common_json(
    path: str,
    scan_id: str | None,
    files: Iterable[str],
    warnings: Iterable[ScanWarning],
    names: Names,
) -> dict[str, Any]:
    """The fields that every object of an answered input begins with."""
    return {
        "path": names.of(path),
        "scan_id": names.id_of(path, scan_id),
        "files": names.files(path, files),
        "status": "ok",
        "warnings": names.warnings(warnings),
        "error": None,
    }


def failure_json(failure: Failure, names: Names) -> dict[str, Any]:
    """The object of an input that gave no answer."""
    return {
        "path": names.of(failure.path),
        "scan_id": names.id_of(failure.path, failure.scan_id),
        "files": names.files(failure.path, failure.files),
        "status": failure.status,
        "warnings": [],
        "error": {"code": failure.code, "message": names.failure(failure)},
    }


def show_failure(failure: Failure, names: Names) -> None:
    """One line on stderr for an input that failed; what is skipped is counted at the end."""
    if failure.status == "failed":
        say(f"error: {names.failure(failure)} [{failure.code}]", "red")


def keep_and_show(failures: list[Failure], names: Names) -> Callable[[Failure], None]:
    """Show each failure when it is known, and append it to `failures`."""

    def on_failure(failure: Failure) -> None:
        failures.append(failure)
        show_failure(failure, names)

    return on_failure


def show_skipped(failures: Iterable[Failure]) -> None:
    """How many inputs were skipped, by code; JSON names each."""
    codes = Counter(failure.code for failure in failures if failure.status == "skipped")
    if codes:
        counts = ", ".join(f"{count} {code}" for code, count in codes.items())
        note(f"skipped {codes.total()} files: {counts}")


def show_warnings(path: str, warnings: Iterable[ScanWarning], names: Names) -> None:
    """One line a warning on stderr, each with the name of the scan."""
    for each in names.warnings(warnings):
        about = "" if names.of(path) in each["message"] else f"{names.of(path)}: "
        warn(f"{about}{each['message']} [{each['code']}]")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of one shape as CSV in UTF-8, written whole or not at all.

    A spreadsheet shows every text in it as a text, and runs none: see `_cell`.
    """
    write_csv_columns(path, list(rows[0]) if rows else [], rows)


def write_csv_columns(path: Path, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """`write_csv` with the columns named, so that a table without rows has its header."""
    import csv
    import io

    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(map(_cell, names))
    writer.writerows([_cell(row[name]) for name in names] for row in rows)
    write_file(path, text.getvalue().encode("utf-8"))


_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def _cell(value: Any) -> Any:
    r"""A value as a cell: a text that could run as a formula begins with an apostrophe.

    Control characters become escapes, as in ``\x1b``. Numbers stay as they are.

    References
    ----------
    OWASP, CSV Injection
    """
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    return "'" * bool(_FORMULA.match(value)) + visible(value)


def shorten(path: str, width: int) -> str:
    """`path` without its first folders, else without its first letters, at most `width` long."""
    if len(path) <= width:
        return path
    start = path.find("/", len(path) - width + 1)
    return "…" + path[start if start >= 0 else len(path) - width + 1 :]


def facts_table(rows: Iterable[tuple[str, str]], title: str | None = None) -> Table:
    """Two columns: what, and how much."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, title=title, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table


def number(value: float | None, bounds: Sequence[float] | None = None) -> str:
    """`0.912 (0.875–0.944)`, or a dash where it is undefined."""
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" ({bounds[0]:.3f}–{bounds[1]:.3f})" if bounds else "")


@contextlib.contextmanager
def counting(
    description: str, *, beside_data: bool = False
) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr for as long as the block runs; call with (done, total).

    With `beside_data` lines go to stdout meanwhile, so that no bar shows on the same terminal.
    """
    if not sys.stderr.isatty() or (beside_data and sys.stdout.isatty()):
        yield lambda done, total: None
        return
    from rich import progress

    from medcli.cli.console import stderr

    with progress.Progress(
        progress.TextColumn(description),
        progress.BarColumn(bar_width=24),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[speed]}"),
        progress.TimeRemainingColumn(compact=True),
        progress.TextColumn("left"),
        console=stderr(),
        transient=True,
    ) as shown:
        bar, started = shown.add_task("", total=None, speed=""), time.monotonic()

        def on_step(done: int, total: int) -> None:
            speed = done / max(time.monotonic() - started, 1e-3)
            shown.update(bar, completed=done, total=total, speed=f"{speed:.1f}/s")

        yield on_step
