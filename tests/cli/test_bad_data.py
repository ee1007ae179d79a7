"""Bad data as a user meets them: each a sentence, a way out, a status; nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Run = Callable[..., Any]


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 24), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def folders(*classes: str, each: int = 4) -> str:
    for number, name in enumerate(classes):
        for picture in range(each):
            draw(Path("set", name, f"{picture}.png"), 100 * number + picture)
    return str(Path("set").resolve())  # workers keep the folder they began in


def manifest(*lines: str, header: str = "path,label,patient_id") -> str:
    for number in range(12):
        draw(Path(f"{number}.png"), number)
    Path("m.csv").write_text("\n".join([header, *lines]) + "\n")
    return str(Path("m.csv").resolve())


def one_class() -> str:
    return folders("benign")


def spellings_in_a_manifest() -> str:
    return manifest("0.png,Benign,P", "1.png,benign,Q", "2.png,malignant,R")


def spellings_of_folders() -> str:
    return folders("Benign", "benign ", "malignant")


def a_class_with_one_patient() -> str:
    rows = [f"{n}.png,{'a' if n < 6 else 'b'},{f'P{n}' if n < 6 else 'Q'}" for n in range(12)]
    return manifest(*rows)


def no_labels() -> str:
    return manifest("0.png,,P", "1.png,,Q")


def no_label_column() -> str:
    return manifest("0.png,a,P", header="path,lable,patient_id")


def no_file_there() -> str:
    return manifest(*(f"gone/{n}.png,{'ab'[n % 2]},P{n}" for n in range(12)))


def too_many_damaged() -> str:
    name = manifest(*(f"{n}.png,{'ab'[n % 2]},P{n}" for n in range(12)))
    Path("3.png").write_bytes(Path("3.png").read_bytes()[:60])
    return name


def a_split_nobody_knows() -> str:
    header = "path,label,patient_id,split"
    return manifest("0.png,a,P,trian", "1.png,b,Q,test", header=header)


def a_split_without_a_class() -> str:
    rows = [
        f"{n}.png,{'a' if n < 6 else 'b'},P{n},{'val' if n < 6 else 'train'}" for n in range(12)
    ]
    return manifest(*rows, header="path,label,patient_id,split")


def two_tasks() -> str:
    rows = [f"{n}.png,{'ab'[n % 2]},P{n},{('nodule', 'lung')[n % 2]}" for n in range(12)]
    return manifest(*rows, header="path,label,patient_id,task")


CASES: list[tuple[Callable[[], str], list[str], int, str, str]] = [
    (one_class, [], 2, "one class only", "two or more"),
    (spellings_in_a_manifest, [], 2, "'Benign', 'benign'", "write each class in one way"),
    (spellings_of_folders, [], 2, "'Benign', 'benign '", "write each class in one way"),
    (a_class_with_one_patient, [], 2, "class 'b' has 1 patient", "--classes"),
    (no_labels, [], 2, "no labelled scan", "path and a label"),
    (no_label_column, [], 2, "has no column 'label'", "did you mean 'lable'?"),
    (no_file_there, [], 3, "none of the scans can be read", ""),
    (too_many_damaged, [], 3, "more than 5% of 12 scans cannot be read", "up to 5 %"),
    (a_split_nobody_knows, [], 2, "unknown split 'trian'", "did you mean 'train'?"),
    (a_split_without_a_class, [], 2, "split has no scan of class", "each split"),
    (two_tasks, ["--task", "nodul"], 2, "no scan of task 'nodul'", "did you mean 'nodule'?"),
    (a_class_with_one_patient, ["--classes", "a,c"], 2, "no scan of class 'c'", "classes found"),
]


@pytest.mark.parametrize(
    ("make", "options", "status", "told", "hint"), CASES, ids=lambda v: getattr(v, "__name__", "")
)
def test_bad_data_stop_training_with_a_way_out(
    medcli: Run,
    home: Path,
    make: Callable[[], str],
    options: list[str],
    status: int,
    told: str,
    hint: str,
) -> None:
    done = medcli("train", make(), *options, "-o", "run")
    assert done.status == status, done.err
    assert told in done.errors[-1]
    assert hint in done.err
    assert "Traceback" not in done.err
    assert not Path("run").exists()


@pytest.mark.parametrize("make", [one_class, spellings_in_a_manifest, a_class_with_one_patient])
def test_the_same_data_cannot_be_split(medcli: Run, home: Path, make: Callable[[], str]) -> None:
    done = medcli("data", "split", make(), "-o", "new.csv")
    assert done.status == 2
    assert not Path("new.csv").exists()


def test_rows_without_label_or_file_are_dropped_and_counted(medcli: Run, home: Path) -> None:
    rows = [f"{n}.png,{'ab'[n % 2]},P{n}" for n in range(12)]
    for number in range(12, 45):
        draw(Path(f"{number}.png"), number)
        rows.append(f"{number}.png,{'ab'[number % 2]},P{number}")
    name = manifest(*rows, "gone.png,a,Q", "unlabelled.png,,Q", ",a,Q")
    done = medcli("data", "split", name, "-o", "new.csv")
    assert done.status == 0, done.err
    assert "1 dropped: no path" in done.err
    assert "1 dropped: no label" in done.err
    assert "1 dropped: not readable (not_found)" in done.err
    assert Path("new.csv").read_text().count(".png") == 45
