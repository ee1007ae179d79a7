"""Reporting guidelines, item by item, with what is known filled in.

The items are named in our words; the guidelines say what belongs under each. The numbers
agree with item-by-item renderings by third parties, one of CLAIM and two of TRIPOD+AI, the second
of which was read in part; the articles themselves were not at hand.

References
----------
CLAIM, 2024 update: Tejani et al. 2024, doi:10.1148/ryai.240300.
TRIPOD+AI: Collins et al. 2024, doi:10.1136/bmj-2023-078378
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OPEN = "not known to medcli: fill in"

# Number, topic, and the keys of what medcli may know about it.
_Items = Sequence[tuple[str, str, tuple[str, ...]]]

CLAIM: _Items = (
    ("1", "Title names AI and its kind", ("technology",)),
    ("2", "Structured abstract", ()),
    ("3", "Background, intended use and role", ("use",)),
    ("4", "Aims and hypotheses", ()),
    ("5", "Prospective or retrospective", ()),
    ("6", "Goal of the study", ()),
    ("7", "Data sources", ("source",)),
    ("8", "Inclusion and exclusion", ("dropped",)),
    ("9", "Preprocessing", ("preprocessing",)),
    ("10", "Choice of subsets of the data", ("slices",)),
    ("11", "De-identification", ()),
    ("12", "Missing data", ("missing",)),
    ("13", "Image acquisition", ()),
    ("14", "How the reference standard was obtained", ("labels",)),
    ("15", "Why this reference standard", ()),
    ("16", "Who annotated", ()),
    ("17", "Annotation of the test set", ()),
    ("18", "Variability between and within annotators", ()),
    ("19", "How data were put into parts", ("partition",)),
    ("20", "Level at which the parts are disjoint", ("disjoint",)),
    ("21", "Sample size, intended", ()),
    ("22", "The model in detail", ("model",)),
    ("23", "Software", ("software",)),
    ("24", "Initial parameters", ("initial",)),
    ("25", "Training", ("training",)),
    ("26", "How the final model was chosen", ("selection",)),
    ("27", "Ensembles", ("ensemble",)),
    ("28", "Performance metrics", ("metrics",)),
    ("29", "Uncertainty and significance", ("uncertainty",)),
    ("30", "Robustness and sensitivity analysis", ("robustness",)),
    ("31", "Explainability", ()),
    ("32", "Evaluation on internal data", ("internal",)),
    ("33", "Testing on external data", ("external",)),
    ("34", "Registration of the trial", ()),
    ("35", "Patients and examinations included, excluded", ("flow",)),
    ("36", "Characteristics in each part", ("characteristics",)),
    ("37", "Performance with uncertainty", ("performance",)),
    ("38", "Diagnostic performance and its precision", ("operating",)),
    ("39", "Failure analysis", ("failures",)),
    ("40", "Limitations", ("limits",)),
    ("41", "Implications for practice", ()),
    ("42", "Protocol and technical details", ("details",)),
    ("43", "Availability of software, model, data", ("availability",)),
    ("44", "Funding and the role of funders", ()),
)

TRIPOD_AI: _Items = (
    ("1", "Title", ()),
    ("2", "Abstract", ()),
    ("3a", "Healthcare context", ()),
    ("3b", "Target population and purpose", ("use",)),
    ("3c", "Known health inequalities", ()),
    ("4", "Objectives", ()),
    ("5a", "Sources of data", ("source",)),
    ("5b", "Dates of the data", ()),
    ("6a", "Setting", ()),
    ("6b", "Eligibility", ("dropped",)),
    ("6c", "Treatments", ()),
    ("7", "Data preparation", ("preprocessing",)),
    ("8a", "Outcome and its assessment", ("labels",)),
    ("8b", "Who assessed a subjective outcome", ()),
    ("8c", "Blinding of the assessment", ()),
    ("9a", "Choice of predictors", ("predictors",)),
    ("9b", "Predictors and their measurement", ("preprocessing",)),
    ("9c", "Who assessed subjective predictors", ()),
    ("10", "Sample size", ("flow",)),
    ("11", "Missing data", ("missing",)),
    ("12a", "How the data were used", ("partition",)),
    ("12b", "How predictors were handled", ("preprocessing",)),
    ("12c", "Model, building, tuning, internal validation", ("model", "training", "selection")),
    ("12d", "Heterogeneity between clusters", ("sites",)),
    ("12e", "Measures and plots of performance", ("metrics", "uncertainty")),
    ("12f", "Updating of the model", ()),
    ("12g", "How predictions were computed for evaluation", ("prediction",)),
    ("13", "Class imbalance", ("imbalance",)),
    ("14", "Fairness", ()),
    ("15", "Output of the model and thresholds", ("output", "operating_rule")),
    ("16", "Differences between training and evaluation data", ("external",)),
    ("17", "Ethical approval", ()),
    ("18a", "Funding", ()),
    ("18b", "Conflicts of interest", ()),
    ("18c", "Protocol", ()),
    ("18d", "Registration", ()),
    ("18e", "Availability of data", ()),
    ("18f", "Availability of code", ("software",)),
    ("19", "Involvement of patients and the public", ()),
    ("20a", "Flow of participants", ("flow",)),
    ("20b", "Characteristics of participants", ("characteristics",)),
    ("20c", "Comparison with the development data", ()),
    ("21", "Participants and outcomes in each analysis", ("flow",)),
    ("22", "The full model", ("availability",)),
    ("23a", "Performance with intervals", ("performance", "operating")),
    ("23b", "Heterogeneity of performance", ("sites",)),
    ("24", "Results of updating", ()),
    ("25", "Interpretation", ()),
    ("26", "Limitations", ("limits",)),
    ("27a", "Input of poor quality or absent", ("poor_input",)),
    ("27b", "User's part and expertise", ()),
    ("27c", "Next steps", ()),
)


@dataclass(frozen=True, slots=True)
class ChecklistRow:
    """One item; `known` is None where it is left to the author."""

    number: str
    topic: str
    known: str | None


@dataclass(frozen=True, slots=True)
class Checklist:
    """A guideline with its rows, and how many of them have something filled in."""

    name: str
    rows: tuple[ChecklistRow, ...]

    @property
    def filled(self) -> int:
        """Items about which something is known."""
        return sum(row.known is not None for row in self.rows)


def checklists(known: Mapping[str, str | None]) -> tuple[Checklist, ...]:
    """CLAIM and TRIPOD+AI, each item with what `known` says under its keys."""
    return (
        Checklist("CLAIM 2024", _rows(CLAIM, known)),
        Checklist("TRIPOD+AI", _rows(TRIPOD_AI, known)),
    )


def _rows(items: _Items, known: Mapping[str, str | None]) -> tuple[ChecklistRow, ...]:
    rows = []
    for number, topic, keys in items:
        said = [text for key in keys if (text := known.get(key))]
        rows.append(ChecklistRow(number, topic, " ".join(said) or None))
    return tuple(rows)
