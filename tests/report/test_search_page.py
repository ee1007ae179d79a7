"""The search page, read with a parser of its own."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from datetime import datetime

from PIL import Image

from medcli.records import Failure, Hit, Prediction, ScanWarning, SearchResult
from medcli.report.search_page import search_page

Make = Callable[..., SearchResult]
MODEL = {"name": "runs/lung", "task": "lung"}


def test_nothing_is_loaded_from_elsewhere(parse: Callable, make_result: Make, jpeg: bytes) -> None:
    page = parse(
        search_page(
            [make_result()], pictures={("/incoming/query.png", 101, None): jpeg}, model=MODEL
        )
    )
    assert page.external == []
    policy = next(a for a in page.all("meta") if a.get("http-equiv"))["content"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_query_and_hits_stand_with_what_is_known(
    parse: Callable, make_result: Make, make_hit: Callable[..., Hit]
) -> None:
    hit = make_hit(1, slice=42, file="/archive/chest/series/IM-0042.dcm")
    result = make_result(hits=(hit,), vote={"pneumonia": 1.0}, query_slice=3)
    page = parse(
        search_page([result], pictures={}, model=MODEL, created=datetime(2025, 3, 4, 10, 12))
    )
    for stated in (
        "Query 1 query.png /incoming",
        "score 0.990",
        "pneumonia",
        "CT Slice 42 File IM-0042.dcm Patient ab12cd34",
        "Gallery /galleries/chest Generation 7",
        "Fingerprint 3f9ac1d0b7e2",
        "1 of 1, 100 %",
        "Slice 3",
        "2025-03-04 10:12",
        "Research use, not a medical device.",
    ):
        assert stated in page.text


def test_pictures_are_whole_inside_the_page(
    parse: Callable, make_result: Make, jpeg: bytes
) -> None:
    pictures = {"/incoming/query.png": jpeg, ("/incoming/query.png", 102, None): jpeg}
    page = parse(search_page([make_result()], pictures=pictures, model=MODEL))
    images = page.all("img")
    assert [image["alt"] for image in images] == ["Query: query.png", "Hit 2: scan2.dcm"]
    for image in images:
        data = base64.b64decode(image["src"].split(",")[1])
        assert Image.open(io.BytesIO(data)).size == (64, 48)


def test_a_missing_picture_has_a_placeholder_that_says_so(
    parse: Callable, make_result: Make
) -> None:
    page = parse(search_page([make_result()], pictures={}, model=MODEL))
    assert page.all("img") == []
    assert [a["aria-label"] for a in page.all("span") if a.get("role") == "img"] == [
        "Query: query.png: no picture",
        *(f"Hit {rank}: scan{rank}.dcm: no picture" for rank in (1, 2, 3)),
    ]


def test_two_hits_on_one_scan_show_their_own_slice(
    parse: Callable, make_result: Make, make_hit: Callable[..., Hit], jpeg: bytes
) -> None:
    hits = (make_hit(1, id=9, slice=4), make_hit(2, id=9, slice=5))
    page = parse(
        search_page(
            [make_result(hits=hits)], pictures={("/incoming/query.png", 9, 5): jpeg}, model=MODEL
        )
    )
    assert [image["alt"] for image in page.all("img")] == ["Hit 2: scan2.dcm, slice 5"]


def test_hits_with_the_true_label_are_marked(parse: Callable, make_result: Make) -> None:
    labels = {"/incoming/query.png": "normal"}
    page = parse(search_page([make_result()], pictures={}, model=MODEL, true_labels=labels))
    assert len(page.with_class("hit")) == 3
    assert len(page.with_class("agrees")) == 1
    assert page.text.count("✓ query’s label") == 1
    assert page.text.count("other label") == 1  # the third hit has no label to compare
    assert "no label" in page.text


def test_without_a_true_label_nothing_is_marked(parse: Callable, make_result: Make) -> None:
    page = parse(search_page([make_result()], pictures={}, model=MODEL))
    assert page.with_class("agrees") == []
    assert "other label" not in page.text


def test_the_prediction_and_its_doubts_are_shown(
    parse: Callable, make_result: Make, prediction: Prediction
) -> None:
    predictions = {"/incoming/query.png": prediction}
    page = parse(search_page([make_result()], pictures={}, model=MODEL, predictions=predictions))
    assert "normal 7 % pneumonia 93 %" in page.text
    assert "Uncertain" in page.text
    assert "Out of distribution" not in page.text


def test_one_class_has_one_colour_on_the_whole_page(
    parse: Callable, make_result: Make, prediction: Prediction
) -> None:
    results = [make_result(), make_result("/incoming/second.png")]
    predictions = {"/incoming/query.png": prediction}
    page = parse(search_page(results, pictures={}, model=MODEL, predictions=predictions))
    # normal and pneumonia: dot and bar of two votes and a prediction, dot of one hit a query.
    assert len(page.with_class("colour-0")) == len(page.with_class("colour-1")) == 8


def test_warnings_and_no_good_match_are_said(parse: Callable, make_result: Make) -> None:
    warned = make_result(no_good_match=True, warnings=(ScanWarning("gap", "two slices are gone"),))
    page = parse(search_page([warned], pictures={}, model=MODEL))
    assert "No good match" in page.text
    assert "Warning: two slices are gone" in page.text


def test_hostile_names_are_text_and_not_markup(
    parse: Callable, make_result: Make, make_hit: Callable[..., Hit]
) -> None:
    hostile = "\"><img src=x onerror=alert(1)><script>alert('x')<.png"
    hit = make_hit(1, path=f"/a/{hostile}", label=hostile, modality=hostile)
    result = make_result(hostile, hits=(hit,), vote={hostile: 1.0})
    page = parse(search_page([result], pictures={}, model={"name": hostile}))
    assert page.external == []
    assert page.all("img") == []
    assert page.text.count(hostile) >= 5


def test_a_name_that_is_no_utf8_can_be_written(make_result: Make) -> None:
    page = search_page([make_result("/incoming/\udcff.png")], pictures={}, model=MODEL)
    assert b"?.png" in page.encode("utf-8")


def test_hide_paths_leaves_no_path(
    parse: Callable, make_result: Make, make_hit: Callable[..., Hit], jpeg: bytes
) -> None:
    hit = make_hit(1, path="/secret/mueller/ct", slice=2, file="/secret/mueller/ct/smith.dcm")
    query = "/secret/mueller/query.png"
    warning = ScanWarning("gap", f"{query} has a gap")
    result = make_result(
        query,
        hits=(hit,),
        warnings=(warning,),
        gallery={"path": "/secret/gallery", "generation": 1, "fingerprint": "f"},
    )
    html = search_page(
        [result],
        pictures={query: jpeg, (query, 101, 2): jpeg},
        model={"name": "/secret/run", "task": "lung"},
        failures=[Failure("/secret/smith.dcm", "truncated", "/secret/smith.dcm ends early")],
        hide_paths=True,
    )
    for trace in ("secret", "mueller", "smith", ".dcm", ".png"):
        assert trace not in html
    page = parse(html)
    assert [image["alt"] for image in page.all("img")] == [
        "Query: Query 1",
        "Hit 1: Scan 101, slice 2",
    ]
    assert "Warning: gap" in page.text
    assert "Input 1 truncated" in page.text


def test_synthetic_is_marked_only_when_asked(parse: Callable, make_result: Make) -> None:
    for synthetic in (False, True):
        html = search_page([make_result()], pictures={}, model=MODEL, synthetic=synthetic)
        assert bool(parse(html).with_class("badge")) is synthetic


def test_every_query_can_be_reached_by_keyboard(parse: Callable, make_result: Make) -> None:
    results = [make_result(f"/incoming/{n}.png") for n in range(3)]
    page = parse(search_page(results, pictures={}, model=MODEL))
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = [link["href"][1:] for link in page.all("a")]
    assert links == ["main", "query-1", "query-2", "query-3"]
    assert set(links) <= targets


def test_inputs_that_failed_are_listed(parse: Callable, make_result: Make) -> None:
    failure = Failure("/incoming/broken.dcm", "truncated", "the file ends early")
    page = parse(search_page([make_result()], pictures={}, model=MODEL, failures=[failure]))
    assert "Not searched with broken.dcm the file ends early" in page.text


def test_a_query_without_hits_says_so(parse: Callable, make_result: Make) -> None:
    page = parse(search_page([make_result(hits=(), vote={})], pictures={}, model=MODEL))
    assert "No stored scan answers this query." in page.text
    assert "Vote of the hits" not in page.text
