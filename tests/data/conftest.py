"""Data sets made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medcli.records import Case


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    """Write lines into a manifest and return its path."""

    def write(*lines: str, name: str = "manifest.csv", encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding=encoding)
        return path

    return write


@pytest.fixture
def write_picture() -> Callable[[Path], Path]:
    """Write a small grey PNG, different for each path."""

    def write(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(sum(path.name.encode()))
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
        return path

    return write


@pytest.fixture
def make_cases() -> Callable[..., list[Case]]:
    """Cases from (patient, label) or (patient, label, split); a patient of None is unknown."""

    def make(rows: Sequence[tuple[str | None, ...]]) -> list[Case]:
        return [
            Case(
                path=f"{number}.png",
                files=(f"{number}.png",),
                kind="picture",
                scan_id=f"s{number}",
                patient_id=row[0],
                label=row[1],
                split=row[2] if len(row) > 2 else None,
            )
            for number, row in enumerate(rows)
        ]

    return make
