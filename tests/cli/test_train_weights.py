"""`medcli train --weights`: what can go wrong, by exit status, before any scan is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

Run = Callable[..., Any]


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("imagnet", "no weights 'imagnet'"),
        ("imagenet", "no ImageNet weights for resnet18_half"),
        ("pickled.pth", "not a safetensors file"),
        ("latest", "no model"),
    ],
)
def test_weights_that_cannot_be_had(medcli: Run, home: Path, weights: str, said: str) -> None:
    Path("pickled.pth").write_bytes(b"\x80\x04K\x01.")
    done = medcli("train", "gone.csv", "--weights", weights)
    assert done.status == 2
    assert said in done.errors[0]
    assert done.out == ""


def test_weights_that_are_no_numbers_are_damage(medcli: Run, home: Path) -> None:
    save_file({"backbone.a": torch.tensor([torch.inf])}, "sick.safetensors")
    done = medcli("train", "gone.csv", "--weights", "sick.safetensors")
    assert done.status == 4
    assert "backbone.a holds values that are no numbers" in done.errors[0]
