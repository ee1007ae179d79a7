"""The page about scans: its parts, and its viewer in a real browser."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medcli.records import Failure, Prediction, ScanWarning, SearchResult
from medcli.report.pictures import encode_jpeg
from medcli.report.scan_page import ScanAnswer, scan_page
from medcli.report.viewer import CODES, ShownSlice, viewer_data

SIDE, SLICES = 24, 6
FACTS = [("Task", "lung"), ("Fingerprint", "3f9ac1d0b7e2")]


def ct_slices() -> list[ShownSlice]:
    """Slice n is of 100 n HU, with heat in its upper left corner."""
    heat = np.zeros((8, 8))
    heat[:2, :2] = 1
    return [
        ShownSlice(
            number=2 * n,
            values=np.full((SIDE, SIDE), 100.0 * n, np.float32) + np.eye(SIDE, dtype=np.float32),
            ends=(0.0, 1000.0),
            heat=heat,
            share=1 / SLICES,
        )
        for n in range(SLICES)
    ]


@pytest.fixture
def answer(prediction: Prediction) -> ScanAnswer:
    return ScanAnswer(
        prediction=replace(prediction, warnings=(ScanWarning("gap", "a slice is missing"),)),
        facts=[("Modality", "CT")],
        slices=ct_slices(),
        first=3,
        still=encode_jpeg(np.zeros((SIDE, SIDE), np.uint8)),
        unit="HU",
        count=12,
        heat_told="Heat map (gradcam): what speaks for pneumonia.",
        readings=["Label set at 90 %: pneumonia."],
    )


@pytest.fixture
def picture(answer: ScanAnswer) -> ScanAnswer:
    """A colour picture, named so that it would break out of the page."""
    bad = "/incoming/</script><script>alert(1)</script>.png"
    shown = ShownSlice(0, np.full((SIDE, SIDE, 3), (200, 60, 20), np.uint8))
    return replace(
        answer,
        prediction=replace(answer.prediction, path=bad),
        slices=[shown],
        first=0,
        unit="display",
        count=1,
        heat_told="",
    )


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


@pytest.mark.parametrize(
    ("values", "unit", "error"),
    [
        (np.linspace(-1000, 2000, 400), "HU", 0.5),
        (np.linspace(0, 255, 400), "display", 0.5),
        (np.linspace(0, 1, 400), "stored", 0.5 / (CODES - 1)),
        (np.linspace(0, 60000, 400), "stored", 0.51 * 60000 / (CODES - 1)),
        (np.full(400, 7.0), "stored", 1e-6),
    ],
)
def test_a_viewer_holds_the_values_not_a_picture_of_them(
    values: np.ndarray, unit: str, error: float
) -> None:
    shown = ShownSlice(0, values.reshape(20, 20).astype(np.float32), (0.0, 1.0))
    text, codes = viewer_data([shown], unit=unit, first=0, count=1)
    data = json.loads(text)
    pixels = decoded(data["slices"][0]["values"]).astype(int)
    coded = pixels if pixels.ndim == 2 else pixels[..., 0] * 256 + pixels[..., 1]
    np.testing.assert_allclose(codes.low + codes.step * coded, shown.values, atol=error)


def test_metal_does_not_coarsen_the_values_of_a_ct() -> None:
    values = np.array([[-1000.0, 40.0], [41.0, 30000.0]], np.float32)
    _, codes = viewer_data([ShownSlice(0, values, (0, 1))], unit="HU", first=0, count=1)
    assert codes.step == 1
    assert codes.high == 3071


def test_a_page_says_everything_about_a_scan(
    answer: ScanAnswer, parse: Callable[[str], Any], make_result: Callable[..., SearchResult]
) -> None:
    answer = replace(answer, result=make_result(answer.prediction.path), agrees=False)
    failed = Failure("/incoming/bad.dcm", "truncated", "/incoming/bad.dcm: ends early")
    page = parse(
        scan_page([answer], facts=FACTS, failures=[failed], model_card="# Card <b>", synthetic=True)
    )
    for said in ("93 %", "Label set at 90 %", "a slice is missing", "disagree", "# Card <b>"):
        assert said in page.text, said
    for said in ("what speaks for pneumonia", "ends early", "synthetic", "6 of 12 slices"):
        assert said in page.text, said
    assert len(page.with_class("hit")) == 3
    assert any(link.get("href") == "#model-card" for link in page.all("a"))


def test_names_of_files_do_not_become_part_of_the_page(
    picture: ScanAnswer, parse: Callable[[str], Any]
) -> None:
    html = scan_page([picture], facts=FACTS)
    assert "<script>alert" not in html
    hidden = scan_page([picture], facts=FACTS, hide_paths=True, stand_ins={})
    assert "alert" not in hidden
    assert len(parse(html).all("script")) == 2  # the viewer, and its data, which do not run


def test_only_the_viewer_may_run(answer: ScanAnswer) -> None:
    html = scan_page([answer], facts=FACTS)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', html)
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]{44}'$", policy)


@pytest.fixture
def shown(browser: Any, answer: ScanAnswer, picture: ScanAnswer, tmp_path: Path) -> Any:
    """The page of a CT and a picture, open."""
    page = tmp_path / "report.html"
    page.write_text(scan_page([answer, picture], facts=FACTS), encoding="utf-8")
    browser.open(page)
    return browser


def level(browser: Any, viewer: int = 1, x: int = 20, y: int = 4) -> list[int]:
    """Red, green and blue of a pixel of a viewer."""
    found: list[int] = browser.run(
        "(() => { const copy = document.createElement('canvas').getContext('2d', "
        "{ willReadFrequently: true });"
        f"copy.drawImage(document.querySelector('#viewer-{viewer} canvas'), {-x}, {-y});"
        "return [...copy.getImageData(0, 0, 1, 1).data].slice(0, 3); })()"
    )
    return found


def wait_for_slice(browser: Any, number: int) -> None:
    """Until the first viewer shows a slice; fails after 20 seconds."""
    assert browser.run(
        "new Promise((done) => { let left = 1000; const ask = () => "
        f"document.querySelector('#viewer-1').dataset.slice === '{number}' ? done(true) : "
        "left-- ? setTimeout(ask, 20) : done(false); ask(); })"
    )


def test_pictures_load_and_nothing_else_is_asked_for(shown: Any) -> None:
    assert shown.errors == []
    asked = [url for url in shown.requests if not url.startswith("data:image/")]
    assert len(asked) == 1, asked  # the page itself
    assert shown.run("[...document.images].every((each) => each.naturalWidth > 0)")
    assert level(shown) == pytest.approx([300 / 1000 * 255] * 3, abs=2)
    assert level(shown, 2) == pytest.approx([200, 60, 20], abs=8)


def test_the_slider_moves_through_the_slices_by_keyboard(shown: Any) -> None:
    shown.run("document.querySelector('#viewer-1 [data-control=slice]').focus()")
    shown.press("ArrowRight", 39)
    wait_for_slice(shown, 8)
    assert level(shown) == pytest.approx([400 / 1000 * 255] * 3, abs=2)
    shown.press("Home", 36)
    wait_for_slice(shown, 0)
    assert "0 of 0–11" in shown.run(
        "document.querySelector('#viewer-1 [data-says=slice]').textContent"
    )
    assert shown.errors == []


def test_the_window_changes_what_is_black_and_white(shown: Any) -> None:
    """300 HU in the soft tissue window, -160 to 240, is white; in bone, -500 to 1300, is 4/9."""
    for name, expected in (("Soft tissue", 255), ("Bone", 255 * 800 / 1800), ("As stored", 76.5)):
        shown.run(
            "[...document.querySelectorAll('#viewer-1 button')]"
            f".find((each) => each.textContent === '{name}').click()"
        )
        assert level(shown) == pytest.approx([expected] * 3, abs=2), name
    assert shown.errors == []


def test_the_heat_can_be_taken_away(shown: Any) -> None:
    hot = level(shown, x=2, y=2)
    assert max(hot) - min(hot) > 20  # coloured
    shown.run("document.querySelector('#viewer-1 [data-control=heat]').click()")
    assert level(shown, x=2, y=3) == pytest.approx([76.5] * 3, abs=2)
    shown.run("document.querySelector('#viewer-1 [data-control=heat]').click()")
    assert max(level(shown, x=2, y=3)) > 90


@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_is_wider_than_the_window(shown: Any, width: int) -> None:
    shown.call(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=800,
        deviceScaleFactor=1,
        mobile=False,
    )
    assert shown.run("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_on_light_and_dark(shown: Any, scheme: str) -> None:
    """Contrast of ink on paper of at least 7, WCAG 2.2 success criterion 1.4.6."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    shown.call("Emulation.setEmulatedMedia", features=features)
    colours = shown.run(
        "(() => { const seen = getComputedStyle(document.querySelector('.card'));"
        "return [seen.color, seen.backgroundColor]; })()"
    )
    ink, paper = ([int(part) for part in re.findall(r"\d+", colour)[:3]] for colour in colours)
    brighter, darker = sorted((luminance(ink), luminance(paper)), reverse=True)
    assert (brighter + 0.05) / (darker + 0.05) > 7
    assert (luminance(ink) > luminance(paper)) == (scheme == "dark")


def luminance(colour: list[int]) -> float:
    """Relative luminance as WCAG defines it."""
    linear = [v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
