"""The model card of a bundled model: whose data, under which licence, before its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medcli.models.package import ModelPackage
from medcli.records import Task
from medcli.training.card import model_card
from medcli.training.card_cells import of, value

USERS = "researchers and engineers, on scans like those below; no clinical setting"
LICENCE = "Apache-2.0, that of medcli; the attribution of the data goes with it"
CONTACT = "the repository of medcli"
_PEOPLE = "see the table of the sources above; else not published with the data"


@dataclass(frozen=True, slots=True)
class Source:
    """A set of scans that a bundled model learnt from.

    Attributes
    ----------
    task : which task it taught
    name, licence, attribution : as whoever made it asks for
    about : who and what is in it, and what the numbers do not cover
    """

    task: str
    name: str
    licence: str
    attribution: str
    about: str


_HEAD = """\
# {name}: a bundled model of medcli

**Research use, not a medical device.** It answers the tasks {tasks}.

## Sources and attribution

{sources}

## Limits first

{limits}

## The files as they are bundled

Kernels and matrices are stored as float16 and computed with as float32. Logits of the graph differ
from torch with the same weights by at most {difference:.1e}. It was made from run
`{origin}`{trained}.
{measured}
"""

_MEASURED = """
Thresholds, calibration and label sets were fixed with these files, on the validation patients of
the run. Measured with them, on the patients that the run had kept apart; 95 % intervals, bootstrap
over patients ({day}). ECE: the calibration error, in brackets what chance alone would give.
The tables further below hold these numbers and more of that day; the baselines there, and what a
router did, are those of the training.

| task | scans | patients | AUROC | accuracy | sensitivity | specificity | ECE |
|---|---|---|---|---|---|---|---|
{rows}
"""


def bundled_facts(name: str, sources: Sequence[Source], origin: ModelPackage) -> dict[str, Any]:
    """What `model.json` says of a bundled model beside its run, under `provenance.bundled`."""
    return {
        "name": name,
        "from": origin.fingerprint,
        "numbers": "float16",
        "users": USERS,
        "licence": LICENCE,
        "contact": CONTACT,
        "people": _PEOPLE,
        "attribution": "; ".join(f"{each.name}: {each.licence}" for each in sources),
        "sources": [asdict(source) for source in sources],
    }


def bundled_card(package: ModelPackage) -> str:
    """The card as Markdown, from what `model.json` holds."""
    told = package.provenance["bundled"]
    sources = [Source(**each) for each in told["sources"]]
    _, _, run_card = model_card(package).partition("\n")
    head = _HEAD.format(
        name=told["name"],
        tasks=", ".join(f"{task.name} ({' · '.join(task.classes)})" for task in package.tasks),
        sources="\n\n".join(_source(each) for each in sources),
        limits="\n".join(f"- {each.task}: {each.about}" for each in sources),
        difference=package.provenance["onnx_difference"],
        origin=told["from"],
        trained=f", {_parts(package)}" if package.provenance.get("split") else "",
        measured=_measured(package),
    )
    return f"{head}\n## The run it was made from\n{_one_deeper(run_card)}"


def _source(source: Source) -> str:
    return f"**{source.task}**: {source.name}. Licence: {source.licence}.\n\n> {source.attribution}"


def _parts(package: ModelPackage) -> str:
    """That parts were made by patient, with what was kept apart."""
    rows = [row for row in package.provenance["split"] if row["part"] == "test"]
    patients, scans = (sum(row[name] for row in rows) for name in ("patients", "scans"))
    if not scans:
        return "whose parts share no patient"
    return f"whose parts share no patient; {scans} scans of {patients} patients taught it nothing"


def _measured(package: ModelPackage) -> str:
    """The table of what was measured with the bundled files themselves."""
    if "measured" not in package.metrics:
        return ""
    each = ((task, package.only(task.name).metrics) for task in package.tasks)
    rows = "\n".join(_row(task, own) for task, own in each)
    return _MEASURED.format(day=package.metrics["measured"], rows=rows)


def _row(task: Task, own: Mapping[str, Any]) -> str:
    names = ("auroc", "accuracy", "sensitivity", "specificity")
    error = f"{value(own['ece'])} ({value(own['ece_by_chance'])})"
    cells = (task.name, own["n"], own["n_patients"], *(of(own, name) for name in names), error)
    return f"| {' | '.join(map(str, cells))} |"


def _one_deeper(markdown: str) -> str:
    """The same with every heading one level lower."""
    lines = markdown.split("\n")
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in lines)
