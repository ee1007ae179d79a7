"""The packages in medcli/zoo: who they are, what they answer, what they take.

`bundled_answers.json` is written by `python benchmarks/build_zoo.py answers`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import medcli
from medcli.data.gathering import gather_cases
from medcli.imaging.batch import read_all
from medcli.inference.predictor import Predictor
from medcli.models.package import CARD, ModelPackage, load_package
from medcli.records import Prediction

ROOT = Path(__file__).parents[1]
FOLDER = Path(medcli.__file__).parent / "zoo"
KNOWN: dict[str, Any] = json.loads((Path(__file__).parent / "bundled_answers.json").read_text())
FILES = {
    *("MODEL_CARD.md", "graph.onnx", "manifest.json", "model.json"),
    *("reference.safetensors", "splits.csv", "weights.safetensors"),
}
PARTS = [(name, part) for name, known in KNOWN.items() for part in known["answers"]]


def package_of(name: str) -> ModelPackage:
    return load_package(FOLDER / name)


def test_the_known_packages_are_there_and_no_others() -> None:
    found = {path.name for path in FOLDER.glob("*") if path.is_dir()}
    assert found == set(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_a_package_is_the_one_that_was_measured(name: str) -> None:
    package = package_of(name)
    assert package.fingerprint == KNOWN[name]["fingerprint"]
    assert {path.name for path in package.path.iterdir()} == FILES
    assert not package.synthetic


@pytest.mark.parametrize(("name", "part"), PARTS, ids=lambda part: str(part)[:60])
def test_a_package_answers_as_it_did(name: str, part: dict[str, Any]) -> None:
    predictor = Predictor(package_of(name)).for_task(part["task"])
    (read,) = read_all(gather_cases([str(ROOT / "sample_data" / part["scan"])]))
    (answer,) = predictor.predict([read[1]])
    assert isinstance(answer, Prediction)
    assert answer.probabilities == pytest.approx(part["probabilities"], abs=1e-3)


@pytest.mark.parametrize("name", KNOWN)
def test_a_card_names_data_licence_and_limits(name: str) -> None:
    card = (FOLDER / name / CARD).read_text(encoding="utf-8")
    package = package_of(name)
    assert "Research use, not a medical device" in card
    for source in package.provenance["bundled"]["sources"]:
        assert source["attribution"] in card
        assert source["licence"] in card
    assert "Measured with them" in card
    assert "fill in" not in card.partition("## The run it was made from")[0]


def test_they_are_no_larger_than_a_package_may_be() -> None:
    sizes = [path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()]
    assert max(sizes, default=0) <= 15_000_000
    assert sum(sizes) <= 20_000_000
