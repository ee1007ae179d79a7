"""Which cases belong to which task, and how several tasks are split by patient."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medcli.data.splits import PARTS, Split, split_by_patient
from medcli.errors import ManifestError, UsageError
from medcli.records import Case
from medcli.training.tasks import (
    gather_tasks,
    inputs_by_task,
    own_patient,
    split_rows,
    split_tasks,
)

Row = Sequence[str]  # path, label, patient, task
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A manifest of rows over one picture each; without tasks it has no such column."""

    def write(name: str, rows: Sequence[Row], *, tasks: bool = True) -> str:
        for number, row in enumerate(rows):
            pixels = np.full((16, 16), 10 * number % 255, np.uint8)
            Image.fromarray(pixels).save(tmp_path / row[0])
        with (tmp_path / name).open("w", newline="") as stream:
            writer = csv.writer(stream)
            columns = ["path", "label", "patient_id", *(["task"] if tasks else [])]
            writer.writerow(columns)
            writer.writerows(row[: len(columns)] for row in rows)
        return str(tmp_path / name)

    return write


def rows_of(task: str, labels: str, count: int, patient: str = "p") -> list[Row]:
    """Scans of classes in turn, one patient each."""
    return [
        (f"{task}{i}.png", labels[i % len(labels)], f"{patient}{i}", task) for i in range(count)
    ]


def test_inputs_named_after_tasks_are_theirs(write: Write) -> None:
    a = write("a.csv", rows_of("a", "xy", 6), tasks=False)
    b = write("b.csv", rows_of("b", "uv", 6), tasks=False)
    found = gather_tasks([f"first={a}", f"second={b}"])
    assert [(task.name, task.classes) for task in found.tasks] == [
        ("first", ("x", "y")),
        ("second", ("u", "v")),
    ]
    assert found.apart
    cases = found.data.cases
    assert [case.columns["task"] for case in cases] == ["first"] * 6 + ["second"] * 6
    assert [case.scan_id for case in cases[::6]] == ["first:a0.png", "second:b0.png"]
    assert any("first: positive class: 'y'" in note for note in found.notes)
    assert [task.name for task in gather_tasks([f"first={a}", f"second={b}"], "second").tasks] == [
        "second"
    ]


def test_one_named_input_is_a_run_of_one_task(write: Write) -> None:
    a = write("a.csv", rows_of("a", "xy", 6), tasks=False)
    found = gather_tasks([f"lung={a}"])
    assert [task.name for task in found.tasks] == ["lung"]
    assert found.data.cases == gather_tasks([a], "lung").data.cases


