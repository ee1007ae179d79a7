"""What stands in tags that are not on the list gets nowhere."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medcli.cli.app import run
from medcli.models.package import ModelPackage
from medcli.retrieval.gallery import Gallery

PLAIN = (
    *("PatientName", "PatientBirthDate", "OtherPatientIDs", "PatientAddress", "InstitutionName"),
    *("ReferringPhysicianName", "AccessionNumber", "StudyDescription", "SeriesDescription"),
    *("OperatorsName", "PatientComments", "ImageComments", "StationName", "StudyID"),
)
CANARIES = 60


def canary(number: int) -> str:
    return f"CANARY{number:03}X"


def with_canaries(file: Path, first: int) -> int:
    """Write canaries into plain, private and nested tags of a file; the next number."""
    dataset = pydicom.dcmread(file)
    number = first
    for keyword in PLAIN:
        value = "19610412" if keyword == "PatientBirthDate" else canary(number)
        setattr(dataset, keyword, value)
        number += 1
    block = dataset.private_block(0x0011, canary(number), create=True)
    block.add_new(0x01, "LO", canary(number + 1))
    block.add_new(0x02, "UT", canary(number + 2))
    inner = Dataset()
    inner.PatientName, inner.TextValue = canary(number + 3), canary(number + 4)
    outer = Dataset()
    outer.RequestedProcedureDescription = canary(number + 5)
    outer.ReferencedRequestSequence = Sequence([inner])
    dataset.RequestAttributesSequence = Sequence([outer])
    dataset.PatientID = f"PATIENT-{first}"
    dataset.StudyDate, dataset.StudyInstanceUID = "19870623", "1.2.840.77777.1"
    with pydicom.config.disable_value_validation():
        dataset.save_as(file)
    return number + 6


@pytest.mark.filterwarnings("ignore")
def test_canaries_in_tags_are_in_no_file_and_no_output(
    make_package: Callable[..., ModelPackage],
    sample_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MEDCLI_HOME", str(tmp_path / "home"))
    model = make_package(tmp_path / "model").path
    shutil.copytree(sample_folder / "ct" / "SYN-0001-1", tmp_path / "scans" / "a")
    shutil.copytree(sample_folder / "ct" / "SYN-0002-1", tmp_path / "scans" / "b")
    number = 0
    for file in sorted((tmp_path / "scans").rglob("*.dcm")):
        number = with_canaries(file, number)
    assert number > CANARIES
    said = io.StringIO()
    archive, scans = str(tmp_path / "archive"), str(tmp_path / "scans")
    commands = [
        ["index", "build", scans, "-m", str(model), "-g", archive],
        ["index", "update", scans, "-g", archive],
        ["index", "verify", "-g", archive],
        ["index", "export", "-g", archive, "-o", str(tmp_path / "export")],
        ["index", "audit", "-g", archive, "--json"],
        ["search", scans, "-g", archive, "--json", "--html", str(tmp_path / "page.html")],
        ["search", scans, "-g", archive, "--receipt", str(tmp_path / "receipt.json")],
        ["search", scans, "-g", archive, "--timeline", "--csv", str(tmp_path / "hits.csv")],
    ]
    with redirect_stdout(said), redirect_stderr(said):
        assert [run(command) for command in commands] == [0] * len(commands)
    written = b"".join(
        file.read_bytes()
        for folder in ("archive", "export")
        for file in (tmp_path / folder).rglob("*")
        if file.is_file()
    )
    for name in ("page.html", "receipt.json", "hits.csv"):
        written += (tmp_path / name).read_bytes()
    dates = (b"19610412", b"19870623", b"1987-06-23")
    for secret in (b"CANARY", b"PATIENT-", b"1.2.840.77777", *dates):
        assert secret not in written
        assert secret.decode() not in said.getvalue()
    with Gallery.open(Path(archive)) as gallery:
        assert gallery.info()["patients"] == 2  # the ids were read, and hashed
