from __future__ import annotations

import pytest

from medcli.data.presets import PRESETS, infer_task, resolve_task
from medcli.errors import UsageError


@pytest.mark.parametrize(
    ("classes", "name", "positive"),
    [
        (("benign", "malignant"), "nodule", "malignant"),
        (("normal", "pneumonia"), "lung", "pneumonia"),
        (("colon_aca", "colon_n"), "gi", "colon_aca"),
        (("normal", "polyp"), "gi", "polyp"),
        (("Benign", "Malignant"), "nodule", "Malignant"),
    ],
)
def test_known_classes_name_their_task_and_positive(
    classes: tuple[str, ...], name: str, positive: str
) -> None:
    task, notes = resolve_task(None, classes)
    assert (task.name, task.positive, task.classes) == (name, positive, classes)
    assert len(notes) == 1
    assert name in notes[0]


def test_the_last_class_is_positive_where_nothing_is_known_and_a_note_says_so() -> None:
    task, notes = resolve_task("shape", ("round", "square"))
    assert (task.name, task.positive) == ("shape", "square")
    assert notes == ["positive class: 'square', the last one; --positive names another"]


def test_the_users_positive_wins() -> None:
    task, notes = resolve_task("nodule", ("benign", "malignant"), "benign")
    assert task.positive == "benign"
    assert notes == []


def test_more_than_two_classes_have_no_positive() -> None:
    task, _ = resolve_task("kinds", ("a", "b", "c"))
    assert task.positive is None
    with pytest.raises(UsageError, match="needs two classes"):
        resolve_task("kinds", ("a", "b", "c"), "a")


def test_an_unknown_positive_is_named_with_the_nearest_class() -> None:
    with pytest.raises(UsageError) as caught:
        resolve_task("nodule", ("benign", "malignant"), "malignent")
    assert "did you mean 'malignant'?" in caught.value.hint


def test_unknown_classes_are_no_known_task() -> None:
    assert infer_task(("benign", "malignant", "normal")) is None
    assert resolve_task(None, ("a", "b", "c"))[0].name == "task"


def test_radiographs_are_normalised_by_percentiles_and_colour_stays_colour() -> None:
    assert PRESETS["lung"].pictures == "percentiles"
    assert PRESETS["gi"].channels == 3
