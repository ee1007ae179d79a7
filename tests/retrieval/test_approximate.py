"""Approximate indexes: chosen by measurement, rescored exactly, as disposable as the exact one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medcli.errors import DamagedError, UsageError
from medcli.records import GalleryEntry, SearchResult
from medcli.retrieval import choice as choices
from medcli.retrieval.choice import ApproximateKind, Choice
from medcli.retrieval.forgetting import forget_patient
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.query import Query, Wanted
from medcli.retrieval.search import search
from medcli.retrieval.tuning import tune, use
from medcli.retrieval.upkeep import check_caches

Entry = Callable[..., GalleryEntry]
KINDS: tuple[ApproximateKind, ...] = ("hnsw", "ivfpq")
ROWS = 400


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Galleries of some hundred vectors are large enough."""
    monkeypatch.setattr(choices, "FEWEST", {"hnsw": 50, "ivfpq": 300})
    monkeypatch.setattr("medcli.retrieval.tuning.FEWEST", choices.FEWEST)


@pytest.fixture
def filled(gallery: Gallery, make_entry: Entry) -> Gallery:
    gallery.add(
        (make_entry(f"s{i}", seed=i, patient_id=f"P{i % 40}") for i in range(ROWS)), batch=200
    )
    return gallery


def ask(gallery: Gallery, make_entry: Entry, k: int = 5, **about: object) -> SearchResult:
    embedding = make_entry("query", seed=10_000).embedding
    return search(gallery, Query.from_embedding("query", embedding, **about), Wanted(k))  # type: ignore[arg-type]


def scored(result: SearchResult) -> list[tuple[int, float]]:
    return [(hit.id, hit.score) for hit in result.hits]


@pytest.mark.parametrize("kind", KINDS)
def test_the_measured_index_is_kept_and_its_scores_are_exact(
    filled: Gallery, make_entry: Entry, kind: ApproximateKind
) -> None:
    before = ask(filled, make_entry)
    tuning = tune(filled, kind, sample=40, wanted=0.9)
    assert tuning.choice is not None
    assert tuning.choice.recall >= 0.9
    assert tuning.trials[0].kind == "exact"
    after = ask(filled, make_entry)
    truth = dict(scored(ask_exactly(filled, make_entry)))
    assert [truth[scan] for scan, _ in scored(after)] == [score for _, score in scored(after)]
    assert len(after.hits) == len(before.hits) == 5
    (note,) = after.warnings
    assert note.code == "approximate_search"
    assert f"recall@10 {tuning.choice.recall:.3f}" in note.message
    assert filled.info()["index"]["kind"] == kind
    with Gallery.open(filled.path) as again:
        assert scored(ask(again, make_entry)) == scored(after)


def ask_exactly(gallery: Gallery, make_entry: Entry) -> SearchResult:
    """The scores of all scans, by exact search in a gallery that prefers another."""
    with Gallery.open(gallery.path) as other:
        other.caches.choice = lambda: None  # type: ignore[method-assign]
        return ask(other, make_entry, k=ROWS)


def test_recall_is_that_of_brute_force(filled: Gallery) -> None:
    """Counted by hand: the ten nearest of all, by a product of matrices."""
    tuning = tune(filled, "hnsw", sample=ROWS, wanted=0.5)
    with filled.snapshot() as state:
        vectors, ids = filled.caches.rows(filled.caches.stamp("scan", state))
        index, _ = filled.caches.index("scan", state)
    wide = vectors.astype(np.float64)
    products = wide @ wide.T
    np.fill_diagonal(products, -2)
    share = []
    for row in range(ROWS):
        nearest = set(ids[np.argsort(-products[row])[:10]].tolist())
        query = vectors[row].astype(np.float32)
        query /= np.linalg.norm(query)
        found = index.candidates(query, 10, {int(ids[row])})
        share.append(len(found & nearest) / 10)
    assert tuning.choice is not None
    assert tuning.choice.recall == pytest.approx(np.mean(share), abs=0.002)


def test_where_recall_is_out_of_reach_exact_search_stays(filled: Gallery) -> None:
    tuning = tune(filled, "ivfpq", sample=20, wanted=1.1)
    assert tuning.choice is None
    assert [trial.effort for trial in tuning.trials] == [None, 4, 8, 16, 32, 64, 128, 256]
    assert filled.info()["index"] == {"kind": "exact"}
    assert list(filled.path.glob("*.ivfpq.faiss")) == []


def test_a_small_gallery_is_refused(gallery: Gallery, make_entry: Entry) -> None:
    gallery.add([make_entry("a")])
    with pytest.raises(UsageError, match="needs 50 vectors"):
        tune(gallery, "hnsw")


