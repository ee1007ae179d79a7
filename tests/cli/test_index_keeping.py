"""`medcli index update … forget`: exit status, JSON and words."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medcli.models.package import ModelPackage
from medcli.retrieval.storage import writer_lock

Run = Callable[..., Any]
SECRET = "DOE^JANE"


@pytest.fixture
def scans(sample_folder: Path) -> Path:
    """Two series of two patients in folders that name a person, below the current folder."""
    folder = Path(SECRET)
    for name in ("SYN-0001-1", "SYN-0002-1"):
        shutil.copytree(sample_folder / "ct" / name, folder / f"{SECRET}-{name}")
    rows = [f"{SECRET}-SYN-000{i}-1,SYN-000{i},{label}" for i, label in ((1, "b"), (2, "m"))]
    (folder / "manifest.csv").write_text("\n".join(["path,patient_id,label", *rows]))
    return folder


@pytest.fixture
def archive(medcli: Run, model: ModelPackage, scans: Path) -> Path:
    """The default gallery of `scans`."""
    done = medcli("index", "build", scans / "manifest.csv")
    assert done.status == 0, done.err
    return Path(done.out.strip())


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def test_verify_says_what_was_compared(medcli: Run, archive: Path) -> None:
    done = medcli("index", "verify")
    assert done.status == 0
    assert done.out.startswith("2 scans: every checksum matches; 2 embedded anew and 3 canaries")
    (answer,) = medcli("index", "verify", "--json", "--sample", "1").json
    assert answer == {
        "gallery": str(archive),
        "status": "ok",
        "rows": 2,
        "problems": [],
        "recomputed": 1,
        "unavailable": 0,
        "canaries": 3,
    }


def test_a_damaged_index_is_status_4_until_it_is_repaired(medcli: Run, archive: Path) -> None:
    damage(archive / "scan.faiss")
    done = medcli("index", "verify")
    assert done.status == 4
    assert "scan.faiss is damaged [index_damaged]" in done.errors[0]
    assert "medcli index repair" in done.err
    (answer,) = medcli("index", "verify", "--json").json
    assert answer["status"] == "damaged"
    assert [each["code"] for each in answer["problems"]] == ["index_damaged"]
    (repaired,) = medcli("index", "repair", "--json").json
    assert repaired["repaired"] == ["the search index"]
    assert repaired["status"] == "ok"
    assert medcli("index", "repair").out == "nothing was wrong\n"
    assert medcli("index", "verify").status == 0


def test_a_catalogue_that_cannot_be_opened_is_a_problem_in_json_too(
    medcli: Run, archive: Path
) -> None:
    (archive / "catalogue.sqlite").write_bytes(b"no catalogue" * 100)
    done = medcli("index", "verify", "--json")
    assert done.status == 4
    assert (done.json[0]["rows"], done.json[0]["problems"][0]["code"]) == (
        None,
        "catalogue_damaged",
    )
    assert medcli("index", "repair").status == 4


def test_update_counts_what_it_did(medcli: Run, archive: Path, scans: Path) -> None:
    (scans / f"{SECRET}-SYN-0001-1").rename(scans / "moved")
    done = medcli("index", "update")
    assert done.status == 0
    assert "its files are gone" in done.err
    assert "1 unchanged, 1 missing" in done.err
    (answer,) = medcli("index", "update", scans / "moved", "--json").json
    counts = {key: answer[key] for key in ("unchanged", "updated", "added", "moved", "missing")}
    assert counts == {"unchanged": 0, "updated": 0, "added": 0, "moved": 1, "missing": 0}
    shutil.rmtree(scans / "moved")
    (answer,) = medcli("index", "update", "--prune", "--json").json
    assert (answer["pruned"], answer["missing"]) == (1, 0)
    assert [each["path"] for each in answer["missing_scans"]] == [str(scans.resolve() / "moved")]


def test_remove_takes_ids_and_paths_and_names_what_is_unknown(
    medcli: Run, archive: Path, scans: Path
) -> None:
    done = medcli("index", "remove", "2", "7", "--json")
    assert done.status == 3
    (answer,) = done.json
    assert (answer["removed"], answer["failed"]) == (1, 1)
    assert answer["failures"][0]["error"]["code"] == "not_found"
    assert medcli("index", "remove", scans).status == 0
    assert medcli("index", "info", "--json").json[0]["scans"] == 0


def test_export_and_compact(medcli: Run, archive: Path) -> None:
    done = medcli("index", "export", "-o", "out", "--json")
    assert (done.status, done.json[0]["output"], done.json[0]["scans"]) == (0, "out", 2)
    again = medcli("index", "export", "-o", "out")
    assert again.status == 2
    assert "--overwrite" in again.err
    (answer,) = medcli("index", "compact", "--json").json
    assert set(answer) == {"gallery", "bytes_before", "bytes_after", "drafts_removed"}


def test_audit_lists_pairs(medcli: Run, archive: Path, sample_folder: Path) -> None:
    for name in ("a.png", "b.png"):
        shutil.copy(sample_folder / "query.png", name)
    Path("twins.csv").write_text("path,label,patient_id\na.png,b,P1\nb.png,m,P2\n")
    assert medcli("index", "add", "twins.csv").status == 0
    (answer,) = medcli("index", "audit", "--json").json
    assert (answer["scans"], answer["near_duplicate"], answer["near_label_conflict"]) == (4, 1, 1)
    (pair,) = answer["pairs"]
    assert (pair["ids"], pair["same_pixels"]) == ([3, 4], True)
    assert pair["codes"] == ["near_duplicate", "near_label_conflict"]
    assert "b / m" in medcli("index", "audit").out


def test_forget_proves_what_it_did_and_never_tells_the_id(
    medcli: Run, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = medcli("index", "forget", "--patient", "SYN-0009")
    assert unknown.status == 3
    done = medcli("index", "forget", "--patient", "SYN-0001", "--json")
    assert done.status == 0
    (answer,) = done.json
    assert answer["removed"]["scans"] == 1
    assert answer["found_before"] > 20
    assert answer["found_after"] == 0
    for said in (unknown, done):
        assert "SYN-000" not in said.out + said.err
    assert medcli("index", "info", "--json").json[0]["patients"] == 1


@pytest.mark.parametrize(
    "command", [["update"], ["remove", "1"], ["repair"], ["compact"], ["forget", "--patient", "P"]]
)
def test_a_lock_is_respected(medcli: Run, archive: Path, command: list[str]) -> None:
    damage(archive / "slice.faiss")
    if command[0] == "update":
        shutil.rmtree(archive.parent.parent / "work" / SECRET / f"{SECRET}-SYN-0001-1")
        command = [*command, "--prune"]
    if command[0] == "forget":
        command = ["forget", "--patient", "SYN-0001"]
    if command[0] == "repair":
        import sqlite3

        connection = sqlite3.connect(archive / "catalogue.sqlite")
        connection.execute("UPDATE slices SET thumbnail = x'00' WHERE scan = 1")
        connection.commit()
        connection.close()
    with writer_lock(archive / "writer.lock", 0):
        done = medcli("index", *command, "--lock-timeout", "0.1")
    assert done.status == 6
    assert "another process" in done.errors[0]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_no_path_gets_out_where_it_is_hidden(
    medcli: Run, archive: Path, scans: Path, form: list[str]
) -> None:
    shutil.copytree(scans / f"{SECRET}-SYN-0001-1", scans / f"{SECRET} new")
    (scans / f"{SECRET} broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    shutil.rmtree(scans / f"{SECRET}-SYN-0002-1")
    damage(archive / "scan.faiss")
    hidden = ["--hide-paths", *form]
    said = [
        medcli("index", "verify", *hidden),
        medcli("index", "update", scans, *hidden),
        medcli("index", "update", *hidden),
        medcli("index", "remove", scans / f"{SECRET} gone", *hidden),
        medcli("index", "repair", *hidden),
        medcli("index", "info", *hidden),
        medcli("index", "audit", "--threshold", "0.5", *hidden),
        medcli("index", "export", "-o", "out", *hidden),
        medcli("index", "compact", *hidden),
        medcli("index", "forget", "--patient", "SYN-0001", *hidden),
    ]
    assert [done.status for done in said] == [4, 3, 0, 3, 0, 0, 0, 0, 0, 0]
    for done in said:
        assert SECRET not in done.out + done.err
        assert str(archive) not in done.out + done.err
    for file in Path("out").iterdir():
        assert SECRET.encode() not in file.read_bytes()


def test_failures_are_counted_by_code(medcli: Run, model: ModelPackage, scans: Path) -> None:
    for number in range(2):
        (scans / f"{number}.png").write_text("none")
    (scans / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = medcli("index", "build", scans, "-g", "g")
    assert done.status == 3
    table = done.err[done.err.index("failed, by code:") :]
    assert "  not_an_image      2  " in table
    assert "1 added" not in table
    assert "2 added, 3 failed" in table


def test_the_page_numbers_queries_as_the_command_does(
    medcli: Run, archive: Path, sample_folder: Path
) -> None:
    Path("a.png").write_text("none")
    done = medcli(
        "search", "a.png", sample_folder / "query.png", "--html", "page.html", "--hide-paths"
    )
    assert done.status == 3
    page = Path("page.html").read_text()
    assert "scan-2" in page
    assert "scan-1" in page  # the one that failed
    assert "Query 1" not in page
