"""The history of a training as a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from medcli.training.loop import Epoch


def history_csv(history: Sequence[Any], kind: type[Any] = Epoch) -> bytes:
    """One line an epoch, each of the dataclass `kind`, below a line of names."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(kind)])
    writer.writeheader()
    writer.writerows(asdict(line) for line in history)
    return text.getvalue().encode()
