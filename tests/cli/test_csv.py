"""A CSV holds what a file is called, and a file may be called anything."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medcli.cli.output import write_csv


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=HYPERLINK(0)", "'=HYPERLINK(0)"),
        ("+1+1", "'+1+1"),
        ("-1+1", "'-1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\\t=1"),
        ("\r=1", "'\\r=1"),
        ("a\x1b[2Jb\n", "a\\x1b[2Jb\\n"),
        ("not utf-8: \udcff", "not utf-8: \\udcff"),
        ('a=b, "c" – d', 'a=b, "c" – d'),
        ("-12.500", "-12.500"),
        (-1.5, "-1.5"),
        (None, ""),
    ],
)
def test_a_text_in_a_csv_runs_nowhere(tmp_path: Path, value: object, cell: str) -> None:
    write_csv(tmp_path / "a.csv", [{"text": value, "next": "x"}])
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["text", "next"], [cell, "x"]]


def test_file_names_that_are_formulas_are_texts_in_the_csv_of_classify(
    medcli: Callable[..., Any], model: Any, sample_folder: Path
) -> None:
    shutil.copy(sample_folder / "query.png", "=1+1.png")
    Path("@bad\x1b.png").write_text("no picture")
    assert medcli("classify", "=1+1.png", "@bad\x1b.png", "--csv", "out.csv").status == 3
    with Path("out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == ["'=1+1.png", "'@bad\\x1b.png"]
    assert float(rows[0]["probability"]) > 0.5
