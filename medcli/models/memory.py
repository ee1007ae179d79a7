"""What a run remembers of the scans it was trained on."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass

from medcli.models.package import SPLITS, ModelPackage, patient_of_task, salted_patient

_NEAREST_FIRST = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class RunMemory:
    """Part of the run by salted patient, and by pixel hash."""

    salt: str
    by_patient: Mapping[str, str]
    by_pixels: Mapping[str, str]

    def part(self, patient_id: str | None, pixels: str, task: str | None = None) -> str | None:
        """The part of the run that a scan, or another scan of its patient, was in.

        Where the patient and the pixels were in different parts, the one that taught
        the run most: a copy of a training picture is no held-out scan. Where each task of the
        run numbered its own patients, those of `task` count.
        """
        names = [patient_id]
        if patient_id and task is not None:
            names.append(patient_of_task(task, patient_id))
        own = (self.by_patient.get(salted_patient(name, self.salt)) for name in names)
        return _closest_part(*own, self.by_pixels.get(pixels))


def run_memory(package: ModelPackage) -> RunMemory | None:
    """What the run remembers of its data; None for a package without that list."""
    path = package.path / SPLITS
    if not path.is_file():
        return None
    by_patient: dict[str, str] = {}
    by_pixels: dict[str, str] = {}
    with path.open(newline="", encoding="utf-8") as stream:
        for line in csv.DictReader(stream):
            pixels = line["pixel_sha256"]
            by_pixels[pixels] = _closest_part(line["split"], by_pixels.get(pixels)) or line["split"]
            if line["patient"]:
                by_patient[line["patient"]] = line["split"]
    return RunMemory(package.patient_salt, by_patient, by_pixels)


def _closest_part(*parts: str | None) -> str | None:
    """Of the parts that are known, the one nearest to training."""
    return next((part for part in _NEAREST_FIRST if part in parts), None)
