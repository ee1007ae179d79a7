"""The page about a model's numbers: curves, tables, mistakes, checklists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medcli.report.checklists import checklists
from medcli.report.figures import Bar, bars_figure
from medcli.report.pages import render
from medcli.report.pictures import data_uri

SHOWN_MISTAKES = 24
_TITLES = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "Positive predictive value",
    "npv": "Negative predictive value",
    "average_precision": "Average precision",
    "accuracy": "Accuracy",
    "ece": "Calibration error (ECE)",
    "brier": "Brier score",
}
_LOOK_LITTLE = ("area", "thumbnail", "histogram")
PARTS = {
    "test": "held-out test part",
    "held-out": "held-out part of the run's own data",
    "val": "validation part, which chose the weights",
    "all": "scans given, all of them",
    "cross-validation": "folds of a cross-validation, each by a model that had not seen it",
}


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure with its title, what it shows in words (for who cannot see it), and a caption."""

    title: str
    svg: str
    alt: str
    caption: str


@dataclass(frozen=True, slots=True)
class Mistake:
    """A scan that was decided wrongly; `patient` is a hash, `number` counts the scans from 1.

    `probability` is that of what was decided; None of findings, whose `flags` say which were
    wrong.
    """

    number: int
    true: str
    decided: str
    probability: float | None
    patient: str | None
    picture: bytes | None = field(repr=False, default=None)
    flags: tuple[str, ...] = ()


def evaluation_page(
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
    metrics: Mapping[str, Any],
    charts: Sequence[Chart],
    split: Sequence[Mapping[str, Any]] = (),
    mistakes: Sequence[Mistake] | None = None,
    no_mistakes: str = "",
    provenance: Sequence[tuple[str, str]] = (),
    known: Mapping[str, str | None] | None = None,
    notes: Sequence[str] = (),
    findings: bool = False,
    synthetic: bool = False,
) -> str:
    """One HTML file without external assets or scripts.

    Parameters
    ----------
    facts, provenance : (name, value) pairs, at the top and at the end
    metrics : as `medcli evaluate` gives them
    split : of the training run: `part`, `patients`, `scans`, `per_class`
    mistakes : None where the pictures are not at hand; `no_mistakes` says why
    known : what the checklists are filled with, by the keys of `medcli.report.checklists`
    notes : what should be read before the numbers
    findings : a scan may have several of the classes, or none
    synthetic : mark the page as made with generated data
    """
    positive = metrics.get("positive")
    return render(
        "evaluation.html.j2",
        title=title,
        synthetic=synthetic,
        facts=facts,
        part=PARTS.get(metrics["split"], metrics["split"]),
        tiles=_tiles(metrics),
        notes=[
            *notes,
            *(warning["message"] for warning in metrics.get("warnings", ())),
            *_close_baselines(metrics),
        ],
        charts=charts,
        baselines=_baseline_rows(metrics),
        baselines_chart=_baselines_chart(metrics),
        numbers=_number_rows(metrics),
        point=metrics.get("operating_point"),
        point_rule=_rule(metrics.get("operating_point")),
        positive=positive,
        findings=findings,
        classes=metrics["classes"],
        confusion=[] if findings else _confusion_rows(metrics),
        per_class=_finding_rows(metrics) if findings else _per_class_rows(metrics),
        per_site=_per_site_rows(metrics),
        label_sets=_label_set_rows(metrics),
        flagged=_percent(metrics.get("out_of_distribution")),
        folds=[_fold_row(row) for row in metrics.get("folds") or ()],
        split=split,
        mistakes=None
        if mistakes is None
        else [_mistake(each) for each in mistakes[:SHOWN_MISTAKES]],
        n_mistakes=len(mistakes or ()),
        n=metrics["n"],
        no_mistakes=no_mistakes,
        checklists=checklists(known or {}),
        provenance=provenance,
    )


