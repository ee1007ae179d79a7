from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from medcli.config import ModelConfig, PreprocessConfig
from medcli.data.arrays import ScanArrays
from medcli.data.sources import load_cases
from medcli.errors import DamagedError, OutputExistsError, UsageError
from medcli.models.package import CARD, HISTORY, SPLITS, WEIGHTS, load_package, seal
from medcli.models.registry import BACKBONES
from medcli.models.scan_model import ScanModel
from medcli.training import adapting
from medcli.training.adapting import (
    LEAST,
    adapt,
    adapt_statistics,
    adaptable,
    batch_norms,
    check_adaptable,
    load_model,
)

pytestmark = pytest.mark.usefixtures("one_thread")
PREPROCESS = PreprocessConfig(size=16, mean=(0.4,), std=(0.2,))


def pictures(count: int, *, low: int = 0, high: int = 256, seed: int = 0) -> ScanArrays:
    images = np.random.default_rng(seed).integers(low, high, (count, 1, 16, 16), dtype=np.uint8)
    return ScanArrays(images, np.ones(count, np.int64), np.zeros(count, np.int64))


def small_model(arch: str = "resnet18_half") -> ScanModel:
    torch.manual_seed(0)
    return ScanModel(ModelConfig(arch=arch, embedding_dim=8), 1, 16, 2).eval()


def first_norm(model: ScanModel) -> nn.Module:
    return batch_norms(model.backbone)[0]


def test_the_first_layer_gets_the_moments_of_the_scans() -> None:
    model, scans = small_model(), pictures(40)
    convolution = next(m for m in model.backbone.modules() if isinstance(m, nn.Conv2d))
    with torch.no_grad():
        inputs = (torch.from_numpy(scans.images).float() / 255 - 0.4) / 0.2
        values = convolution(inputs).transpose(0, 1).flatten(1)
    adapt_statistics(model, scans, PREPROCESS)
    norm = first_norm(model)
    torch.testing.assert_close(norm.running_mean, values.mean(dim=1))
    torch.testing.assert_close(norm.running_var, values.var(dim=1), rtol=1e-4, atol=1e-4)


def test_nothing_but_the_statistics_changes_and_the_mode_stays() -> None:
    model = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moved = adapt_statistics(model, pictures(40, low=100, high=140), PREPROCESS)
    assert moved > 0.01
    for name, tensor in model.state_dict().items():
        statistic = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(tensor, before[name]) != statistic, name
    assert not any(module.training for module in model.modules())
    assert {norm.momentum for norm in batch_norms(model.backbone)} == {0.1}


def test_nothing_of_the_old_statistics_is_left() -> None:
    one, other = small_model(), small_model()
    with torch.no_grad():
        first_norm(one).running_mean.fill_(100.0)  # type: ignore[union-attr,operator]
    for model in (one, other):
        adapt_statistics(model, pictures(200), PREPROCESS)
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_a_flatter_detector_is_taken_back() -> None:
    """Half the contrast about the mean: features come back to those of the old detector."""
    site = pictures(300, low=0, high=100)
    site = replace(site, images=2 * site.images)  # even, so that halves are whole
    shifted = replace(site, images=(site.images * 0.5 + 51).astype(np.uint8))

    @torch.no_grad()
    def features(model: ScanModel, scans: ScanArrays) -> torch.Tensor:
        images = (torch.from_numpy(scans.images[:50]).float() / 255 - 0.4) / 0.2
        return model.encode(images).learnt

    model = small_model()
    adapt_statistics(model, site, PREPROCESS)  # as after training on these scans
    at_home, abroad = features(model, site), features(model, shifted)
    adapt_statistics(model, shifted, PREPROCESS)
    adapted = features(model, shifted)
    assert (adapted - at_home).abs().mean() < 0.02 * (abroad - at_home).abs().mean()


def test_a_seed_repeats_the_statistics() -> None:
    first, again = small_model(), small_model()
    for model in (first, again):
        adapt_statistics(model, pictures(300), PREPROCESS, seed=3)
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_the_networks_that_can_be_adapted_are_those_with_batch_normalisation() -> None:
    expected = {
        name for name in BACKBONES if not name.startswith(("cnn_lrn", "convnext", "perceptron"))
    }
    assert set(adaptable()) == expected


@pytest.mark.parametrize("arch", ["cnn_lrn", "convnext_tiny"])
def test_a_network_without_it_is_named_with_those_that_have_it(arch: str) -> None:
    with pytest.raises(UsageError, match=f"{arch} has no batch normalisation") as caught:
        check_adaptable(small_model(arch), arch)
    assert "resnet18_half" in caught.value.hint
    assert arch not in caught.value.hint


