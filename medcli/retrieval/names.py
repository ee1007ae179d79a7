"""What the files of a gallery are called."""

from __future__ import annotations

CATALOGUE = "catalogue.sqlite"
KEY = "patient.key"
MODEL = "model"
CALIBRATION = "calibration.json"
LABELS = "labels.numbers"
LOCK = "writer.lock"
