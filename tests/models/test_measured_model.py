"""A network with a regression on measures beside it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from medcli.config import ModelConfig
from medcli.layers.measures import MEASURES, measure_scans
from medcli.models.measured_model import SIDE, MeasuredModel
from medcli.models.region_model import measured
from medcli.models.scan_model import build_model

pytestmark = pytest.mark.usefixtures("one_thread")
PLAIN = ModelConfig(arch="cnn_lrn", embedding_dim=8, layout_grid=4, dropout=0.0)
CLASSES, COLUMNS = 5, (1, 3)


def build(size: int = 32) -> MeasuredModel:
    """Of five columns the second and third are measured; the regression says something."""
    torch.manual_seed(0)
    model = build_model(replace(PLAIN, measured_columns=COLUMNS), 1, size, CLASSES)
    assert isinstance(model, MeasuredModel)
    model.regression.scores.fit(torch.rand(50, len(MEASURES)) * 20)
    return model.eval()


def crops(count: int, slices: int, size: int = 32) -> Tensor:
    """(N, S, 1, size, size) discs of several sizes on black, values in 0–1."""
    line = torch.arange(size) - (size - 1) / 2
    radius = torch.linspace(2, size / 4, count * slices).view(count, slices, 1, 1, 1)
    inside = (line[:, None].square() + line.square()).sqrt() <= radius
    return inside * torch.linspace(0.6, 0.9, count * slices).view(count, slices, 1, 1, 1)


@torch.inference_mode()
def test_the_regression_has_a_say_in_its_columns_and_in_nothing_else() -> None:
    model, images, mask = build(), crops(3, 2), torch.ones(3, 2, dtype=torch.bool)
    alone = build_model(PLAIN, 1, 32, CLASSES).eval()
    alone.load_state_dict(model.state_dict(), strict=False)
    with_it, without = model(images, mask), alone(images, mask)
    raw = torch.stack([model.measure(scan) for scan in images])
    told = model.regression(measure_scans(raw, mask))
    difference = with_it.logits - without.logits
    assert torch.allclose(difference[:, slice(*COLUMNS)], told, atol=1e-5)
    assert told.std(dim=0).min() > 0.01
    assert torch.allclose(difference[:, [0, 3, 4]], torch.zeros(3, 3), atol=1e-6)
    for part in ("embedding", "slice_embeddings", "attention"):
        assert torch.equal(getattr(with_it, part), getattr(without, part))


@torch.inference_mode()
def test_what_is_measured_does_not_hang_on_the_standardisation() -> None:
    model, images = build(SIDE), crops(1, 4, SIDE)[0]
    model.get_buffer("pixel_mean").fill_(0.3)
    model.get_buffer("pixel_std").fill_(0.2)
    standardised = (images - 0.3) / 0.2
    assert torch.allclose(model.measure(standardised), measured(images)[0], atol=1e-3)


@torch.inference_mode()
def test_a_crop_measures_the_same_at_any_side_that_the_network_sees() -> None:
    """A disc of the same share of the picture; only its border is drawn anew."""
    small, large = (build(size).measure(crops(1, 1, size)[0]) for size in (64, 96))
    area = [float(raw[0, 0]) for raw in (small, large)]
    assert area[1] == pytest.approx(area[0] * 1.1, rel=0.25)


@torch.inference_mode()
def test_padding_is_no_slice() -> None:
    model, images = build(), crops(1, 3)
    mask = torch.tensor([[True, True, False]])
    padded = images * mask[..., None, None, None]
    assert torch.allclose(
        model(padded, mask).logits, model(images[:, :2], mask[:, :2]).logits, atol=1e-5
    )
