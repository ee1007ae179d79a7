"""Every way to ask and every form of the answer, on generated scans."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

Run = Callable[..., Any]

SCHEMA = Path(__file__).parents[2] / "docs" / "search.schema.json"


@pytest.fixture
def hits(medcli: Run, archive: Path) -> Callable[..., list[dict[str, Any]]]:
    """Search and give the hits; every line that was printed meets the schema."""
    check = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))

    def ask(*arguments: str | Path, status: int = 0) -> list[dict[str, Any]]:
        done = medcli("search", *arguments, "--json")
        assert done.status == status, done.err
        for line in done.json:
            check.validate(line)
        return list(done.json[0]["hits"]) if done.json and "hits" in done.json[0] else []

    return ask


def named(found: list[dict[str, Any]]) -> list[str]:
    return [Path(hit["path"]).name for hit in found]


@pytest.fixture
def slice_of(tmp_path: Path, sample_folder: Path) -> Callable[[str, int], Path]:
    """A slice of a sample series as a PNG through the lung window."""
    from medcli.data.gathering import gather_cases
    from medcli.imaging.batch import read_all
    from medcli.imaging.intensity import apply_window

    def save(name: str, number: int) -> Path:
        ((_, scan),) = read_all(gather_cases([str(sample_folder / "ct" / name)]))
        values = apply_window(scan.pixels[number, :, :, 0], -600, 1500)  # type: ignore[union-attr]
        path = tmp_path / f"{name}-{number}.png"
        Image.fromarray(np.rint(values * 255).astype(np.uint8)).save(path)
        return path

    return save


def test_every_line_of_json_meets_the_schema(hits: Any, sample_folder: Path) -> None:
    assert len(hits(sample_folder / "query.png", "none.png", "-k", "3", status=3)) == 3
    assert hits("none.png", status=3) == []


def test_the_schema_refuses_what_is_no_answer() -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"query": "q", "status": "ok"}, schema)


def test_a_condition_comes_before_the_search(hits: Any, sample_folder: Path) -> None:
    query = sample_folder / "query.png"
    found = hits(query, "-k", "3", "--where", "label = malignant and modality = CT")
    assert [hit["label"] for hit in found] == ["malignant"] * 3
    assert {hit["label"] for hit in hits(query, "--where", "site in (site-a)")} != set()


def test_a_condition_that_is_none_names_position_and_columns(
    medcli: Run, archive: Path, sample_folder: Path
) -> None:
    done = medcli("search", sample_folder / "query.png", "--where", "label = ")
    assert done.status == 2
    assert "position 9" in done.err
    assert "manufacturer" in done.err


def test_groups_have_one_hit_each(hits: Any, sample_folder: Path) -> None:
    found = hits(sample_folder / "query.png", "-k", "6", "--group-by", "patient")
    patients = [hit["patient"] for hit in found]
    assert len(found) == 6
    assert len(set(patients)) == 6
    studies = hits(sample_folder / "query.png", "-k", "4", "--group-by", "study")
    known = [hit["study"] for hit in studies if hit["study"]]
    assert len(set(known)) == len(known) > 0


def test_a_stored_scan_is_asked_for_by_its_id(
    hits: Any, medcli: Run, archive: Path, sample_folder: Path
) -> None:
    series = sample_folder / "ct" / "SYN-0003-1"
    by_file, by_id = hits(series, "-k", "4"), hits("3", "-k", "4")
    assert [hit["id"] for hit in by_id] == [hit["id"] for hit in by_file]
    assert [hit["score"] for hit in by_id] == pytest.approx(
        [hit["score"] for hit in by_file], abs=1e-3
    )
    absent = medcli("search", "99")
    assert absent.status == 2
    assert "99" in absent.err


def test_the_own_patient_is_left_out_by_tags_manifest_and_pixels(
    hits: Any, medcli: Run, archive: Path, sample_folder: Path, tmp_path: Path, slice_of: Any
) -> None:
    from medcli.retrieval.gallery import Gallery

    with Gallery.open(archive) as gallery:
        third, fifth = gallery.patient_hash("SYN-0003"), gallery.patient_hash("SYN-0005")
    by_tags = hits(sample_folder / "ct" / "SYN-0003-1", "-k", "20")
    picture = slice_of("SYN-0003-1", 2)
    (tmp_path / "asked.csv").write_text(f"path,patient_id\n{picture},SYN-0003\n")
    by_manifest = hits(tmp_path / "asked.csv", "-k", "20")
    volume = next((sample_folder / "ct").glob("SYN-0005*.nii.gz"))  # NIfTI names no patient
    by_pixels = hits(volume, "-k", "20")
    assert third not in {hit["patient"] for hit in [*by_tags, *by_manifest]}
    assert fifth not in {hit["patient"] for hit in by_pixels}
    everyone = hits(tmp_path / "asked.csv", "-k", "20", "--same-patient")
    assert everyone[0]["patient"] == third


def test_a_picture_of_a_slice_through_any_window_finds_series_and_slice(
    hits: Any, slice_of: Any
) -> None:
    first = hits(slice_of("SYN-0004-1", 5), "-k", "1")[0]
    assert (Path(first["path"]).name, first["slice"]) == ("SYN-0004-1", 5)


def test_a_region_of_a_screen_shot_finds_the_slice_in_it(
    hits: Any, slice_of: Any, tmp_path: Path
) -> None:
    picture = np.asarray(Image.open(slice_of("SYN-0004-1", 5)))
    height, width = picture.shape
    screen = np.full((height + 90, width + 140), 230, np.uint8)
    screen[30 : 30 + height, 100 : 100 + width] = picture
    Image.fromarray(screen).save(tmp_path / "screen.png")
    region = f"100,30,{100 + width},{30 + height}"
    first = hits(tmp_path / "screen.png", "--region", region, "-k", "1")[0]
    assert (Path(first["path"]).name, first["slice"]) == ("SYN-0004-1", 5)
    assert first["score"] > 0.99


def test_some_slices_of_a_series_find_it_with_the_same_patient(
    hits: Any, sample_folder: Path
) -> None:
    series = sample_folder / "ct" / "SYN-0003-1"
    own = hits(series, "--slices", "2-4", "--same-patient", "-k", "1")[0]
    assert Path(own["path"]).name == "SYN-0003-1"
    assert own["score"] > 0.99
    assert own["slice"] in (2, 3, 4)
    assert "SYN-0003-1" not in named(hits(series, "--slices", "3", "-k", "20"))


def test_two_joined_series_are_found_by_pictures_of_them(hits: Any, slice_of: Any) -> None:
    one, two = slice_of("SYN-0002-1", 3), slice_of("SYN-0004-1", 5)
    found = hits(one, "--plus", two, "-k", "4")
    assert {"SYN-0002-1", "SYN-0004-1"} <= set(named(found))
    ranks = named(hits(one, "--minus", two, "-k", "20"))
    assert ranks.index("SYN-0002-1") < ranks.index("SYN-0004-1")


def test_judged_scans_move_the_query_and_are_hidden(hits: Any, sample_folder: Path) -> None:
    query = sample_folder / "query.png"
    before = hits(query, "-k", "20")
    judged = before[-1]["id"]
    after = hits(query, "-k", "20", "--more", judged)
    assert judged not in {hit["id"] for hit in after}
    assert len(after) == len(before) - 1
    assert after[0]["score"] != before[0]["score"]


def test_a_timeline_shows_the_own_patient_only(hits: Any, sample_folder: Path) -> None:
    found = hits(sample_folder / "ct" / "SYN-0003-1", "--timeline", "-k", "1")
    assert named(found) == ["SYN-0003-2"]
    assert found[0]["days"] == 0  # generated scans are of one day


def test_a_receipt_is_reproduced_and_what_an_addition_changes_is_named(
    medcli: Run, archive: Path, sample_folder: Path, tmp_path: Path
) -> None:
    query, receipt = sample_folder / "query.png", tmp_path / "receipt.json"
    assert medcli("search", query, "3", "-k", "20", "--receipt", receipt).status == 0
    again = medcli("replay", receipt, "--json")
    assert again.status == 0
    assert [line["reproduced"] for line in again.json] == [True, True]
    assert medcli("index", "add", query).status == 0
    changed = medcli("replay", receipt, "--json")
    assert changed.status == 1
    first, second = changed.json
    assert "1 scans added, 0 removed" in first["gallery_changes"][0]
    # The query itself is stored now, and a stored scan does not answer itself.
    assert first["reproduced"]
    assert not second["reproduced"]
    assert [change for change in second["changes"] if "scan 9 is a hit now" in change]
    assert "added since" in second["changes"][0]
    assert medcli("index", "remove", str(first["hits"][0]["id"])).status == 0
    assert "then, is removed" in medcli("replay", receipt).out


def test_a_receipt_that_was_changed_or_is_none_is_refused(
    medcli: Run, archive: Path, sample_folder: Path, tmp_path: Path
) -> None:
    receipt = tmp_path / "receipt.json"
    medcli("search", sample_folder / "query.png", "--receipt", receipt)
    receipt.write_text(receipt.read_text().replace('"k": 5', '"k": 6'))
    assert medcli("replay", receipt).status == 4
    receipt.write_text("{}")
    assert medcli("replay", receipt).status == 2
    assert medcli("replay", tmp_path / "none.json").status == 2


def test_a_csv_has_a_row_a_hit(
    medcli: Run, archive: Path, sample_folder: Path, tmp_path: Path
) -> None:
    table = tmp_path / "hits.csv"
    done = medcli("search", sample_folder / "query.png", "gone.png", "-k", "3", "--csv", table)
    assert done.status == 3
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [row["rank"] for row in rows] == ["1", "2", "3", ""]
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "not_found"]
    assert float(rows[0]["score"]) > 0.99


def test_a_contact_sheet_shows_the_query_and_its_hits(
    medcli: Run, archive: Path, sample_folder: Path, tmp_path: Path
) -> None:
    sheet = tmp_path / "hits.png"
    assert medcli("search", sample_folder / "query.png", "-k", "3", "--sheet", sheet).status == 0
    with Image.open(sheet) as image:
        pixels = np.asarray(image.convert("L")).astype(int)
    cells = [pixels[60:200, 8 + 164 * i : 168 + 164 * i] for i in range(4)]
    assert all(cell.std() > 5 for cell in cells)
    # The first hit is the slice that the query was made from, seen through the same window.
    assert np.abs(cells[0] - cells[1]).mean() < 4


def test_a_page_draws_hits_through_the_window_of_the_query(
    medcli: Run, archive: Path, sample_folder: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    series = sample_folder / "ct" / "SYN-0003-1"
    assert medcli("search", series, "-k", "2", "--html", page).status == 0
    text = page.read_text()
    assert text.count("Window <bdi>") >= 3
    assert "Nearest of each class" in text


def test_pictures_go_to_no_pipe(medcli: Run, archive: Path, sample_folder: Path) -> None:
    done = medcli("search", sample_folder / "query.png", "--show")
    assert done.status == 0
    assert "▀" not in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--region", "1,2,3"], "not 4 or 6 numbers"),
        (["--region", "0,0,9999,5"], "not inside of the scan"),
        (["--slices", "a-b"], "no range"),
        (["--slices", "5-2"], "has no slices"),
        (["--more", "77"], "no stored scan has the id 77"),
    ],
)
def test_what_cannot_be_asked_is_said(
    medcli: Run, archive: Path, sample_folder: Path, arguments: list[str], message: str
) -> None:
    done = medcli("search", sample_folder / "query.png", *arguments)
    assert done.status == 2
    assert message in done.err


def test_a_scan_that_is_to_be_joined_and_cannot_be_read_ends_the_search(
    medcli: Run, archive: Path, sample_folder: Path
) -> None:
    assert medcli("search", sample_folder / "query.png", "--plus", "gone.png").status == 3


def test_evidence_joins_prediction_and_neighbours(
    medcli: Run, archive: Path, sample_folder: Path, tmp_path: Path
) -> None:
    inputs = (sample_folder / "query.png", sample_folder / "scan.dcm", "gone.png")
    done = medcli("classify", *inputs, "--evidence", "--json", "--csv", tmp_path / "e.csv")
    assert done.status == 3
    for answer in done.json[:2]:
        found = answer["neighbours"]
        assert len(answer["evidence"]) == 5
        best = max(found["vote"].values())
        assert found["agrees"] == (found["vote"].get(answer["label"], 0) == best)
        low, high = found["vote_ci"][answer["evidence"][0]["label"]]
        assert 0 <= low < high <= 1
    disagree = sum(not answer["neighbours"]["agrees"] for answer in done.json[:2])
    assert done.err.count("the nearest scans disagree with the model") == disagree
    rows = list(csv.DictReader(io.StringIO((tmp_path / "e.csv").read_text())))
    assert [row["neighbours_agree"] for row in rows[:2]] == [
        str(answer["neighbours"]["agrees"]).lower() for answer in done.json[:2]
    ]
    assert "with the model" in medcli("classify", sample_folder / "scan.dcm", "--evidence").out


def test_evidence_of_another_model_is_refused(
    medcli: Run, archive: Path, sample_folder: Path, make_package: Any, tmp_path: Path
) -> None:
    other = make_package(tmp_path / "other", seed=5).path
    scan = sample_folder / "scan.dcm"
    assert medcli("classify", scan, "--evidence", "-m", other).status == 5
    assert medcli("classify", scan, "-g", archive).status == 2


def test_a_search_loads_nothing_that_only_training_and_pages_need() -> None:
    program = (
        "import sys, medcli.cli.search, medcli.workflows.searching, medcli.retrieval.search; "
        "print({'torch', 'sklearn', 'scipy', 'matplotlib', 'jinja2', 'PIL'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
