"""What a person sees, and that no file can change what is seen."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

import medcli as package
from medcli.cli.console import SafeConsole, visible
from medcli.cli.output import shorten

Run = Callable[..., Any]
HOSTILE = "\x1b[31m[red]:smile:\x07\u202egnp.png"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain ü 肺", "plain ü 肺"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\r\nb", r"a\r\nb"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egnp", r"\u202egnp"),
        ("\udcff", r"\udcff"),
    ],
)
def test_what_is_no_printable_character_is_shown_as_an_escape(raw: str, shown: str) -> None:
    assert visible(raw) == shown


def test_long_paths_lose_their_first_folders() -> None:
    path = "/data/archive/patients/series/slice.dcm"
    assert shorten(path, len(path)) == path
    assert shorten(path, 25) == "…/series/slice.dcm"
    assert shorten(path, 12) == "…/slice.dcm"
    assert shorten(path, 6) == "….dcm"[-6:] or len(shorten(path, 6)) == 6
    assert all(len(shorten(path, width)) <= width for width in range(2, 60))


def test_markup_in_a_name_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    SafeConsole(force_terminal=True).print("[red]:smile:\x1b[31m")
    assert capsys.readouterr().out == "[red]:smile:\\x1b[31m\n"


def test_a_hostile_file_name_prints_harmlessly(
    medcli: Run, model: Any, sample_folder: Path, home: Path
) -> None:
    folder = Path("[bold]\x1b]0;owned\x07")
    folder.mkdir()
    shutil.copy(sample_folder / "query.png", folder / HOSTILE)
    (folder / f"bad {HOSTILE}").write_text("no picture")
    said = [
        medcli("classify", folder),
        medcli("index", "build", folder, "-g", "g", "--labels", "folder"),
        medcli("search", sample_folder / "scan.dcm", "-g", "g", "--html", "page.html"),
        medcli("index", "info", "-g", "g"),
        medcli("classify", folder, "--json", "--csv", "table.csv"),
    ]
    for done in said:
        assert "\x1b" not in done.out + done.err
        assert "\x07" not in done.out + done.err
        assert "\u202e" not in done.out + done.err
    assert "[red]:smile:" in said[0].out
    assert str(folder / HOSTILE) in {answer["path"] for answer in said[4].json}


@pytest.mark.skipif(sys.platform != "linux", reason="the file system refuses such names")
def test_a_name_that_is_no_utf8_does_not_break_anything(
    medcli: Run, model: Any, sample_folder: Path
) -> None:
    name = os.fsdecode(b"caf\xe9 \xff.png")
    shutil.copy(sample_folder / "query.png", name)
    shutil.copy(sample_folder / "scan.dcm", "scan.dcm")
    assert medcli("classify", name).status == 0
    answer = medcli("classify", name, "--json", "--csv", "table.csv")
    assert answer.json[0]["path"] == name
    assert r"caf\udce9 \udcff.png" in Path("table.csv").read_text()
    built = medcli("index", "build", name, "scan.dcm", "-g", "g", "--json")
    assert (built.status, built.json[0]["added"]) == (0, 2)
    done = medcli("search", "scan.dcm", "-g", "g", "--html", "page.html")
    assert done.status == 0
    assert r"caf\udce9 \udcff.png" in done.out
    assert "caf? ?.png" in Path("page.html").read_text()
    (answer,) = medcli("search", "scan.dcm", "-g", "g", "--json").json
    stored = Path(answer["hits"][0]["path"])
    assert stored.name == name
    assert stored.is_file()
    shutil.copytree(".", "folder", ignore=shutil.ignore_patterns("folder", "g"))
    for form in ("nifti", "png", "npz"):
        assert medcli("data", "convert", "folder", "-o", form, "--to", form).status == 0
    assert medcli("data", "check", "folder").status == 0


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "medcli", *map(str, arguments)]


def environment(**values: str) -> dict[str, str]:
    """That of this process, in which medcli is the one under test."""
    return {**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1]), **values}


def test_a_pipe_gets_whole_paths_in_any_encoding(model: Any, sample_folder: Path) -> None:
    deep = Path("a" * 60, "b" * 60)
    deep.mkdir(parents=True)
    shutil.copy(sample_folder / "query.png", deep / "é肺.png")
    done = subprocess.run(
        command("classify", deep / "é肺.png"),
        capture_output=True,
        text=True,
        check=True,
        env=environment(PYTHONIOENCODING="ascii"),
        timeout=60,
    )
    assert rf"{deep}/\xe9\u80ba.png" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def on_terminal(*arguments: str | Path) -> tuple[int, str]:
    """Exit status and everything that a command shows on a terminal of 80 columns."""
    master, slave = pty.openpty()
    streams = {"stdin": slave, "stdout": slave, "stderr": slave}
    settings = environment(COLUMNS="80", TERM="xterm-256color")
    with subprocess.Popen(command(*arguments), env=settings, **streams) as process:
        os.close(slave)
        shown = b""
        while select.select([master], [], [], 60)[0]:
            try:
                part = os.read(master, 65536)
            except OSError:  # the other side is closed
                break
            shown += part
    os.close(master)
    return process.returncode, shown.decode()


def test_a_terminal_gets_colours_and_lines_that_fit(model: Any, sample_folder: Path) -> None:
    status, shown = on_terminal("classify", sample_folder / "ct", "gone.dcm")
    assert status == 3
    assert "\x1b[1m" in shown
    table = [Text.from_ansi(line) for line in shown.splitlines() if "/SYN-000" in line]
    assert len(table) == 8
    assert all(len(line.plain.rstrip()) <= 80 for line in table)
    assert all("/SYN-000" in line.plain for line in table)


def test_json_on_a_terminal_is_json(model: Any, sample_folder: Path) -> None:
    status, shown = on_terminal("classify", sample_folder / "scan.dcm", "--json")
    lines = [line for line in shown.splitlines() if line.startswith("{")]
    assert status == 0
    assert json.loads(lines[0])["status"] == "ok"