@pytest.mark.parametrize("kind", KINDS)
def test_additions_and_removals_are_followed_without_building_anew(
    filled: Gallery, make_entry: Entry, kind: ApproximateKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(filled, Choice(kind, 512, 1.0, 10, 1, ROWS))
    first = ask(filled, make_entry).hits[0]

    def never(*_: object) -> None:
        raise AssertionError("a new index was built")

    monkeypatch.setattr("medcli.retrieval.approximate.build_index", never)
    filled.remove([first.id])
    filled.add([make_entry("copy of the query", seed=10_000)])
    after = ask(filled, make_entry)
    assert first.id not in [hit.id for hit in after.hits]
    assert after.hits[0].path.endswith("copy of the query")
    assert [note.code for note in after.warnings] == ["approximate_search"]
    with Gallery.open(filled.path) as again:
        assert scored(ask(again, make_entry)) == scored(after)
    assert list(check_caches(filled)) == []


def test_many_removals_are_a_new_index(filled: Gallery, make_entry: Entry) -> None:
    use(filled, Choice("hnsw", 64, 1.0, 10, 1, ROWS))
    filled.remove(range(1, ROWS // 2))
    with filled.snapshot() as state:
        index, _ = filled.caches.index("scan", state)
    assert (len(index), len(index._ids)) == (201, 201)  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_is_left_out_the_others_fill_the_answer(
    filled: Gallery, make_entry: Entry, kind: ApproximateKind
) -> None:
    use(filled, Choice(kind, 4, 1.0, 10, 1, ROWS))
    exact = ask_exactly(filled, make_entry)
    others = [hit.id for hit in exact.hits[:-7]]
    result = ask(filled, make_entry, k=7, exclude=others)
    assert scored(result) == scored(exact)[-7:]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["cut", "flip", "lost", "of another gallery"])
def test_a_damaged_approximate_cache_is_built_anew_with_a_note(
    filled: Gallery,
    make_gallery: Callable[..., Gallery],
    make_entry: Entry,
    kind: ApproximateKind,
    damage: str,
) -> None:
    use(filled, Choice(kind, 512, 1.0, 10, 1, ROWS))
    before = ask(filled, make_entry)
    file = filled.path / f"scan.{kind}.faiss"
    content = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[-1000] ^= 1
        file.write_bytes(content)
    elif damage == "lost":
        file.unlink()
    else:
        other = make_gallery("other")
        other.add((make_entry(f"o{i}", seed=-i % 5000) for i in range(ROWS)), batch=200)
        use(other, Choice(kind, 512, 1.0, 10, 1, ROWS))
        file.write_bytes((other.path / file.name).read_bytes())
    if damage in ("cut", "flip"):
        assert [each.code for each in check_caches(filled)] == ["index_damaged"]
    with Gallery.open(filled.path) as again:
        rebuilt, after = ask(again, make_entry), ask(again, make_entry)
    assert scored(rebuilt) == scored(after) == scored(before)
    assert [note.code for note in rebuilt.warnings] == ["index_rebuilt", "approximate_search"]
    assert list(check_caches(filled)) == []


def test_a_forgotten_patient_is_in_no_index(filled: Gallery) -> None:
    use(filled, Choice("hnsw", 64, 1.0, 10, 1, ROWS))
    assert forget_patient(filled, "P7").found_after == 0
    with filled.snapshot() as state:
        index, _ = filled.caches.index("scan", state)
    assert len(index) == len(index._ids) == ROWS - ROWS // 40  # type: ignore[union-attr]


def test_back_to_exact_removes_the_files(filled: Gallery) -> None:
    use(filled, Choice("hnsw", 64, 1.0, 10, 1, ROWS))
    assert (filled.path / "scan.hnsw.faiss").exists()
    use(filled, None)
    assert [file.name for file in filled.path.glob("*.faiss")] == ["scan.faiss"]


def test_a_choice_of_a_later_version_is_no_wrong_answer(filled: Gallery, make_entry: Entry) -> None:
    later = json.dumps({"kind": "other"})
    with filled.writing():
        filled.catalogue.set_index("index", later)
    with pytest.raises(DamagedError, match="choice of its index"):
        ask(filled, make_entry)


def test_slices_of_one_scan_do_not_crowd_out_the_others(
    make_gallery: Callable[..., Gallery], make_entry: Entry
) -> None:
    gallery = make_gallery()
    near = make_entry("query", seed=10_000).embedding.vector
    crowd = np.repeat(near[np.newaxis], 200, axis=0)
    gallery.add(
        [
            make_entry("crowd", seed=1, n_slices=200, slice_vectors=crowd),
            *(make_entry(f"s{i}", seed=i, n_slices=2) for i in range(60)),
        ]
    )
    use(gallery, Choice("hnsw", 64, 1.0, 10, 1, ROWS))
    result = ask(gallery, make_entry, k=5)
    assert result.hits[0].path.endswith("crowd")
    assert len(result.hits) == 5


def test_the_folder_is_still_a_gallery(filled: Gallery, tmp_path: Path) -> None:
    from medcli.retrieval.folder import is_gallery

    use(filled, Choice("hnsw", 64, 1.0, 10, 1, ROWS))
    assert is_gallery(filled.path)
