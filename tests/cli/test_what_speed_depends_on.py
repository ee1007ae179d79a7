"""What the commands' speed depends on, told without a clock.

That prediction never loads torch is in tests/test_layering.py and tests/inference, that a warm
cache decodes nothing in tests/data/test_scan_cache.py.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcli.imaging.batch import read_all
from medcli.imaging.discovery import find_scans
from medcli.imaging.png_writer import write_png
from medcli.inference import choice
from medcli.inference.predictor import Predictor
from medcli.models.package import ModelPackage
from medcli.records import Prediction
from medcli.workflows.indexing import build_gallery

Run = Callable[..., Any]
FILES, WARM = 2000, 500
SIDE = 128  # a scan that was kept would show: 16 KiB each
MOST_MIB = 10.0


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        write_png(folder / f"{number}.png", rng.integers(0, 256, (40, 40), dtype=np.uint8))
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ["classify", "pictures", "--json"],
        ["index", "build", "pictures", "-g", "new"],
        ["search", "pictures", "--json"],
    ],
    ids=lambda command: command[0],
)
def test_the_model_is_loaded_once_for_all_files(
    medcli: Run,
    archive: Path,
    pictures: Path,
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded: list[Path] = []
    engine = choice.OnnxEngine

    def counted(graph: Path, threads: int = 0) -> choice.OnnxEngine:
        loaded.append(graph)
        return engine(graph, threads)

    monkeypatch.setattr(choice, "OnnxEngine", counted)
    monkeypatch.chdir(tmp_path)
    assert medcli(*command).status == 0
    assert len(loaded) == 1


def resident_mib() -> float:
    """What this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def one_after_the_other(predictor: Predictor, folder: Path) -> Iterator[int]:
    """How many files are classified, as they are."""
    answers = predictor.predict(scan for _, scan in read_all(find_scans([str(folder)])))
    for number, answer in enumerate(answers, start=1):
        assert isinstance(answer, Prediction)
        yield number


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is told by /proc")
def test_memory_does_not_grow_with_the_number_of_files(
    make_package: Callable[..., ModelPackage], tmp_path: Path
) -> None:
    predictor = Predictor(make_package(tmp_path / "model"))
    folder = tmp_path / "many"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(FILES):  # no two alike, or a gallery would hold them once
        pixels = np.full((SIDE, SIDE), 40, np.uint8)
        pixels[:8, :8] = rng.integers(0, 256, (8, 8))
        write_png(folder / f"{number:04}.png", pixels)
    held: dict[int, float] = {}
    for number in one_after_the_other(predictor, folder):
        if number in (WARM, FILES):
            held[number] = resident_mib()
    assert held[FILES] - held[WARM] < MOST_MIB

    stored: dict[int, float] = {}

    def on_scan(done: int, total: int) -> None:
        if done in (WARM, FILES):
            stored[done] = resident_mib()

    report = build_gallery(
        tmp_path / "gallery", predictor, find_scans([str(folder)]), on_scan=on_scan
    )
    assert report.stored.added == FILES
    assert stored[FILES] - stored[WARM] < MOST_MIB
    shutil.rmtree(folder)
