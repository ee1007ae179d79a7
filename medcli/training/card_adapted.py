"""The model card of a package whose statistics were adapted to a new site."""

from __future__ import annotations

from medcli.models.package import ModelPackage
from medcli.training.card_joint import title

_ADAPTED = """\
# {title}

Adapted by medcli {medcli} on {created}. **Research use, not a medical device.**{synthetic}

The statistics of batch normalisation were measured on {scans} unlabelled scans ({slices} slices,
{source}) and take the place of those of the training part. The mean of a channel moved by
{shift:.2f} of its deviations on average. No weight was changed.

| | |
|---|---|
| fingerprint | `{fingerprint}` |
| made from | `{before}`, trained on {trained_on} |
| network | {network} |
| ONNX graph | differs from torch by at most {onnx_difference:.1e} |

## Numbers

None: nothing was measured after the change, and the numbers of `{before}` are not those of this
model. Measure it on labelled scans of the new site, `medcli evaluate MODEL DATA`, beside the old
one: whether it became better is not known before.

## Not refitted

Threshold, calibration and label sets are those that `{before}` got on its own validation part;
they may not fit the new site. What is out of distribution is still held against the scans that
taught the model, so scans of the new site may be flagged. A gallery made with `{before}` refuses
this model: build it again.

The scans should be as mixed as those that the model will see. Where one class is more frequent
among them than in training, the statistics take part of that difference for one of the scanner.
"""


def adapted_card(package: ModelPackage) -> str:
    """The card of a model that was adapted, as Markdown, from what `model.json` holds."""
    provenance, last = package.provenance, package.provenance["adaptations"][-1]
    synthetic = "\n\n**Trained on generated pictures: it says nothing about a patient.**"
    return _ADAPTED.format(
        title=title(package),
        medcli=last["versions"]["medcli"],
        created=package.created[:10],
        synthetic=synthetic if package.synthetic else "",
        scans=last["scans"],
        slices=last["slices"],
        source=last["source"] or "source not named",
        shift=last["shift"],
        fingerprint=package.fingerprint,
        before=last["from"],
        trained_on=provenance.get("source", "data not named"),
        network=package.model.network,
        onnx_difference=last["onnx_difference"],
    )
