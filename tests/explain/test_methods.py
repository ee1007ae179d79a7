"""Heat maps of a network that has learnt to look at a corner, and against arithmetic."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from medcli.config import ModelConfig, PreprocessConfig, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.errors import UsageError
from medcli.explain.gradients import gradcam, gradcam_plus_plus
from medcli.explain.hiding import occlusion
from medcli.explain.likeness import likeness
from medcli.explain.methods import METHODS
from medcli.explain.reversal import deconvolution
from medcli.explain.subject import Subject, telling
from medcli.explain.weighing import attention
from medcli.models.registry import resolve
from medcli.models.scan_model import ScanModel, build_model
from medcli.training.loop import fit

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = 32
Method = Callable[[Subject], Tensor]
PLACES = [gradcam, gradcam_plus_plus, deconvolution, occlusion]


def stacks(seed: int = 0) -> ScanArrays:
    """Twelve scans of noise; in class 1 one slice, the second, has a bright corner."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 80, (36, 1, SIZE, SIZE)).astype(np.uint8)
    labels = np.arange(12) % 2
    for scan in np.flatnonzero(labels):
        images[3 * scan + 1, :, :10, :10] += 150
    return ScanArrays(images, np.full(12, 3), labels)


@pytest.fixture(scope="module")
def model() -> ScanModel:
    """A small network that tells the classes apart."""
    torch.manual_seed(0)
    built = build_model(ModelConfig(arch="cnn_lrn", embedding_dim=16, dropout=0.0), 1, SIZE, 2)
    settings = PreprocessConfig(size=SIZE, mean=(0.2,), std=(0.2,))
    config = TrainConfig(epochs=25, patience=25, augmentation="none", batch_slices=12, ema=0.9)
    return fit(built, stacks(), stacks(1), settings, config, device=torch.device("cpu")).model


def subject(model: ScanModel) -> Subject:
    """A scan of class 1 that training never saw, and its class."""
    images = torch.from_numpy(stacks(2).images[3:6]).float() / 255
    return Subject(model, (images - 0.2) / 0.2, 1)


@pytest.mark.parametrize("method", PLACES)
def test_the_corner_that_makes_the_class_is_the_hottest(model: ScanModel, method: Method) -> None:
    maps = method(subject(model))
    assert maps.min() >= 0
    half = maps.shape[1] // 2
    corner = maps[1, :half, :half].mean()
    assert corner > 2 * maps.mean()
    assert maps.sum(dim=(1, 2)).argmax() == 1


@pytest.mark.parametrize("method", PLACES)
def test_another_network_gives_another_map(model: ScanModel, method: Method) -> None:
    """The sanity check of Adebayo et al., NeurIPS 2018: weights at random, the last first."""
    torch.manual_seed(1)
    other = copy.deepcopy(model)
    for module in other.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    own, random = (method(subject(each)).flatten().numpy() for each in (model, other))
    assert not np.allclose(own, random)
    if random.any():
        assert abs(np.corrcoef(own, random)[0, 1]) < 0.8


def test_gradcam_by_differences(model: ScanModel) -> None:
    """The mean gradient of a channel is how the logit moves when the channel is lifted."""
    asked = subject(model)
    feature_map, _ = telling(asked)

    def logit(maps: Tensor) -> float:
        pooled = torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)
        features = model.encode(asked.images)._replace(learnt=pooled)
        with torch.no_grad():
            return float(asked.logit(model.aggregate_ragged(features, [3])))

    step, fields = 1e-2, feature_map[0, 0].numel()
    expected = torch.zeros(feature_map.shape[0], *feature_map.shape[2:])
    for slice_number in range(3):
        for channel in range(0, feature_map.shape[1]):
            lifted, lowered = feature_map.clone(), feature_map.clone()
            lifted[slice_number, channel] += step
            lowered[slice_number, channel] -= step
            weight = (logit(lifted) - logit(lowered)) / (2 * step) / fields
            expected[slice_number] += weight * feature_map[slice_number, channel]
    found = gradcam(asked)
    torch.testing.assert_close(found, expected.relu(), atol=2e-3 * float(found.max()), rtol=0.05)


