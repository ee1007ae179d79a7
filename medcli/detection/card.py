"""The model card of a detector."""

from __future__ import annotations

from medcli.models.package import ModelPackage
from medcli.training.card_cells import run_facts, value

_CARD = """\
# {task}: boxes around {classes}

{facts}

## Intended use

Research on pictures like those it was trained on. A box is a candidate that a person looks at; no
box does not mean no lesion. It is not a medical device: no diagnosis, no triage, no decision about
a patient rests on it. Licence of this model and of its data, contact: to be filled in.

## Data

| part | patients | scans | slices | boxes |
|---|---|---|---|---|
{parts}

Slices are resized to {size} × {size} px; anchors of {anchors} px at {ratios} (height by
width) stand {stride} px apart. The second stage judges {proposals} proposals of a slice.

## Numbers on the {part}

A box hits where it overlaps a true one by half (intersection over union); AP50–95 is the mean over
overlaps of 0.5 to 0.95. Intervals: 95 %, bootstrap over patients.

| metric | value |
|---|---|
| AP50 | {ap50} |
| AP50–95 | {ap50_95} |
{recalls}

Measured on {n_images} slices with {n_boxes} boxes. From a score of {threshold:.3f} boxes count by
default; it was chosen on the validation part, where it makes F1 highest. Scores are not calibrated.
"""


def detector_card(package: ModelPackage) -> str:
    """The card as Markdown, from what `model.json` holds."""
    metrics, settings = package.metrics, package.detection
    assert settings is not None
    bounds = metrics["ci"]
    recalls = [
        f"| recall at {limit} false a slice | {value(recall, bounds['recall_at_fppi'][limit])} |"
        for limit, recall in metrics["recall_at_fppi"].items()
    ]
    parts = [
        f"| {row['part']} | {row['patients']} | {row['scans']} | {row['slices']} | {row['boxes']} |"
        for row in package.provenance["split"]
    ]
    return _CARD.format(
        task=package.task.name,
        classes=", ".join(package.task.classes),
        facts=run_facts(package),
        parts="\n".join(parts),
        size=package.preprocess.size,
        anchors=", ".join(f"{each:g}" for each in settings.anchor_sizes),
        ratios=", ".join(f"{each:g}" for each in settings.anchor_ratios),
        stride=settings.stride,
        proposals=settings.proposals,
        part="held-out test part" if metrics["split"] == "test" else "validation part",
        ap50=value(metrics["ap50"], bounds["ap50"]),
        ap50_95=value(metrics["ap50_95"], bounds["ap50_95"]),
        recalls="\n".join(recalls),
        n_images=metrics["n_images"],
        n_boxes=metrics["n_boxes"],
        threshold=package.task.threshold,
    )