def number(value: float | None, bounds: Sequence[float] | None = None) -> str:
    """`0.912 (0.875–0.944)`, or a dash where it is undefined."""
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" ({bounds[0]:.3f}–{bounds[1]:.3f})" if bounds else "")


def _percent(share: float | None) -> str:
    return "not known: the model has no reference" if share is None else f"{share:.1%}"


def _tiles(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The numbers at the top: (name, value, what it rests on)."""
    tiles = [("AUROC", *_tile(metrics, "auroc"))]
    tiles += [(_TITLES[name], *_tile(metrics, name)) for name in ("sensitivity", "specificity")]
    scans = f"{metrics['n']} scans" if metrics["n"] != 1 else "1 scan"
    return [*tiles, ("Patients", str(metrics["n_patients"]), scans)]


def _tile(metrics: Mapping[str, Any], name: str) -> tuple[str, str]:
    bounds = metrics.get(f"{name}_ci")
    told = f"95 % CI {bounds[0]:.3f}–{bounds[1]:.3f}" if bounds else "no interval"
    return number(metrics[name]), told


def _number_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(metric, value, interval), the AUROC with both of its intervals."""
    rows = [("AUROC", number(metrics["auroc"]), _bounds(metrics.get("auroc_ci")))]
    if metrics.get("auroc_ci_delong"):
        rows.append(
            ("AUROC, DeLong", number(metrics["auroc"]), _bounds(metrics["auroc_ci_delong"]))
        )
    for name, title in _TITLES.items():
        rows.append((title, number(metrics.get(name)), _bounds(metrics.get(f"{name}_ci"))))
        if name == "ece" and metrics.get("ece_by_chance") is not None:
            rows.append(("… that chance alone gives", number(metrics["ece_by_chance"]), "–"))
    if "exact" in metrics:
        rows.append(("Every finding right", number(metrics["exact"]), "–"))
    return rows


def _bounds(bounds: Sequence[float] | None) -> str:
    return f"{bounds[0]:.3f}–{bounds[1]:.3f}" if bounds else "–"


def _rule(point: Mapping[str, Any] | None) -> str:
    """How the threshold was chosen, as a part of a sentence."""
    if not point:
        return ""
    if point["rule"] == "sensitivity":
        return f"the highest with a sensitivity of at least {point['wanted']:g}"
    missed = point.get("wanted")
    asked = f"; the wanted sensitivity of {missed:g} was out of reach" if missed else ""
    return f"the largest sum of sensitivity and specificity (Youden){asked}"


def baseline_title(name: str) -> str:
    """`perceptron_pixels` → `perceptron on pixels`."""
    return name.replace("_", " on ", 1)


def _baseline_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name, AUROC, accuracy), the model first."""
    rows = [("the model", metrics)] + [
        (baseline_title(name), each) for name, each in (metrics.get("baselines") or {}).items()
    ]
    return [
        (
            name,
            number(each["auroc"], each.get("auroc_ci")),
            number(each.get("accuracy"), each.get("accuracy_ci")),
        )
        for name, each in rows
    ]


def _close_baselines(metrics: Mapping[str, Any]) -> list[str]:
    """A sentence for each baseline within the model's interval, which looked less closely."""
    lowest = (metrics.get("auroc_ci") or [None])[0]
    close = [
        f"{baseline_title(name)} {number(each['auroc'])}"
        for name, each in (metrics.get("baselines") or {}).items()
        if name in _LOOK_LITTLE and None not in (lowest, each["auroc"]) and each["auroc"] >= lowest
    ]
    if not close:
        return []
    return [
        f"A simple baseline comes within the model’s interval ({', '.join(close)} against "
        f"{number(metrics['auroc'], metrics['auroc_ci'])}): the classes may be told apart by a "
        "mark, an exposure or a size rather than by the finding."
    ]


