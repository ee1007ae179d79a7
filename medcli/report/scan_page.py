"""The page of `medcli classify --report`: each scan with what is said of it and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from medcli.records import Failure, Prediction, SearchResult
from medcli.report.cards import PictureKey, QueryCard, failure_cards, query_cards
from medcli.report.pages import render, script
from medcli.report.pictures import data_uri
from medcli.report.viewer import PRESETS, ShownSlice, viewer_data


@dataclass(frozen=True, slots=True)
class ScanAnswer:
    """What a page shows of one scan.

    Parameters
    ----------
    facts : (name, value) of the scan itself
    slices : those that are shown, `first` first
    still : JPEG of that slice, for who runs no script
    unit, count : of the scan: "HU" or another, and how many slices it has
    heat_told : what the heat map is of, or why there is none
    readings : sentences on how the probability is to be read
    result : the nearest stored scans, where a gallery was asked
    agrees : whether they agree with the model
    """

    prediction: Prediction
    facts: Sequence[tuple[str, str]]
    slices: Sequence[ShownSlice] = field(repr=False)
    first: int
    still: bytes = field(repr=False)
    unit: str
    count: int
    heat_told: str = ""
    readings: Sequence[str] = ()
    result: SearchResult | None = None
    agrees: bool | None = None


@dataclass(frozen=True, slots=True)
class ScanView:
    """A `ScanAnswer` as the template lays it out."""

    card: QueryCard
    facts: tuple[tuple[str, str], ...]
    readings: tuple[str, ...]
    warnings: tuple[str, ...]
    verdict: str
    still: str
    alt: str
    data: str
    width: int
    height: int
    slices: int
    colour: bool
    low: float
    high: float
    widest: float
    step: float
    presets: Mapping[str, tuple[float, float]]
    has_heat: bool
    heat_told: str
    left_out: str


def scan_page(
    answers: Sequence[ScanAnswer],
    *,
    facts: Sequence[tuple[str, str]],
    pictures: Mapping[PictureKey, bytes] | None = None,
    failures: Sequence[Failure] = (),
    notes: Sequence[str] = (),
    model_card: str = "",
    synthetic: bool = False,
    hide_paths: bool = False,
    stand_ins: Mapping[str, str] | None = None,
    created: datetime | None = None,
) -> str:
    """One HTML file that asks for nothing outside itself.

    Parameters
    ----------
    facts : (name, value) of the model
    pictures : JPEG or PNG bytes of the stored scans, as `query_cards` takes them
    failures : inputs that were not answered
    notes : what holds for all scans
    model_card : Markdown, shown as it is
    hide_paths, stand_ins : as for `query_cards`
    """
    results = [_result(answer) for answer in answers]
    cards = query_cards(
        results,
        pictures=pictures or {},
        predictions={answer.prediction.path: answer.prediction for answer in answers},
        true_labels={},
        hide_paths=hide_paths,
        stand_ins=stand_ins,
    )
    made = [("Made", created.isoformat(" ", "minutes"))] if created else []
    return render(
        "scan.html.j2",
        title="Scan report" if len(answers) == 1 else f"Report on {len(answers)} scans",
        synthetic=synthetic,
        facts=[*facts, *made],
        views=[_view(*pair, hide_paths) for pair in zip(answers, cards, strict=True)],
        failures=failure_cards(failures, hide_paths=hide_paths, stand_ins=stand_ins),
        notes=notes,
        model_card=model_card,
        **script("viewer.js"),
    )


def _result(answer: ScanAnswer) -> SearchResult:
    """The nearest stored scans; none where no gallery was asked."""
    return answer.result or SearchResult(answer.prediction.path, (), {}, {})


def _view(answer: ScanAnswer, card: QueryCard, hide_paths: bool) -> ScanView:
    first = answer.slices[answer.first]
    data, codes = viewer_data(
        answer.slices, unit=answer.unit, first=answer.first, count=answer.count
    )
    height, width = first.values.shape[:2]
    colour = first.values.ndim == 3
    presets = PRESETS if answer.unit == "HU" and not colour else {}
    windows = [*presets.values(), *(_window(each.ends) for each in answer.slices if each.ends)]
    warnings = answer.prediction.warnings
    return ScanView(
        card=card,
        facts=tuple(answer.facts),
        readings=tuple(answer.readings),
        warnings=tuple(each.code if hide_paths else each.message for each in warnings),
        verdict=_verdict(answer),
        still=data_uri(answer.still),
        alt=f"{card.name.text}, slice {first.number}" if answer.count > 1 else card.name.text,
        data=data,
        width=width,
        height=height,
        slices=len(answer.slices),
        colour=colour,
        low=min([codes.low, *(center for center, _ in windows)]),
        high=max([codes.high, *(center for center, _ in windows)]),
        widest=max([codes.high - codes.low, *(width for _, width in windows)]),
        step=codes.step,
        presets=presets,
        has_heat=any(each.heat is not None for each in answer.slices),
        heat_told=answer.heat_told,
        left_out=_left_out(answer),
    )


def _window(ends: tuple[float, float]) -> tuple[float, float]:
    """Center and width of what lies between black and white."""
    return (ends[0] + ends[1]) / 2, ends[1] - ends[0]


def _verdict(answer: ScanAnswer) -> str:
    """Whether the nearest stored scans and the model say the same."""
    if answer.agrees is None:
        return ""
    if answer.agrees:
        return "The most similar stored scans agree with the model."
    return "The most similar stored scans disagree with the model."


def _left_out(answer: ScanAnswer) -> str:
    shown = len(answer.slices)
    if shown == answer.count:
        return ""
    return f"{shown} of {answer.count} slices are in this page, evenly spread, with the hottest."
