"""Zip archives as inputs: their members are found and read like files in folders."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medcli.errors import ScanError
from medcli.imaging import archive, archive_stream, picture
from medcli.imaging.discovery import Found, find_scans
from medcli.imaging.files import open_file
from medcli.imaging.hashing import file_sha256
from medcli.imaging.isolation.inside import NeedsWorkerError
from medcli.imaging.reader import read_here, read_scan
from medcli.records import Case, Failure


def zipped(path: Path, contents: dict[str, bytes], **options: Any) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as file:
        for name, content in contents.items():
            file.writestr(name, content)
    return str(path)


def png(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 5), value, np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def only_case(found: list[Found]) -> Case:
    (case,) = [each for each in found if isinstance(each, Case)]
    return case


def codes(found: list[Found]) -> dict[str, tuple[str, str]]:
    return {each.path: (each.status, each.code) for each in found if isinstance(each, Failure)}


@pytest.fixture
def zipped_series(tmp_path: Path, write_ct_series: Any, hu_volume: Any) -> tuple[str, np.ndarray]:
    """A CT series in the folder ``study/ct`` of an archive, and its voxels."""
    volume = hu_volume(4)
    paths = write_ct_series(tmp_path / "loose", volume, order=[2, 0, 3, 1])
    contents = {f"study/ct/{Path(path).name}": Path(path).read_bytes() for path in paths}
    return zipped(tmp_path / "a.zip", {**contents, "study/readme.txt": b"text"}), volume


def test_a_series_in_an_archive_reads_like_one_in_a_folder(
    tmp_path: Path, zipped_series: tuple[str, np.ndarray]
) -> None:
    name, volume = zipped_series
    found = find_scans([name])
    case = only_case(found)
    assert case.path == f"{name}!/study/ct"
    assert case.files == tuple(f"{name}!/study/ct/IM000{number}" for number in range(4))
    assert codes(found) == {f"{name}!/study/readme.txt": ("skipped", "not_an_image")}
    scan = read_scan(case)
    loose = read_scan(only_case(find_scans([str(tmp_path / "loose")])))
    np.testing.assert_array_equal(scan.pixels[..., 0], volume)
    np.testing.assert_array_equal(scan.pixels, loose.pixels)
    np.testing.assert_array_equal(scan.affine, loose.affine)
    assert scan.scan_id == loose.scan_id


def test_an_archive_in_a_folder_is_searched_too(
    tmp_path: Path, zipped_series: tuple[str, np.ndarray]
) -> None:
    (tmp_path / "p.png").write_bytes(png())
    found = find_scans([str(tmp_path)])
    paths = [Path(each.path).name for each in found]
    assert paths == ["readme.txt", "ct", "p.png", "loose"]
    assert sum(isinstance(each, Case) for each in found) == 3


def test_what_was_found_in_an_archive_can_be_named(zipped_series: tuple[str, np.ndarray]) -> None:
    name, volume = zipped_series
    case = only_case(find_scans([f"{name}!/study"]))
    assert (case.path, len(case.files)) == (f"{name}!/study/ct", 4)
    single = only_case(find_scans([f"{name}!/study/ct/IM0001"]))
    np.testing.assert_array_equal(read_scan(single).pixels[0, ..., 0], volume[0])
    missing = f"{name}!/study/ct/IM0009"
    assert codes(find_scans([missing])) == {missing: ("failed", "not_found")}


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.mha", "x.nrrd", "x.png"])
def test_volumes_and_pictures_in_an_archive_are_read(
    tmp_path: Path, hu_volume: Any, name: str
) -> None:
    import SimpleITK as sitk

    volume = hu_volume()
    if name == "x.png":
        volume = np.arange(20, dtype=np.uint8).reshape(1, 4, 5)
        Image.fromarray(volume[0]).save(tmp_path / name)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(volume), str(tmp_path / name))
    path = zipped(tmp_path / "a.zip", {f"deep/{name}": (tmp_path / name).read_bytes()})
    scan = read_scan(only_case(find_scans([path])))
    assert scan.files == (f"{path}!/deep/{name}",)
    np.testing.assert_array_equal(scan.pixels[..., 0], volume)
    assert file_sha256(scan.files[0]) == file_sha256(str(tmp_path / name))


def test_a_header_and_its_data_file_are_one_scan_in_an_archive_too(
    tmp_path: Path, hu_volume: Any
) -> None:
    import SimpleITK as sitk

    volume = hu_volume()
    sitk.WriteImage(sitk.GetImageFromArray(volume), str(tmp_path / "x.mhd"))
    contents = {name: (tmp_path / name).read_bytes() for name in ("x.mhd", "x.raw")}
    path = zipped(tmp_path / "a.zip", contents)
    (case,) = find_scans([path])
    assert isinstance(case, Case)
    assert case.files == (f"{path}!/x.mhd", f"{path}!/x.raw")
    np.testing.assert_array_equal(read_scan(case).pixels[..., 0], volume)


def test_archives_inside_archives_are_skipped_and_named(tmp_path: Path) -> None:
    inner = Path(zipped(tmp_path / "inner.zip", {"x.png": png()})).read_bytes()
    path = zipped(tmp_path / "a.zip", {"inner.zip": inner, "y.png": png()})
    found = find_scans([path])
    assert codes(found) == {f"{path}!/inner.zip": ("skipped", "nested_archive")}
    assert only_case(found).path == f"{path}!/y.png"


def test_encrypted_members_fail_by_name(tmp_path: Path) -> None:
    path = Path(zipped(tmp_path / "a.zip", {"x.png": png()}))
    data = bytearray(path.read_bytes())
    for magic, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(magic) + flags] |= 1
    path.write_bytes(data)
    assert codes(find_scans([str(path)])) == {f"{path}!/x.png": ("failed", "encrypted")}


def test_another_compression_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("x.png", png())
    expected = {f"{path}!/x.png": ("failed", "unsupported_compression")}
    assert codes(find_scans([str(path)])) == expected


def test_a_wrong_checksum_in_an_archive_is_named(tmp_path: Path) -> None:
    path = Path(zipped(tmp_path / "a.zip", {"x.png": png()}))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 16] ^= 0xFF  # the CRC in the central directory
    path.write_bytes(data)
    with pytest.raises(ScanError) as caught:
        read_scan(only_case(find_scans([str(path)])))
    assert caught.value.code == "crc"


@pytest.mark.parametrize(("cut", "code"), [(1, "truncated"), (60, "truncated")])
def test_a_truncated_archive_is_named_as_such(tmp_path: Path, cut: int, code: str) -> None:
    path = Path(zipped(tmp_path / "a.zip", {"x.png": png()}))
    path.write_bytes(path.read_bytes()[:-cut])
    assert codes(find_scans([str(path)])) == {str(path): ("failed", code)}


def test_names_that_lead_out_of_an_archive_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(1))
    (tmp_path / "in").mkdir()
    absolute = str(tmp_path / "secret.png")
    path = zipped(tmp_path / "in" / "a.zip", {"../secret.png": png(7), absolute: png(8)})
    found = [each for each in find_scans([path]) if isinstance(each, Case)]
    assert [case.path for case in found] == [f"{path}!/{absolute}", f"{path}!/../secret.png"]
    assert sorted(int(read_scan(case).pixels.max()) for case in found) == [7, 8]
    assert sorted(os.listdir(tmp_path / "in")) == ["a.zip"]


def test_hidden_members_and_own_outputs_are_passed_over(tmp_path: Path) -> None:
    names = ["__MACOSX/._x.png", ".DS_Store", "run/model.json", "run/graph.onnx", "run/a/t.png"]
    path = zipped(tmp_path / "a.zip", {**dict.fromkeys(names, png()), "x.png": png()})
    assert [each.path for each in find_scans([path])] == [f"{path}!/x.png"]


def test_an_archive_without_scans_is_named(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {})
    assert codes(find_scans([path])) == {path: ("failed", "no_scans")}
    (tmp_path / "x.png").write_bytes(png())
    assert codes(find_scans([str(tmp_path)])) == {path: ("skipped", "no_scans")}


def test_documents_that_are_zip_files_are_no_archives(tmp_path: Path) -> None:
    path = zipped(tmp_path / "letter.docx", {"word/media/logo.png": png()})
    assert codes(find_scans([path])) == {path: ("failed", "not_an_image")}


def test_a_member_that_announces_more_than_deflate_can_do_is_refused(tmp_path: Path) -> None:
    path = Path(zipped(tmp_path / "a.zip", {"x.dcm": bytes(2000)}))
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\1\2") + 24, 2**30)
    path.write_bytes(data)
    assert codes(find_scans([str(path)])) == {f"{path}!/x.dcm": ("failed", "damaged_header")}


def test_members_beyond_the_budget_are_refused_before_they_are_inflated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(tmp_path / "a.zip", {"x.nii": bytes(5000), "y.png": png()})
    monkeypatch.setattr(archive, "MEMBER_BYTES", 4999)
    found = find_scans([path])
    assert codes(found) == {f"{path}!/x.nii": ("failed", "too_large")}
    assert only_case(found).path == f"{path}!/y.png"


def test_an_archive_beyond_the_budget_is_refused_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(tmp_path / "a.zip", {"x.png": png(), "y.png": png()})
    monkeypatch.setattr(archive, "ARCHIVE_BYTES", len(png()))
    assert codes(find_scans([path])) == {path: ("failed", "too_large")}


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """The trick of a zip bomb without recursion: one kernel, named many times."""
    path = Path(zipped(tmp_path / "a.zip", {"x.png": png(), "y.png": png()}))
    data = bytearray(path.read_bytes())
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4)
    struct.pack_into("<I", data, second + 42, 0)  # its local header is that of the first
    path.write_bytes(data)
    assert codes(find_scans([str(path)])) == {str(path): ("failed", "damaged_header")}


def test_a_member_without_a_name_does_no_harm(tmp_path: Path) -> None:
    path = Path(zipped(tmp_path / "a.zip", {"x.png": png()}))
    data = path.read_bytes().replace(b"x.png", b"\0.png")  # names end at a null character
    path.write_bytes(data)
    assert [each.path for each in find_scans([str(path)])] == [f"{path}!/"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name_are_all_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    names = ["d/x.png", "d/x~2.png", "d/x.png", "d/x.png", "d/.x.png", "d/.x.png"]
    with zipfile.ZipFile(path, "w") as file:
        for value, name in enumerate(names, start=1):
            file.writestr(name, png(value))
    found = [each for each in find_scans([str(path)]) if isinstance(each, Case)]
    values = {case.path: int(read_scan(case).pixels.max()) for case in found}
    inner = {"x.png": 1, "x~2.png": 2, "x~3.png": 3, "x~4.png": 4}
    assert values == {f"{path}!/d/{name}": value for name, value in inner.items()}


def test_a_changed_archive_is_read_anew(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"x.png": png()})
    assert len(find_scans([path])) == 1
    zipped(tmp_path / "a.zip", {"x.png": png(), "y.png": png()})
    assert len(find_scans([path])) == 2


def test_a_folder_whose_name_looks_like_an_archive_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.zip!").mkdir()
    (tmp_path / "a.zip!" / "x.png").write_bytes(png(3))
    with open_file(str(tmp_path / "a.zip!" / "x.png")) as file:
        assert file.read() == png(3)


def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header may take 64 KiB, a picture as much."""
    monkeypatch.setattr(archive, "HEADER_BYTES", 2**16)
    monkeypatch.setattr(picture, "PICTURE_BYTES", 2**16)


