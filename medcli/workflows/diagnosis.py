"""What this machine offers medcli: decoders, engines, devices, versions."""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import medcli.home
from medcli.errors import StorageError
from medcli.files import check_parent
from medcli.home import medcli_home
from medcli.imaging.decoders import DecoderRow, decoder_matrix
from medcli.machine import cores
from medcli.models.shelf import shelf


@dataclass(frozen=True, slots=True)
class Engine:
    """A library that medcli computes with.

    Attributes
    ----------
    purpose : what medcli uses it for
    version : None where it cannot be loaded
    details : devices, providers and the like
    problem : why it cannot be used, None where it can
    """

    name: str
    purpose: str
    version: str | None
    details: Mapping[str, Any]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Home:
    """The medcli home, and whether runs and galleries can be written there."""

    path: Path
    writable: bool


@dataclass(frozen=True, slots=True)
class Bundled:
    """A bundled model; `problem` says why it cannot be used, None where it can."""

    name: str
    tasks: tuple[str, ...]
    problem: str | None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The fields of `medcli doctor --json`; `cores` are those this process may use."""

    medcli: str
    python: str
    platform: str
    cores: int
    home: Home
    engines: tuple[Engine, ...]
    decoders: tuple[DecoderRow, ...]
    bundled: tuple[Bundled, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps a command from working, in words; missing decoders are none."""
        broken = [f"{engine.name}: {engine.problem}" for engine in self.engines if engine.problem]
        if not self.home.writable:
            broken.append("the medcli home cannot be written; MEDCLI_HOME names another")
        broken += [f"bundled model {b.name}: {b.problem}" for b in self.bundled if b.problem]
        return tuple(broken)


def diagnose() -> Diagnosis:
    """Ask every library what it can do. Loads them all, torch included: some seconds."""
    home = medcli_home()
    return Diagnosis(
        medcli=version("medcli"),
        python=platform.python_version(),
        platform=platform.platform(),
        cores=cores(),
        home=Home(home, _writable(home)),
        engines=(*(_engine(*each) for each in _ENGINES), _openvino()),
        decoders=tuple(decoder_matrix()),
        bundled=tuple(_bundled()),
    )


def _bundled() -> Iterator[Bundled]:
    """The models that medcli brings along, looked at by the sizes of their files."""
    for entry in shelf(medcli.home.ZOO):
        tasks = entry.package.tasks if entry.package else ()
        yield Bundled(entry.name, tuple(task.name for task in tasks), entry.problem)


def _writable(folder: Path) -> bool:
    if folder.exists():
        return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    try:
        check_parent(folder)
    except StorageError:
        return False
    return True


def _engine(
    name: str,
    package: str,
    module: str,
    purpose: str,
    describe: Callable[[ModuleType], dict[str, Any]],
) -> Engine:
    """Load a library and ask it; what a broken installation raises becomes its problem."""
    try:
        found = importlib.import_module(module)
        return Engine(name, purpose, found.__version__, describe(found))
    except ModuleNotFoundError:
        return Engine(name, purpose, None, {}, f"not installed; pip install {package}")
    except Exception as error:  # a broken native library raises anything
        problem = f"cannot be loaded ({type(error).__name__}); python -c 'import {module}' says why"
        return Engine(name, purpose, None, {}, problem)


def _openvino() -> Engine:
    """The optional engine, which is not loaded: that it is not there is no problem."""
    from medcli.inference.choice import has_openvino

    name, purpose = "OpenVINO", "faster prediction"
    if not has_openvino():
        return Engine(name, purpose, None, {"optional": "pip install 'medcli[openvino]'"})
    return Engine(name, purpose, version("openvino"), {})


def _onnxruntime(module: ModuleType) -> dict[str, Any]:
    return {"providers": list(module.get_available_providers())}


def _torch(module: ModuleType) -> dict[str, Any]:
    """CUDA or Apple devices that training can use, and the threads on the processor."""
    cuda = [module.cuda.get_device_name(each) for each in range(module.cuda.device_count())]
    return {
        "cuda": module.version.cuda,
        "devices": cuda or (["mps"] if module.backends.mps.is_available() else ["cpu"]),
        "threads": module.get_num_threads(),
    }


def _faiss(module: ModuleType) -> dict[str, Any]:
    return {"instructions": str(module.get_compile_options()).split()}


def _nothing_more(module: ModuleType) -> dict[str, Any]:
    return {}


_ENGINES: tuple[tuple[str, str, str, str, Callable[[ModuleType], dict[str, Any]]], ...] = (
    ("ONNX Runtime", "onnxruntime", "onnxruntime", "prediction", _onnxruntime),
    ("PyTorch", "torch", "torch", "training", _torch),
    ("FAISS", "faiss-cpu", "faiss", "search", _faiss),
    ("pydicom", "pydicom", "pydicom", "DICOM", _nothing_more),
    ("SimpleITK", "SimpleITK", "SimpleITK", "NIfTI, NRRD, MetaImage", _nothing_more),
    ("Pillow", "Pillow", "PIL", "pictures", _nothing_more),
    ("NumPy", "numpy", "numpy", "arrays", _nothing_more),
)
