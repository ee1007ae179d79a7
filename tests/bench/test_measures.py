"""What `medcli bench` measures is done as the commands do it, and ratios say what they should."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medcli.bench import embedding, reading, searching
from medcli.bench.made import picture_pixels, write_ct_slices, write_pictures
from medcli.bench.measure import compared, seconds_in_turns
from medcli.bench.processes import clean_environment, run_measured
from medcli.errors import MedcliError
from medcli.imaging.discovery import find_scans
from medcli.imaging.reader import read_scan
from medcli.inference.predictor import Predictor
from medcli.models.package import ModelPackage
from medcli.records import Case

Make = Callable[..., ModelPackage]


def test_ways_take_turns_and_the_first_is_not_counted() -> None:
    done: list[str] = []
    ways = {"a": lambda: done.append("a"), "b": lambda: done.append("b")}
    seconds = seconds_in_turns(ways, turns=2)
    assert "".join(done) == "ababab"
    assert {name: len(each) for name, each in seconds.items()} == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("unit", "count", "value", "reference"),
    [("s", 1, 3, 2), ("MiB", 1, 3, 2), ("ms", 2, 1500, 1000), ("scans/s", 6, 2, 3)],
)
def test_a_ratio_is_time_over_time_whatever_the_unit(
    unit: str, count: int, value: float, reference: float
) -> None:
    told = compared("embed", "it", unit, [3, 9, 3], "limit", [2, 3, 2], count)  # type: ignore[arg-type]
    assert (told.value, told.reference) == (value, reference)
    assert told.ratio == 1.5  # the middle of 1.5, 3 and 1.5, not 3 over 2 of all turns together


def test_what_has_no_reference_has_no_ratio() -> None:
    told = compared("read", "HEVC", "frames/s", [2.0], "pydicom alone", None, 4)
    assert (told.value, told.reference, told.ratio) == (2.0, None, None)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told by /proc")
def test_the_memory_of_children_counts() -> None:
    hold = "held = bytearray(60 << 20); import time; time.sleep(0.2)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {hold!r}])"
    with clean_environment() as environment:
        seconds, alone = run_measured([sys.executable, "-S", "-c", "pass"], environment)
        _, together = run_measured([sys.executable, "-S", "-c", parent], environment)
    assert seconds > 0
    assert together > alone + 60


def test_a_measured_process_that_fails_is_no_measure() -> None:
    with clean_environment() as environment, pytest.raises(MedcliError, match="ended with 5"):
        run_measured([sys.executable, "-c", "raise SystemExit(5)"], environment)


def test_measured_processes_have_a_home_that_goes() -> None:
    with clean_environment() as environment:
        home = Path(environment["MEDCLI_HOME"])
        assert home.is_dir()
    assert not home.exists()


def test_made_scans_are_read_and_the_same_each_time(tmp_path: Path) -> None:
    for write in (write_pictures, write_ct_slices):
        folder = tmp_path / write.__name__
        one, other = write(folder, 2)
        cases = find_scans([str(folder)])
        assert [case.path for case in cases] == [one, other]
        first, second = (read_scan(case) for case in cases if isinstance(case, Case))
        expected = next(iter(picture_pixels(1)))[np.newaxis, ..., np.newaxis]
        values = (first.pixels + 1024) // 8 if first.unit == "HU" else first.pixels
        np.testing.assert_array_equal(values, expected)
        assert not np.array_equal(first.pixels, second.pixels)
        again = write(tmp_path / "again", 1)
        assert Path(again[0]).read_bytes() == Path(one).read_bytes()


def test_folders_are_classified_and_indexed(make_package: Make, tmp_path: Path) -> None:
    predictor = Predictor(make_package(tmp_path / "model"))
    write_ct_slices(tmp_path / "scans", 3)
    cases = find_scans([str(tmp_path / "scans")])
    assert embedding.classify_all(predictor, cases) == 3
    assert embedding.build_all(predictor, cases, tmp_path / "gallery") == 3
    assert not (tmp_path / "gallery").exists()
    assert embedding.vectors_of(predictor, cases[0]) > 1


def test_the_network_alone_sees_as_many_pictures(
    make_package: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = embedding.Network(make_package(tmp_path / "model"))
    seen = []
    monkeypatch.setattr(
        network._engine, "run", lambda images, mask: seen.append((images.shape[0], mask.shape))
    )
    network.run(70)
    assert seen == [(32, (32, 1)), (32, (32, 1)), (6, (6, 1))]


def test_search_finds_what_faiss_finds_and_rows_are_stored(tmp_path: Path) -> None:
    measures = list(searching.measure_search(500, 3, turns=1))
    assert {each.beside for each in measures} == {
        *("FAISS alone", "bytes over bandwidth", "matrix product"),
    }
    vectors = searching.unit_vectors(150)
    searching.fill_gallery(tmp_path / "gallery", vectors)
    with searching.Gallery.open(tmp_path / "gallery") as gallery:
        assert gallery.info()["scans"] == 150
        assert searching.ask(gallery, vectors[3]) == searching.K
    searching.fill_sqlite(tmp_path / "plain.sqlite", vectors)
    connection = searching.sqlite3.connect(tmp_path / "plain.sqlite")
    assert connection.execute("SELECT count(*), sum(length(vector)) FROM scan").fetchone() == (
        150,
        150 * searching.DIM * 2,
    )
    connection.close()


@pytest.mark.parametrize("count", [0, 8, 4096, 2**28 + 8])
def test_as_many_bytes_are_read_as_are_asked_for(count: int) -> None:
    assert searching.read_bytes(count) == count // 4  # words of one, squared and summed


def test_frames_are_read_beside_pydicom(tmp_path: Path) -> None:
    paths = write_ct_slices(tmp_path / "scans", 2)
    told = reading.measured("Explicit VR Little Endian", paths, turns=1)
    assert reading.read_with_medcli(paths) == 2
    assert told.reference is not None
    assert told.unit == "frames/s"


@pytest.mark.slow
def test_every_syntax_that_can_be_written_is_read() -> None:
    found = {each.name: each for each in reading.measure_reading(1, 1)}
    assert len(found) == 15
    assert found["JPEG 2000 Lossless"].ratio is not None
    assert found["Deflated Image Frame Compression"].reference is None  # pydicom has no decoder