@pytest.mark.parametrize("name", ["x.dcm", "x.nii", "x.png"])
def test_a_member_far_beyond_its_image_is_refused(
    tmp_path: Path, make_dicom: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    small_bounds(monkeypatch)
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((3, 4, 5), np.int16)), str(tmp_path / "x.nii"))
    (tmp_path / "x.png").write_bytes(png())
    make_dicom("x.dcm")
    data = (tmp_path / name).read_bytes()
    read_scan(only_case(find_scans([zipped(tmp_path / "sound.zip", {name: data})])))
    bomb = zipped(tmp_path / "bomb.zip", {name: data + bytes(2**20)})
    with pytest.raises(ScanError) as caught:
        read_scan(only_case(find_scans([bomb])))
    assert caught.value.code == "too_large"


def test_a_header_far_beyond_any_is_refused(
    tmp_path: Path, make_dicom: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_bounds(monkeypatch)
    data = Path(make_dicom("x.dcm")).read_bytes()
    place = data.index(b"\xe0\x7f\x10\0")
    private = b"\x09\0\x10\x10OB\0\0" + (2**20).to_bytes(4, "little") + bytes(2**20)
    path = zipped(tmp_path / "a.zip", {"x.dcm": data[:place] + private + data[place:]})
    assert codes(find_scans([path])) == {f"{path}!/x.dcm": ("failed", "too_large")}


def test_finding_inflates_no_more_than_the_headers(
    tmp_path: Path, make_dicom: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Path(make_dicom("x.dcm", np.ones((1000, 1000), np.uint16))).read_bytes()
    path = zipped(tmp_path / "a.zip", {"x.dcm": data})
    monkeypatch.setattr(archive_stream, "CHUNK", 2**12)
    inflated: list[int] = []
    usual = archive_stream.inflated

    def counted(packed: bytes, *, deflated: bool) -> Iterator[bytes]:
        for chunk in usual(packed, deflated=deflated):
            inflated.append(len(chunk))
            yield chunk

    monkeypatch.setattr(archive, "inflated", counted)
    only_case(find_scans([path]))
    assert sum(inflated) < 2**16


def test_a_large_member_is_inflated_in_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = only_case(find_scans([zipped(tmp_path / "a.zip", {"x.png": png(5)})]))
    monkeypatch.setattr(archive, "IN_PROCESS_BYTES", 10)
    with pytest.raises(NeedsWorkerError):
        read_here(case)
    assert read_scan(case).pixels.max() == 5


def test_the_digest_of_a_member_is_that_of_its_content(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(3 * 2**20)
    path = zipped(tmp_path / "a.zip", {"x.dat": content})
    assert file_sha256(f"{path}!/x.dat") == hashlib.sha256(content).hexdigest()
