"""Pictures in a terminal: by its own protocol where it has one, else as coloured half-blocks.

Which protocol a terminal speaks is told by its environment, as asking it would mean to read
from the keyboard: `KITTY_WINDOW_ID`, or a `TERM` of kitty or ghostty, says kitty's;
`LC_TERMINAL` or `TERM_PROGRAM` of iTerm2 or WezTerm says iTerm2's. Inside tmux or screen, which
pass neither on, half-blocks are drawn.

References
----------
Terminal graphics protocol, sw.kovidgoyal.net/kitty/graphics-protocol
Inline Images Protocol, iterm2.com/documentation-images.html
"""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medcli.cli.output import note

if TYPE_CHECKING:
    import numpy as np
    from rich.text import Text

CELLS = 22  # columns of a picture
GAP = 2
_FEWEST_COLUMNS = 60
_SIDE = 256  # pixels of a picture that a protocol carries
_CHUNK = 4096  # bytes of one command of kitty's protocol
Protocol = Literal["kitty", "iterm2"]
Show = Annotated[
    bool, typer.Option("--show", help="Also show pictures in the terminal, where it can.")
]


def can_show() -> bool:
    """Whether pictures can go to stdout: never into a file or pipe, nor where colours lack."""
    from medcli.cli.console import stdout

    if not sys.stdout.isatty():
        return False
    console = stdout()
    coloured = console.color_system in ("256", "truecolor") or protocol(os.environ) is not None
    return coloured and console.width >= _FEWEST_COLUMNS


def terminal_shows() -> bool:
    """Whether the terminal can show pictures; says why where it cannot."""
    if not can_show():
        note("--show needs a terminal with 256 colours and 60 columns as standard output")
        return False
    return True


def protocol(environment: Mapping[str, str]) -> Protocol | None:
    """The image protocol of the terminal, None where only half-blocks will do."""
    if "TMUX" in environment or environment.get("TERM", "").startswith(("screen", "tmux")):
        return None
    if "KITTY_WINDOW_ID" in environment or environment.get("TERM") in (
        "xterm-kitty",
        "xterm-ghostty",
    ):
        return "kitty"
    named = {environment.get("LC_TERMINAL"), environment.get("TERM_PROGRAM")}
    return "iterm2" if named & {"iTerm2", "iTerm.app", "WezTerm"} else None


def in_row() -> int:
    """How many pictures stand side by side on this terminal."""
    from medcli.cli.console import stdout

    return max(1, (stdout().width + GAP) // (CELLS + GAP))


def show_pictures(pictures: Sequence[tuple[str, np.ndarray]]) -> None:
    """Named pictures, uint8 (h, w) or (h, w, 3), side by side, in as many rows as it takes."""
    from medcli.cli.console import stdout

    console = stdout()
    most = in_row()
    speaks = protocol(os.environ)
    for start in range(0, len(pictures), most):
        row = pictures[start : start + most]
        names = (" " * GAP).join(f"{_cut(name):<{CELLS}}" for name, _ in row)
        console.print(names.rstrip(), style="dim", no_wrap=True)
        if speaks is None:
            for line in _half_blocks([pixels for _, pixels in row]):
                console.print(line, no_wrap=True)
            continue
        sys.stdout.write(_command(speaks, [pixels for _, pixels in row]) + "\n")
        sys.stdout.flush()


def _cut(name: str) -> str:
    return name if len(name) <= CELLS else f"…{name[1 - CELLS :]}"


def _command(speaks: Protocol, pictures: Sequence[np.ndarray]) -> str:
    """The control sequence that draws the pictures as one."""
    from medcli.report.pictures import encode_png, montage

    gap = round(_SIDE * GAP / CELLS)
    png = encode_png(montage(pictures, len(pictures), side=_SIDE, gap=gap))
    columns = len(pictures) * (CELLS + GAP) - GAP
    coded = base64.b64encode(png).decode("ascii")
    if speaks == "iterm2":
        options = f"inline=1;size={len(png)};width={columns};preserveAspectRatio=1"
        return f"\x1b]1337;File={options}:{coded}\a"
    chunks = [coded[start : start + _CHUNK] for start in range(0, len(coded), _CHUNK)]
    more = [1] * (len(chunks) - 1) + [0]
    heads = [f"a=T,f=100,c={columns},", *[""] * (len(chunks) - 1)]
    return "".join(
        f"\x1b_G{head}m={after};{chunk}\x1b\\"
        for head, after, chunk in zip(heads, more, chunks, strict=True)
    )


def _half_blocks(pictures: Sequence[np.ndarray]) -> Iterator[Text]:
    """Lines of text: two pixels a cell, in its foreground and background colour."""
    from rich.text import Text

    from medcli.report.pictures import fit

    drawn = [_as_colour(fit(pixels, CELLS, enlarge=True)) for pixels in pictures]
    height = max(len(pixels) for pixels in drawn)
    for top in range(0, height, 2):
        yield Text(" " * GAP).join(_line(pixels, top) for pixels in drawn)


def _as_colour(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., None].repeat(3, axis=2) if pixels.ndim == 2 else pixels


def _line(pixels: np.ndarray, top: int) -> Text:
    """Two rows of a picture as one line, `CELLS` wide; blank where it has ended."""
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    line = Text()
    if top < len(pixels):
        for column in range(pixels.shape[1]):
            upper = Color.from_rgb(*pixels[top, column].tolist())
            below = pixels[top + 1, column].tolist() if top + 1 < len(pixels) else None
            lower = None if below is None else Color.from_rgb(*below)
            line.append("▀", Style(color=upper, bgcolor=lower))
    line.append(" " * (CELLS - len(line)))
    return line
