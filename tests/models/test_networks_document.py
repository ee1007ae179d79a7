"""docs/networks.md says what is registered, and its numbers are those of the networks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from medcli.models.registry import (
    AGGREGATORS,
    ARCHITECTURES,
    BACKBONES,
    IMAGENET,
    REGIONS,
    VOLUMES,
    resolve,
)

pytestmark = pytest.mark.usefixtures("one_thread")
TEXT = (Path(__file__).parents[2] / "docs" / "networks.md").read_text(encoding="utf-8")
ROWS = {
    match[1]: [cell.strip() for cell in match[2].split("|")]
    for match in re.finditer(r"^\| `(\w+)` \|(.+)\|$", TEXT, re.MULTILINE)
}


def test_every_network_is_listed_and_no_other() -> None:
    assert set(ROWS) == {*ARCHITECTURES, *AGGREGATORS}


@pytest.mark.parametrize("name", BACKBONES)
def test_size_and_arithmetic_of_a_backbone_are_as_told(name: str) -> None:
    backbone = resolve(BACKBONES, "architecture", name)(1, 64).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        backbone(torch.zeros(1, 1, 64, 64))
    multiplications = counter.get_total_flops() / 2
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    assert ROWS[name][:2] == [
        f"{parameters / 1e6:.1f} M",
        f"{max(0.01, multiplications / 1e9):.2f}",
    ]
    assert f"{parameters / 1e6:.1f} M parameters" in (
        resolve(BACKBONES, "architecture", name).__doc__ or ""
    )


@pytest.mark.parametrize("name", VOLUMES)
def test_size_and_arithmetic_of_a_3d_network_are_as_told(name: str) -> None:
    backbone = resolve(VOLUMES, "architecture", name)(1, 64).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        backbone(torch.zeros(1, 1, 16, 64, 64), torch.ones(1, 16, dtype=torch.bool))
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    told = [f"{parameters / 1e6:.1f} M", f"{counter.get_total_flops() / 2e9:.2f}"]
    assert ROWS[name][:2] == told
    assert f"{told[0]} parameters" in (resolve(VOLUMES, "architecture", name).__doc__ or "")


@pytest.mark.parametrize("name", REGIONS)
def test_size_and_arithmetic_of_a_region_network_are_as_told(name: str) -> None:
    backbone = resolve(REGIONS, "architecture", name)(1, 64).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        backbone(torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32))
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    told = [f"{parameters / 1e6:.2f} M", f"{counter.get_total_flops() / 2e9:.3f}"]
    assert ROWS[name][:2] == told
    assert f"{told[0]} parameters" in (resolve(REGIONS, "architecture", name).__doc__ or "")


@pytest.mark.parametrize("name", AGGREGATORS)
def test_the_size_of_an_aggregator_is_as_told(name: str) -> None:
    features = 2 * resolve(BACKBONES, "architecture", "resnet18_half")(1, 64).num_features
    layer = resolve(AGGREGATORS, "aggregator", name)(features)
    parameters = sum(parameter.numel() for parameter in layer.parameters())
    assert ROWS[name][0] == f"{parameters / 1e6:.2f} M"


def test_the_networks_with_imagenet_weights_are_named() -> None:
    sentence = TEXT.partition("takes torchvision's, for ")[2].partition(". They")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == set(IMAGENET) <= set(BACKBONES)
