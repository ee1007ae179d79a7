"""What a score is compared with."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from medcli.records import GalleryEntry
from medcli.retrieval.calibration import calibration
from medcli.retrieval.entries import rounded_unit_vectors
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.names import CALIBRATION
from medcli.retrieval.query import Query, Wanted
from medcli.retrieval.search import search

Entry = Callable[..., GalleryEntry]
Unit = Callable[..., np.ndarray]
PATIENTS = 15


def query_of(vector: np.ndarray) -> Query:
    return Query("query", vector, np.empty((0, len(vector)), np.float32), np.empty(0, int))


@pytest.fixture
def vectors(unit: Unit) -> np.ndarray:
    """Thirty around one direction."""
    near = unit(1) + 0.3 * unit(30, seed=1)
    return (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def filled(gallery: Gallery, make_entry: Entry, vectors: np.ndarray) -> Gallery:
    gallery.add(
        make_entry(str(i), vector=vector, patient_id=f"P{i % PATIENTS}")
        for i, vector in enumerate(vectors)
    )
    return gallery


def test_the_scores_are_those_of_the_nearest_scans_of_other_patients(
    filled: Gallery, vectors: np.ndarray
) -> None:
    stored = rounded_unit_vectors(vectors).astype(float)
    products = stored @ stored.T
    patients = np.arange(30) % PATIENTS
    products[patients[:, None] == patients[None, :]] = -np.inf
    with filled.snapshot() as state:
        known = calibration(filled, state, "slices", several=False)
    np.testing.assert_allclose(known.scores, np.sort(products.max(axis=1)), atol=1e-5)
    score = float(known.scores[12]) + 1e-6
    expected = 100 * np.mean(known.scores <= score)
    assert known.percentile(score) == pytest.approx(expected, abs=0.1)


def test_a_query_unlike_anything_stored_has_no_good_match(
    filled: Gallery, vectors: np.ndarray
) -> None:
    assert search(filled, query_of(vectors[0])).no_good_match is False
    result = search(filled, query_of(-vectors[0]))
    assert result.no_good_match is True
    assert result.hits[0].percentile == 0


def test_a_small_gallery_cannot_tell(gallery: Gallery, make_entry: Entry, unit: Unit) -> None:
    gallery.add(make_entry(str(i), seed=i) for i in range(5))
    result = search(gallery, query_of(unit(1)[0]))
    assert result.no_good_match is None
    assert result.hits[0].percentile is None


@pytest.mark.parametrize("damage", ["absent", "cut", "altered", "older"])
def test_it_is_made_anew_where_it_is_absent_damaged_or_old(
    filled: Gallery, vectors: np.ndarray, damage: str
) -> None:
    file = filled.path / CALIBRATION
    whole = file.read_bytes()
    before = search(filled, query_of(vectors[0])).hits
    if damage == "absent":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(whole[:-20])
    else:
        values = json.loads(whole)
        if damage == "older":
            values["generation"] -= 1
        else:
            values["scores"]["slice"] = [0.0] * 30
        file.write_text(json.dumps(values))
    with Gallery.open(filled.path) as again:
        assert search(again, query_of(vectors[0])).hits == before
    assert file.read_bytes() == whole


def test_several_slices_are_compared_with_several(
    gallery: Gallery, make_entry: Entry, unit: Unit
) -> None:
    gallery.add(make_entry(str(i), seed=i, n_slices=4) for i in range(25))
    with gallery.snapshot() as state:
        one = calibration(gallery, state, "slices", several=False)
        several = calibration(gallery, state, "slices", several=True)
        whole = calibration(gallery, state, "scan", several=True)
    assert len(one.scores) == len(several.scores) == len(whole.scores) == 25
    assert several.scores.mean() < one.scores.max()
    entry = make_entry("q", seed=99, n_slices=4)
    query = Query.from_embedding("q", entry.embedding)
    best = search(gallery, query, Wanted(k=1)).hits[0]
    assert best.percentile == several.percentile(best.score)
