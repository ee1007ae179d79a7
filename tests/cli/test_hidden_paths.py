"""With --hide-paths no path and no file name gets out: not on stdout or stderr, not into files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medcli.models.package import ModelPackage

Run = Callable[..., Any]
SECRET = "DOE^JANE"


@pytest.fixture
def secret(sample_folder: Path, tmp_path: Path) -> Path:
    """Scans, a text and a broken picture in folders and files that name a patient."""
    folder = tmp_path / SECRET
    shutil.copytree(sample_folder / "ct" / "SYN-0001-1", folder / f"series of {SECRET}")
    shutil.copy(sample_folder / "query.png", folder / f"{SECRET}.png")
    (folder / f"{SECRET}.txt").write_text("words")
    (folder / f"{SECRET} broken.png").write_bytes((sample_folder / "query.png").read_bytes()[:200])
    rows = ["path,label", *(f"{SECRET}.png,{label}" for label in ("benign", "malignant"))]
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    (folder / "one_column.csv").write_text(f"{SECRET}\n")
    return folder


def all_text(done: Any) -> str:
    """Everything that a command has said or written into the current folder."""
    written = [file.read_text() for file in Path().iterdir() if file.is_file()]
    return "\n".join([done.out, done.err, *written])


@pytest.mark.parametrize("form", [[], ["--json"], ["--csv", "table.csv"]])
def test_classify(medcli: Run, model: Any, secret: Path, form: list[str]) -> None:
    done = medcli("classify", secret, secret / "gone.dcm", "--hide-paths", *form)
    assert done.status == 3
    assert SECRET not in all_text(done)
    assert "scan-" in all_text(done)


@pytest.mark.parametrize("form", [[], ["--json"], ["--html", "page.html"]])
def test_search(medcli: Run, model: Any, secret: Path, form: list[str]) -> None:
    gallery = secret / "gallery"
    assert SECRET not in all_text(medcli("index", "build", secret, "-g", gallery, "--hide-paths"))
    done = medcli("search", secret, "-g", gallery, "-k", "9", "--hide-paths", *form)
    assert done.status == 3
    assert SECRET not in all_text(done)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_index(
    medcli: Run, model: Any, secret: Path, form: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(secret)
    gallery = secret / "gallery"
    said = [
        medcli("index", "build", "-g", gallery, "--hide-paths", *form),  # by a bad manifest
        medcli("index", "build", ".", "-g", gallery, "--hide-paths", *form),
        medcli("index", "add", ".", "-g", gallery, "--hide-paths", *form),
        medcli("index", "info", "-g", gallery, "--hide-paths", *form),
        medcli("index", "build", "-g", gallery, "--hide-paths", *form),
    ]
    assert [done.status for done in said] == [2, 3, 3, 0, 2]
    for done in said:
        assert SECRET not in done.out + done.err


def test_evaluate(medcli: Run, model: Any, secret: Path) -> None:
    with (secret / "manifest.csv").open("a") as file:
        file.write(f"{SECRET} broken.png,benign\n")
    done = medcli("evaluate", "latest", secret / "manifest.csv", "--hide-paths", "--json")
    assert done.status in (2, 3)
    assert SECRET not in done.out + done.err


@pytest.mark.parametrize(
    "command",
    [
        ["classify"],
        ["classify", "--csv", "table.csv"],
        ["inspect"],
        ["search"],
        ["data", "check"],
        ["index", "build", "-g", "new"],
        ["index", "add"],
    ],
)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_ids_follow_the_order_of_the_input(
    medcli: Run, archive: Path, sample_folder: Path, command: list[str], form: list[str]
) -> None:
    shutil.copy(sample_folder / "query.png", "good.png")
    Path("bad.png").write_text("no picture")
    done = medcli(*command, "good.png", "gone.dcm", "bad.png", "--hide-paths", *form)
    assert done.status == 3
    told = [line for line in done.err.splitlines() if line.startswith("error: scan-")]
    assert {line.split(":")[1].strip(): line.split("[")[1] for line in told} == {
        "scan-2": "not_found]",
        "scan-3": "not_an_image]",
    }
    if form and command[0] == "index":
        assert [each["path"] for each in done.json[0]["failures"]] == ["scan-2", "scan-3"]
    elif form:
        assert [each["path"] for each in done.json] == ["scan-1", "scan-2", "scan-3"]
    elif command[0] in ("classify", "inspect", "search"):
        assert "scan-1" in done.out


@pytest.mark.parametrize(
    "command",
    [
        ["classify", "{0}/one_column.csv"],
        ["classify", "{0}/manifest.csv", "--model={0}"],
        ["classify", "{0}/manifest.csv", "--csv", "{0}/one_column.csv"],
        ["classify", "{0}/a.png", "{0}/b.png", "--no-such-option"],
        ["search", "{0}/x.png", "-g", "{0}"],
        ["index", "build", "-g", "{0}"],
        ["index", "build", "{0}/x.png", "-g", "{0}/manifest.csv/below"],
        ["evaluate", "{0}", "{0}/manifest.csv"],
        ["evaluate", "latest", "{0}/one_column.csv"],
    ],
)
def test_errors(medcli: Run, model: ModelPackage, secret: Path, command: list[str]) -> None:
    done = medcli(*(part.format(secret) for part in command), "--hide-paths")
    assert done.status in (2, 3, 7)
    assert done.errors
    assert SECRET not in done.out + done.err