def _baselines_chart(metrics: Mapping[str, Any]) -> Chart | None:
    """AUROC of the model above those of its baselines; None where there is nothing to compare."""
    baselines = metrics.get("baselines") or {}
    if metrics["auroc"] is None or not baselines:
        return None
    bars = [Bar("the model", metrics["auroc"], metrics.get("auroc_ci"), strong=True)]
    bars += [
        Bar(baseline_title(name), each["auroc"], each.get("auroc_ci"))
        for name, each in baselines.items()
        if each["auroc"] is not None
    ]
    said = "; ".join(f"{bar.name} {number(bar.value, bar.bounds)}" for bar in bars)
    return Chart("", bars_figure("baselines", bars, x_label="AUROC"), f"AUROC: {said}", "")


def _confusion_rows(metrics: Mapping[str, Any]) -> list[tuple[str, list[tuple[int, str]]]]:
    """(true class, [(count, share of the row, 0–100)]) for shading."""
    rows = []
    for name, counts in zip(metrics["classes"], metrics["confusion"], strict=True):
        total = max(1, sum(counts))
        rows.append((name, [(count, f"{60 * count / total:.0f}") for count in counts]))
    return rows


def _per_class_rows(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Class, scans, AUROC with its DeLong interval, and the numbers at the decision."""
    names = ("sensitivity", "specificity", "ppv", "npv", "average_precision")
    return [
        (
            name,
            str(each["n"]),
            number(each["auroc"], each.get("auroc_ci_delong")),
            *(number(each.get(key)) for key in names),
        )
        for name, each in (metrics.get("per_class") or {}).items()
    ]


def _finding_rows(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Finding, scans that have it, AUROC with its bootstrap interval, and the numbers."""
    names = ("sensitivity", "specificity", "ppv", "npv", "average_precision", "threshold", "ece")
    return [
        (
            name,
            str(each["n"]),
            number(each["auroc"], each["auroc_ci"]),
            *(number(each[key]) for key in names),
        )
        for name, each in metrics["per_class"].items()
    ]


def _per_site_rows(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            name,
            str(each["n"]),
            str(each["n_patients"]),
            number(each["auroc"], each["auroc_ci"]),
            number(each["sensitivity"], each.get("sensitivity_ci")),
            number(each["specificity"], each.get("specificity_ci")),
            number(each["ece"]),
        )
        for name, each in (metrics.get("per_site") or {}).items()
    ]


def _label_set_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    sets = metrics.get("label_sets")
    if not sets:
        return []
    rows = [(f"hold the true class (aim {sets['target']:.0%})", _share(sets["coverage"]))]
    if sets["coverage_ci"]:
        rows[0] = (rows[0][0], f"{_share(sets['coverage'])} (95 % CI {_between(sets)})")
    rows += [(f"hold it, of {name}", _share(share)) for name, share in sets["per_class"].items()]
    settled = {"one": "hold one class", "several": "hold several", "none": "hold none"}
    return rows + [(title, _share(sets[key])) for key, title in settled.items()]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _between(sets: Mapping[str, Any]) -> str:
    return "–".join(f"{bound:.1%}" for bound in sets["coverage_ci"])


def _fold_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(row["fold"]),
        str(row["n"]),
        str(row["n_patients"]),
        number(row["auroc"], row["auroc_ci"]),
        *(number(row[name]) for name in ("sensitivity", "specificity", "threshold", "ece")),
    )


def _mistake(mistake: Mistake) -> dict[str, Any]:
    """What the template lays out of one mistake."""
    about = f"scan {mistake.number}: {mistake.true}, taken for {mistake.decided}"
    return {
        "picture": mistake.picture and data_uri(mistake.picture),
        "alt": about,
        "true": mistake.true,
        "decided": mistake.decided,
        "probability": "" if mistake.probability is None else f"{mistake.probability:.3f}",
        "patient": mistake.patient,
        "number": mistake.number,
        "flags": mistake.flags,
    }