# ---- packages ----


@pytest.fixture
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapting, "LEAST", 2)


@pytest.fixture(scope="module")
def adapted(tiny_run: Path, sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run, adapted to the scans it was made from."""
    output = tmp_path_factory.mktemp("adapted") / "run"
    cases = load_cases([str(sample_folder / "nodule.csv")]).cases
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapting, "LEAST", 2)
        return adapt(load_package(tiny_run), cases, output, source="here/nodule.csv").package.path


def test_the_new_package_says_what_it_is_and_what_was_not_refitted(
    adapted: Path, tiny_run: Path
) -> None:
    old, new = load_package(tiny_run), load_package(adapted)
    told = new.provenance["adaptations"]
    assert [each["from"] for each in told] == [old.fingerprint]
    assert told[0]["source"] == "here/nodule.csv"
    assert set(told[0]["not_refitted"]) == {
        *("threshold", "calibration", "label_sets", "out_of_distribution")
    }
    assert new.fingerprint != old.fingerprint
    assert (new.task, new.calibration, new.preprocess) == (
        *(old.task, old.calibration, old.preprocess),
    )
    assert new.synthetic == old.synthetic
    assert new.provenance["train"] == old.provenance["train"]


def test_the_numbers_of_the_old_model_are_not_those_of_the_new(
    adapted: Path, tiny_run: Path
) -> None:
    old, new = load_package(tiny_run), load_package(adapted)
    assert new.metrics == {"split": None, "auroc": None, "accuracy": None}
    assert not (adapted / HISTORY).exists()
    card = (adapted / CARD).read_text()
    assert "nothing was measured after the change" in card
    assert "Threshold, calibration and label sets are those" in card
    assert old.fingerprint in card
    assert new.fingerprint in card
    assert f"{old.metrics['auroc']:.3f}" not in card


def test_it_still_knows_whom_it_was_trained_on(adapted: Path, tiny_run: Path) -> None:
    assert (adapted / SPLITS).read_bytes() == (tiny_run / SPLITS).read_bytes()
    assert load_package(adapted).patient_salt == load_package(tiny_run).patient_salt


def test_no_weight_was_changed(adapted: Path, tiny_run: Path) -> None:
    before, after = load_file(tiny_run / WEIGHTS), load_file(adapted / WEIGHTS)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(
        name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in changed
    )


def test_adapting_twice_keeps_both_steps(
    adapted: Path, sample_folder: Path, tmp_path: Path, few_are_enough: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(adapting, "export_onnx", lambda model, path, *_: path.write_bytes(b"x"))
    monkeypatch.setattr(adapting, "check_onnx", lambda *_: 0.0)
    cases = load_cases([str(sample_folder / "nodule.csv")]).cases
    twice = adapt(load_package(adapted), cases, tmp_path / "twice").package
    assert len(twice.provenance["adaptations"]) == 2
    assert twice.provenance["adaptations"][1]["from"] == load_package(adapted).fingerprint


def test_the_old_model_is_never_overwritten(tiny_run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_run, tmp_path / "copy"))
    content = (copy / WEIGHTS).read_bytes()
    for output in (copy, tmp_path / "elsewhere" / ".." / "copy"):
        with pytest.raises(OutputExistsError, match="is the model itself"):
            adapt(load_package(copy), [], output, overwrite=True)
    assert (copy / WEIGHTS).read_bytes() == content


def test_too_few_scans_are_refused(tiny_run: Path, sample_folder: Path, tmp_path: Path) -> None:
    cases = load_cases([str(sample_folder / "nodule.csv")]).cases[:2]
    with pytest.raises(UsageError, match="2 scans are too few") as caught:
        adapt(load_package(tiny_run), cases, tmp_path / "new")
    assert f"Give {LEAST} or more" in caught.value.hint
    assert not (tmp_path / "new").exists()


def test_weights_of_another_network_are_damage(
    tiny_run: Path, tmp_path: Path, edit_model: Callable[..., None]
) -> None:
    copy = Path(shutil.copytree(tiny_run, tmp_path / "copy"))
    edit_model(copy, arch="resnet18")
    with pytest.raises(DamagedError, match="not the weights of resnet18"):
        load_model(load_package(copy))


@pytest.fixture
def edit_model() -> Callable[..., None]:
    def edit(folder: Path, **changes: Any) -> None:
        values = json.loads((folder / "model.json").read_text())
        values["model"] |= changes
        (folder / "model.json").write_text(json.dumps(values))
        seal(folder)

    return edit
