"""The contract of a model, held by every backbone and every aggregator."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from medcli.config import NO_AGGREGATOR, ModelConfig
from medcli.models.registry import AGGREGATORS, BACKBONES, REGIONS, VOLUMES, resolve
from medcli.models.scan_model import ScanModel, build_model

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE, CLASSES, DIM, GRID = 32, 3, 8, 4


def build(arch: str, aggregator: str, seed: int = 0) -> ScanModel:
    torch.manual_seed(seed)
    config = ModelConfig(
        arch=arch, aggregator=aggregator, embedding_dim=DIM, layout_grid=GRID, dropout=0.0
    )
    return build_model(config, channels=1, size=SIZE, num_classes=CLASSES)


# Every backbone with the default aggregator, and every aggregator on the smallest backbone.
NETWORKS = [
    *((arch, "attention") for arch in (*BACKBONES, *REGIONS)),
    *((arch, NO_AGGREGATOR) for arch in VOLUMES),
    *(("cnn_lrn", aggregator) for aggregator in AGGREGATORS if aggregator != "attention"),
]


@pytest.fixture(scope="module", params=NETWORKS, ids="-".join)
def names(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Backbone and aggregator."""
    return request.param


@pytest.fixture(scope="module")
def model(names: tuple[str, str]) -> ScanModel:
    """In evaluation mode; shared, so copy it to change it."""
    return build(*names).eval()


def scans(*lengths: int) -> tuple[Tensor, Tensor]:
    """A padded batch of scans with these numbers of slices, and its mask."""
    generator = torch.Generator().manual_seed(sum(lengths))
    images = torch.randn(len(lengths), max(lengths), 1, SIZE, SIZE, generator=generator)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    return images * mask[..., None, None, None], mask


@pytest.mark.parametrize("slices", [1, 7])
@torch.inference_mode()
def test_outputs_have_their_shapes_and_embeddings_unit_length(
    model: ScanModel, slices: int
) -> None:
    output = model(*scans(slices, slices))
    assert output.logits.shape == (2, CLASSES)
    assert output.embedding.shape == (2, DIM + GRID**2)
    assert output.slice_embeddings.shape == (2, slices, DIM + GRID**2)
    assert output.attention.shape == (2, slices)
    assert all(value.dtype == torch.float32 for value in output)
    for vectors in (output.embedding, output.slice_embeddings):
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(vectors.shape[:-1]))


@torch.inference_mode()
def test_a_scan_of_one_slice_has_the_embedding_of_its_slice(model: ScanModel) -> None:
    output = model(*scans(1, 1, 1))
    torch.testing.assert_close(output.slice_embeddings[:, 0], output.embedding)


@torch.inference_mode()
def test_attention_sums_to_one_and_is_zero_on_padding(model: ScanModel) -> None:
    images, mask = scans(1, 4, 7)
    attention = model(images, mask).attention
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(3))
    assert (attention[~mask] == 0).all()
    assert (attention >= 0).all()


@torch.inference_mode()
def test_padding_does_not_change_the_answer(model: ScanModel) -> None:
    images, mask = scans(1, 4, 7)
    padded = model(torch.where(mask[..., None, None, None], images, 5.0), mask)
    for scan, length in enumerate((1, 4, 7)):
        alone = model(images[scan : scan + 1, :length], mask[scan : scan + 1, :length])
        torch.testing.assert_close(padded.logits[scan], alone.logits[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(padded.embedding[scan], alone.embedding[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            padded.slice_embeddings[scan, :length], alone.slice_embeddings[0], atol=1e-5, rtol=1e-4
        )


def test_gradients_reach_every_parameter(model: ScanModel) -> None:
    trained = copy.deepcopy(model).train()
    torch.manual_seed(0)  # blocks that are left out at random
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # blocks that start as the identity pass nothing to their first half
        for parameter in trained.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    output = trained(*scans(3, 7))
    torch.nn.functional.cross_entropy(output.logits, torch.tensor([0, 2])).backward()
    for name, parameter in trained.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@torch.inference_mode()
def test_weights_come_back_whole_from_safetensors(
    model: ScanModel, names: tuple[str, str], tmp_path: Path
) -> None:
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    other = build(*names, seed=1).eval()
    images, mask = scans(2, 3)
    assert not torch.equal(other(images, mask).logits, model(images, mask).logits)
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    for loaded, kept in zip(other(images, mask), model(images, mask), strict=True):
        assert torch.equal(loaded, kept)


@pytest.mark.parametrize(("size", "channels"), [(16, 1), (28, 3), (96, 3)])
@pytest.mark.parametrize("name", BACKBONES)
@torch.inference_mode()
def test_every_backbone_takes_small_and_large_pictures(name: str, size: int, channels: int) -> None:
    backbone = resolve(BACKBONES, "architecture", name)(channels, size).eval()
    feature_map = backbone(torch.randn(1, channels, size, size))
    assert feature_map.shape[:2] == (1, backbone.num_features)
    assert feature_map.isfinite().all()


def test_a_backbone_comes_ready_to_train() -> None:
    for name in BACKBONES:
        backbone = resolve(BACKBONES, "architecture", name)(1, SIZE)
        assert all(module.training for module in backbone.modules()), name