def test_a_file_with_an_equals_sign_is_a_file(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("odd=name.csv", rows_of("a", "xy", 6), tasks=False)
    monkeypatch.chdir(tmp_path)
    assert inputs_by_task(["odd=name.csv"]) == {}
    assert inputs_by_task(["/data/odd=name.csv"]) == {}
    assert inputs_by_task(["lung=odd=name.csv"]) == {"lung": ("odd=name.csv",)}


def test_the_column_task_tells_the_rows_of_one_manifest_apart(write: Write) -> None:
    rows = [*rows_of("a", "xy", 6), *rows_of("b", "uv", 4), *rows_of("c", "pq", 4)]
    manifest = write("all.csv", rows)
    found = gather_tasks([manifest], "b, a")
    assert [task.name for task in found.tasks] == ["b", "a"]
    assert not found.apart
    assert len(found.data.cases) == 10
    assert found.data.dropped == {"other task": 4}
    assert [task.name for task in gather_tasks([manifest], "b").tasks] == ["b"]
    with pytest.raises(ManifestError, match="no scan of task 'd'"):
        gather_tasks([manifest], "a,d")


def test_what_does_not_go_together_is_refused(write: Write) -> None:
    a = write("a.csv", rows_of("a", "xy", 6), tasks=False)
    with pytest.raises(UsageError, match="is not named after a task, other inputs are"):
        gather_tasks([a, f"lung={a}"])
    with pytest.raises(UsageError, match="no input for the task 'gi'"):
        gather_tasks([f"lung={a}", f"b={a}"], "lung,gi")
    with pytest.raises(UsageError, match="--classes is for one task"):
        gather_tasks([f"lung={a}", f"b={a}"], classes=["x"])
    with pytest.raises(UsageError, match="'z' is a class of none of the tasks"):
        gather_tasks([f"lung={a}", f"b={a}"], positive="z")
    with pytest.raises(ManifestError, match=r"6 of 6 scans in .* name no task"):
        gather_tasks([a], "lung,gi")


def test_each_task_takes_its_own_positive_class(write: Write) -> None:
    a = write("a.csv", rows_of("a", "xy", 6), tasks=False)
    b = write("b.csv", rows_of("b", "uv", 6), tasks=False)
    tasks = gather_tasks([f"first={a}", f"second={b}"], positive="x,u").tasks
    assert [task.positive for task in tasks] == ["x", "u"]


def part_of(split: Split) -> dict[tuple[str, str], str]:
    return {(c.scan_id, c.path): part for part in PARTS for c in getattr(split, part)}


def test_a_person_of_two_tasks_in_one_manifest_stands_in_one_part(write: Write) -> None:
    manifest = write("all.csv", [*rows_of("a", "xy", 12), *rows_of("b", "uv", 12)])
    found = gather_tasks([manifest], "a,b")
    cases = found.data.cases
    split = split_tasks(cases, found.tasks, seed=0)
    parts = part_of(split)
    for first, second in zip(cases[:12], cases[12:], strict=True):
        assert first.patient_id == second.patient_id
        assert parts[first.scan_id, first.path] == parts[second.scan_id, second.path]
    for row in split_rows(split, found.tasks):
        assert all(row.per_class.values()), row
    assert [(row.task, row.part) for row in split_rows(split, found.tasks)] == [
        (task, part) for task in "ab" for part in PARTS
    ]


def test_tasks_without_common_patients_are_split_as_if_alone(write: Write) -> None:
    manifest = write("all.csv", [*rows_of("a", "xy", 9), *rows_of("b", "uvw", 12, "q")])
    found = gather_tasks([manifest], "a,b")
    together = part_of(split_tasks(found.data.cases, found.tasks, seed=3))
    for name in "ab":
        alone = split_by_patient(gather_tasks([manifest], name).data.cases, seed=3)
        for (scan_id, path), part in part_of(alone).items():
            assert together[f"{name}:{scan_id}", path] == part


def test_warnings_of_a_split_name_their_task(write: Write) -> None:
    rows: list[Row] = [(f"b{i}.png", "uv"[i % 2], "", "b") for i in range(8)]
    found = gather_tasks([write("all.csv", [*rows_of("a", "xy", 8), *rows])], "a,b")
    (warning,) = split_tasks(found.data.cases, found.tasks, seed=0).warnings
    assert warning.startswith("b: no scan names a patient")


def test_a_patient_keeps_the_name_that_the_data_give(write: Write) -> None:
    a = write("a.csv", rows_of("a", "xy", 2), tasks=False)
    b = write("b.csv", rows_of("b", "uv", 2), tasks=False)
    found = gather_tasks([f"first={a}", f"second={b}"])
    case = replace(found.data.cases[-1], patient_id="second:p1")  # as `told_apart` names it
    assert own_patient(case, found.tasks) == ("p1", "second")
    assert own_patient(case, found.tasks[:1]) == ("second:p1", "first")


def test_a_chain_of_shared_patients_binds_its_tasks() -> None:
    def case(task: str, number: int, patient: str) -> Case:
        name = f"{task}{number}.png"
        columns = {"task": task}
        label = "uv"[number % 2]
        return Case(name, (name,), "picture", f"{task}:{name}", label, patient, columns=columns)

    from medcli.training.tasks import _sharing_patients

    cases = [case(task, i, f"{task}{i}") for task in "abcd" for i in range(2)]
    shared = [*cases, case("a", 5, "c0"), case("b", 5, "c1")]

    def bundles(*links: tuple[int, int]) -> list[str]:
        found = _sharing_patients(shared, links)
        return sorted("".join(sorted({shared[i].columns["task"] for i in own})) for own in found)

    assert bundles() == ["abc", "d"]
    assert bundles((0, 7)) == ["abcd"]  # a copy of one picture binds them, too
