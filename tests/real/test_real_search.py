"""Every kind of query on two real CT series; reads the folder named by MEDCLI_TEST_DATA.

The model is the one of the tests, which sees grey levels of 8 × 8 cells: what is tested is
search, not a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medcli.data.gathering import gather_cases
from medcli.imaging.batch import read_all
from medcli.imaging.intensity import apply_window
from medcli.imaging.parts import Part, cut
from medcli.imaging.region import Box
from medcli.inference.predictor import Predictor
from medcli.models.package import ModelPackage
from medcli.records import Hit, Scan
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.query import Wanted
from medcli.workflows.indexing import build_gallery
from medcli.workflows.searching import Answer, joining_queries, open_gallery, search_scans

pytestmark = pytest.mark.real

SERIES = ("dicom/totalsegmentator/example_ct_dicom", "dicom/ct_series_philips/S21570/S2010")
WINDOWS = {"lung": (-600.0, 1500.0), "soft": (40.0, 400.0)}


@pytest.fixture(scope="module")
def folders(real_data: Path) -> list[str]:
    return [str(real_data / name) for name in SERIES]


@pytest.fixture(scope="module")
def scans(folders: list[str]) -> list[Scan]:
    """The two series."""
    found = [scan for _, scan in read_all(gather_cases(folders)) if isinstance(scan, Scan)]
    assert [len(scan.pixels) for scan in found] == [20, 28]
    return found


@pytest.fixture(scope="module")
def archive(
    folders: list[str],
    make_package: Callable[..., ModelPackage],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Gallery, Predictor]]:
    folder = tmp_path_factory.mktemp("archive")
    predictor = Predictor(make_package(folder / "model"))
    build_gallery(folder / "gallery", predictor, gather_cases(folders))
    gallery, own = open_gallery(folder / "gallery")
    with gallery:
        yield gallery, own


def save(scan: Scan, number: int, window: tuple[float, float], path: Path) -> Path:
    values = apply_window(scan.pixels[number, :, :, 0], *window)
    Image.fromarray(np.rint(values * 255).astype(np.uint8)).save(path)
    return path


def first_hit(
    archive: tuple[Gallery, Predictor],
    query: Path | str,
    wanted: Wanted | None = None,
    part: Part | None = None,
) -> Hit:
    crop = partial(cut, part=part) if part else None
    found = search_scans(*archive, gather_cases([str(query)]), wanted, crop=crop)
    (answer,) = (each for each in found if isinstance(each, Answer))  # beside it lies a DIRFILE
    return answer.result.hits[0]


def is_slice(hit: Hit, scan: Scan, number: int) -> bool:
    return hit.path == str(Path(scan.path).absolute()) and abs((hit.slice or 0) - number) <= 1


@pytest.mark.parametrize("kind", ["first.png", "lung.png", "soft.png", "first.jpg"])
def test_a_picture_of_a_slice_finds_series_and_slice(
    archive: tuple[Gallery, Predictor], scans: list[Scan], tmp_path: Path, kind: str
) -> None:
    for scan in scans:
        assert scan.window is not None
        number = len(scan.pixels) // 3
        window = WINDOWS.get(kind.split(".")[0], scan.window)
        picture = save(scan, number, window, tmp_path / kind)
        hit = first_hit(archive, picture)
        assert hit.path == str(Path(scan.path).absolute())
        # Through the soft window 8 × 8 cells of neighbouring slices are the same but for rounding;
        # tests/real/test_real_road.py asks a trained network for the slice.
        assert kind == "soft.png" or is_slice(hit, scan, number)


def test_a_region_of_a_screen_shot_finds_series_and_slice(
    archive: tuple[Gallery, Predictor], scans: list[Scan], tmp_path: Path
) -> None:
    scan, number = scans[0], len(scans[0].pixels) // 2
    picture = np.asarray(Image.open(save(scan, number, WINDOWS["lung"], tmp_path / "slice.png")))
    height, width = picture.shape
    screen = np.full((height + 60, width + 200), 240, np.uint8)
    screen[20 : 20 + height, 150 : 150 + width] = picture
    Image.fromarray(screen).save(tmp_path / "screen.png")
    part = Part(region=Box(150, 20, 150 + width, 20 + height))
    assert is_slice(first_hit(archive, tmp_path / "screen.png", part=part), scan, number)


def test_a_series_finds_another_and_its_slices_find_itself_if_asked(
    archive: tuple[Gallery, Predictor], scans: list[Scan]
) -> None:
    path = scans[0].path
    assert first_hit(archive, path).path != str(Path(path).absolute())
    part = Part(slices=(3, 6))
    hit = first_hit(archive, path, Wanted(same_patient=True), part)
    assert hit.path == str(Path(path).absolute())
    assert hit.slice in (3, 4, 5, 6)
    assert hit.score > 0.999


def test_two_scans_joined_find_both(
    archive: tuple[Gallery, Predictor], scans: list[Scan], tmp_path: Path
) -> None:
    pictures = [
        save(scan, len(scan.pixels) // 2, WINDOWS["soft"], tmp_path / f"{i}.png")
        for i, scan in enumerate(scans[:2])
    ]
    plus = joining_queries(*archive, gather_cases([str(pictures[1])]))
    cases = gather_cases([str(pictures[0])])
    (answer,) = search_scans(*archive, cases, Wanted(k=2), plus=plus)
    assert isinstance(answer, Answer)
    found = {hit.path for hit in answer.result.hits}
    assert found == {str(Path(scan.path).absolute()) for scan in scans[:2]}
