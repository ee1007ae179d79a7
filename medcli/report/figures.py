"""Curves as SVG inside a page: drawn by Matplotlib, coloured by the page's style sheet.

A figure takes the page's colours, light, dark or printed, because its own stand for CSS
variables. It asks for nothing outside the page and needs no script.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

N_COLOURS = 8
_INK, _SOFT, _LINE = "#010100", "#010101", "#010102"
_VARIABLES = {
    _INK: "var(--ink)",
    _SOFT: "var(--soft)",
    _LINE: "var(--line)",
    **{f"#0102{number:02x}": f"var(--class-{number})" for number in range(N_COLOURS)},
}
_SIZE = (4.3, 4.1)  # inches, as drawn; the page scales it


@dataclass(frozen=True, slots=True)
class Line:
    """One curve. `x` and `y` are (P,) within 0–1; `band` is (2, Q) over `band_x`, (Q,)."""

    name: str
    x: np.ndarray
    y: np.ndarray
    band_x: np.ndarray | None = None
    band: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """A marked place on a curve."""

    name: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A value with its interval; `strong` for the one the others are held against."""

    name: str
    value: float
    bounds: Sequence[float] | None = None
    strong: bool = False


def curves_figure(
    name: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    diagonal: bool = False,
    level: float | None = None,
    point: Point | None = None,
    steps: bool = False,
) -> str:
    """Curves in the unit square as SVG.

    Parameters
    ----------
    name : letters and digits, of this figure alone in its page
    diagonal, level : what chance would reach, drawn behind the curves
    steps : join points by steps instead of lines
    """
    with _figure(name) as drawing:
        axes = _square(drawing.figure, x_label, y_label)
        chance: dict[str, Any] = {
            "color": _SOFT,
            "linewidth": 1,
            "linestyle": (0, (3, 3)),
            "clip_on": False,
        }
        if diagonal:
            axes.plot([0, 1], [0, 1], label="chance", **chance)
        if level is not None:
            axes.plot([0, 1], [level, level], label="chance", **chance)
        for number, line in enumerate(lines):
            colour = _colour(number)
            if line.band is not None and line.band_x is not None:
                band = axes.fill_between(line.band_x, *line.band, color=colour, alpha=0.18)
                band.set(linewidth=0, clip_on=False)
            style = "steps-post" if steps else "default"
            axes.plot(
                *(line.x, line.y),
                color=colour,
                linewidth=2,
                drawstyle=style,
                label=line.name,
                clip_on=False,
            )
        if point is not None:
            _mark(axes, point)
        _legend(axes)
    return drawing.svg


def reliability_figure(
    name: str, predicted: np.ndarray, observed: np.ndarray, bounds: np.ndarray
) -> str:
    """Shares observed over probabilities predicted, with intervals, as SVG.

    Parameters
    ----------
    predicted, observed : (P,) within 0–1
    bounds : (2, P) of `observed`
    """
    with _figure(name) as drawing:
        axes = _square(drawing.figure, "predicted probability", "observed share")
        axes.plot([0, 1], [0, 1], color=_SOFT, linewidth=1, linestyle=(0, (3, 3)), clip_on=False)
        errors = np.clip([observed - bounds[0], bounds[1] - observed], 0, 1)
        axes.errorbar(
            *(predicted, observed, errors),
            color=_colour(0),
            ecolor=_colour(0),
            elinewidth=1.2,
            linewidth=1.5,
            marker="o",
            markersize=5,
            clip_on=False,
        )
    return drawing.svg


def histogram_figure(
    name: str,
    groups: Sequence[tuple[str, np.ndarray]],
    *,
    x_label: str,
    threshold: float | None = None,
    bins: int = 20,
) -> str:
    """How the probabilities, (N,) within 0–1, of each group are spread, as SVG."""
    edges = np.linspace(0, 1, bins + 1)
    with _figure(name) as drawing:
        from matplotlib.ticker import MaxNLocator

        axes = _axes(drawing.figure, x_label, "scans")
        for number, (title, values) in enumerate(groups):
            counts = np.histogram(values, edges)[0]
            axes.stairs(counts, edges, color=_colour(number), linewidth=1.8, label=title)
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        if threshold is not None:
            top = axes.get_ylim()[1]
            axes.plot([threshold] * 2, [0, top], color=_INK, linewidth=1.2, linestyle="--")
            axes.set_ylim(0, top)
            axes.lines[-1].set_label(f"threshold {threshold:.3f}")
        for artist in (*axes.lines, *axes.patches):
            artist.set_clip_on(False)
        _legend(axes)
    return drawing.svg


