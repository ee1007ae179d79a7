"""Search results → what a page shows of them, so that templates only lay out.

Everything here is plain text; escaping is the template's work. With `hide_paths`
no path, file name or free text that may hold one gets past this module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from medcli.records import Failure, Hit, Prediction, SearchResult
from medcli.report.pictures import data_uri

PictureKey = str | tuple[str, int, int | None]
"""A query's path, or the (query, id, slice) of a hit."""

N_CLASS_COLOURS = 8


@dataclass(frozen=True, slots=True)
class Name:
    """What a scan is called: the last component of its path, and where it lies."""

    text: str
    folder: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """One class and its part of a whole, 0–1; `detail` puts it in words."""

    label: str
    colour: int | None
    share: float
    detail: str


@dataclass(frozen=True, slots=True)
class PredictionCard:
    """What the model says about the query; `flags` are reasons for doubt."""

    label: str
    colour: int | None
    percent: str
    shares: tuple[Share, ...]
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HitCard:
    """One hit; `agrees` compares its label with the query's, None where either is unknown."""

    rank: int
    name: Name
    picture: str | None
    alt: str
    score: str
    percentile: str | None
    label: str | None
    colour: int | None
    agrees: bool | None
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class QueryCard:
    """One query with its hits; `label` is the true one, where known."""

    number: int
    name: Name
    picture: str | None
    alt: str
    facts: tuple[tuple[str, str], ...]
    label: str | None
    colour: int | None
    prediction: PredictionCard | None
    vote: tuple[Share, ...]
    hits: tuple[HitCard, ...]
    contrast: tuple[HitCard, ...]
    no_good_match: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FailureCard:
    """An input that was not searched with, and why."""

    name: Name
    reason: str


def query_cards(
    results: Sequence[SearchResult],
    *,
    pictures: Mapping[PictureKey, bytes],
    windows: Mapping[PictureKey, str] | None = None,
    predictions: Mapping[str, Prediction],
    true_labels: Mapping[str, str],
    hide_paths: bool,
    stand_ins: Mapping[str, str] | None = None,
) -> tuple[QueryCard, ...]:
    """One card a result, in their order, with one colour a class over the whole page.

    Parameters
    ----------
    pictures : JPEG or PNG bytes by query path and by (query, id, slice) of a hit
    windows : center/width by the same keys, of what was drawn through one
    predictions, true_labels : by query path, where known
    hide_paths : name queries by number and hits by id
    stand_ins : what hidden queries are called, by path, as the command has called them
    """
    colours = _class_colours(results, predictions, true_labels)
    return tuple(
        _query_card(
            number,
            result,
            pictures,
            windows or {},
            predictions.get(result.query),
            true_labels.get(result.query),
            colours,
            hide_paths,
            (stand_ins or {}).get(result.query, f"Query {number}"),
        )
        for number, result in enumerate(results, start=1)
    )


def failure_cards(
    failures: Sequence[Failure],
    *,
    hide_paths: bool,
    stand_ins: Mapping[str, str] | None = None,
) -> tuple[FailureCard, ...]:
    """One card an input that failed; with `hide_paths` its reason is the code alone."""
    if hide_paths:
        return tuple(
            FailureCard(Name((stand_ins or {}).get(failure.path, f"Input {number}")), failure.code)
            for number, failure in enumerate(failures, start=1)
        )
    return tuple(
        FailureCard(_name(failure.path), failure.message.removeprefix(f"{failure.path}: "))
        for failure in failures
    )


def _query_card(
    number: int,
    result: SearchResult,
    pictures: Mapping[PictureKey, bytes],
    windows: Mapping[PictureKey, str],
    prediction: Prediction | None,
    label: str | None,
    colours: Mapping[str, int],
    hide_paths: bool,
    stand_in: str,
) -> QueryCard:
    name = Name(stand_in) if hide_paths else _name(result.query)
    told = {
        "Slice": None if result.query_slice is None else str(result.query_slice),
        "Window": windows.get(result.query),
    }
    facts = tuple((key, value) for key, value in told.items() if value)

    def cards(hits: Sequence[Hit]) -> tuple[HitCard, ...]:
        keys = [(result.query, hit.id, hit.slice) for hit in hits]
        return tuple(
            _hit_card(hit, label, pictures.get(key), windows.get(key), colours, hide_paths)
            for hit, key in zip(hits, keys, strict=True)
        )

    return QueryCard(
        number=number,
        name=name,
        picture=_picture(pictures.get(result.query)),
        alt=_alt("Query", name, facts),
        facts=facts,
        label=label,
        colour=_colour(label, colours),
        prediction=_prediction_card(prediction, colours) if prediction else None,
        vote=_vote(result, colours),
        hits=cards(result.hits),
        contrast=cards(result.contrast) if len(result.contrast) > 1 else (),
        no_good_match=bool(result.no_good_match),
        warnings=tuple(w.code if hide_paths else w.message for w in result.warnings),
    )


