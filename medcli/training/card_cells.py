"""What the cells of a model card hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def split_row(row: Mapping[str, Any]) -> str:
    """A line of the table of the parts."""
    per_class = ", ".join(f"{name} {count}" for name, count in row["per_class"].items())
    return f"| {row['part']} | {row['patients']} | {row['scans']} | {per_class} |"


def of(metrics: Mapping[str, Any], name: str) -> str:
    """A metric with its interval, where it has one."""
    return value(metrics[name], metrics.get(f"{name}_ci"))


def value(number: float | None, bounds: Any = None) -> str:
    """A number, its interval behind it; a dash where it is undefined."""
    return "–" if number is None else f"{number:.3f}{interval(bounds)}"


def interval(bounds: Any) -> str:
    """Two bounds in brackets; nothing where there are none."""
    return "" if bounds is None else f" ({bounds[0]:.3f}–{bounds[1]:.3f})"


def percent(share: float | None) -> str:
    """A share in percent."""
    return "–" if share is None else f"{share:.1%}"
