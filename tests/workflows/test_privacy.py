"""What stands in tags that are not on the list gets nowhere."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from itertools import islice
from pathlib import Path

import numpy as np
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
PRIVATE, NESTED = 20, 60 - len(PLAIN) - 20
SECRETS = (*(b"CANARY", b"PATIENT-", b"19610412", b"19870623", b"1987-06-23", b"1.2.840.77777"),)
FILES, SLICES = 200, 20


def canary(number: int) -> str:
    return f"CANARY{number:03}X"


def with_canaries(dataset: Dataset) -> None:
    """Write sixty values into plain tags, private ones and nested sequences."""
    numbers = iter(range(60))
    for keyword in PLAIN:
        value = canary(next(numbers))
        setattr(dataset, keyword, "19610412" if keyword == "PatientBirthDate" else value)
    block = dataset.private_block(0x0011, canary(next(numbers)), create=True)
    for element in range(PRIVATE - 1):
        block.add_new(element, "LO" if element % 2 else "UT", canary(next(numbers)))
    inner: Dataset | None = None
    for _ in range(NESTED // 2):  # each item within the next
        item = Dataset()
        item.TextValue, item.RequestedProcedureDescription = (canary(n) for n in islice(numbers, 2))
        if inner is not None:
            item.RequestAttributesSequence = Sequence([inner])
        inner = item
    assert inner is not None
    dataset.RequestAttributesSequence = Sequence([inner])
    assert next(numbers, None) is None


def write_series(folder: Path, like: Path) -> None:
    """Two hundred slices in ten series, each with all canaries, and one file that is cut."""
    dataset = pydicom.dcmread(like)
    with_canaries(dataset)
    dataset.StudyDate, dataset.StudyInstanceUID = "19870623", "1.2.840.77777.1"
    dataset.Rows = dataset.Columns = 32
    drawn = np.random.default_rng(0)
    for number in range(FILES):
        series, place = divmod(number, SLICES)
        dataset.PatientID = f"PATIENT-{series}"
        dataset.SeriesInstanceUID = f"1.2.3.4.{series}"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.5.{number}"
        dataset.ImagePositionPatient = [0, 0, 2.5 * place]
        dataset.PixelData = drawn.integers(0, 900, (32, 32), dtype=np.int16).tobytes()
        file = folder / f"series{series}" / f"{place:03}.dcm"
        file.parent.mkdir(parents=True, exist_ok=True)
        with pydicom.config.disable_value_validation():
            dataset.save_as(file)
    content = file.read_bytes()
    (folder / "cut.dcm").write_bytes(content[:-700])


def all_bytes(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


@pytest.mark.filterwarnings("ignore")
def test_canaries_in_tags_are_in_no_file_and_no_output(
    make_package: Callable[..., ModelPackage],
    sample_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("MEDCLI_HOME", str(home))
    model = make_package(tmp_path / "model").path
    write_series(tmp_path / "scans", next((sample_folder / "ct").rglob("*.dcm")))
    raw = all_bytes(tmp_path / "scans")
    birth_date = PLAIN.index("PatientBirthDate")
    assert all(canary(n).encode() in raw for n in range(60) if n != birth_date)
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
        assert [run(command) for command in commands] == [3, 3, 0, 0, 0, 3, 3, 3]
    assert "truncated" in said.getvalue()
    written = all_bytes(tmp_path / "archive") + all_bytes(tmp_path / "export") + all_bytes(home)
    for name in ("page.html", "receipt.json", "hits.csv"):
        written += (tmp_path / name).read_bytes()
    with Gallery.open(Path(archive)) as gallery:
        assert (gallery.info()["patients"], gallery.info()["slices"]) == (10, FILES)
        pictures = [gallery.thumbnail(scan, n) for scan in range(1, 11) for n in range(SLICES)]
    assert all(pictures)
    written += b"".join(picture for picture in pictures if picture)
    for secret in SECRETS:
        assert secret not in written
        assert secret.decode() not in said.getvalue()


CRASH = """
import sys
from medcli.inference.predictor import Predictor

def embed_all(self, scans):
    for scan in scans:
        name = scan.patient_id
        raise RuntimeError("not foreseen")
        yield

Predictor.embed_all = embed_all
from medcli.cli.app import run
sys.exit(run(sys.argv[1:]))
"""


def test_a_traceback_shows_no_values(
    make_package: Callable[..., ModelPackage], sample_folder: Path, tmp_path: Path
) -> None:
    model = make_package(tmp_path / "model").path
    write_series(tmp_path / "scans", next((sample_folder / "ct").rglob("*.dcm")))
    words = ["index", "build", str(tmp_path / "scans"), "-m", str(model), "-g", str(tmp_path / "g")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CRASH, *words], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "not foreseen" in done.stderr
    for secret in SECRETS:
        assert secret.decode() not in done.stderr + done.stdout
    assert not (tmp_path / "g").exists()
