"""Many queries at once are answered as each by itself, and share what can be shared."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import faiss
import numpy as np
import pytest

from medcli.records import GalleryEntry
from medcli.retrieval import proposing, vectors
from medcli.retrieval.cache_files import read_cache
from medcli.retrieval.columns import Members
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.query import Query, Wanted
from medcli.retrieval.search import search, search_many
from medcli.retrieval.vectors import VectorIndex, read_index

Entry = Callable[..., GalleryEntry]
Unit = Callable[..., np.ndarray]

WANTED = [
    Wanted(k=3, contrast=True),
    Wanted(k=40, same_patient=True),
    Wanted(k=5, where="label = rare", contrast=True),
    Wanted(k=5, where="not label = rare", group_by="patient"),
    Wanted(k=4, group_by="study", contrast=True, compare="scan"),
    Wanted(k=6, more=(2,), less=(5, 9), min_score=0.2),
    Wanted(timeline=True),
]


@pytest.fixture
def filled(gallery: Gallery, make_entry: Entry, unit: Unit) -> Gallery:
    """Sixty scans, with slices or without, of few vectors: most scores are equal to others."""
    pool = unit(7, seed=7)
    gallery.add(
        make_entry(
            f"s{i}",
            n_slices=4 if i % 5 == 0 else 1,
            vector=pool[i % 7],
            slice_vectors=pool[[i % 3, i % 4, i % 5, i % 7]] if i % 5 == 0 else None,
            patient_id=f"P{i % 9}" if i % 4 else None,
            study_uid=f"1.2.{i % 11}",
            study_date=f"202001{i % 27 + 1:02}",
            label="rare" if i % 13 == 0 else ("a", "b", None)[i % 3],
        )
        for i in range(60)
    )
    return gallery


@pytest.fixture
def queries(filled: Gallery, unit: Unit) -> list[Query]:
    """Of one slice and of several, of known patients, known pixels, excluded ids."""
    pool, none = unit(7, seed=7), np.empty(0, np.int64)
    asked = []
    for i in range(12):
        query = Query(f"q{i}", pool[i % 7], np.empty((0, 8), np.float32), none)
        patient = filled.patient_hash(f"P{i}") if i % 2 else None
        pixels = f"pixels of s{i}" if i % 3 == 0 else None
        query = replace(query, patient=patient, pixel_sha256=pixels, exclude=(i + 1, i + 8))
        if i % 4 == 3:
            query = replace(query, slice_vectors=pool[[0, i % 7]], slice_numbers=np.arange(2))
        asked.append(replace(query, is_part=i == 6))
    return asked


@pytest.mark.parametrize("shallow", [False, True])
@pytest.mark.parametrize("wanted", WANTED)
def test_many_queries_have_the_answers_of_each_by_itself(
    filled: Gallery,
    queries: list[Query],
    wanted: Wanted,
    shallow: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = [search(filled, query, wanted) for query in queries]
    if shallow:  # so that what is left out, and ties, use up what a first pass has found
        monkeypatch.setattr(vectors, "depth_for", lambda k: 2)
        monkeypatch.setattr(proposing, "_LEAST_FIRST", 2)
    assert search_many(filled, queries, wanted) == expected


def test_queries_of_one_vector_share_one_pass(
    filled: Gallery, queries: list[Query], monkeypatch: pytest.MonkeyPatch
) -> None:
    single = [query for query in queries if not query.has_slices]
    passes: list[int] = []
    monkeypatch.setattr(VectorIndex, "_pass", lambda *_: passes.append(1))  # whose use would fail
    assert len(search_many(filled, single, Wanted(k=3, contrast=True))) == len(single) == 9
    assert passes == []


def test_one_query_with_the_nearest_of_each_class_makes_one_pass_a_level(
    filled: Gallery, queries: list[Query], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    real = VectorIndex._pass
    monkeypatch.setattr(
        VectorIndex, "_pass", lambda self, *given: (passes.append(1), real(self, *given))[1]
    )
    result = search(filled, queries[0], Wanted(k=3, contrast=True))
    assert {hit.label for hit in result.contrast} == {"a", "b", "rare"}
    assert len(passes) == 2


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("excluded", [(), (1, 5, 99)])
@pytest.mark.parametrize("few", [False, True])
def test_a_pass_on_several_threads_finds_what_one_finds(
    unit: Unit, threads: int, excluded: tuple[int, ...], few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faiss, "omp_get_max_threads", lambda: threads)
    monkeypatch.setattr(vectors, "_ROWS_A_THREAD", 100)
    rows, query = unit(400, seed=1).astype(np.float16), unit(1, seed=2)[0]
    ids = np.arange(400) // 2 + 1
    index = VectorIndex.build(rows, ids)
    among = Members.of(range(0, 201, 3), 200) if few else None
    found = index.nearest(query, 20, excluded, among)
    kept = [
        row for row in range(400) if ids[row] not in excluded and (not few or ids[row] % 3 == 0)
    ]
    scores = rows[kept].astype(np.float32) @ query
    best = np.argsort(-scores)[:20]
    assert found.ids.tolist() == ids[kept][best].tolist()
    np.testing.assert_allclose(found.scores, scores[best], atol=1e-6)
    assert found.rest == found.scores[-1]


def test_many_passes_in_one_find_what_each_finds(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "_TOGETHER_ROWS", 64)
    index = VectorIndex.build(unit(300, seed=1).astype(np.float16), np.arange(300))
    asked = unit(10, seed=2)
    for depth in (5, 100, 1000):
        together = index.nearest_of_each(asked, depth)
        for query, found in zip(asked, together, strict=True):
            alone = index.nearest(query, depth)
            assert found.ids.tolist() == alone.ids.tolist()
            np.testing.assert_allclose(found.scores, alone.scores, atol=1e-6)
            assert found.rest == pytest.approx(alone.rest, abs=1e-6)


def test_the_vectors_of_a_cache_are_in_memory_once_and_not_those_of_the_file(
    filled: Gallery, unit: Unit
) -> None:
    with filled.snapshot() as state:
        stamp = filled.caches.stamp("scan", state)
    file = filled.path / "scan.faiss"
    index = read_index(file, stamp)
    (content,) = index._behind
    assert isinstance(content, np.ndarray)
    codes = faiss.rev_swig_ptr(index._index.codes.data(), 60 * 16)
    assert np.shares_memory(codes, content)
    query = unit(1, seed=3)[0]
    before = index.nearest(query, 60)
    with file.open("r+b") as changed:  # in place: what was read and checked stays as it was
        changed.seek(-60 * 16, 2)
        changed.write(bytes(60 * 16))
    assert index.nearest(query, 60).scores.tolist() == before.scores.tolist()


def test_labels_are_read_once_a_generation_and_kept_in_a_cache(
    filled: Gallery, queries: list[Query], make_entry: Entry
) -> None:
    def contrast() -> list[tuple[int, str | None]]:
        with Gallery.open(filled.path) as again:
            found = search(again, queries[0], Wanted(contrast=True)).contrast
        return [(hit.id, hit.label) for hit in found]

    file = filled.path / "labels.numbers"
    expected, kept = contrast(), file.read_bytes()
    content = read_cache(file).ids
    assert content is not None
    assert np.bincount(content)[1:].sum() == 60 - sum(i % 13 != 0 and i % 3 == 2 for i in range(60))
    for damaged in (None, kept[:-3], bytes(len(kept)), (filled.path / "scan.faiss").read_bytes()):
        file.unlink()
        if damaged is not None:
            file.write_bytes(damaged)
        assert contrast() == expected
        assert file.read_bytes() == kept
    with filled.snapshot() as state:
        assert filled.column("label", state) is filled.column("label", state)
    filled.add([make_entry("new", seed=1, label="new")])
    assert "new" in {label for _, label in contrast()}
    assert file.read_bytes() != kept


def test_members_are_told_by_arrays_and_by_sets() -> None:
    odd, high = Members.of([1, 3, 5], 6), Members(np.array([0, 1, 2, 2, 2, 2, 2]), 2)
    assert len(odd) == 3
    assert (odd & high).held(range(-2, 10)) == {3, 5}
    assert high.marks(np.array([1, 2, 6])).tolist() == [False, True, True]
    assert list(itertools.chain(odd.held(()), odd.held({0, 7}))) == []
