"""Weights to start from: ImageNet's, those of a file, those of another run.

The backbone is taken over, and the aggregator where it is the same. Projection and head
always start anew. The first convolution is brought to the channels and the kernel that the
new network has (`fit_kernel`); everything else has to fit as it is.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from medcli.errors import DamagedError, StorageError, UsageError
from medcli.layers.layout import overlap
from medcli.models.locate import find_model
from medcli.models.package import WEIGHTS, ModelPackage, load_package, sha256_file
from medcli.models.registry import IMAGENET
from medcli.models.scan_model import ScanModel, build_model

Tensors = Mapping[str, Tensor]
PATIENCE = 30  # seconds without an answer after which a download is given up
_FORMS = "Give imagenet, a .safetensors file, a run folder, a bundled model or 'latest'"


@dataclass(frozen=True, slots=True)
class Start:
    """Weights that were found and read, before it is known whether they fit.

    Attributes
    ----------
    origin : where they come from, without a path: goes into the provenance of a run
    arch : whose weights they are
    tensors : by their names in a `ScanModel`, or in torchvision's network of that name
    package : the run they come from
    """

    origin: str
    arch: str
    tensors: Tensors
    package: ModelPackage | None = None

    def __post_init__(self) -> None:
        for name, tensor in self.tensors.items():
            if not tensor.isfinite().all():
                raise DamagedError(
                    f"{self.origin}: {name} holds values that are no numbers",
                    "Take other weights, or leave --weights out",
                )


def load_model(package: ModelPackage) -> ScanModel:
    """The network of a package with its weights, ready to predict; columns of all its tasks.

    Raises
    ------
    DamagedError : the weights are not those of the network that `model.json` names
    """
    path, settings = package.path / WEIGHTS, package.preprocess
    try:
        tensors = load_file(path)
        width = len(tensors["head.bias"])
        model = build_model(package.model, settings.channels, settings.size, width)
        model.load_state_dict(tensors)
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise DamagedError(
            f"{path}: not the weights of {package.model.arch}",
            "Restore the folder from a backup or train again",
        ) from error
    return model.eval()


def find_start(name: str, arch: str) -> Start:
    """The weights that `name` means, for a backbone of `arch`.

    Parameters
    ----------
    name : "imagenet"; a file of safetensors with the names of a `ScanModel` or of
        torchvision's network; a model as `find_model` knows it

    Raises
    ------
    UsageError : no such weights, another backbone, no network to download over
    DamagedError : they cannot be read, or hold values that are not finite
    """
    if name == "imagenet":
        return _from_imagenet(arch)
    path = Path(name)
    if path.is_file():
        return _from_file(path, arch)
    try:
        package = load_package(find_model(name))
    except UsageError as error:
        if name == "latest" or path.exists():
            raise
        raise UsageError(f"no weights {name!r}", _FORMS) from error
    if package.model.arch != arch:
        raise UsageError(
            f"the weights in {package.path} are those of {package.model.arch}, not of {arch}",
            f"Give --arch {package.model.arch}, or other weights",
        )
    tensors = _read(package.path / WEIGHTS)
    return Start(f"run {package.fingerprint}", arch, tensors, package)


def start_from(model: ScanModel, start: Start) -> list[str]:
    """Copy the weights of `start` into `model`; the names of the parts that took them.

    Raises
    ------
    UsageError : the backbone's weights are not those of this network; says what differs
    """
    start_backbone(model.backbone, start)
    aggregator = _part(start.tensors, "aggregator")
    own = model.aggregator.state_dict() if model.aggregator else {}
    if not own or _shapes(aggregator) != _shapes(own):
        return ["backbone"]
    model.aggregator.load_state_dict(aggregator)
    return ["backbone", "aggregator"]


def start_backbone(backbone: nn.Module, start: Start) -> None:
    """Copy the weights of the backbone alone.

    Raises
    ------
    UsageError : as `start_from`
    """
    given = _part(start.tensors, "backbone") or _named_as_ours(start, backbone)
    _load_backbone(backbone, given, start)


def fit_kernel(kernel: Tensor, channels: int, side: int) -> Tensor:
    """(O, C, k, k) weights of a first convolution → (O, `channels`, `side`, `side`).

    Grey input: the sum over the colours, which answers to a grey picture as before. Colour
    from grey: an equal share each. Another side: every weight goes to the fields that it
    lies in, so that the sum of the kernel, its answer to an even surface, stays.
    """
    if kernel.shape[1] != channels:
        kernel = kernel.sum(dim=1, keepdim=True).expand(-1, channels, -1, -1) / channels
    if kernel.shape[2] != side:
        shares = overlap(kernel.shape[2], side).to(kernel)
        kernel = shares @ kernel @ shares.T
    return kernel.contiguous()


def _load_backbone(backbone: nn.Module, given: dict[str, Tensor], start: Start) -> None:
    own = backbone.state_dict()
    stem = next(name for name, tensor in own.items() if tensor.ndim == 4)
    if stem in given and given[stem].ndim == 4:
        given[stem] = fit_kernel(given[stem].float(), *own[stem].shape[1:3])
    # Old files lack the count of batches, which nothing here reads.
    counts = {n: t for n, t in own.items() if n.endswith("num_batches_tracked")}
    given = counts | given
    if _shapes(given) != _shapes(own):
        raise UsageError(
            f"{start.origin}: the weights do not fit {start.arch}: {_difference(given, own)}",
            "Give the --arch, and a --size of the same kind, that they were trained with",
        )
    backbone.load_state_dict(given)


def _difference(given: Tensors, own: Tensors) -> str:
    """The first tensor that is missing, too many, or of another shape, and how many are."""
    found = [
        *(f"{name} is missing" for name in own if name not in given),
        *(f"{name} is too many" for name in given if name not in own),
        *(
            f"{name} is {tuple(given[name].shape)} in place of {tuple(own[name].shape)}"
            for name in own
            if name in given and given[name].shape != own[name].shape
        ),
    ]
    return found[0] + (f", and {len(found) - 1} more" if len(found) > 1 else "")


def _part(tensors: Tensors, part: str) -> dict[str, Tensor]:
    """The tensors of a part of a `ScanModel`, by their names within it."""
    start = f"{part}."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


def _shapes(tensors: Tensors) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _named_as_ours(start: Start, backbone: nn.Module) -> dict[str, Tensor]:
    """Tensors under torchvision's names, under ours: both networks list them in one order.

    What follows the backbone, torchvision's classifier, is left out.
    """
    own = list(backbone.state_dict())
    if start.arch not in IMAGENET:
        raise UsageError(
            f"{start.origin}: holds no weights of a medcli model",
            "Give the weights.safetensors of a run, or the run folder",
        )
    with torch.device("meta"):
        theirs = list(torchvision.models.get_model(start.arch).state_dict())
    # DenseNet's files write `norm.1` for what the network calls `norm1`.
    tensors = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", name): tensor
        for name, tensor in start.tensors.items()
    }
    pairs = zip(own, theirs, strict=False)  # theirs goes on with the classifier
    return {ours: tensors[their] for ours, their in pairs if their in tensors}


def _from_file(path: Path, arch: str) -> Start:
    return Start(f"{path.name} ({sha256_file(path)[:16]})", arch, _read(path))


def _read(path: Path) -> Tensors:
    """A file of safetensors.

    Raises
    ------
    UsageError : it is none; pickled files are not read, as they may run anything
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UsageError(
            f"{path} is not a safetensors file, or a damaged one",
            "A .pt or .pth file may run code when it is read: convert it with "
            "safetensors.torch.save_file where you trust it",
        ) from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error


