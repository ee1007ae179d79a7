"""`medcli data`: what is said of a data set, in words and as objects."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
COMMON = {"path", "scan_id", "files", "status", "warnings", "error"}


@pytest.fixture
def folder(sample_folder: Path, home: Path) -> Path:
    """Two series, a copy of the first under another name, a broken picture and a text."""
    for source, target in (("1-1", "a/one"), ("1-1", "b/copy"), ("2-1", "b/two")):
        shutil.copytree(sample_folder / "ct" / f"SYN-000{source}", Path("set", target))
    Path("set/broken.png").write_bytes((sample_folder / "query.png").read_bytes()[:200])
    Path("set/notes.txt").write_text("words")
    return Path("set")


def test_check_names_each_finding_with_advice_and_sums_up(medcli: Run, folder: Path) -> None:
    done = medcli("data", "check", folder)
    assert done.status == 3
    assert "[truncated]" in done.out
    assert "[duplicate]" in done.out
    assert "→ Keep one of each." in done.out
    assert done.out.splitlines()[-1] == "4 scans: 1 good, 2 with warnings, 1 failed"
    assert "broken.png" in done.errors[0]


def test_check_gives_an_object_for_every_input(medcli: Run, folder: Path) -> None:
    done = medcli("data", "check", folder, "gone.dcm", "--json")
    assert done.status == 3
    assert all(set(told) == COMMON for told in done.json)
    status = {Path(told["path"]).name: told["status"] for told in done.json}
    assert status == {
        "broken.png": "failed",
        "notes.txt": "skipped",
        "one": "ok",
        "copy": "ok",
        "two": "ok",
        "gone.dcm": "failed",
    }
    codes = {
        Path(told["path"]).name: [each["code"] for each in told["warnings"]] for told in done.json
    }
    assert codes["one"] == codes["copy"] == ["duplicate"]
    assert codes["two"] == []


def test_labels_of_class_folders_are_compared(medcli: Run, folder: Path) -> None:
    assert "label_conflict" not in medcli("data", "check", folder).out
    done = medcli("data", "check", folder, "--labels", "folder")
    assert "[label_conflict]" in done.out
    assert "[patient_in_two_classes]" in done.out


def test_a_sound_manifest_ends_with_zero(medcli: Run, sample_folder: Path) -> None:
    done = medcli("data", "check", sample_folder / "nodule.csv")
    assert done.status == 0
    assert done.out.splitlines()[-1] == "8 scans: 8 good"


def test_a_manifest_inside_a_folder_is_pointed_at(medcli: Run, folder: Path) -> None:
    (folder / "manifest.csv").write_text("path\n")
    assert "manifest.csv" in medcli("data", "check", folder).err


def test_nothing_readable_is_an_error(medcli: Run) -> None:
    Path("words.txt").write_text("words")
    assert medcli("data", "check", "words.txt").status == 3
    assert medcli("data", "check", "gone").status == 3


def test_hidden_paths_stand_nowhere(medcli: Run, folder: Path) -> None:
    shutil.move(str(folder), "DOE^JANE")
    Path("DOE^JANE/manifest.csv").write_text("path\n")
    for form in ([], ["--json"], ["--labels", "folder"]):
        done = medcli("data", "check", "DOE^JANE", "--hide-paths", *form)
        assert done.status == 3
        assert "DOE^JANE" not in done.out + done.err
        assert "broken" not in done.out + done.err
        assert "duplicate" in done.out


def test_a_hostile_file_name_prints_harmlessly(medcli: Run, sample_folder: Path) -> None:
    for number in range(2):
        shutil.copy(sample_folder / "query.png", f"\x1b[31m[red]{number}.png")
    done = medcli("data", "check", ".")
    assert "\x1b" not in done.out + done.err
    assert r"\x1b[31m[red]0.png" in done.out
