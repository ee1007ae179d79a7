"""Retrieval metrics by hand, and their chance by enumeration of every draw."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from medcli.evaluation.retrieval import METRICS, average_precision, chance, retrieval_metrics

TEN = ["a", "b", "a", "b", "c", "a", "a", "b", "b", "b"]


def one_query(
    label: str, hits: list[str | None], counts: dict[str | None, int]
) -> dict[str, float]:
    metrics = retrieval_metrics([hits], [label], counts)
    return {name: metrics[name] for name in METRICS}


def test_one_query_by_hand() -> None:
    found = one_query("a", TEN, {"a": 4, "b": 5, "c": 1})
    assert found == pytest.approx(
        {
            "map_at_5": (1 / 1 + 2 / 3) / 2,
            "map_at_5_strict": (1 / 1 + 2 / 3) / 4,
            "mmv_at_5": 1,  # a and b tie with two each
            "acc_at_1": 1,
            "acc_at_5": 1,
            "precision_at_10": 0.4,
            "recall_at_10": 1,
        }
    )


def test_a_minority_label_is_no_majority() -> None:
    assert one_query("c", TEN, {"a": 4, "b": 5, "c": 1})["mmv_at_5"] == 0


def test_no_relevant_hit_scores_zero() -> None:
    assert set(one_query("d", TEN, {"a": 4, "b": 5, "c": 1}).values()) == {0}


def test_the_strict_divisor_is_at_most_five() -> None:
    assert one_query("a", ["a"] * 10, {"a": 100})["map_at_5_strict"] == 1
    assert average_precision([True, False, False, False, False], 5) == pytest.approx(0.2)


def test_unlabelled_hits_are_not_relevant_and_do_not_vote() -> None:
    found = one_query("a", [None, None, None, "a", "b"], {"a": 1, "b": 1, None: 3})
    assert found["mmv_at_5"] == 1
    assert found["acc_at_1"] == 0
    assert found["map_at_5"] == pytest.approx(1 / 4)


@pytest.mark.parametrize(
    "counts", [{"a": 3, "b": 2, "c": 2}, {"a": 2, "b": 3, None: 2}, {"a": 2, "b": 1}]
)
def test_chance_is_the_mean_over_every_possible_answer(counts: dict[str | None, int]) -> None:
    gallery = [label for label, n in counts.items() for _ in range(n)]
    answers = [list(answer) for answer in permutations(gallery)]
    for label in ("a", "b"):
        exhaustive = retrieval_metrics(answers, [label] * len(answers), counts, resamples=2)
        expected = {name: exhaustive[name] for name in METRICS}
        assert chance([label], counts) == pytest.approx(expected)


def test_chance_on_pneumoniamnist_is_near_the_published_simulation() -> None:
    queries = ["normal"] * 234 + ["pneumonia"] * 390
    found = chance(queries, {"normal": 1214, "pneumonia": 3494})
    assert found["map_at_5"] == pytest.approx(0.676, abs=0.005)
    assert found["mmv_at_5"] == pytest.approx(0.597, abs=0.005)
    assert found["acc_at_1"] == pytest.approx((234 * 1214 + 390 * 3494) / (624 * 4708))


def test_chance_of_a_label_that_is_not_stored_is_zero() -> None:
    assert set(chance(["z"], {"a": 5}).values()) == {0}


def test_intervals_resample_the_queries_patients() -> None:
    rng = np.random.default_rng(0)
    hits = [list(rng.permutation(TEN)) for _ in range(120)]
    metrics = retrieval_metrics(
        hits, ["a"] * 120, {"a": 4, "b": 5, "c": 1}, [f"p{row // 3}" for row in range(120)]
    )
    assert (metrics["n_queries"], metrics["n_gallery"]) == (120, 10)
    low, high = metrics["ci"]["acc_at_1"]
    assert low < metrics["acc_at_1"] < high
    assert set(metrics["ci"]) == set(metrics["chance"]) == set(METRICS)


def test_one_query_has_no_interval() -> None:
    assert retrieval_metrics([TEN], ["a"], {"a": 4})["ci"]["map_at_5"] is None


def test_hits_without_a_query_are_refused() -> None:
    with pytest.raises(ValueError, match="2 lists of hits for 1 queries"):
        retrieval_metrics([TEN, TEN], ["a"], {"a": 4})
    with pytest.raises(ValueError, match="0 queries"):
        retrieval_metrics([], [], {"a": 4})


def test_classes_and_their_mean() -> None:
    hits: list[list[str | None]] = [["a"] * 10, ["b"] * 10, ["a"] * 10]
    found = retrieval_metrics(hits, ["a", "a", "b"], {"a": 20, "b": 5}, ["P", "Q", "R"])
    of_a, of_b = found["per_class"]["a"], found["per_class"]["b"]
    assert (of_a["acc_at_1"], of_b["acc_at_1"]) == (0.5, 0)
    assert found["acc_at_1"] == pytest.approx(1 / 3)
    assert found["macro"]["acc_at_1"] == pytest.approx(0.25)
    assert of_a["recall_at_10"] == pytest.approx((10 / 20 + 0) / 2)
    assert of_a["chance"]["recall_at_10"] == pytest.approx(10 / 25)
    assert (of_a["n_queries"], of_b["n_gallery"]) == (2, 5)
    low, high = of_a["ci"]["acc_at_1"]
    assert low <= 0.5 <= high