def bars_figure(name: str, bars: Sequence[Bar], *, x_label: str) -> str:
    """Values one below the other with their intervals, the first on top, as SVG."""
    with _figure(name, (7.2, 0.42 * len(bars) + 0.9)) as drawing:
        axes = _axes(drawing.figure, x_label, "")
        for row, bar in enumerate(bars):
            colour = _colour(0) if bar.strong else _SOFT
            low, high = bar.bounds or (bar.value, bar.value)
            errors = [[max(0.0, bar.value - low)], [max(0.0, high - bar.value)]]
            axes.errorbar(
                *([bar.value], [row]),
                xerr=errors,
                color=colour,
                marker="D" if bar.strong else "o",
                markersize=7,
                elinewidth=2,
                clip_on=False,
            )
        lows = [min(bar.bounds or [bar.value]) for bar in bars]
        axes.set_xlim(min(0.5, np.floor(min(lows) * 10) / 10), 1)
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
    return drawing.svg


class _Drawing:
    """A figure while it is drawn, and its SVG afterwards."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.svg = ""


@contextlib.contextmanager
def _figure(name: str, size: tuple[float, float] = _SIZE) -> Iterator[_Drawing]:
    """An empty figure; its SVG is there when the block has ended."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)  # where its cache lies is no concern of the user's
    try:
        import matplotlib
        from matplotlib.figure import Figure

        settings: dict[Any, Any] = {
            "svg.fonttype": "none",  # text stays text
            "svg.hashsalt": name,
            "text.parse_math": False,  # a class may be called "$a$"
            "font.size": 10,
        }
        with matplotlib.rc_context(settings):
            drawing = _Drawing(Figure(figsize=size, layout="constrained"))
            yield drawing
            stream = io.StringIO()
            nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            drawing.figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
            drawing.svg = _for_page(stream.getvalue(), name)
    finally:
        logger.setLevel(level)


def _for_page(svg: str, name: str) -> str:
    """A file's SVG as a part of a page: no prologue, no ids but its own, the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r'<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg
    )
    used = set(re.findall(r'xlink:href="#([^"]+)"', svg))
    svg = re.sub(
        r' id="([^"]+)"',
        lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "",
        svg,
    )
    svg = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    svg = re.sub(r"font-family: [^;\"]+;?", "", svg)
    for placeholder, variable in _VARIABLES.items():
        svg = svg.replace(placeholder, variable)
    return re.sub(r"\s*\n\s*", " ", svg).strip()


def _colour(number: int) -> str:
    return f"#0102{number % N_COLOURS:02x}"


def _axes(figure: Figure, x_label: str, y_label: str) -> Axes:
    """Axes in the page's colours without a frame on top and right."""
    axes = figure.add_subplot()
    axes.set_xlabel(x_label, color=_INK)
    axes.set_ylabel(y_label, color=_INK)
    axes.tick_params(colors=_SOFT, labelcolor=_INK, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_SOFT)
    axes.grid(color=_LINE, linewidth=0.8, clip_on=False)
    axes.set_axisbelow(True)
    return axes


def _square(figure: Figure, x_label: str, y_label: str) -> Axes:
    axes = _axes(figure, x_label, y_label)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    return axes


def _mark(axes: Axes, point: Point) -> None:
    """The operating point, as a ring in ink."""
    ring: dict[str, Any] = {"color": _INK, "markerfacecolor": "none", "markeredgewidth": 2}
    axes.plot(
        *([point.x], [point.y]),
        marker="o",
        markersize=9,
        linestyle="none",
        label=point.name,
        clip_on=False,
        **ring,
    )


def _legend(axes: Axes) -> None:
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        frameon=False,
        labelcolor=_INK,
        fontsize=9,
        ncols=1,
    )