def _hit_card(
    hit: Hit,
    query_label: str | None,
    picture: bytes | None,
    window: str | None,
    colours: Mapping[str, int],
    hide_paths: bool,
) -> HitCard:
    name = Name(f"Scan {hit.id}") if hide_paths else _name(hit.path)
    file = None if hide_paths or hit.file is None else _name(hit.file).text
    facts = {
        "Modality": hit.modality,
        "Slice": None if hit.slice is None else str(hit.slice),
        "Window": window,
        "Days": None if hit.days is None else f"{hit.days:+d}",
        "File": None if file == name.text else file,
        "Patient": hit.patient and hit.patient[:8],
    }
    known = hit.label is not None and query_label is not None
    stated = tuple((key, value) for key, value in facts.items() if value)
    return HitCard(
        rank=hit.rank,
        name=name,
        picture=_picture(picture),
        alt=_alt(f"Hit {hit.rank}", name, stated),
        score=f"{hit.score:.3f}",
        percentile=None if hit.percentile is None else f"{hit.percentile:.0f}",
        label=hit.label,
        colour=_colour(hit.label, colours),
        agrees=hit.label == query_label if known else None,
        facts=stated,
    )


def _prediction_card(prediction: Prediction, colours: Mapping[str, int]) -> PredictionCard:
    doubts = {
        "Uncertain: more than one class is plausible.": prediction.uncertain,
        "Out of distribution: unlike the training data.": prediction.out_of_distribution,
    }
    return PredictionCard(
        label=prediction.label or "no finding",
        colour=_colour(prediction.label, colours),
        percent="" if prediction.probability is None else percent(prediction.probability),
        shares=tuple(
            Share(label, _colour(label, colours), share, percent(share))
            for label, share in prediction.probabilities.items()
        ),
        flags=(*_reading(prediction), *(doubt for doubt, applies in doubts.items() if applies)),
    )


def _reading(prediction: Prediction) -> Iterator[str]:
    """What the shares are of, where that does not go without saying."""
    if prediction.task_probabilities is not None:
        yield f"Task: {prediction.task}."
    if prediction.labels is not None:
        there = ", ".join(prediction.labels) or "no finding"
        yield f"At or above its threshold: {there}."


def _vote(result: SearchResult, colours: Mapping[str, int]) -> tuple[Share, ...]:
    """The vote, largest share first, in labelled hits and per cent with its interval."""
    n = sum(hit.label is not None for hit in result.hits)
    ordered = sorted(result.vote.items(), key=lambda item: (-item[1], item[0]))
    return tuple(
        Share(label, _colour(label, colours), share, _counted(share, n, result.vote_ci.get(label)))
        for label, share in ordered
    )


def _counted(share: float, n: int, interval: tuple[float, float] | None) -> str:
    """How many of `n`, the share, and its interval."""
    told = f"{round(share * n)} of {n}, {percent(share)}"
    if interval is None:
        return told
    low, high = interval
    return f"{told} ({100 * low:.0f}–{100 * high:.0f} %)"


def percent(share: float) -> str:
    """0.934 → "93 %"; what is neither none nor all is not rounded to it."""
    if 0 < share < 0.01:
        return "< 1 %"
    if 0.99 < share < 1:
        return "> 99 %"
    return f"{100 * share:.0f} %"


def _class_colours(
    results: Sequence[SearchResult],
    predictions: Mapping[str, Prediction],
    true_labels: Mapping[str, str],
) -> dict[str, int]:
    """A colour number for each class that occurs, in the order of names."""
    names = {hit.label for result in results for hit in result.hits if hit.label is not None}
    names.update(*(result.vote for result in results), true_labels.values())
    names.update(*(prediction.probabilities for prediction in predictions.values()))
    return {name: number % N_CLASS_COLOURS for number, name in enumerate(sorted(names))}


def _colour(label: str | None, colours: Mapping[str, int]) -> int | None:
    return None if label is None else colours.get(label)


def _picture(picture: bytes | None) -> str | None:
    return data_uri(picture) if picture else None


def _name(path: str) -> Name:
    """Last component and the folder before it; bytes that are no UTF-8 become "?"."""
    pure = PurePosixPath(path.encode("utf-8", "replace").decode("utf-8"))
    folder = str(pure.parent)
    return Name(pure.name or str(pure), "" if folder == "." else folder, str(pure))


def _alt(role: str, name: Name, facts: Sequence[tuple[str, str]]) -> str:
    """What a reader who cannot see the picture is told."""
    slices = [f"slice {value}" for key, value in facts if key == "Slice"]
    return ", ".join([f"{role}: {name.text}", *slices])
