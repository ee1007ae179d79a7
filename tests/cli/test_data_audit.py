"""`medcli data audit`: leaks, copies and planted label noise, in words, as CSV and as objects."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medcli.models.package import ModelPackage

Run = Callable[..., Any]
pytest.importorskip("cleanlab", reason="the extra medcli[cleanlab] is not installed")

WRONG = (4, 31, 52)


def draw(path: str, seed: int, tall: bool, gain: float = 1.0) -> None:
    """Noise with a bright bar, upright or lying."""
    rng = np.random.default_rng(seed)
    pixels = np.kron(rng.integers(0, 80, (8, 8)), np.ones((4, 4))) + rng.integers(0, 60, (32, 32))
    pixels[(slice(None), slice(12, 20)) if tall else (slice(12, 20), slice(None))] += 100
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels * gain).astype(np.uint8)).save(path)


@pytest.fixture
def manifest(home: Path) -> Path:
    """60 pictures of 30 patients; three labels wrong; 2 copies, one lighter, across parts."""
    lines = ["path,label,patient_id,split"]
    for n in range(60):
        source, gain = {59: (1, 1.0), 57: (3, 0.9)}.get(n, (n, 1.0))
        draw(f"set/{n}.png", source, source // 2 % 2 == 0, gain)
        tall = source // 2 % 2 == 0
        label = "tall" if tall != (n in WRONG) else "wide"
        lines.append(f"{n}.png,{label},P{n // 2},{'train' if n < 50 else 'test'}")
    Path("set/manifest.csv").write_text("\n".join(lines) + "\n")
    return Path("set/manifest.csv").resolve()  # workers keep the folder they began in


def test_leaks_copies_and_wrong_labels_are_told(medcli: Run, manifest: Path) -> None:
    done = medcli("data", "audit", manifest, "--csv", "suspects.csv")
    assert done.status == 0
    for code in ("duplicate", "copy_in_two_splits", "near_copy_in_two_splits", "near_duplicate"):
        assert f"[{code}]" in done.out
    assert "label_conflict" not in done.out
    with Path("suspects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["rank"]) for row in rows] == list(range(1, 61))
    assert {Path(row["path"]).stem for row in rows[:3]} == {str(n) for n in WRONG}
    assert all(row["suspicious"] == "yes" for row in rows[:3])
    assert rows[0]["label"] != rows[0]["suggested_label"]
    assert "of 60 labels look wrong" in done.out


def test_every_scan_has_an_object(medcli: Run, manifest: Path) -> None:
    told = medcli("data", "audit", manifest, "--json").json
    assert len(told) == 60
    found = {each["rank"]: int(Path(each["path"]).stem) for each in told}
    assert {found[rank] for rank in (1, 2, 3)} == set(WRONG)
    codes = {int(Path(each["path"]).stem): {w["code"] for w in each["warnings"]} for each in told}
    assert codes[1] == codes[59] - {"patient_in_two_classes"} == {"duplicate", "copy_in_two_splits"}
    near = {"near_duplicate", "near_copy_in_two_splits"}
    assert codes[3] == codes[57] - {"patient_in_two_classes"} == near
    assert "suspicious_label" in codes[WRONG[0]]


def test_hidden_paths_stay_hidden(medcli: Run, manifest: Path) -> None:
    done = medcli("data", "audit", manifest, "--hide-paths", "--csv", "s.csv")
    assert ".png" not in done.out + done.err + Path("s.csv").read_text()


def test_a_model_can_judge(medcli: Run, manifest: Path, model: ModelPackage) -> None:
    told = medcli("data", "audit", manifest, "--model", model.path, "--json").json
    found = {each["rank"]: int(Path(each["path"]).stem) for each in told}
    assert {found[rank] for rank in (1, 2, 3)} == set(WRONG)


def test_without_cleanlab_the_rest_is_told(
    medcli: Run, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    done = medcli("data", "audit", manifest)
    assert done.status == 0
    assert "pip install 'medcli[cleanlab]'" in done.err
    assert "[near_duplicate]" in done.out
    refused = medcli("data", "audit", manifest, "--csv", "suspects.csv")
    assert refused.status == 2
    assert "pip install 'medcli[cleanlab]'" in refused.err
