"""What is wrong with a data set: each scan by itself, and the scans among each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from medcli.codes import ERRORS, FINDINGS, WARNINGS
from medcli.data.advice import ADVICE, LOOK, NOTES
from medcli.data.audit import alike, find_copies, torn
from medcli.data.boxes import unusable_boxes
from medcli.data.findings import NONE, findings_of, names_several
from medcli.data.likeness import Look
from medcli.data.survey import scan_look
from medcli.imaging.batch import read_all
from medcli.imaging.hashing import pixel_sha256
from medcli.records import Case, Failure, Scan, ScanWarning

Group = tuple[int, ...]  # positions of scans that belong together
Level = Literal["error", "warning", "note"]
Found = tuple[str, list[Group], str]  # code, scans, and what is to be added to its meaning

MEANINGS = {**ERRORS, **WARNINGS, **FINDINGS}
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
TINY = 16  # rows or columns
RULE_SHARE = 0.9  # a size that so many scans have is the rule
BLANK_SHARE = 0.001  # of the pixels that may differ in a blank picture
JPEG_NOISE = 2  # grey levels by which compression stirs a blank picture
BOX_UNUSABLE = "box_unusable"
NAMED = 3  # of the scans that belong to one, so many are named in its warning
_SAMPLE = 2**20  # pixels looked at for the background


@dataclass(frozen=True, slots=True)
class CheckedScan:
    """One input: whether it could be read, and what was noticed about it.

    `warnings` are those of the reader and what the check found.
    """

    path: str
    scan_id: str | None
    files: tuple[str, ...]
    status: Literal["ok", "failed", "skipped"]
    warnings: tuple[ScanWarning, ...] = ()
    failure: Failure | None = None

    @property
    def is_good(self) -> bool:
        """Whether it was read and nothing but notes is to be said of it."""
        return self.status == "ok" and all(each.code in NOTES for each in self.warnings)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about the data set, with the scans it concerns.

    Attributes
    ----------
    message : what is so, in plain words
    advice : what to do next
    groups : paths; those of one group belong together, as copies or scans of one patient do
    """

    code: str
    level: Level
    message: str
    advice: str
    groups: tuple[tuple[str, ...], ...]

    @property
    def count(self) -> int:
        """How many scans it concerns."""
        return sum(map(len, self.groups))


