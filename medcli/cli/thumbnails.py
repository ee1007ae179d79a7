"""Pictures in a terminal: two pixels a cell, in its foreground and background colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

    from medcli.retrieval.gallery import Gallery
    from medcli.workflows.searching import Answer

CELLS = 18  # columns of a picture
GAP = 2
_FEWEST_COLUMNS = 60
_COLOURS = ("256", "truecolor")


def can_show(asked: bool | None) -> bool:
    """Whether pictures go to stdout: never into a file or pipe, nor where colours lack.

    Parameters
    ----------
    asked : what the user wants; None: what the terminal can
    """
    from medcli.cli.console import stdout

    console = stdout()
    if asked is False or not console.is_terminal:
        return False
    return console.color_system in _COLOURS and console.width >= _FEWEST_COLUMNS


def show_pictures(gallery: Gallery, answer: Answer) -> None:
    """The query and as many of the first hits as fit, side by side."""
    from medcli.cli.console import stdout

    console = stdout()
    most = (console.width + GAP) // (CELLS + GAP) - 1
    shown = [("query", answer.picture)]
    for hit in answer.result.hits[:most]:
        shown.append((f"#{hit.rank}", gallery.thumbnail(hit.id, hit.slice)))
    drawn = [(name, picture_lines(picture)) for name, picture in shown if picture]
    if not drawn:
        return
    height = max(len(lines) for _, lines in drawn)
    gap = " " * GAP
    console.print(gap.join(f"{name:<{CELLS}}" for name, _ in drawn), style="dim", no_wrap=True)
    for row in range(height):
        line = [lines[row] if row < len(lines) else _blank() for _, lines in drawn]
        console.print(_joined(line, gap), no_wrap=True)


def picture_lines(picture: bytes) -> list[Text]:
    """A JPEG or PNG as lines of half-blocks, `CELLS` wide."""
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    from medcli.report.pictures import fit
    from medcli.workflows.picturing import pixels_of

    pixels = fit(pixels_of(picture), CELLS, enlarge=True)
    if pixels.ndim == 2:
        pixels = pixels[..., None].repeat(3, axis=2)
    rows, columns = pixels.shape[:2]
    lines = []
    for top in range(0, rows, 2):
        line = Text()
        for column in range(columns):
            upper = Color.from_rgb(*pixels[top, column].tolist())
            below = pixels[top + 1, column].tolist() if top + 1 < rows else None
            lower = None if below is None else Color.from_rgb(*below)
            line.append("▀", Style(color=upper, bgcolor=lower))
        line.append(" " * (CELLS - columns))
        lines.append(line)
    return lines


def _blank() -> Text:
    from rich.text import Text

    return Text(" " * CELLS)


def _joined(parts: list[Text], gap: str) -> Text:
    from rich.text import Text

    return Text(gap).join(parts)
