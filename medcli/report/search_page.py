"""The page of `medcli search --html`: each query and its hits side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from medcli.records import Failure, Prediction, SearchResult
from medcli.report.cards import PictureKey, failure_cards, query_cards
from medcli.report.pages import render


def search_page(
    results: Sequence[SearchResult],
    *,
    pictures: Mapping[PictureKey, bytes],
    windows: Mapping[PictureKey, str] | None = None,
    model: Mapping[str, Any],
    predictions: Mapping[str, Prediction] | None = None,
    true_labels: Mapping[str, str] | None = None,
    failures: Sequence[Failure] = (),
    synthetic: bool = False,
    hide_paths: bool = False,
    stand_ins: Mapping[str, str] | None = None,
    created: datetime | None = None,
) -> str:
    """One HTML file without external assets or scripts.

    Parameters
    ----------
    results : one a query, all from one gallery
    pictures : JPEG or PNG bytes by query path and by (query, id, slice) of a hit; what is
        absent gets a placeholder
    windows : center/width by the same keys, of what was drawn through one
    model : `name` and `task` where known; `fingerprint` where the gallery names none
    predictions, true_labels : by query path; hits with the true label are marked
    failures : inputs that were not searched with
    synthetic : mark the page as made from generated data or with a model trained on it
    hide_paths : name queries by number and hits by id
    stand_ins : what hidden inputs are called, by path
    created : when the search was made
    """
    return render(
        "search.html.j2",
        title="Similar scans",
        synthetic=synthetic,
        facts=search_facts(results, model, hide_paths=hide_paths, created=created),
        queries=query_cards(
            results,
            pictures=pictures,
            windows=windows,
            predictions=predictions or {},
            true_labels=true_labels or {},
            hide_paths=hide_paths,
            stand_ins=stand_ins,
        ),
        failures=failure_cards(failures, hide_paths=hide_paths, stand_ins=stand_ins),
    )


def search_facts(
    results: Sequence[SearchResult],
    model: Mapping[str, Any],
    *,
    hide_paths: bool,
    created: datetime | None = None,
) -> list[tuple[str, str]]:
    """Which gallery in which state answered, through which model: (name, value) pairs."""
    gallery = results[0].gallery if results else {}
    facts = {
        "Gallery": None if hide_paths else gallery.get("path"),
        "Generation": gallery.get("generation"),
        "Model": None if hide_paths else model.get("name"),
        "Task": model.get("task"),
        "Fingerprint": gallery.get("fingerprint") or model.get("fingerprint"),
        "Made": created and created.isoformat(" ", "minutes"),
    }
    return [(name, str(value)) for name, value in facts.items() if value is not None]
