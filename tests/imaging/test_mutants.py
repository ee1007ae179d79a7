"""A part of the fuzzing that runs with every test: damage ends in a listed code, never else.

The mutants and the bombs are those of benchmarks/fuzzing.
"""

from __future__ import annotations

import importlib
import random
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medcli.codes import ERRORS

MUTANTS = 120

BOMB_CODES = {
    "jpeg2000_bomb": "too_large",
    "jpeg_bomb": "too_large",
    "rle_bomb": "truncated",
    "nested_sequences": "damaged_header",
    "nested_sequences_defined": "ok",
    "zero_link": "not_an_image",
    "pipe": "not_an_image",
    "loop": "no_scans",
    "link_to_itself": "not_found",
}


@pytest.fixture(scope="module")
def fuzz() -> Iterator[SimpleNamespace]:
    """The benchmark and its parts in one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        names = ("fuzz_imaging", "fuzzing.mutants", "fuzzing.bombs", "fuzzing.verdict")
        modules = [importlib.import_module(name) for name in names]
        yield SimpleNamespace(**{k: v for module in modules for k, v in vars(module).items()})


@pytest.fixture(scope="module")
def sound(fuzz: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Kind → the files made for it, with the digests of their pixels."""
    made = fuzz.made_files(tmp_path_factory.mktemp("sound"))
    return {kind: fuzz.sound_files(paths) for kind, paths in made.items()}


def test_every_kind_of_file_to_be_damaged_is_read_while_it_is_sound(
    fuzz: SimpleNamespace, sound: dict[str, Any]
) -> None:
    assert {kind: len(originals) for kind, originals in sound.items()} == {
        "dicom": 7,
        "nifti": 2,
        "pictures": 7,
    }


@pytest.mark.parametrize("kind", ["dicom", "nifti", "pictures"])
def test_mutants_end_as_ok_or_with_a_listed_code(
    fuzz: SimpleNamespace, sound: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    written = fuzz.write_mutants(tmp_path, sound[kind], range(MUTANTS), seed=7)
    ended = fuzz.read_back(written)
    seen = Counter(each.code for each in ended)
    assert sum(seen.values()) == MUTANTS
    assert set(seen) <= {"ok", *ERRORS}
    assert 0 < seen["ok"] < MUTANTS
    assert max(each.seconds for each in ended) < fuzz.SLOW
    noticed = [each for each in ended if each.must_be_noticed]
    assert noticed
    assert [each for each in noticed if each.is_silent_loss] == []


@pytest.mark.parametrize("kind", ["dicom", "nifti", "pictures"])
def test_a_cut_is_called_a_truncation(
    fuzz: SimpleNamespace, sound: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    """Wherever it falls behind the first bytes, which tell what a file is."""
    rng, cut = random.Random(1), []
    for path, pixels in sound[kind].items():
        data = Path(path).read_bytes()
        for number in range(12):
            target = tmp_path / f"{number}_{Path(path).name}"
            target.write_bytes(data[: rng.randrange(140, len(data))])
            cut.append(fuzz.Outcome(str(target), "cut", pixels))
    ended = fuzz.read_back(cut)
    whole = [each for each in ended if each.code == "ok"]
    assert not [each for each in whole if each.is_silent_loss]
    assert {each.code for each in ended} - {"ok"} <= {"truncated", "crc"}


@pytest.mark.parametrize("name", BOMB_CODES)
def test_bombs_cost_next_to_nothing(fuzz: SimpleNamespace, tmp_path: Path, name: str) -> None:
    path = getattr(fuzz, name)(tmp_path)
    tracemalloc.start()
    (ended,) = fuzz.read_back([fuzz.Outcome(str(path), "bomb", "")])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ended.code == BOMB_CODES[name]
    assert ended.seconds < fuzz.SLOW
    assert peak < 2**25


def test_mutants_are_the_same_in_every_run(
    fuzz: SimpleNamespace, sound: dict[str, Any], tmp_path: Path
) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        fuzz.write_mutants(folder, sound["dicom"], range(10), seed=3)
    one, two = ([p.read_bytes() for p in sorted(folder.iterdir())] for folder in folders)
    assert one == two
