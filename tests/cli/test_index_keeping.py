"""`medcli index update … forget`: exit status, JSON and words."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import medcli as medcli_package
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


@pytest.fixture
def named(medcli: Run, model: ModelPackage, scans: Path) -> Path:
    """A gallery of `scans` that is not the default one."""
    place = Path("Jane's archive").resolve()
    assert medcli("index", "build", scans / "manifest.csv", "-g", place).status == 0
    return place


def commands_in(text: str) -> list[list[str]]:
    """The command lines that a text says to run, as a shell takes them apart."""
    return [shlex.split(each) for each in re.findall(r"`(medcli [^`]+)`", text)]


def test_a_damaged_gallery_is_mended_by_the_commands_that_are_printed(
    medcli: Run, named: Path, sample_folder: Path
) -> None:
    (named / "model" / "graph.onnx").write_bytes(b"damage")
    done = medcli("search", sample_folder / "query.png", "-g", named)
    assert done.status == 4
    mend, anew = commands_in(done.err)
    assert mend == ["medcli", "index", "repair", "-g", str(named)]
    assert anew == ["medcli", "index", "build", "SCANS", "--overwrite", "-g", str(named)]
    assert commands_in(medcli("index", "verify", "-g", named).err) == [mend, anew]
    assert medcli(*mend[1:]).out == "repaired: the copy of the model\nall is well\n"
    assert medcli("index", "verify", "-g", named).status == 0


def test_repair_is_named_with_the_model_where_none_is_at_hand(
    medcli: Run, named: Path, model: ModelPackage
) -> None:
    (named / "model" / "graph.onnx").write_bytes(b"damage")
    moved = shutil.move(model.path, Path("elsewhere").resolve())
    for command in ("verify", "repair"):
        done = medcli("index", command, "-g", named)
        assert done.status == 4
        mend, anew = commands_in(done.err)
        assert mend == ["medcli", "index", "repair", "--model", "MODEL", "-g", str(named)]
        assert anew[-3:] == ["--overwrite", "-g", str(named)]
    assert medcli("index", "repair", "--model", moved, "-g", named).status == 0


def test_a_run_with_the_same_weights_and_other_files_is_not_taken_for_the_model(
    medcli: Run, named: Path, model: ModelPackage
) -> None:
    (named / "model" / "graph.onnx").write_bytes(b"damage")
    with (model.path / "manifest.json").open("a") as file:
        file.write("\n")
    done = medcli("index", "repair", "-g", named)
    assert done.status == 4
    assert "model_damaged" in done.err


@pytest.mark.parametrize("name", ["scan.faiss", "model/graph.onnx", "catalogue.sqlite"])
def test_the_way_out_hides_the_path(medcli: Run, named: Path, name: str) -> None:
    (named / name).write_bytes(b"damage" * 200)
    for command in ("verify", "repair", "info"):
        done = medcli("index", command, "-g", named, "--hide-paths")
        assert "Jane" not in done.out + done.err
        assert "-g …" in done.err or command != "verify"


def test_every_command_that_is_printed_for_a_gallery_names_it() -> None:
    package = Path(medcli_package.__file__).parent
    found = 0
    for module in package.rglob("*.py"):
        tree = ast.parse(module.read_text())
        given = {
            id(part)
            for call in ast.walk(tree)
            if isinstance(call, ast.Call)
            and getattr(call.func, "id", getattr(call.func, "attr", ""))
            in ("for_gallery", "command")
            for part in ast.walk(call)
        }
        found += len(given)
        for text in ast.walk(tree):
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                bare = re.search(r"medcli index [a-z]+", text.value) and id(text) not in given
                docstring = text.value.startswith("`medcli index") or "Example: " in text.value
                about_all = module.name in ("codes.py", "demonstration.py", "embedding.py")
                assert not bare or docstring or about_all, f"{module}: {text.value}"
    assert found


def test_what_repair_cannot_open_is_not_sent_to_it(medcli: Run, named: Path) -> None:
    (named / "catalogue.sqlite").write_bytes(b"no catalogue" * 100)
    for command in ("verify", "repair", "info"):
        done = medcli("index", command, "-g", named)
        assert done.status == 4
        assert [each[2] for each in commands_in(done.err)] == ["build"]


def test_a_damaged_index_of_a_named_gallery_is_mended_by_the_command_that_is_printed(
    medcli: Run, named: Path
) -> None:
    damage(named / "scan.faiss")
    done = medcli("index", "verify", "-g", named)
    command = done.err.strip().rpartition("mend it with: ")[2]
    assert shlex.split(command) == ["medcli", "index", "repair", "-g", str(named)]


def test_a_gallery_that_exists_is_not_mistaken_for_the_default_one(
    medcli: Run, named: Path, scans: Path
) -> None:
    done = medcli("index", "build", scans, "-g", named)
    assert done.status == 2
    for command in ("add", "update"):
        assert f"medcli index {command} -g {shlex.quote(str(named))}" in done.err


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


def test_tune_prints_what_was_measured_and_keeps_the_choice(
    medcli: Run, archive: Path, monkeypatch: pytest.MonkeyPatch, sample_folder: Path
) -> None:
    from medcli.retrieval import choice, tuning

    small = medcli("index", "tune", "--index", "hnsw")
    assert small.status == 2
    assert "hnsw needs 1,000 vectors" in small.err
    exact = medcli("index", "tune", "--index", "exact", "--json").json[0]
    assert (exact["index"], exact["trials"]) == ({"kind": "exact"}, [])
    for module in (choice, tuning):
        monkeypatch.setattr(module, "FEWEST", {"hnsw": 2, "ivfpq": 10_000})
    done = medcli("index", "tune", "--index", "hnsw", "--recall", "0.5")
    assert done.status == 0, done.err
    assert "recall@10" in done.out
    assert "from now on approximate search (hnsw): recall@10 1.000" in done.out
    (facts,) = medcli("index", "info", "--json").json
    assert (facts["index"]["kind"], facts["index"]["recall"]) == ("hnsw", 1.0)
    assert "hnsw, recall@10 1.000" in medcli("index", "info").out
    found = medcli("search", sample_folder / "query.png")
    assert "[approximate_search]" in found.err
    assert medcli("index", "verify").status == 0
    assert medcli("index", "tune", "--index", "exact").status == 0
    assert "approximate" not in medcli("search", sample_folder / "query.png").err


def test_build_with_an_index_that_is_too_large_stays_exact(
    medcli: Run, model: ModelPackage, scans: Path
) -> None:
    done = medcli("index", "build", scans, "-g", "g", "--index", "ivfpq")
    assert done.status == 0
    assert "ivfpq needs 10,000 vectors" in done.err


def test_migrate_tells_the_overlap_before_it_switches(
    medcli: Run, archive: Path, scans: Path, make_package: Callable[..., ModelPackage]
) -> None:
    other = make_package(Path("other"), seed=7)
    refused = medcli("index", "add", scans, "--model", other.path)
    assert refused.status == 5
    assert other.fingerprint in refused.err
    assert "medcli index migrate" in refused.err
    dry = medcli("index", "migrate", other.path, "--dry-run")
    assert dry.status == 0, dry.err
    assert "overlap@1: 1.000" in dry.out
    assert "the gallery is as it was" in dry.err
    (answer,) = medcli("index", "migrate", other.path, "--json", "--hide-paths").json
    assert (answer["switched"], answer["embedded"], answer["gallery"]) == (True, 2, None)
    assert answer["overlap"]["overlap"] == 1.0
    assert medcli("index", "info", "--json").json[0]["fingerprint"] == other.fingerprint
    again = medcli("index", "migrate", other.path)
    assert again.status == 2
    assert "nothing to migrate" in again.err


def test_migrate_without_a_file_keeps_the_gallery(
    medcli: Run, archive: Path, scans: Path, make_package: Callable[..., ModelPackage]
) -> None:
    other = make_package(Path("other"), seed=7)
    shutil.rmtree(scans / f"{SECRET}-SYN-0001-1")
    done = medcli("index", "migrate", other.path, "--hide-paths")
    assert done.status == 3
    assert SECRET not in done.out + done.err
    assert "1 scans cannot be embedded anew: the gallery is as it was" in done.err
    assert medcli("index", "migrate", other.path, "--prune").status == 3
    (facts,) = medcli("index", "info", "--json").json
    assert (facts["scans"], facts["fingerprint"]) == (1, other.fingerprint)
