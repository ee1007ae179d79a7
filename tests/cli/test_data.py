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


def test_what_a_manifest_leaves_out_is_told(medcli: Run, folder: Path) -> None:
    (folder / "m.csv").write_text("path,label\n.,x\n,y\n")
    done = medcli("data", "check", folder / "m.csv")
    assert "1 row left out, no path" in done.err
    assert "holds 4 scans where the manifest has one row" in done.err
    hidden = medcli("data", "check", folder / "m.csv", "--hide-paths")
    assert "2 notes on manifests" in hidden.err
    assert str(folder) not in hidden.err


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


# convert


@pytest.mark.parametrize("to", ["nifti", "png", "npz"])
def test_convert_writes_what_the_other_commands_read(
    medcli: Run, sample_folder: Path, to: str
) -> None:
    manifest = sample_folder / "nodule.csv"
    done = medcli("data", "convert", manifest, "-o", "out", "--to", to, "--size", "24")
    assert done.status == 0
    assert done.out == "out\n"
    assert "8 scans converted" in done.err
    made = "out/scans.npz" if to == "npz" else "out/manifest.csv"
    checked = medcli("data", "check", made)
    assert checked.status == 0
    assert checked.out.splitlines()[-1].startswith("8 scans:")


def test_convert_says_which_values_it_writes(medcli: Run) -> None:
    told = " ".join(medcli("data", "convert", "--help").out.split())
    assert "larger is brighter: MONOCHROME1 is inverted" in told


def test_convert_accounts_for_every_input(medcli: Run, folder: Path) -> None:
    done = medcli("data", "convert", folder, "-o", "out", "--to", "nifti", "--json")
    assert done.status == 3
    assert all(set(told) == COMMON | {"outputs"} for told in done.json)
    assert [told["outputs"] for told in done.json if told["status"] == "ok"] == [
        [f"scan-000{number}.nii.gz"] for number in (1, 2, 3)
    ]
    assert sorted(path.name for path in Path("out").iterdir()) == [
        ".medcli-converted.json",
        "manifest.csv",
        *(f"scan-000{number}.nii.gz" for number in (1, 2, 3)),
    ]


def test_convert_keeps_labels_of_class_folders(medcli: Run, folder: Path) -> None:
    medcli("data", "convert", folder, "-o", "out", "--to", "nifti", "--labels", "folder")
    lines = Path("out/manifest.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines] == ["label", "a", "b", "b"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--to", "nifti", "--window", "40/400"], "--window"),
        (["--to", "npz", "--bits", "16"], "--bits"),
        (["--to", "png", "--window", "wide"], "--window"),
        (["--to", "tiff"], "--to"),
        ([], "--to"),
    ],
)
def test_options_that_do_not_fit_are_named(
    medcli: Run, sample_folder: Path, options: list[str], expected: str
) -> None:
    done = medcli("data", "convert", sample_folder / "query.png", "-o", "out", *options)
    assert done.status == 2
    assert expected in done.errors[0]
    assert not Path("out").exists()


def test_convert_overwrites_only_when_asked(medcli: Run, sample_folder: Path) -> None:
    command = ["data", "convert", sample_folder / "query.png", "-o", "out", "--to", "png"]
    assert [medcli(*command, *more).status for more in ([], [], ["--overwrite"])] == [0, 2, 0]
    Path("file").write_text("mine")
    assert medcli(*command[:3], "-o", "file/out", "--to", "png").status == 7


def test_convert_of_nothing_readable_writes_nothing(medcli: Run) -> None:
    done = medcli("data", "convert", "gone.dcm", "-o", "out", "--to", "png", "--json")
    assert done.status == 3
    assert [told["error"]["code"] for told in done.json] == ["not_found"]
    assert not Path("out").exists()


def test_convert_hides_paths(medcli: Run, folder: Path) -> None:
    shutil.move(str(folder), "DOE^JANE")
    for number, form in enumerate(([], ["--json"])):
        target = f"DOE^JANE{number}"
        done = medcli(
            "data", "convert", "DOE^JANE", "-o", target, "--to", "png", "--hide-paths", *form
        )
        assert done.status == 3
        assert "DOE^JANE" not in done.out + done.err
