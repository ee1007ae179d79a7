"""Weights from elsewhere: torchvision's networks, files, runs; and what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medcli.config import ModelConfig
from medcli.errors import DamagedError, StorageError, UsageError
from medcli.models import weights
from medcli.models.package import WEIGHTS, load_package
from medcli.models.registry import IMAGENET
from medcli.models.scan_model import ScanModel
from medcli.models.weights import find_start, fit_kernel, start_from

pytestmark = pytest.mark.usefixtures("one_thread")


def model_of(
    arch: str, channels: int = 1, size: int = 32, aggregator: str = "attention"
) -> ScanModel:
    torch.manual_seed(7)
    config = ModelConfig(arch=arch, aggregator=aggregator, embedding_dim=8)
    return ScanModel(config, channels, size, num_classes=2).eval()


def torchvisions(arch: str) -> nn.Module:
    """torchvision's network with weights drawn away from their start."""
    torch.manual_seed(0)
    net = torchvision.models.get_model(arch).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return net


def feature_map(net: nn.Module, images: Tensor) -> Tensor:
    """What torchvision's network computes before it pools."""
    if isinstance(net, torchvision.models.ResNet):
        return nn.Sequential(*list(net.children())[:-2])(images)
    found = net.features(images)
    if isinstance(net, torchvision.models.DenseNet):
        return found.relu()
    return net.classifier[0](found) if isinstance(net, torchvision.models.ConvNeXt) else found


@pytest.mark.parametrize("arch", IMAGENET)
@torch.inference_mode()
def test_torchvisions_weights_give_torchvisions_feature_map(arch: str, tmp_path: Path) -> None:
    net = torchvisions(arch)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    model = model_of(arch, channels=3, size=96)
    assert start_from(model, find_start(str(tmp_path / "net.safetensors"), arch)) == ["backbone"]
    images = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(model.backbone(images), feature_map(net, images))


@pytest.mark.parametrize("arch", ["resnet18", "densenet121", "efficientnet_b0", "convnext_tiny"])
@torch.inference_mode()
def test_they_fit_small_grey_pictures_too(arch: str, tmp_path: Path) -> None:
    net = torchvisions(arch)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    model = model_of(arch)
    start_from(model, find_start(str(tmp_path / "net.safetensors"), arch))
    published = [tensor for tensor in net.state_dict().values() if tensor.ndim == 4]
    ours = [tensor for tensor in model.backbone.state_dict().values() if tensor.ndim == 4]
    answer = ours[0].sum(dim=(1, 2, 3))
    torch.testing.assert_close(answer, published[0].sum(dim=(1, 2, 3)), atol=1e-5, rtol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(ours[1:], published[1:], strict=False))


# ---- the first convolution ----


def test_a_grey_kernel_answers_to_a_grey_picture_as_the_colour_kernel() -> None:
    kernel, grey = torch.randn(5, 3, 3, 3), torch.randn(2, 1, 9, 9)
    expected = torch.conv2d(grey.expand(-1, 3, -1, -1), kernel)
    torch.testing.assert_close(torch.conv2d(grey, fit_kernel(kernel, 1, 3)), expected)
    back = fit_kernel(fit_kernel(kernel, 1, 3), 3, 3)
    torch.testing.assert_close(torch.conv2d(grey.expand(-1, 3, -1, -1), back), expected)


def test_a_smaller_kernel_holds_the_weights_of_its_fields() -> None:
    kernel = torch.arange(16.0).view(1, 1, 4, 4)
    assert fit_kernel(kernel, 1, 2).flatten().tolist() == [10, 18, 42, 50]
    uneven = torch.randn(2, 3, 7, 7)
    sums = fit_kernel(uneven, 3, 3).sum(dim=(2, 3))
    torch.testing.assert_close(sums, uneven.sum(dim=(2, 3)))


# ---- runs ----


def test_a_run_gives_backbone_and_aggregator(tiny_run: Path) -> None:
    package = load_package(tiny_run)
    stored = load_file(tiny_run / WEIGHTS)
    model = model_of(package.model.arch)
    start = find_start(str(tiny_run), package.model.arch)
    assert start_from(model, start) == ["backbone", "aggregator"]
    assert package.fingerprint in start.origin
    for name, tensor in model.state_dict().items():
        taken = name.startswith(("backbone.", "aggregator."))
        assert torch.equal(tensor, stored[name]) == taken or tensor.ndim == 0, name


@pytest.mark.parametrize("aggregator", ["mean", "lstm"])
def test_another_aggregator_starts_anew(tiny_run: Path, aggregator: str) -> None:
    arch = load_package(tiny_run).model.arch
    model = model_of(arch, aggregator=aggregator)
    assert start_from(model, find_start(str(tiny_run / WEIGHTS), arch)) == ["backbone"]


def test_a_grey_run_starts_one_on_colour(tiny_run: Path) -> None:
    arch = load_package(tiny_run).model.arch
    assert "backbone" in start_from(model_of(arch, channels=3), find_start(str(tiny_run), arch))