def test_occlusion_of_one_patch_by_hand(model: ScanModel) -> None:
    asked = subject(model)
    found = occlusion(asked)
    hidden = asked.images.clone()
    hidden[1, :, :4, :4] = 0  # the corner field is covered by this patch alone
    with torch.no_grad():
        fall = asked.logit(asked.output()) - asked.logit(asked.output(hidden))
    torch.testing.assert_close(found[1, 0, 0], fall.relu(), atol=1e-4, rtol=1e-4)


def test_attention_is_the_one_of_the_model(model: ScanModel) -> None:
    asked = subject(model)
    weights = attention(asked)
    assert weights.shape == (3, 1, 1)
    torch.testing.assert_close(weights.sum(), torch.ones(()))
    torch.testing.assert_close(weights[:, 0, 0], asked.output().attention[0])


def test_a_method_that_a_model_cannot_give_says_which_can() -> None:
    images = torch.randn(2, 1, SIZE, SIZE)
    modern = build_model(ModelConfig(arch="mobilenet_v3_small"), 1, SIZE, 2).eval()
    with pytest.raises(UsageError, match="backwards") as error:
        deconvolution(Subject(modern, images, 0))
    assert "gradcam" in error.value.hint
    plain = build_model(ModelConfig(arch="cnn_lrn", aggregator="mean"), 1, SIZE, 2).eval()
    with pytest.raises(UsageError, match="alike"):
        attention(Subject(plain, images, 0))
    with pytest.raises(UsageError, match="has one"):
        attention(Subject(plain, images[:1], 0))
    linear = build_model(ModelConfig(arch="perceptron"), 1, SIZE, 2).eval()
    with pytest.raises(UsageError, match="nothing of where") as error:
        gradcam(Subject(linear, images, 0))
    assert "occlusion" in error.value.hint
    assert occlusion(Subject(linear, images, 0)).isfinite().all()


def test_a_3d_network_is_explained_over_its_own_slices() -> None:
    torch.manual_seed(0)
    volume = build_model(ModelConfig(arch="r3d_18_half", aggregator="none"), 1, SIZE, 2).eval()
    maps = gradcam(Subject(volume, torch.randn(9, 1, SIZE, SIZE), 1))
    assert maps.shape == (2, 2, 2)
    assert maps.isfinite().all()


def test_every_method_has_its_function() -> None:
    assert all(callable(resolve(METHODS, "method", name)) for name in METHODS)


def test_the_places_of_a_likeness_add_up_to_the_cosine(model: ScanModel) -> None:
    """With the bias of the projection, which no place has."""
    images = (torch.from_numpy(stacks(2).images[3:6]).float() / 255 - 0.2) / 0.2
    shares = likeness(model, images[0], images[1])
    with torch.no_grad():
        features = model.aggregator.single(model.encode(images[:2]).learnt[None])[0]
        projected = model.projection(features)
        units = model.project(features)
    for own, share in enumerate(shares):
        bias = model.projection.bias @ units[1 - own] / projected[own].norm()
        torch.testing.assert_close(share.sum() + bias, units[0] @ units[1], atol=1e-4, rtol=1e-4)


def test_two_slices_with_the_corner_are_alike_in_the_corner(model: ScanModel) -> None:
    images = (torch.from_numpy(stacks(2).images).float() / 255 - 0.2) / 0.2
    for shares in likeness(model, images[4], images[10]):  # the second slices of class 1
        positive = shares.relu()
        half = positive.shape[0] // 2
        assert positive[:half, :half].mean() > 1.5 * positive.mean()


def test_a_3d_network_has_no_slices_to_compare() -> None:
    volume = build_model(ModelConfig(arch="r3d_18_half", aggregator="none"), 1, SIZE, 2).eval()
    image = torch.zeros(1, SIZE, SIZE)
    with pytest.raises(UsageError, match="whole scans"):
        likeness(volume, image, image)