def _from_imagenet(arch: str) -> Start:
    """Torchvision's weights, downloaded on their first use."""
    if arch not in IMAGENET:
        raise UsageError(
            f"there are no ImageNet weights for {arch}",
            f"Give --arch one of {', '.join(IMAGENET)}, or leave --weights out",
        )
    weights = torchvision.models.get_model_weights(arch).DEFAULT
    kept = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    damaged = DamagedError(
        f"the ImageNet weights of {arch} are damaged", f"Delete {kept} and run again"
    )
    digest = kept.stem.rpartition("-")[2]  # its first digits are in the name
    if kept.exists() and not sha256_file(kept).startswith(digest):
        raise damaged
    try:
        with _short_patience(), contextlib.redirect_stdout(io.StringIO()):
            tensors = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, ConnectionError, TimeoutError, http.client.HTTPException) as error:
        raise UsageError(
            f"the ImageNet weights of {arch} cannot be downloaded: no answer from {weights.url}",
            f"Download that file elsewhere and put it at {kept}, or give --weights FILE",
        ) from error
    except OSError as error:
        raise StorageError(f"cannot write {kept}: {error.strerror or error}") from error
    except RuntimeError as error:  # what came has another digest
        raise damaged from error
    return Start(f"imagenet ({weights})", arch, tensors)


@contextlib.contextmanager
def _short_patience() -> Iterator[None]:
    """Give up on a network that swallows what is sent to it."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
