"""The history of a training as a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields

from medcli.training.loop import Epoch


def history_csv(history: Sequence[Epoch]) -> bytes:
    """One line an epoch, below a line of names."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(Epoch)])
    writer.writeheader()
    writer.writerows(asdict(line) for line in history)
    return text.getvalue().encode()