@dataclass(frozen=True, slots=True)
class Check:
    """The state of a data set: every input in its order, then what is to be known.

    Attributes
    ----------
    labels : readable scans of each class, or with each finding; unlabelled ones aside
    patients : how many known patients the readable scans come from
    """

    scans: tuple[CheckedScan, ...]
    findings: tuple[Finding, ...]
    labels: Mapping[str, int]
    patients: int

    @property
    def counts(self) -> dict[str, int]:
        """Scans in all, good ones, ones with warnings, failed ones; skipped files beside them."""
        status = Counter(scan.status for scan in self.scans)
        good = sum(scan.is_good for scan in self.scans)
        return {
            "scans": status["ok"] + status["failed"],
            "good": good,
            "warned": status["ok"] - good,
            "failed": status["failed"],
            "skipped": status["skipped"],
        }


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is remembered of an input once its pixels are gone; a failure has no `case`."""

    scan: CheckedScan
    case: Case | None = None
    patient: str | None = field(default=None, repr=False)
    pixels: str | None = None  # hash; None for a constant picture, which is like any other
    look: Look | None = field(default=None, repr=False)
    size: tuple[int, int] | None = None
    photometric: str | None = None
    own: tuple[str, ...] = ()  # codes of findings about the scan by itself


def check_scans(
    cases: Sequence[Case | Failure],
    *,
    on_scan: Callable[[int, int], None] = lambda done, total: None,
    on_failure: Callable[[Failure], None] = lambda failure: None,
) -> Check:
    """Read every scan once and say what is wrong; only a few words of each are kept.

    Parameters
    ----------
    cases : as from `medcli.data.gathering.gather_cases`
    on_scan : called with (done, total)
    on_failure : called with what could not be read, as soon as it is known
    """
    seen: list[_Seen] = []
    for case, scan in read_all(cases):
        seen.append(_look_at(case, scan))
        if isinstance(scan, Failure):
            on_failure(scan)
        on_scan(len(seen), len(cases))
    found = [each for each in _findings(seen) if each[1]]
    scans = _with_findings(seen, found)
    told = [*_failures(seen), *tell([each.scan for each in seen], found), *_reader_warnings(seen)]
    labels = _labels([each.case.label for each in seen if each.case and each.case.label])
    return Check(
        scans=tuple(scans),
        findings=tuple(sorted(told, key=lambda finding: LEVELS.index(finding.level))),
        labels=labels,
        patients=len({each.patient for each in seen} - {None}),
    )


def _labels(labels: Sequence[str]) -> dict[str, int]:
    """How many scans have each label; where labels name several findings, each of these."""
    if names_several(labels):
        labels = [name for label in labels for name in findings_of(label) or (NONE,)]
    return dict(sorted(Counter(labels).items()))


def _look_at(case: Case | Failure, scan: Scan | Failure) -> _Seen:
    """One input, judged by itself."""
    if isinstance(scan, Failure):
        return _Seen(CheckedScan(scan.path, scan.scan_id, scan.files, scan.status, failure=scan))
    assert isinstance(case, Case)
    flat = [bool((image == image[0, 0]).all()) for image in scan.pixels]
    _, rows, columns, _ = scan.pixels.shape
    constant = any(warning.code == "constant" for warning in scan.warnings)
    others = tuple(warning for warning in scan.warnings if warning.code != "constant")
    rules = {
        "constant": constant,
        "blank": not constant and _is_blank(scan),
        "constant_slices": any(flat) and not constant,
        "tiny": min(rows, columns) < TINY,
        "burned_in_text": scan.metadata.get("BurnedInAnnotation") == "YES",
    }
    return _Seen(
        scan=CheckedScan(
            scan.path, scan.scan_id, scan.files, "ok", (*others, *_box_warnings(case, scan))
        ),
        case=case,
        patient=scan.patient_id,
        pixels=None if constant else pixel_sha256(scan),
        look=None if constant else scan_look(scan),
        size=(rows, columns),
        photometric=scan.photometric,
        own=tuple(code for code, applies in rules.items() if applies),
    )


def _box_warnings(case: Case, scan: Scan) -> Iterator[ScanWarning]:
    for what in unusable_boxes(case, scan):
        yield ScanWarning(BOX_UNUSABLE, what)


def _is_blank(scan: Scan) -> bool:
    """Whether hardly a pixel differs from the most common value; large scans are sampled."""
    step = max(1, scan.pixels.size // _SAMPLE) | 1
    sample = scan.pixels.reshape(-1, scan.pixels.shape[3])[::step].astype(np.float32)
    noise = JPEG_NOISE if scan.unit == "display" else 0
    away = np.abs(sample - np.median(sample, axis=0)) > noise
    return bool(away.any(axis=1).mean() < BLANK_SHARE)


def _findings(seen: Sequence[_Seen]) -> Iterator[Found]:
    """Every finding with the groups of scans it concerns, the gravest first."""
    yield from relations(
        identical=alike([each.pixels for each in seen]),
        near=_near(seen),
        patients=[each.patient for each in seen],
        labels=[each.case.label if each.case else None for each in seen],
        splits=[each.case.split if each.case else None for each in seen],
    )
    for code in ("constant", "blank", "constant_slices", "tiny", "burned_in_text"):
        yield code, [(place,) for place, each in enumerate(seen) if code in each.own], ""
    yield from _sizes(seen)
    yield "mixed_photometric", _inverted(seen), ""
    nobody = [place for place, each in enumerate(seen) if each.case and each.patient is None]
    yield "unknown_patient", [(place,) for place in nobody], ""


def relations(
    *,
    identical: Sequence[Group],
    near: Sequence[Group],
    patients: Sequence[str | None],
    labels: Sequence[str | None],
    splits: Sequence[str | None],
) -> Iterator[Found]:
    """What scans have to do with each other: patients and copies in several classes or splits.

    Parameters
    ----------
    identical, near : positions of scans that are one picture
    patients, labels, splits : of each scan, None where unknown
    """
    people = alike(patients)
    strangers = [f"{who}" if who is not None else place for place, who in enumerate(patients)]
    yield "label_conflict", torn(identical, labels), ""
    yield "near_label_conflict", torn(near, labels), ""
    yield "patient_in_two_splits", torn(people, splits), ""
    yield "copy_in_two_splits", torn(identical, splits), ""
    yield "near_copy_in_two_splits", torn(near, splits), ""
    yield "patient_in_two_classes", torn(people, labels), ""
    yield "duplicate", list(identical), ""
    yield "near_duplicate", torn(near, strangers), ""


def _near(seen: Sequence[_Seen]) -> list[Group]:
    """Pairs of scans that look alike and are not identical."""
    places = [place for place, each in enumerate(seen) if each.look is not None]
    pixels = [seen[place].pixels for place in places]
    looks = [look for place in places if (look := seen[place].look) is not None]
    return [(places[one], places[other]) for one, other in find_copies(pixels, looks).near]


def _sizes(seen: Sequence[_Seen]) -> Iterator[Found]:
    """Scans that differ from a size that is the rule; where none is, all of them together."""
    sizes = Counter(each.size for each in seen if each.size is not None)
    if len(sizes) < 2:
        return
    usual, count = sizes.most_common(1)[0]
    if count >= RULE_SHARE * sizes.total():
        odd = [place for place, each in enumerate(seen) if each.size not in (None, usual)]
        yield "odd_size", [(place,) for place in odd], f"{usual[0]}×{usual[1]}"
        return
    ends = " to ".join(f"{rows}×{columns}" for rows, columns in (min(sizes), max(sizes)))
    measured = tuple(place for place, each in enumerate(seen) if each.size is not None)
    yield "many_sizes", [measured], f"{len(sizes)}, from {ends}"


def _inverted(seen: Sequence[_Seen]) -> list[Group]:
    """The scans in MONOCHROME1, where others are in MONOCHROME2."""
    found: defaultdict[str | None, list[Group]] = defaultdict(list)
    for place, each in enumerate(seen):
        found[each.photometric].append((place,))
    return found["MONOCHROME1"] if found["MONOCHROME2"] else []


def _with_findings(seen: Sequence[_Seen], found: Sequence[Found]) -> list[CheckedScan]:
    """The scans, with what was found among their warnings."""
    return add_warnings([each.scan for each in seen], found)


def add_warnings(scans: Sequence[CheckedScan], found: Iterable[Found]) -> list[CheckedScan]:
    """`scans`, with what was found about each among its warnings."""
    more: defaultdict[int, list[ScanWarning]] = defaultdict(list)
    for code, groups, _ in found:
        for group in groups:
            for place in group:
                more[place].append(ScanWarning(code, _about(code, scans, group, place)))
    return [
        replace(scan, warnings=(*scan.warnings, *more[place])) for place, scan in enumerate(scans)
    ]


def _about(code: str, scans: Sequence[CheckedScan], group: Group, place: int) -> str:
    """The meaning of a code, and the first of the other scans in a group."""
    meaning = MEANINGS[code].rstrip(".")
    if len(group) == 1 or code in NOTES:
        return meaning
    named = [scans[other].path for other in group[: NAMED + 1] if other != place][:NAMED]
    more = len(group) - 1 - len(named)
    return f"{meaning}: {', '.join(named)}" + (f" and {more} more" if more else "")


def _finding(code: str, groups: Sequence[tuple[str, ...]], detail: str = "") -> Finding:
    """What a code says of groups of paths."""
    message = MEANINGS[code].rstrip(".") + (f" ({detail})." if detail else ".")
    level: Level = "note" if code in NOTES else "warning"
    return Finding(code, level, message, ADVICE.get(code, LOOK), tuple(groups))


def tell(scans: Sequence[CheckedScan], found: Iterable[Found]) -> list[Finding]:
    """What was found, in its order, by path."""
    return [
        _finding(code, [tuple(scans[place].path for place in group) for group in groups], detail)
        for code, groups, detail in found
    ]


def _reader_warnings(seen: Sequence[_Seen]) -> list[Finding]:
    """What the reader noticed and what boxes lack, by code, the most frequent first."""
    groups: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
    boxes: list[str] = []
    for each in seen:
        boxes += [what.message for what in each.scan.warnings if what.code == BOX_UNUSABLE]
        for code in dict.fromkeys(warning.code for warning in each.scan.warnings):
            groups[code].append((each.scan.path,))
    more = [f"and {len(boxes) - NAMED} more"] if len(boxes) > NAMED else []
    details = {BOX_UNUSABLE: "; ".join([*boxes[:NAMED], *more])}
    return [
        _finding(code, groups[code], details.get(code, ""))
        for code in sorted(groups, key=lambda code: -len(groups[code]))
    ]


def _failures(seen: Sequence[_Seen]) -> list[Finding]:
    """What could not be read, by code and, where a file tells it, by the way out."""
    groups: defaultdict[tuple[str, str, str], list[tuple[str, ...]]] = defaultdict(list)
    for each in seen:
        failure = each.scan.failure
        if failure is not None and failure.status == "failed":
            groups[_words(failure)].append((failure.path,))
    return [
        Finding(code, "error", message, advice, tuple(groups[code, message, advice]))
        for code, message, advice in sorted(groups, key=lambda words: -len(groups[words]))
    ]


def _words(failure: Failure) -> tuple[str, str, str]:
    """Code, message and advice.

    A missing decoder is named by the reader, with the line that installs it.
    """
    code, told = failure.code, failure.message
    if code == "decoder_missing" and ". pip " in told:
        for file in (failure.path, *failure.files):
            told = told.removeprefix(f"{file}: ")
        message, _, install = told.partition(". pip ")
        return code, f"{message[:1].upper()}{message[1:]}.", f"pip {install}"
    return code, MEANINGS[code], ADVICE.get(code, LOOK)
