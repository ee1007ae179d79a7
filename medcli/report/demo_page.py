"""The page `medcli demo` ends with: what was done, how well, and what it looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medcli.records import Prediction, SearchResult
from medcli.report.cards import PictureKey, query_cards
from medcli.report.pages import render
from medcli.report.search_page import search_facts


def demo_page(
    results: Sequence[SearchResult],
    *,
    pictures: Mapping[PictureKey, bytes],
    windows: Mapping[PictureKey, str] | None = None,
    model: Mapping[str, Any],
    split: Mapping[str, Mapping[str, int]],
    metrics: Mapping[str, Any],
    timings: Mapping[str, float],
    next_steps: Sequence[tuple[str, str]],
    predictions: Mapping[str, Prediction] | None = None,
    true_labels: Mapping[str, str] | None = None,
    hide_paths: bool = False,
) -> str:
    """One HTML file without external assets or scripts; its data are always synthetic.

    Parameters
    ----------
    results, pictures, model, predictions, true_labels, hide_paths : as for `search_page`
    split : part → {"patients": …, "scans": …}, in the order to show
    metrics : of the test part, as `medcli evaluate` gives them
    timings : step → seconds, in the order to show
    next_steps : (command, what it does)
    """
    return render(
        "demo.html.j2",
        title="medcli demo",
        synthetic=True,
        facts=search_facts(results, model, hide_paths=hide_paths),
        tiles=_tiles(split, metrics, timings),
        split=split,
        totals=_totals(split),
        timings=[(step, duration(seconds)) for step, seconds in timings.items()],
        total_time=duration(sum(timings.values())),
        next_steps=next_steps,
        queries=query_cards(
            results,
            pictures=pictures,
            windows=windows,
            predictions=predictions or {},
            true_labels=true_labels or {},
            hide_paths=hide_paths,
        ),
    )


def duration(seconds: float) -> str:
    """0.84 → "0.8 s"; 102 → "1 min 42 s"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def _totals(split: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {key: sum(part[key] for part in split.values()) for key in ("patients", "scans")}


def _tiles(
    split: Mapping[str, Mapping[str, int]],
    metrics: Mapping[str, Any],
    timings: Mapping[str, float],
) -> list[tuple[str, str, str]]:
    """The numbers at the top: (name, value, what it rests on)."""
    totals = _totals(split)
    return [
        ("Test AUROC", _number(metrics["auroc"]), _interval(metrics["auroc_ci"])),
        ("Test accuracy", _number(metrics["accuracy"]), _interval(metrics["accuracy_ci"])),
        ("Patients", str(totals["patients"]), f"{totals['scans']} scans"),
        ("Time", duration(sum(timings.values())), f"{len(timings)} steps"),
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(bounds: Sequence[float] | None) -> str:
    """A 95 % interval in words."""
    return f"95 % CI {bounds[0]:.3f}–{bounds[1]:.3f}" if bounds else "no interval: too few patients"
