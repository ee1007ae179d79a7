"""The page about numbers: every number is there, nothing is asked of another place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from medcli.evaluation.metrics import classification_metrics
from medcli.report.checklists import CLAIM, TRIPOD_AI, checklists
from medcli.report.evaluation_page import Chart, Mistake, evaluation_page


def metrics_of(classes: tuple[str, ...], **more: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    labels = rng.integers(len(classes), size=60)
    probabilities = rng.dirichlet(np.ones(len(classes)), size=60)
    probabilities = (probabilities + np.eye(len(classes))[labels]) / 2
    positive = classes[-1] if len(classes) == 2 else None
    numbers = classification_metrics(
        labels,
        probabilities,
        classes=classes,
        positive=positive,
        patients=[f"p{row // 2}" for row in range(60)],
        sites=["north", "south"] * 30,
    )
    return {"split": "test", **numbers, "baselines": {"thumbnail": {"auroc": 0.6}}} | more


def page_of(metrics: dict[str, Any], **more: Any) -> str:
    charts = [Chart("ROC", "<svg viewBox='0 0 1 1'></svg>", "the curve", "a caption")]
    return evaluation_page(
        title="t", facts=[("Model", "ab12")], metrics=metrics, charts=charts, **more
    )


@pytest.mark.parametrize("classes", [("well", "sick"), ("a", "b", "c")])
def test_numbers_classes_and_sites_stand_on_the_page(
    classes: tuple[str, ...], parse: Callable[[str], Any]
) -> None:
    metrics = metrics_of(classes)
    page = parse(page_of(metrics))
    assert page.external == []
    assert "Research use, not a medical device." in page.text
    low, high = metrics["auroc_ci"]
    assert f"95 % CI {low:.3f}–{high:.3f}" in page.text
    for name in (*classes, "north", "south", "thumbnail"):
        assert name in page.text
    for row in metrics["confusion"]:
        assert " ".join(map(str, row)) in page.text
    for site in metrics["per_site"].values():
        assert f"{site['auroc']:.3f}" in page.text
    assert all(attributes.get("scope") for attributes in page.all("th"))
    assert all(a.get("aria-label") for a in page.all("figure"))


def test_what_is_undefined_is_a_dash_and_said(parse: Callable[[str], Any]) -> None:
    numbers = classification_metrics(
        np.zeros(3, dtype=int), np.full((3, 2), 0.5), classes=["a", "b"], positive="b"
    )
    page = parse(page_of({"split": "all", **numbers, "baselines": {}}))
    assert "only a occurs in the scans evaluated; the AUROC is undefined" in page.text
    assert "AUROC – –" in page.text


def test_mistakes_have_pictures_and_no_names(parse: Callable[[str], Any], jpeg: bytes) -> None:
    mistakes = [
        Mistake(3, "sick", "well", 0.91, "ab12cd34", jpeg, ("uncertain",)),
        Mistake(9, "well", "sick", 0.6, None),
    ]
    page = parse(page_of(metrics_of(("well", "sick")), mistakes=mistakes))
    (picture,) = page.all("img")
    assert picture["alt"] == "scan 3: sick, taken for well"
    assert "ab12cd34" in page.text
    assert "2 of 60 scans were decided wrongly" in page.text
    hidden = parse(page_of(metrics_of(("well", "sick")), no_mistakes="no pictures here"))
    assert "no pictures here" in hidden.text


def test_a_baseline_within_the_interval_is_told(parse: Callable[[str], Any]) -> None:
    close = metrics_of(("well", "sick"), baselines={"thumbnail": {"auroc": 1.0}})
    far = metrics_of(("well", "sick"), baselines={"thumbnail": {"auroc": 0.5}})
    told = [
        "simple baseline comes within" in parse(page_of(metrics)).text for metrics in (close, far)
    ]
    assert told == [True, False]


def test_folds_have_a_table(parse: Callable[[str], Any]) -> None:
    names = (
        "n",
        "n_patients",
        "auroc",
        "auroc_ci",
        "sensitivity",
        "specificity",
        "threshold",
        "ece",
    )
    numbers = metrics_of(("well", "sick"))
    row = {"fold": 1, **{name: numbers[name] for name in (*names, "threshold", "ece")}}
    page = parse(page_of(metrics_of(("well", "sick"), folds=[row], split="cross-validation")))
    assert "learnt from all patients" in page.text


def test_the_checklists_have_all_items_and_leave_open_what_is_not_known() -> None:
    assert [number for number, _, _ in CLAIM] == [str(n) for n in range(1, 45)]
    mains = {number.rstrip("abcdefg") for number, _, _ in TRIPOD_AI}
    assert mains == {str(n) for n in range(1, 28)}
    assert len(TRIPOD_AI) == 52
    claim, tripod = checklists({"source": "Hospital A.", "training": "ADAM."})
    assert claim.filled == 2
    assert [row.number for row in tripod.rows if row.known] == ["5a", "12c"]


def test_every_text_is_escaped(parse: Callable[[str], Any]) -> None:
    html = page_of(metrics_of(("<b>", "</td><script>x</script>")), notes=["<i>"])
    assert parse(html).all("script") == []
    assert "<i>" not in html.split("</style>")[1]
