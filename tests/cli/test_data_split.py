"""`medcli data split` and the gate of `medcli train`: what is written passes, leaks do not."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medcli.data.gate import pass_gate
from medcli.data.sources import load_cases
from medcli.data.survey import survey

Run = Callable[..., Any]


def draw(path: Path, seed: int, bright: int = 0) -> Path:
    """A picture with structure at many scales; with `bright` the same one, lighter."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.integers(0, 120, (8, 8)), np.ones((4, 4)))
    pixels = coarse + rng.integers(0, 100, (32, 32)) + bright
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


@pytest.fixture
def leaky(home: Path) -> Path:
    """40 pictures of 20 patients in given parts; 4 of the test part are copies, lighter."""
    lines = ["path,label,patient_id,device,split"]
    for n in range(40):
        part = ("train", "train", "val", "test")[n // 2 % 4]
        source, bright = (n - 6, 20) if n in (6, 14, 22, 30) else (n, 0)
        draw(Path(f"set/{n}.png"), source, bright)
        lines.append(f"{n}.png,{'ab'[n % 2]},P{n // 2},scanner {n % 3},{part}")
    Path("set/manifest.csv").write_text("\n".join(lines) + "\n")
    return Path("set/manifest.csv").resolve()  # workers keep the folder they began in


def rows(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_train_refuses_what_leaks_and_takes_what_split_writes(medcli: Run, leaky: Path) -> None:
    refused = medcli("train", leaky, "--epochs", "1", "-o", "run")
    assert refused.status == 2, refused.err
    assert "8 near-identical pictures in more than one part" in refused.errors[0]
    assert "set/0.png (train) and set/6.png (test)" in refused.errors[0]
    line = f"medcli data split {leaky} -o clean.csv"
    assert f"`{line}`" in refused.err
    assert not Path("run").exists()
    assert medcli(*line.split()[1:]).status == 0
    part_of = {row["path"]: row["split"] for row in rows("clean.csv")}
    assert part_of["set/0.png"] == part_of["set/6.png"]
    seen = survey(load_cases([str(Path("clean.csv").resolve())]).cases)
    assert pass_gate(seen.cases, seen.copies(), clean="").warnings == ()


@pytest.mark.slow
def test_overlap_can_be_allowed(medcli: Run, leaky: Path) -> None:
    arguments = ("--epochs", "1", "--size", "32", "-o", "run", "--allow-overlap")
    done = medcli("train", leaky, *arguments)
    assert done.status == 0
    assert "the numbers flatter" in done.err


def test_the_columns_of_a_manifest_are_kept_and_no_patient_is_torn(
    medcli: Run, leaky: Path
) -> None:
    done = medcli("data", "split", leaky, "-o", "set/new.csv", "--seed", "3", "--json")
    assert done.status == 0
    written, before = rows("set/new.csv"), rows(leaky)
    assert list(written[0]) == ["path", "label", "patient_id", "device", "split"]
    kept = ("path", "label", "patient_id", "device")
    assert [[r[name] for name in kept] for r in written] == [
        [r[name] for name in kept] for r in before
    ]
    parts: dict[str, set[str]] = {}
    for row in written:
        parts.setdefault(row["patient_id"], set()).add(row["split"])
    assert all(len(each) == 1 for each in parts.values())
    (told,) = done.json
    assert told["column"] == "split"
    assert told["seed"] == 3
    assert {part["part"]: part["scans"] for part in told["parts"]} == {
        part: sum(row["split"] == part for row in written) for part in ("train", "val", "test")
    }
    assert medcli("data", "split", leaky, "-o", "again.csv", "--seed", "3").status == 0
    assert [row["split"] for row in rows("again.csv")] == [row["split"] for row in written]


def test_folds_are_even_and_hold_every_class(medcli: Run, leaky: Path) -> None:
    assert medcli("data", "split", leaky, "-o", "folds.csv", "--folds", "4").status == 0
    written = rows("folds.csv")
    assert "split" not in written[0]
    for fold in "0123":
        labels = [row["label"] for row in written if row["fold"] == fold]
        assert 8 <= len(labels) <= 12
        assert set(labels) == {"a", "b"}


def test_an_archive_is_split_member_by_member(medcli: Run, home: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    np.savez("set.npz", train_images=images, train_labels=np.arange(30)[:, None] % 2)
    assert medcli("data", "split", "set.npz", "-o", "parts.csv").status == 0
    assert rows("parts.csv")[4]["path"] == "set.npz!/train_images/4"
    done = medcli("data", "check", Path("parts.csv").resolve())
    assert "30 scans" in done.out.splitlines()[-1]


def test_a_stack_keeps_its_slices(medcli: Run, sample_folder: Path, home: Path) -> None:
    given, new = sample_folder / "nodule.csv", Path("n.csv").resolve()
    assert medcli("data", "split", given, "-o", new, "--val", "0").status == 0
    before, after = (medcli("data", "check", each, "--json").json for each in (given, new))
    assert [len(each["files"]) for each in after] == [len(each["files"]) for each in before]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--val", "0.6", "--test", "0.5"], "leave nothing to train on"),
        (["--folds", "25"], "too few for 25 folds"),
    ],
)
def test_what_cannot_be_split_is_told(
    medcli: Run, leaky: Path, arguments: list[str], told: str
) -> None:
    done = medcli("data", "split", leaky, "-o", "new.csv", *arguments)
    assert done.status == 2
    assert told in done.errors[0]
    assert not Path("new.csv").exists()


def test_what_exists_is_kept(medcli: Run, leaky: Path) -> None:
    done = medcli("data", "split", leaky, "-o", leaky)
    assert done.status == 2
    assert "exists" in done.errors[0]
