"""Pictures in a terminal."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from medcli.cli import console as consoles
from medcli.cli import terminal

RED_OVER_BLUE = np.zeros((4, 4, 3), np.uint8)
RED_OVER_BLUE[:2, :, 0] = RED_OVER_BLUE[2:, :, 2] = 255


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"KITTY_WINDOW_ID": "1", "TERM": "xterm-256color"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, None),
        ({"TERM": "screen-256color", "KITTY_WINDOW_ID": "1"}, None),
        ({}, None),
    ],
)
def test_the_protocol_is_told_by_the_environment(
    environment: dict[str, str], expected: str | None
) -> None:
    assert terminal.protocol(environment) == expected


def test_half_blocks_carry_two_rows_a_line() -> None:
    lines = list(terminal._half_blocks([RED_OVER_BLUE]))
    assert len(lines) == terminal.CELLS // 2
    first, last = lines[0].spans[0].style, lines[-1].spans[0].style
    assert first.color.get_truecolor() == (255, 0, 0)  # type: ignore[union-attr]
    assert last.bgcolor.get_truecolor() == (0, 0, 255)  # type: ignore[union-attr]
    assert all(line.cell_len == terminal.CELLS for line in lines)


def test_pictures_of_different_heights_stand_side_by_side() -> None:
    lines = list(terminal._half_blocks([np.zeros((4, 8), np.uint8), np.zeros((8, 8), np.uint8)]))
    assert {line.cell_len for line in lines} == {2 * terminal.CELLS + terminal.GAP}


@pytest.mark.parametrize("speaks", ["kitty", "iterm2"])
def test_a_protocol_carries_a_whole_png(speaks: terminal.Protocol) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8)
    command = terminal._command(speaks, [noise, noise])
    if speaks == "kitty":
        parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", command)
        assert all(len(data) <= 4096 for _, data in parts)
        assert [head.rpartition("m=")[2] for head, _ in parts] == [*"1" * (len(parts) - 1), "0"]
        assert parts[0][0].startswith("a=T,f=100,")
        coded = "".join(data for _, data in parts)
    else:
        (coded,) = re.findall(r"\x1b\]1337;File=[^:]*:([^\a]*)\a", command)
    with Image.open(io.BytesIO(base64.b64decode(coded))) as picture:
        assert picture.height == 256
        assert picture.width > 512


def test_never_where_stdout_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITTY_WINDOW_ID", "1")
    monkeypatch.setenv("COLUMNS", "200")
    consoles.stdout.cache_clear()
    try:
        assert not terminal.can_show()
    finally:
        consoles.stdout.cache_clear()
