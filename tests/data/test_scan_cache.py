"""What training has read comes back as it was, and nothing but pixels is kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medcli.config import PreprocessConfig
from medcli.data import scan_cache
from medcli.data.scan_cache import CachedScan, ScanCache
from medcli.data.sources import load_cases
from medcli.records import Case
from medcli.training import gather
from medcli.training.gather import ReadScan, read_cases

SETTINGS = PreprocessConfig(size=16)
Reads = Callable[..., list[ReadScan]]


@pytest.fixture
def cases(tmp_path: Path) -> tuple[Case, ...]:
    lines = ["path,label,patient_id"]
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (20, 24), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{'ab'[number % 2]},DOE^JANE {number}")
    (tmp_path / "scans.csv").write_text("\n".join(lines))
    return load_cases([str(tmp_path / "scans.csv")]).cases


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "cache"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the scans that were read from their files, as they are read."""
    paths: list[str] = []
    read_all = gather.read_all

    def watch(wanted: list[Case]) -> object:
        paths.extend(case.path for case in wanted)
        return read_all(wanted)

    monkeypatch.setattr(gather, "read_all", watch)
    return paths


def read(
    cases: tuple[Case, ...], folder: Path | None, settings: PreprocessConfig = SETTINGS
) -> list[ReadScan]:
    done: list[tuple[int, int]] = []
    items = read_cases(
        cases,
        settings,
        on_read=lambda *told: done.append(told),
        on_failure=lambda failure: None,
        cache=folder,
    )
    assert done[-1] == (len(cases), len(cases))
    return items


def assert_same(one: list[ReadScan], other: list[ReadScan]) -> None:
    for first, second in zip(one, other, strict=True):
        assert np.array_equal(first.images, second.images)
        assert (first.case, first.pixel_sha256) == (second.case, second.pixel_sha256)


def test_a_second_reading_decodes_nothing_and_gives_the_same(
    cases: tuple[Case, ...], folder: Path, decoded: list[str]
) -> None:
    plain = read(cases, None)
    assert_same(read(cases, folder), plain)
    decoded.clear()
    assert_same(read(cases, folder), plain)
    assert decoded == []


def test_what_has_changed_is_read_again_whatever_its_date(
    cases: tuple[Case, ...], folder: Path, decoded: list[str]
) -> None:
    read(cases, folder)
    decoded.clear()
    path = Path(cases[3].path)
    before = path.stat()
    Image.new("L", (24, 20), 9).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    items = read(cases, folder)
    assert decoded == [cases[3].path]
    assert (items[3].images == items[3].images[0, 0, 8, 8]).mean() > 0.8  # one grey, and bars
    decoded.clear()
    read(cases, folder, replace(SETTINGS, size=20))
    assert len(decoded) == 6
    decoded.clear()
    read(cases, folder, replace(SETTINGS, mean=(0.1,), std=(0.9,)))  # those come later
    assert decoded == []


def test_another_reader_reads_again(
    cases: tuple[Case, ...], folder: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read(cases, folder)
    decoded.clear()
    monkeypatch.setattr(scan_cache, "reader_version", lambda: "another")
    read(cases, folder)
    assert len(decoded) == 6


def test_a_copy_elsewhere_is_the_same_scan(
    cases: tuple[Case, ...], folder: Path, decoded: list[str]
) -> None:
    read(cases[:1], folder)
    decoded.clear()
    copy = Path(cases[0].path).with_name("copy.png")
    copy.write_bytes(Path(cases[0].path).read_bytes())
    other = replace(
        cases[0], path=str(copy), files=(str(copy),), scan_id="c", patient_id="someone else"
    )
    (item,) = read((other,), folder)
    assert decoded == []
    assert (item.case.path, item.case.patient_id) == (str(copy), "someone else")


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "other"])
def test_a_damaged_entry_is_read_again_and_mended(
    cases: tuple[Case, ...], folder: Path, decoded: list[str], how: str
) -> None:
    plain = read(cases, folder)
    every = sorted(folder.glob("*/*"))
    content = bytearray(every[0].read_bytes())
    content[-1] ^= 1
    spoilt = {"flip": bytes(content), "cut": bytes(content[:100]), "empty": b"", "other": b"x" * 99}
    every[0].write_bytes(spoilt[how])
    decoded.clear()
    assert_same(read(cases, folder), plain)
    assert len(decoded) == 1
    decoded.clear()
    read(cases, folder)
    assert decoded == []


def test_the_patient_of_the_tags_is_looked_up_not_kept(
    sample_folder: Path, folder: Path, decoded: list[str]
) -> None:
    cases = load_cases([str(sample_folder / "nodule.csv")]).cases
    unnamed = tuple(replace(c, patient_id=None) for c in cases if c.kind == "dicom")[:4]
    plain = read(unnamed, folder)
    assert all(item.case.patient_id for item in plain)
    decoded.clear()
    assert_same(read(unnamed, folder), plain)
    assert decoded == []


def test_nothing_but_pixels_is_kept(cases: tuple[Case, ...], folder: Path) -> None:
    read(cases, folder)
    secrets = [b"DOE", b"JANE", str(folder.parent.parent).encode(), b".png"]
    kept = [path for path in folder.rglob("*") if path.is_file()]
    assert len(kept) == 6
    for path in kept:
        assert not [name for name in secrets if name in path.read_bytes() + bytes(path)[-90:]]
    assert folder.stat().st_mode & 0o777 == 0o700


def entry(number: int, side: int = 100) -> CachedScan:
    return CachedScan(np.full((1, 1, side, side), number, np.uint8), "hash", 0)


def test_what_was_longest_not_asked_for_goes_first(folder: Path) -> None:
    cache = ScanCache(folder, {}, limit=100_000)
    for number in range(5):
        cache.put(f"{number}" * 64, entry(number))
        os.utime(cache._place(f"{number}" * 64), (number, number))
    assert cache.get("0" * 64) is not None  # asked for just now
    small = ScanCache(folder, {}, limit=35_000)
    small.put("9" * 64, entry(9))
    small.trim()
    kept = {number for number in (*range(5), 9) if small.get(f"{number}" * 64) is not None}
    assert kept == {0, 4, 9}


def test_a_set_larger_than_the_limit_does_not_fill_the_disk(folder: Path) -> None:
    cache = ScanCache(folder, {}, limit=35_000)
    for number in range(9):
        cache.put(f"{number}" * 64, entry(number))
    assert len(list(folder.glob("*/*"))) == 3


def test_a_folder_that_cannot_be_written_is_told_once(
    cases: tuple[Case, ...], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    told: list[str] = []
    items = read_cases(
        cases,
        SETTINGS,
        on_read=lambda *_: None,
        on_failure=lambda failure: None,
        cache=tmp_path / "file" / "cache",
        warn=told.append,
    )
    assert len(items) == 6
    assert len(told) == 1
    assert "not kept for the next time" in told[0]
