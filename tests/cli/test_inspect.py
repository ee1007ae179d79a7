"""`medcli inspect`: what was read, for people and for programs, and the preview."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medcli.cli.console import SafeConsole

Run = Callable[..., Any]
COMMON = {"path", "scan_id", "files", "status", "warnings", "error"}
INSPECT = COMMON | {
    *("format", "modality", "shape", "spacing_mm", "intensity", "photometric"),
    *("transfer_syntax", "decoder", "sha256", "pixel_sha256"),
}


def test_inspect_gives_the_fields_of_the_contract(medcli: Run, sample_folder: Path) -> None:
    done = medcli("inspect", sample_folder / "ct" / "SYN-0001-1", "gone.dcm", "--json")
    told, failure = done.json
    assert done.status == 3
    assert set(told) == INSPECT
    assert set(failure) == COMMON
    assert told["shape"] == [len(told["files"]), 80, 80, 1]
    assert told["intensity"]["unit"] == "HU"
    assert told["intensity"]["min"] < told["intensity"]["max"]
    assert all(isinstance(mm, float) for mm in told["spacing_mm"])
    assert failure["error"]["code"] == "not_found"


def test_what_a_folder_holds_beside_scans_is_accounted_for(
    medcli: Run, sample_folder: Path
) -> None:
    Path("s").mkdir()
    shutil.copy(sample_folder / "query.png", "s/ok.png")
    Path("s/gone.png").symlink_to("annex/objects/gone.png")
    os.mkfifo("s/pipe.dcm")
    done = medcli("inspect", "s", "--json")
    assert done.status == 3
    told = {
        each["path"]: (each["status"], each["error"] and each["error"]["code"])
        for each in done.json
    }
    assert told == {
        "s/gone.png": ("failed", "not_found"),
        "s/ok.png": ("ok", None),
        "s/pipe.dcm": ("skipped", "not_an_image"),
    }
    checked = medcli("data", "check", "s")
    assert checked.status == 3
    assert "1 failed" in checked.out + checked.err


def test_unknown_spacing_is_null(medcli: Run, sample_folder: Path) -> None:
    (told,) = medcli("inspect", sample_folder / "query.png", "--json").json
    assert told["spacing_mm"] == [None, None, None]
    assert (told["modality"], told["photometric"], told["transfer_syntax"]) == (None, None, None)


def test_one_scan_is_told_of_in_full_and_several_in_a_table(
    medcli: Run, sample_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = medcli("inspect", sample_folder / "scan.dcm")
    assert one.status == 0
    assert "pixel sha256" in one.out
    many = medcli("inspect", sample_folder / "nodule.csv")
    lines = many.out.splitlines()
    assert len(lines) == 9
    assert "80×80" in lines[1]
    assert "HU" in lines[1]


def test_tables_fit_a_terminal_of_80_columns(
    medcli: Run, sample_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medcli.cli.console.stdout", lambda: SafeConsole(width=80))
    for command in (["inspect"], ["data", "check"]):
        done = medcli(*command, sample_folder, sample_folder / "nodule.csv")
        lines = done.out.splitlines()
        assert max(map(len, lines)) <= 80
        assert any("/SYN-0001-1" in line for line in lines)


def test_a_manifest_and_its_folder_are_inspected_alike(medcli: Run, sample_folder: Path) -> None:
    by_manifest = medcli("inspect", sample_folder / "nodule.csv", "--json").json
    by_folder = medcli("inspect", sample_folder / "ct", "--json").json
    assert {told["pixel_sha256"] for told in by_manifest} == {
        told["pixel_sha256"] for told in by_folder
    }


def test_warnings_are_told(medcli: Run, sample_folder: Path) -> None:
    shutil.copytree(sample_folder / "ct" / "SYN-0001-1", "series")
    sorted(Path("series").iterdir())[2].unlink()
    done = medcli("inspect", "series")
    assert done.status == 0
    assert "[gap]" in done.err


def test_a_preview_shows_slices_in_true_proportion(
    medcli: Run, sample_folder: Path, tmp_path: Path
) -> None:
    import pydicom

    data = pydicom.dcmread(sample_folder / "scan.dcm")
    data.PixelSpacing = [2.0, 1.0]  # square in pixels, twice as high as wide in mm
    data.save_as("tall.dcm")
    done = medcli("inspect", "tall.dcm", "--preview", "tall.png")
    assert done.status == 0
    assert "wrote tall.png" in done.err
    sheet = np.asarray(Image.open("tall.png"))
    body = sheet[60:-60]
    columns = np.flatnonzero((body != body[0, 0]).any(axis=0))
    assert columns[-1] - columns[0] < 0.55 * sheet.shape[1]


def test_a_preview_of_several_scans_is_one_sheet(medcli: Run, sample_folder: Path) -> None:
    done = medcli("inspect", sample_folder / "nodule.csv", "--preview", "all.png")
    assert done.status == 0
    assert Path("all.png").read_bytes().startswith(b"\x89PNG")
    again = medcli("inspect", sample_folder / "nodule.csv", "--preview", "all.png")
    assert again.status == 2
    assert "--overwrite" in again.err


def test_a_window_changes_what_the_preview_shows(medcli: Run, sample_folder: Path) -> None:
    for name, window in (("a.png", "-600/1500"), ("b.png", "40/400")):
        scan = sample_folder / "scan.dcm"
        assert medcli("inspect", scan, "--preview", name, "--window", window).status == 0
    assert Path("a.png").read_bytes() != Path("b.png").read_bytes()
    wrong = medcli("inspect", sample_folder / "scan.dcm", "--window", "40")
    assert wrong.status == 2
    assert "-600/1500" in wrong.err


def test_hidden_paths_stand_nowhere(medcli: Run, sample_folder: Path) -> None:
    Path("DOE^JANE").mkdir()
    shutil.copy(sample_folder / "query.png", "DOE^JANE/DOE^JANE.png")
    Path("DOE^JANE/broken.png").write_text("no picture of DOE^JANE")
    for form in ([], ["--json"], ["--preview", "DOE^JANE/p.png", "--overwrite"]):
        done = medcli("inspect", "DOE^JANE", "--hide-paths", *form)
        assert done.status == 3
        assert "DOE^JANE" not in done.out + done.err


def test_a_preview_beside_the_scans_is_read_only_where_it_is_named(
    medcli: Run, sample_folder: Path, tmp_path: Path
) -> None:
    shutil.copy(sample_folder / "query.png", tmp_path / "query.png")
    preview = tmp_path / "preview.png"
    assert medcli("inspect", tmp_path, "--preview", preview).status == 0
    done = medcli("inspect", tmp_path, "--json")
    assert [told["path"] for told in done.json] == [str(tmp_path / "query.png")]
    (named,) = medcli("inspect", preview, "--json").json
    assert (named["path"], named["status"]) == (str(preview), "ok")
    zipped = shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path, "preview.png")
    assert medcli("inspect", zipped, "--json").json[0]["error"]["code"] == "no_scans"
