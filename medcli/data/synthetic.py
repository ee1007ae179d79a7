"""Sample data from a seed: synthetic, labelled so, and laid out like the real thing.

``python -m medcli.data.synthetic sample_data`` writes the folder of the repository
again.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from medcli.data.phantoms import CT_SPACING, ChestCT, chest_ct, chest_radiograph, endoscopy
from medcli.data.sample_files import (
    write_ct_series,
    write_ct_slice,
    write_jpeg,
    write_nifti,
    write_png,
    write_radiograph,
)

TASKS = ("nodule", "lung", "gi")
_CLASSES = {
    "nodule": ("benign", "malignant"),
    "lung": ("normal", "pneumonia"),
    "gi": ("normal", "polyp"),
}
_NIFTI_PATIENT = 4  # the one whose CT is stored as NIfTI
_LUNG_WINDOW = (-600.0, 1500.0)

_README = """\
# Synthetic sample data

Drawn by `medcli.data.synthetic` from a seed. **No picture here comes from a patient**, and a
model trained on them says nothing about one. Licence: that of medcli (Apache-2.0).

| file | what |
|---|---|
| `nodule.csv`, `ct/` | CT around a pulmonary nodule, smooth (benign) or spiculated (malignant): \
DICOM series in HU, one of them as NIfTI |
| `lung.csv`, `radiograph/` | chest radiographs, normal or with opacities (pneumonia): 16-bit PNG, \
DICOM MONOCHROME1 and MONOCHROME2 |
| `gi.csv`, `endoscopy/` | colour frames, normal or with a polyp: JPEG |
| `manifest.csv` | all of them; the column `task` tells them apart |
| `scan.dcm` | a CT slice with a spiculated nodule, of a patient who is in no manifest |
| `query.png` | a slice of the first CT series in a lung window |

Write it again: `python -m medcli.data.synthetic sample_data`
"""


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of a manifest."""

    path: str
    label: str
    patient_id: str
    scan_id: str
    modality: str
    task: str
    site: str
    synthetic: str = "true"


@dataclass(frozen=True, slots=True)
class _Visit:
    """One scan to draw: whose it is, what it shows, and where its random numbers come from."""

    seed: int
    task: str
    patient: int
    scan: int
    patient_id: str

    @property
    def positive(self) -> bool:
        return self.patient % 2 == 1

    @property
    def scan_id(self) -> str:
        return f"{self.patient_id}-{self.scan + 1}"

    def patient_rng(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, TASKS.index(self.task), self.patient])

    def scan_rng(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, TASKS.index(self.task), self.patient, self.scan])


def write_sample_data(
    folder: str | Path, *, seed: int = 0, patients: int = 10, tasks: Sequence[str] = TASKS
) -> Path:
    """Write synthetic scans with their manifests; existing files of the same name go.

    Half of the patients show the finding; they have one or two scans each. The same
    arguments write the same pixels, UIDs and tables.

    Parameters
    ----------
    patients : for each task
    tasks : out of "nodule", "lung" and "gi"

    Returns
    -------
    the path of `manifest.csv`, which holds all tasks; ``<task>.csv`` holds one each
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_draw(folder, visit) for visit in _visits(seed, patients, tasks)]
    for task in tasks:
        _write_table(folder / f"{task}.csv", [row for row in rows if row.task == task])
    if "nodule" in tasks:
        _write_examples(folder, seed)
    (folder / "README.md").write_text(_README, encoding="utf-8", newline="\n")
    return _write_table(folder / "manifest.csv", rows)


def _visits(seed: int, patients: int, tasks: Sequence[str]) -> Iterator[_Visit]:
    """One scan of every patient, a second one of every other pair of patients."""
    for task in tasks:
        for patient in range(patients):
            number = TASKS.index(task) * patients + patient + 1
            for scan in range(1 + patient // 2 % 2):
                yield _Visit(seed, task, patient, scan, f"SYN-{number:04d}")


def _draw(folder: Path, visit: _Visit) -> _Row:
    """Draw a scan, write its files and return its line of the manifest."""
    writer = {"nodule": _draw_ct, "lung": _draw_radiograph, "gi": _draw_endoscopy}[visit.task]
    path, modality = writer(folder, visit)
    return _Row(
        path=path.relative_to(folder).as_posix(),
        label=_CLASSES[visit.task][visit.positive],
        patient_id=visit.patient_id,
        scan_id=visit.scan_id,
        modality=modality,
        task=visit.task,
        site=f"site-{'ab'[visit.patient_rng().integers(2)]}",
    )


def _chest(visit: _Visit) -> ChestCT:
    return chest_ct(visit.patient_rng(), visit.scan_rng(), visit.positive)


def _draw_ct(folder: Path, visit: _Visit) -> tuple[Path, str]:
    chest = _chest(visit)
    if visit.patient == _NIFTI_PATIENT:
        path = folder / "ct" / f"{visit.scan_id}.nii.gz"
        write_nifti(path, chest.hu, chest.origin_mm, CT_SPACING)
    else:
        path = folder / "ct" / visit.scan_id
        write_ct_series(path, chest.hu, chest.origin_mm, CT_SPACING, _uid_key(visit))
    return path, "CT"


def _draw_radiograph(folder: Path, visit: _Visit) -> tuple[Path, str]:
    film = chest_radiograph(visit.patient_rng(), visit.scan_rng(), visit.positive)
    # Patients come in pairs of both classes, so the format tells nothing about the label.
    form = ("png", "MONOCHROME1", "MONOCHROME2")[(visit.patient // 2 + visit.scan) % 3]
    path = folder / "radiograph" / f"{visit.scan_id}.{'png' if form == 'png' else 'dcm'}"
    if form == "png":
        write_png(path, np.round(1000 + 60000 * film).astype(np.uint16))
    else:
        pixels = np.round(4095 * film).astype(np.uint16)
        write_radiograph(path, pixels, form, _uid_key(visit))
    return path, "CR"


def _draw_endoscopy(folder: Path, visit: _Visit) -> tuple[Path, str]:
    path = folder / "endoscopy" / f"{visit.scan_id}.jpg"
    write_jpeg(path, endoscopy(visit.patient_rng(), visit.scan_rng(), visit.positive))
    return path, "ES"


def _uid_key(visit: _Visit) -> tuple[str, str]:
    """Patient and scan, from which identifiers are derived."""
    return visit.patient_id, f"{visit.seed}/{visit.task}/{visit.scan_id}"


def _write_examples(folder: Path, seed: int) -> None:
    """`scan.dcm`, a slice of a patient outside the set, and `query.png`, a slice inside it."""
    stranger = _Visit(seed, "nodule", 9999, 0, "SYN-0000")
    chest = _chest(stranger)
    write_ct_slice(
        folder / "scan.dcm",
        chest.hu,
        chest.nodule_slice,
        chest.origin_mm,
        CT_SPACING,
        _uid_key(stranger),
    )
    chest = _chest(_Visit(seed, "nodule", 0, 0, "SYN-0001"))
    center, width = _LUNG_WINDOW
    grey = (chest.hu[chest.nodule_slice] - center) / width + 0.5
    write_png(folder / "query.png", np.round(255 * np.clip(grey, 0, 1)).astype(np.uint8))


def _write_table(path: Path, rows: Iterable[_Row]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        names = [column.name for column in fields(_Row)]
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    return path


if __name__ == "__main__":
    write_sample_data(sys.argv[1] if len(sys.argv) > 1 else "sample_data")
