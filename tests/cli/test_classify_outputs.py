"""What `medcli classify` makes beside its answers: --report, --sr, --show."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest


@pytest.fixture
def scans(sample_folder: Path) -> list[Path]:
    return sorted((sample_folder / "ct").iterdir())[:2]


def test_a_page_about_all_scans_with_heat_maps(
    medcli: Callable[..., Any], tiny_run: Path, scans: list[Path], sample_folder: Path
) -> None:
    inputs = (*scans, sample_folder / "query.png")
    done = medcli("classify", *inputs, "-m", tiny_run, "--report", "page.html", "--json")
    assert done.status == 0, done.err
    page = Path("page.html").read_text(encoding="utf-8")
    for answer in done.json:
        assert Path(answer["path"]).name in page
    assert page.count('class="viewer"') == 3
    assert page.count("Heat map (gradcam)") == 3
    assert "Model card" in page
    assert "held-out scans" in page
    assert "synthetic" in page
    again = medcli("classify", *inputs, "-m", tiny_run, "--report", "page.html")
    assert again.status == 2
    assert "--overwrite" in again.err


def test_a_model_that_cannot_be_explained_gives_a_page_without_heat(
    medcli: Callable[..., Any], model: Any, scans: list[Path]
) -> None:
    done = medcli("classify", scans[0], "--report", "page.html")
    assert done.status == 0, done.err
    page = Path("page.html").read_text(encoding="utf-8")
    assert "No heat map: " in page
    assert 'data-control="heat"' not in page


def test_paths_are_hidden_in_a_page(
    medcli: Callable[..., Any], tiny_run: Path, scans: list[Path], tmp_path: Path
) -> None:
    bad = tmp_path / "doe-jane.dcm"
    bad.write_bytes(b"\0" * 128 + b"DICM")
    options = ("-m", tiny_run, "--report", "page.html", "--hide-paths")
    done = medcli("classify", scans[0], bad, *options)
    page = Path("page.html").read_text(encoding="utf-8")
    for hidden in (scans[0].name, "doe-jane", str(tiny_run), "page.html"):
        assert hidden not in page + done.out + done.err


def test_an_answer_as_a_structured_report(
    medcli: Callable[..., Any], model: Any, scans: list[Path]
) -> None:
    sr = pytest.importorskip("highdicom", reason="the extra highdicom is not installed").sr
    done = medcli("classify", scans[0], "--sr", "answer.dcm", "--json")
    assert done.status == 0, done.err
    (answer,) = done.json
    (group,) = sr.srread("answer.dcm").content.get_image_measurement_groups()
    assert group.finding_type.meaning == answer["label"]
    told = {each.name.meaning: float(each.value) for each in group.get_measurements()}
    for name, share in answer["probabilities"].items():
        assert told[f"Probability of {name}"] == pytest.approx(share, abs=1e-6)
    assert pydicom.dcmread("answer.dcm").Modality == "SR"


def test_a_structured_report_takes_one_scan_and_an_extra(
    medcli: Callable[..., Any],
    model: Any,
    scans: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("highdicom", reason="the extra highdicom is not installed")
    done = medcli("classify", *scans, "--sr", "answer.dcm")
    assert done.status == 2
    assert "one by one" in done.err
    monkeypatch.setitem(sys.modules, "highdicom", None)
    done = medcli("classify", scans[0], "--sr", "answer.dcm")
    assert done.status == 2
    assert "medcli[highdicom]" in done.err


def test_pictures_go_to_a_terminal_only(
    medcli: Callable[..., Any], model: Any, scans: list[Path]
) -> None:
    for command in ("classify", "inspect"):
        done = medcli(command, scans[0], "--show")
        assert done.status == 0, done.err
        assert "▀" not in done.out
        assert "\x1b" not in done.out
        assert "terminal" in done.err


def test_a_terminal_is_shown_pictures(
    medcli: Callable[..., Any],
    model: Any,
    scans: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("medcli.cli.terminal.can_show", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    for variable in ("KITTY_WINDOW_ID", "TERM_PROGRAM", "LC_TERMINAL", "TMUX"):
        monkeypatch.delenv(variable, raising=False)
    for command in ("classify", "inspect"):
        assert "▀" in medcli(command, scans[0], "--show").out


def test_a_gallery_has_a_page_too(
    medcli: Callable[..., Any], archive: Path, sample_folder: Path
) -> None:
    done = medcli("report", archive, "-o", "gallery.html")
    assert done.status == 0, done.err
    page = Path("gallery.html").read_text(encoding="utf-8")
    for said in ("benign", "malignant", "data:image/jpeg", "Vectors"):
        assert said in page, said
    hidden = medcli("report", archive, "-o", "hidden.html", "--hide-paths")
    assert hidden.status == 0
    page = Path("hidden.html").read_text(encoding="utf-8")
    for name in (str(archive), "SYN-", sample_folder.name):
        assert name not in page + hidden.out, name
