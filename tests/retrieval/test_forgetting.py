"""A forgotten patient is in no byte; what cannot be removed is told."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medcli.errors import LockedError, ScanError
from medcli.records import GalleryEntry, Source
from medcli.retrieval import forgetting
from medcli.retrieval.checking import check_rows
from medcli.retrieval.forgetting import forget_patient, found_in
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.storage import held_folder

Entry = Callable[..., GalleryEntry]
PATIENT = "DOE^JANE 19610412"
JPEG_HEADER = bytes(range(256)) * 2  # all thumbnails begin alike


@pytest.fixture
def filled(gallery: Gallery, make_entry: Entry) -> Gallery:
    """Twenty scans, four of them of the patient, whose vector one other scan shares."""
    chance = random.Random(0)
    for i in range(20):
        own = i % 5 == 0
        gallery.add(
            [
                make_entry(
                    f"DOE^JANE-{i}" if own else f"other-{i}",
                    seed=0 if i == 7 else i,
                    n_slices=2,
                    patient_id=PATIENT if own else f"P{i}",
                    thumbnails={k: JPEG_HEADER + chance.randbytes(6000) for k in range(2)},
                    source=Source("dicom", ((1, 1),), chance.randbytes(32).hex()),
                )
            ]
        )
    return gallery


def bytes_of(folder: Path) -> bytes:
    return b"\0".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def test_no_byte_of_a_forgotten_patient_is_left(filled: Gallery) -> None:
    hashed = str(filled.patient_hash(PATIENT)).encode()
    stored = [s for i in (1, 6, 11, 16) for s in filled.lookup(id=i)]
    thumbnails = [filled.thumbnail(s.id, k) or b"" for s in stored for k in range(2)]
    vectors = [v.tobytes() for s in stored[1:] for v in s.vectors]
    secrets = [hashed, b"DOE^JANE", *vectors, *(t[512:560] for t in thumbnails)]
    before = bytes_of(filled.path)
    assert all(secret in before for secret in secrets)
    done = forget_patient(filled, PATIENT)
    after = bytes_of(filled.path)
    assert not [secret for secret in secrets if secret in after]
    assert (done.scans, done.vectors, done.thumbnails) == (4, 12, 8)
    assert done.found_before > 50
    assert done.found_after == 0  # the shared vector and the JPEG header are no traces
    assert list(check_rows(filled)) == []
    assert filled.info()["scans"] == 16


def test_a_trace_that_stays_is_found(
    filled: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = tmp_path / f".{'a' * 16}.draft"  # another build is in work, which has the patient
    draft.mkdir()
    for name in ("catalogue.sqlite", "catalogue.sqlite-wal"):
        shutil.copy(filled.path / name, draft)
    with held_folder(draft):
        assert forget_patient(filled, PATIENT).found_after > 50
    monkeypatch.setattr(forgetting, "vacuum", lambda gallery: None)
    with held_folder(draft):
        shutil.rmtree(draft)
    assert forget_patient(filled, "P1").found_after > 0  # the log keeps the old pages


def test_drafts_of_killed_builds_are_forgotten_too(filled: Gallery, tmp_path: Path) -> None:
    draft = tmp_path / f".{'b' * 16}.draft"
    draft.mkdir()
    for name in ("catalogue.sqlite", "catalogue.sqlite-wal"):
        shutil.copy(filled.path / name, draft)
    assert forget_patient(filled, PATIENT).found_after == 0
    assert not draft.exists()


def test_a_reader_that_keeps_the_old_state_is_told(filled: Gallery) -> None:
    filled.catalogue.connection.execute("PRAGMA busy_timeout = 50")
    with (
        Gallery.open(filled.path) as reader,
        reader.snapshot(),
        pytest.raises(LockedError, match="the scans are removed, but") as caught,
    ):
        forget_patient(filled, PATIENT)
    assert "index compact" in caught.value.hint
    assert filled.info()["scans"] == 16


@pytest.mark.parametrize("patient", ["nobody", "", "  "])
def test_an_unknown_patient_is_not_found_and_not_told(filled: Gallery, patient: str) -> None:
    with pytest.raises(ScanError) as caught:
        forget_patient(filled, patient)
    assert caught.value.code == "not_found"
    assert "nobody" not in str(caught.value)
    assert filled.info()["scans"] == 20


def test_a_root_that_names_the_patient_goes_with_the_last_scan_below_it(
    make_gallery: Callable[..., Gallery], make_entry: Entry
) -> None:
    gallery = make_gallery(root="/scans/DOE^JANE")
    other = make_entry("b", path="/else/b", files=("/else/b",), slice_files=("/else/b",), seed=1)
    own = make_entry(
        "a", path="/scans/DOE^JANE/a", files=("/scans/DOE^JANE/a",), patient_id=PATIENT
    )
    gallery.add([own, other])
    assert b"DOE^JANE" in bytes_of(gallery.path)
    forget_patient(gallery, PATIENT)
    assert b"DOE^JANE" not in bytes_of(gallery.path)


def test_the_search_finds_what_bytes_find_finds() -> None:
    chance = random.Random(1)
    chunks = [chance.randbytes(chance.randrange(3000)) for _ in range(5)] + [b"", b"short"]
    inside = [c[k : k + 20] for c in chunks for k in range(0, len(c) - 20, 97)]
    outside = [chance.randbytes(20) for _ in range(50)]
    near = [each[:8] + chance.randbytes(12) for each in inside[:20]]
    traces = [*inside, *outside, *near]
    expected = {t for t in traces if any(t in chunk for chunk in chunks)}
    assert expected == set(inside)
    assert found_in(chunks, traces) == expected
    assert found_in([], traces) == found_in(chunks, []) == set()


def test_the_id_is_in_no_output(filled: Gallery) -> None:
    filled.close()
    code = (
        "import sys; from medcli.cli.app import run\n"
        f"sys.exit(run(['index', 'forget', '--patient', '-', '-g', {str(filled.path)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=PATIENT + "\n", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "removed: scans 4, vectors 12, thumbnails 8" in done.stdout
    assert "0 are left" in done.stdout
    assert "DOE" not in done.stdout + done.stderr
