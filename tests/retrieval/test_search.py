"""Search against a brute force that knows nothing of FAISS, SQLite or candidates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medcli.errors import MismatchError, ScanError, UsageError
from medcli.records import GalleryEntry
from medcli.retrieval.entries import rounded_unit_vectors
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.query import GroupBy, Query, Wanted, joined
from medcli.retrieval.rows import ScanRow, row_checksum
from medcli.retrieval.search import search
from medcli.retrieval.vectors import VectorIndex

Entry = Callable[..., GalleryEntry]
Unit = Callable[..., np.ndarray]
Groups = Callable[[int], object]


def one_slice(vector: np.ndarray, **fields: object) -> Query:
    """A query of one slice."""
    values: dict[str, object] = {
        "name": "query",
        "vector": vector,
        "slice_vectors": np.empty((0, len(vector)), np.float32),
        "slice_numbers": np.empty(0, np.int64),
        **fields,
    }
    return Query(**values)  # type: ignore[arg-type]


def several_slices(vector: np.ndarray, slices: np.ndarray, **fields: object) -> Query:
    """A query of as many slices as `slices` has rows."""
    numbers = np.arange(len(slices))
    return replace(one_slice(vector), slice_vectors=slices, slice_numbers=numbers, **fields)


def widened(vectors: np.ndarray) -> np.ndarray:
    """What a gallery keeps of unit vectors: float16, seen as float32."""
    return rounded_unit_vectors(vectors).astype(np.float32)


def brute_force(
    entries: dict[int, GalleryEntry], query: Query, k: int, allowed: set[int], group_of: Groups
) -> list[tuple[int, float]]:
    """(id, score) of the best of the k best groups by the documented rule, ties by id."""
    asked = query.slice_vectors if query.has_slices else query.vector[np.newaxis]
    scored = []
    for scan in sorted(allowed & entries.keys()):
        own = entries[scan].embedding
        rows = np.concatenate([own.vector[np.newaxis], own.slice_vectors])
        best = (widened(rows).astype(float) @ asked.astype(float).T).max(axis=0)
        scored.append((scan, float(np.float32(np.clip(best.mean(), -1, 1)))))
    ranked = sorted(scored, key=lambda pair: (-pair[1], pair[0]))
    first: dict[object, tuple[int, float]] = {}
    for scan, score in ranked:
        first.setdefault(group_of(scan), (scan, score))
    return list(first.values())[:k]


@dataclass
class Case:
    """One random gallery and query: patients and vectors by number, so that many are equal."""

    scans: list[tuple[int, list[int], int | None]]  # scan vector, slice vectors, patient
    query: list[int]
    patient: int | None
    exclude: set[int]
    removed: set[int]
    label: str | None
    group_by: GroupBy
    k: int


numbers = st.integers(0, 5)
patients = st.one_of(st.none(), st.integers(0, 2))
cases = st.builds(
    Case,
    scans=st.lists(
        st.tuples(
            numbers, st.one_of(st.just([]), st.lists(numbers, min_size=2, max_size=9)), patients
        ),
        min_size=1,
        max_size=30,
    ),
    query=st.one_of(
        st.lists(numbers, min_size=1, max_size=1), st.lists(numbers, min_size=2, max_size=3)
    ),
    patient=patients,
    exclude=st.sets(st.integers(1, 30), max_size=4),
    removed=st.sets(st.integers(1, 30), max_size=4),
    label=st.sampled_from([None, "odd", "even"]),
    group_by=st.sampled_from(["scan", "patient", "study"]),
    k=st.integers(1, 12),
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(case=cases, same_patient=st.booleans())
def test_hits_equal_brute_force_with_ties_filters_groups_and_removals(
    case: Case, same_patient: bool, make_entry: Entry, unit: Unit, model_dir: Path
) -> None:
    pool = unit(6, seed=7)
    entries = [
        make_entry(
            str(i),
            n_slices=max(1, len(slices)),
            vector=pool[whole],
            slice_vectors=pool[slices] if slices else None,
            patient_id=None if patient is None else f"P{patient}",
            study_uid=None if patient is None else f"1.2.{patient}.{i % 2}",
            label="even" if i % 2 else "odd",
        )
        for i, (whole, slices, patient) in enumerate(case.scans)
    ]
    vector = pool[case.query[0]]
    query = one_slice(vector, exclude=tuple(case.exclude))
    if len(case.query) > 1:
        query = several_slices(vector, pool[case.query], exclude=tuple(case.exclude))
    with (
        TemporaryDirectory() as folder,
        Gallery.build(
            Path(folder) / "g", model_dir=model_dir, fingerprint="f", dim=len(vector)
        ) as gallery,
    ):
        gallery.add(entries)
        gallery.remove(case.removed)
        asked = None if case.patient is None else f"P{case.patient}"
        query = replace(query, patient=gallery.patient_hash(asked))
        wanted = Wanted(
            k=case.k,
            same_patient=same_patient,
            where=case.label and f"label = {case.label}",
            group_by=case.group_by,
            contrast=True,
        )
        result = search(gallery, query, wanted)
    stored = dict(enumerate(entries, start=1))
    allowed = stored.keys() - case.exclude - case.removed
    if asked is not None and not same_patient:
        allowed = {i for i in allowed if stored[i].patient_id != asked}
    if case.label:
        allowed = {i for i in allowed if stored[i].label == case.label}
    groups = {
        "scan": lambda i: i,
        "patient": lambda i: stored[i].patient_id or i,
        "study": lambda i: stored[i].study_uid or i,
    }
    expected = brute_force(stored, query, case.k, allowed, groups[case.group_by])
    assert [hit.id for hit in result.hits] == [scan for scan, _ in expected]
    np.testing.assert_allclose([h.score for h in result.hits], [s for _, s in expected], atol=1e-5)
    assert any(w.code == "fewer_hits" for w in result.warnings) == (len(expected) < case.k)
    nearest = brute_force(stored, query, 9, allowed, lambda i: stored[i].label)
    assert [(hit.id, hit.label) for hit in result.contrast] == [
        (i, stored[i].label) for i, _ in nearest
    ]


def test_scores_of_random_vectors_equal_numpy_within_1e_5(
    make_gallery: Callable[..., Gallery], make_entry: Entry, unit: Unit
) -> None:
    gallery = make_gallery(dim=256)
    vectors = unit(500, seed=3, dim=256)
    gallery.add(make_entry(str(i), vector=v, dim=256) for i, v in enumerate(vectors))
    query = unit(1, seed=4, dim=256)[0]
    products = widened(vectors) @ query
    hits = search(gallery, one_slice(query), Wanted(k=50)).hits
    assert [hit.id - 1 for hit in hits] == np.argsort(-products)[:50].tolist()
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(products)[::-1][:50], atol=1e-5)


def test_no_score_is_above_one_though_stored_vectors_are_rounded(
    gallery: Gallery, make_entry: Entry, unit: Unit
) -> None:
    vectors = unit(20)
    assert ((widened(vectors) * vectors).sum(axis=1) > 1).any()
    gallery.add(make_entry(f"s{i}", vector=vector) for i, vector in enumerate(vectors))
    scores = [search(gallery, one_slice(vector), Wanted(k=1)).hits[0].score for vector in vectors]
    np.testing.assert_allclose(scores, 1, atol=1e-3)
    assert max(scores) <= 1


def test_equal_scores_are_ordered_by_id_past_any_search_depth(unit: Unit) -> None:
    vector = unit(1)
    index = VectorIndex.build(np.repeat(vector, 3000, 0).astype(np.float16), np.arange(3000)[::-1])
    assert index.candidates(vector[0], 5) == set(range(3000))


def test_a_series_of_many_alike_slices_does_not_crowd_out_other_scans(
    gallery: Gallery, make_entry: Entry, unit: Unit
) -> None:
    query, others = unit(1)[0], unit(3, seed=1)
    gallery.add(
        [
            make_entry("series", n_slices=500, slice_vectors=np.repeat(query[np.newaxis], 500, 0)),
            *(make_entry(f"other{i}", vector=vector) for i, vector in enumerate(others)),
        ]
    )
    hits = search(gallery, one_slice(query), Wanted(k=4)).hits
    assert {hit.id for hit in hits} == {1, 2, 3, 4}
    assert hits[0].id == 1


def test_one_slice_finds_its_series_and_slice(
    gallery: Gallery, make_entry: Entry, unit: Unit
) -> None:
    slices = unit(20, seed=5)
    gallery.add(
        [make_entry("radiograph", seed=1), make_entry("ct", n_slices=20, slice_vectors=slices)]
    )
    first = search(gallery, one_slice(slices[13], pixel_sha256="pixels of a PNG")).hits[0]
    assert (first.id, first.slice, first.file) == (2, 13, "/scans/ct/13.dcm")


def test_a_scan_of_one_slice_has_no_slice_number_but_a_file(
    gallery: Gallery, make_entry: Entry, unit: Unit
) -> None:
    gallery.add([make_entry("radiograph", vector=unit(1)[0])])
    hit = search(gallery, one_slice(unit(1)[0]), Wanted(k=1)).hits[0]
    assert hit.slice is None
    assert hit.file == "/scans/radiograph/0.dcm"


def test_a_query_of_several_slices_takes_the_best_match_of_each_and_names_the_nearest(
    gallery: Gallery, make_entry: Entry, unit: Unit
) -> None:
    whole, slices = unit(3, seed=8), unit(6, seed=9)
    gallery.add(
        [
            make_entry("like", n_slices=6, vector=whole[0], slice_vectors=slices),
            make_entry("other", n_slices=6, vector=whole[1], slice_vectors=unit(6, seed=10)),
        ]
    )
    query = several_slices(whole[2], np.stack([whole[2], slices[4]]))
    result = search(gallery, query, Wanted(k=2))
    assert [hit.id for hit in result.hits] == [1, 2]
    assert result.hits[0].slice == 4
    assert result.query_slice == 1
    products = widened(np.concatenate([whole[:1], slices])) @ np.stack([whole[2], slices[4]]).T
    assert result.hits[0].score == pytest.approx(products.max(axis=0).mean(), abs=1e-6)


def test_scans_can_be_compared_as_wholes(gallery: Gallery, make_entry: Entry, unit: Unit) -> None:
    whole, slices = unit(2, seed=8), unit(6, seed=9)
    gallery.add(
        [
            make_entry("like", n_slices=6, vector=whole[0], slice_vectors=slices),
            make_entry(
                "slice only", n_slices=6, vector=whole[1], slice_vectors=np.repeat(whole[:1], 6, 0)
            ),
        ]
    )
    query = several_slices(whole[0], np.stack([whole[1], slices[4]]))
    result = search(gallery, query, Wanted(k=2, compare="scan"))
    assert [hit.id for hit in result.hits] == [1, 2]
    assert result.hits[1].score == pytest.approx(float(widened(whole[1:])[0] @ whole[0]), abs=1e-6)


def test_the_own_patient_is_left_out_unless_asked_for(
    gallery: Gallery, make_entry: Entry, unit: Unit
) -> None:
    gallery.add(
        [
            make_entry("own", seed=1, patient_id="P1"),
            make_entry("other", seed=2, patient_id="P2"),
            make_entry("unknown", seed=3),
            make_entry("blank", seed=4, patient_id="  "),
        ]
    )
    query = one_slice(unit(1)[0], patient=gallery.patient_hash("P1"))
    assert {hit.id for hit in search(gallery, query).hits} == {2, 3, 4}
    assert {hit.id for hit in search(gallery, query, Wanted(same_patient=True)).hits} == {
        1,
        2,
        3,
        4,
    }


def test_unknown_patients_are_not_the_same_patient(
    gallery: Gallery, make_entry: Entry, unit: Unit
) -> None:
    gallery.add([make_entry("a", seed=1), make_entry("b", seed=2, patient_id="")])
    assert len(search(gallery, one_slice(unit(1)[0])).hits) == 2


def test_a_stored_scan_does_not_return_itself_and_gives_the_query_its_patient(
    gallery: Gallery, make_entry: Entry
) -> None:
    entry = make_entry("stored", seed=1, patient_id="P1")
    gallery.add(
        [entry, make_entry("sibling", seed=2, patient_id="P1"), make_entry("stranger", seed=3)]
    )
    query = Query.from_embedding("stored", entry.embedding, pixel_sha256=entry.pixel_sha256)
    assert [hit.id for hit in search(gallery, query).hits] == [3]
    assert {hit.id for hit in search(gallery, query, Wanted(same_patient=True)).hits} == {2, 3}


def test_fewer_hits_than_asked_for_are_explained(gallery: Gallery, make_entry: Entry) -> None:
    entry = make_entry("stored", patient_id="P1")
    gallery.add([entry, make_entry("sibling", seed=1, patient_id="P1"), make_entry("x", seed=2)])
    query = Query.from_embedding("stored", entry.embedding, pixel_sha256=entry.pixel_sha256)
    (note,) = search(gallery, query, Wanted(k=2)).warnings
    assert note.code == "fewer_hits"
    assert "3 scans" in note.message
    assert "1 of the same patient and 1 equal to the query" in note.message


def test_hits_without_a_label_do_not_vote(gallery: Gallery, make_entry: Entry, unit: Unit) -> None:
    labels = ["benign", "malignant", "malignant", None]
    gallery.add(make_entry(str(i), seed=i, label=label) for i, label in enumerate(labels))
    vote = search(gallery, one_slice(unit(1)[0])).vote
    assert vote == {"malignant": 2 / 3, "benign": 1 / 3}
    assert next(iter(vote)) == "malignant"


def test_an_empty_gallery_answers_with_no_hits(gallery: Gallery, unit: Unit) -> None:
    result = search(gallery, one_slice(unit(1)[0]))
    assert result.hits == ()
    assert result.vote == {}
    assert [note.code for note in result.warnings] == ["fewer_hits"]


def test_a_query_vector_that_is_no_unit_vector_is_refused(gallery: Gallery) -> None:
    with pytest.raises(ScanError):
        search(gallery, one_slice(np.full(8, np.nan, np.float32)))
    with pytest.raises(MismatchError):
        search(gallery, one_slice(np.array([1.0, 0.0], np.float32)))


def filled(gallery: Gallery, make_entry: Entry, vectors: np.ndarray, **fields: object) -> None:
    gallery.add(make_entry(str(i), vector=vector, **fields) for i, vector in enumerate(vectors))


def test_two_joined_queries_find_what_lies_between(
    gallery: Gallery, make_entry: Entry, unit: Unit
) -> None:
    first, second = unit(2, seed=1)
    between = (first + second) / np.linalg.norm(first + second)
    filled(gallery, make_entry, np.stack([first, second, between, -first]))
    asked = joined(one_slice(first, pixel_sha256="pixels of 0"), [one_slice(second)])
    assert search(gallery, asked, Wanted(k=1)).hits[0].id == 3
    assert search(gallery, asked, Wanted(k=1)).hits[0].score == pytest.approx(1, abs=1e-3)
    away = joined(one_slice(between), minus=[one_slice(second)])
    ids = [hit.id for hit in search(gallery, away, Wanted(k=4)).hits]
    assert ids.index(1) < ids.index(2)


def test_the_patients_and_pixels_of_all_that_is_joined_are_left_out(
    gallery: Gallery, make_entry: Entry, unit: Unit
) -> None:
    gallery.add(make_entry(str(i), seed=i, patient_id=f"P{i % 3}") for i in range(6))
    tagged = one_slice(unit(1)[0], patient=gallery.patient_hash("P0"))
    known_by_pixels = one_slice(unit(1, seed=4)[0], pixel_sha256="pixels of 4")  # of P1
    hits = search(gallery, joined(tagged, [known_by_pixels])).hits
    assert {hit.id for hit in hits} == {3, 6}


def test_a_query_that_is_cancelled_out_is_refused(gallery: Gallery, unit: Unit) -> None:
    query = one_slice(unit(1)[0])
    with pytest.raises(UsageError, match="nothing is left"):
        joined(query, minus=[query])


def test_feedback_moves_the_query_and_hides_what_was_judged(
    gallery: Gallery, make_entry: Entry, unit: Unit
) -> None:
    liked, disliked, query = unit(3, seed=2)
    towards = query + 0.75 * liked - 0.15 * disliked
    filled(gallery, make_entry, np.stack([liked, disliked, towards / np.linalg.norm(towards)]))
    wanted = Wanted(more=(1,), less=(2,))
    (hit,) = search(gallery, one_slice(query), wanted).hits
    assert hit.id == 3
    assert hit.score == pytest.approx(1, abs=1e-3)
    with pytest.raises(UsageError, match="no stored scan has the id 9"):
        search(gallery, one_slice(query), Wanted(more=(9,)))


def test_a_part_of_a_stored_scan_finds_it_only_with_the_same_patient(
    gallery: Gallery, make_entry: Entry, unit: Unit
) -> None:
    filled(gallery, make_entry, unit(3))
    part = one_slice(unit(3)[1], pixel_sha256="pixels of 1", is_part=True)
    assert 2 not in {hit.id for hit in search(gallery, part).hits}
    first = search(gallery, part, Wanted(same_patient=True)).hits[0]
    assert (first.id, first.score) == (2, pytest.approx(1, abs=1e-3))


def test_hits_below_the_least_score_are_left_out_and_counted(
    gallery: Gallery, make_entry: Entry, unit: Unit
) -> None:
    filled(gallery, make_entry, unit(6))
    every = search(gallery, one_slice(unit(1)[0]), Wanted(k=6)).hits
    result = search(gallery, one_slice(unit(1)[0]), Wanted(k=6, min_score=every[2].score))
    assert result.hits == every[:3]
    assert "3 with a score below" in result.warnings[0].message


def test_a_timeline_is_the_own_patient_in_order_of_time(
    gallery: Gallery, make_entry: Entry, unit: Unit
) -> None:
    days = ["20200110", "20190110", None, "20200110"]
    for number, day in enumerate(days):
        patient = "P2" if number == 3 else "P1"
        entry = make_entry(str(number), seed=number, patient_id=patient, study_date=day)
        gallery.add([entry])
    marks = gallery.study_marks("P1", None, "20200101")
    query = one_slice(
        unit(1)[0], patient=gallery.patient_hash("P1"), study_date=marks["study_date"]
    )
    result = search(gallery, query, Wanted(k=1, timeline=True, same_patient=True))
    assert [(hit.id, hit.days) for hit in result.hits] == [(2, -356), (1, 9), (3, None)]
    assert [note.code for note in result.warnings] == ["no_timeline"]
    stranger = search(gallery, one_slice(unit(1)[0]), Wanted(timeline=True))
    assert stranger.hits == ()
    assert "patient is unknown" in stranger.warnings[0].message


def test_days_are_told_of_the_same_patient_only(
    gallery: Gallery, make_entry: Entry, unit: Unit
) -> None:
    for number, patient in enumerate(("P1", "P2")):
        entry = make_entry(str(number), seed=number, patient_id=patient, study_date="20200110")
        gallery.add([entry])
    date = gallery.study_marks("P1", None, "20200101")["study_date"]
    query = one_slice(unit(1)[0], patient=gallery.patient_hash("P1"), study_date=date)
    hits = search(gallery, query, Wanted(same_patient=True)).hits
    assert {hit.id: hit.days for hit in hits} == {1: 9, 2: None}


def test_a_gallery_without_studies_says_so(gallery: Gallery, make_entry: Entry, unit: Unit) -> None:
    filled(gallery, make_entry, unit(3))
    result = search(gallery, one_slice(unit(1)[0]), Wanted(k=2, group_by="study"))
    assert len(result.hits) == 2
    assert [note.code for note in result.warnings] == ["no_groups"]


def write_in_bulk(gallery: Gallery, vectors: np.ndarray) -> None:
    """Store scans without slices and files, `label` the number of digits of their id."""
    halves = rounded_unit_vectors(vectors)
    scans, rows = [], []
    for number, vector in enumerate(halves, start=1):
        row = ScanRow(str(number), f"/{number}", (), 0, label=f"{len(str(number))} digits")
        blob = vector.astype("<f2").tobytes()
        scans.append((number, *row.columns(), row_checksum(row.columns(), [(None, "m", blob)])))
        rows.append((number, "m", blob))
    with gallery.writing():
        connection = gallery.catalogue.connection
        marks = ", ".join("?" * len(scans[0]))
        connection.executemany(f"INSERT INTO scans VALUES ({marks})", scans)
        connection.executemany(
            "INSERT INTO vectors (scan, slice, view, vector) VALUES (?, NULL, ?, ?)", rows
        )
        gallery.catalogue.set_meta("scans", len(scans))


@pytest.mark.parametrize("count", [3_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_filter_gives_k_hits_or_the_reason_whatever_it_leaves(
    gallery: Gallery, unit: Unit, count: int
) -> None:
    vectors = unit(count, seed=11)
    write_in_bulk(gallery, vectors)
    query = unit(1, seed=12)[0]
    scores = widened(vectors).astype(float) @ query.astype(float)
    for share in (3, 50, count // 2, count - 1, count):
        result = search(gallery, one_slice(query), Wanted(k=10, where=f"id <= {share}"))
        best = np.argsort(-scores[:share], kind="stable")[:10] + 1
        assert [hit.id for hit in result.hits] == best.tolist()
        np.testing.assert_allclose([h.score for h in result.hits], scores[best - 1], atol=1e-5)
        reasons = [note.message for note in result.warnings if note.code == "fewer_hits"]
        assert len(reasons) == (share < 10)
        assert all(f"{share} of them meet --where" in reason for reason in reasons)
    none = search(gallery, one_slice(query), Wanted(where="label = none"))
    assert none.hits == ()
    assert "0 of them meet --where" in none.warnings[0].message


def test_several_slices_are_compared_where_simpleitk_was_imported(
    gallery: Gallery, make_entry: Entry, unit: Unit
) -> None:
    import SimpleITK  # noqa: F401  # its C++ vectors are taken for those of FAISS

    slices = unit(6, seed=3)
    gallery.add([make_entry("a", n_slices=6, slice_vectors=slices), make_entry("b", n_slices=3)])
    with Gallery.open(gallery.path) as again:
        assert search(again, several_slices(slices[0], slices[:2])).hits[0].id == 1