def test_another_architecture_is_named(tiny_run: Path) -> None:
    with pytest.raises(UsageError, match="of resnet18_half, not of densenet121") as caught:
        find_start(str(tiny_run), "densenet121")
    assert "--arch resnet18_half" in caught.value.hint


def test_what_differs_is_named(tiny_run: Path) -> None:
    start = find_start(str(tiny_run / WEIGHTS), "resnet18")
    shapes = r"layers\.0\.weight is \(32, 1, 3, 3\) in place of \(64, 1, 3, 3\), and \d+ more"
    with pytest.raises(UsageError, match=shapes):
        start_from(model_of("resnet18"), start)
    large = find_start(str(tiny_run), "resnet18_half")
    with pytest.raises(UsageError, match=r"layers\.\S+ is missing") as caught:
        start_from(model_of("resnet18_half", size=96), large)
    assert "--size" in caught.value.hint


# ---- files ----


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sick.safetensors"
    save_file({"backbone.a": torch.ones(2), "backbone.b": torch.tensor([1, torch.nan])}, path)
    with pytest.raises(DamagedError, match=r"backbone\.b holds values that are no numbers"):
        find_start(str(path), "resnet18")


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"\xff" * 64])
def test_a_file_of_another_kind_is_refused_unread(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(UsageError, match="not a safetensors file") as caught:
        find_start(str(tmp_path / "net.pth"), "resnet18")
    assert "may run code" in caught.value.hint


def test_names_of_no_known_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"encoder": torch.ones(2)}, path)
    with pytest.raises(UsageError, match="holds no weights of a medcli model"):
        start_from(model_of("cnn_lrn"), find_start(str(path), "cnn_lrn"))
    with pytest.raises(UsageError, match="do not fit resnet18"):
        start_from(model_of("resnet18"), find_start(str(path), "resnet18"))


def test_what_is_not_there_is_told_with_the_forms() -> None:
    with pytest.raises(UsageError, match="no weights 'imagnet'") as caught:
        find_start("imagnet", "resnet18")
    assert "imagenet" in caught.value.hint


# ---- ImageNet ----


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch keeps downloads; there is no network."""

    def refuse(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def kept_name(arch: str) -> str:
    return Path(torchvision.models.get_model_weights(arch).DEFAULT.url).name


@pytest.fixture
def keep(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict[str, Tensor]], None]:
    """Put tensors where the download of an architecture would lie, with its digest."""

    def put(arch: str, tensors: dict[str, Tensor]) -> None:
        name = Path(kept_name(arch))
        torch.save(tensors, hub / name)
        monkeypatch.setattr(weights, "sha256_file", lambda _: name.stem.rpartition("-")[2])

    return put


def test_without_a_network_the_file_and_its_place_are_named(
    hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="cannot be downloaded") as caught:
        find_start("imagenet", "resnet18")
    assert caught.value.exit_status == 2
    assert str(hub / kept_name("resnet18")) in caught.value.hint
    assert capsys.readouterr().out == ""


def test_a_file_that_was_downloaded_before_serves(keep: Callable[..., None]) -> None:
    net = torchvisions("mobilenet_v3_small")
    keep("mobilenet_v3_small", net.state_dict())
    start = find_start("imagenet", "mobilenet_v3_small")
    assert start.origin == "imagenet (MobileNet_V3_Small_Weights.IMAGENET1K_V1)"
    model = model_of("mobilenet_v3_small", channels=3, size=96)
    assert start_from(model, start) == ["backbone"]
    images = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(model.backbone(images), feature_map(net, images))


def test_a_damaged_download_is_named(hub: Path) -> None:
    (hub / kept_name("resnet18")).write_bytes(b"half a file")
    with pytest.raises(DamagedError, match="are damaged") as caught:
        find_start("imagenet", "resnet18")
    assert kept_name("resnet18") in caught.value.hint


def test_a_download_that_came_damaged_is_named(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(*_: object, **__: object) -> None:
        raise RuntimeError('invalid hash value (expected "1", got "2")')

    monkeypatch.setattr(torch.hub, "download_url_to_file", spoil)
    with pytest.raises(DamagedError, match="are damaged"):
        find_start("imagenet", "resnet18")


def test_a_full_disk_is_no_missing_network(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fill)
    with pytest.raises(StorageError, match="No space left"):
        find_start("imagenet", "resnet18")


def test_old_names_of_densenet_are_understood(keep: Callable[..., None]) -> None:
    net = torchvisions("densenet121")
    old = {
        name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): tensor
        for name, tensor in net.state_dict().items()
        if "num_batches_tracked" not in name
    }
    keep("densenet121", old)
    model = model_of("densenet121", channels=3, size=96)
    start_from(model, find_start("imagenet", "densenet121"))
    images = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(model.backbone(images), feature_map(net, images))


def test_an_architecture_without_imagenet_weights_is_told_which_have_them() -> None:
    with pytest.raises(UsageError, match="no ImageNet weights for resnet18_half") as caught:
        find_start("imagenet", "resnet18_half")
    assert "resnet18, resnet50" in caught.value.hint
