"""The nodule model: masked slices, the same on a background, volumes and box crops.

    python benchmarks/zoo_recipe_nodule.py DATA --work FOLDER -o RUN --seed 0

DATA holds `nodule_slices`, `nodule_volumes`, `nodule_boxes`, all of LIDC-IDRI (CC BY 3.0). Their
identifiers cannot be matched to each other, so a person may be in two of the sets, and in two
parts; only within a set are parts apart by patient.

Everything becomes stacks of 64 px crops of 45 mm, grey as in a lung window (-1350 to 150 HU):

- masked: `nodule_slices` as they are (taken to be 0.7 mm a pixel)
- covered: the same nodules laid on lung of the volumes, so that the black is no shortcut
- volume: `nodule_volumes` (1 mm, 0-255 taken to be -1200 to 400 HU), malignancy 3 left out
- box: `nodule_boxes` (0-255 taken to be -1000 to 400 HU), malignancy 3 left out

Printed: AUROC and its interval on the held-out part, for each kind; how often the masked and the
covered form of a held-out nodule get different answers.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import SimpleITK
from PIL import Image

from medcli.config import ModelConfig
from medcli.evaluation.intervals import patient_bootstrap, patient_groups
from medcli.evaluation.ranking import auroc, auroc_statistic
from medcli.imaging.hashing import pixel_sha256
from medcli.imaging.reader import read_scan
from medcli.models.held_out import read_held_out
from medcli.models.package import MODEL_JSON, SPLITS, ModelPackage, load_package
from medcli.records import Case
from medcli.training.request import TrainEvents, TrainRequest
from medcli.training.run import train
from medcli.training.tasks import gather_tasks

SIDE, REGION_MM = 64, 45.0
WINDOW = (-1350.0, 150.0)
VOLUME_HU, BOX_HU = (-1200.0, 400.0), (-1000.0, 400.0)
EPOCHS = 8
SLICE_STEP, SLICE_REACH = 2, 10  # mm: slices of a volume that are taken
LUNG = 0.5  # highest value of a background within `CLEAR` pixels of its middle
CLEAR = 14
FIELDS = ("path", "label", "patient_id", "scan_id", "slice", "kind")

Stack = tuple[str, str, str, str, list[np.ndarray]]
"""Kind, label, patient, scan, and slices of 64 × 64 bytes."""


def read_rows(manifest: Path) -> list[dict[str, str]]:
    """The lines of a manifest."""
    with manifest.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def masked_stacks(root: Path) -> Iterator[Stack]:
    """The nodules of `nodule_slices`."""
    scans = defaultdict(list)
    for row in read_rows(root / "manifest.csv"):
        scans[row["scan_id"]].append(row)
    for scan, rows in scans.items():
        rows.sort(key=lambda row: int(row["slice"]))
        slices = [np.asarray(Image.open(root / row["path"])) for row in rows]
        yield "masked", rows[0]["label"], f"s-{rows[0]['patient_id']}", scan, slices


def volumes(root: Path) -> Iterator[tuple[dict[str, str], np.ndarray]]:
    """The rows of `nodule_volumes` with (51, 64, 64) bytes in the window, 45 mm a side."""
    for row in read_rows(root / "manifest.csv"):
        image = SimpleITK.ReadImage(str(root / row["path"]))
        grid = SimpleITK.Image([SIDE, SIDE, image.GetSize()[2]], image.GetPixelID())
        step = REGION_MM / SIDE
        grid.SetSpacing((step, step, image.GetSpacing()[2]))
        middle = [(count - 1) / 2 for count in image.GetSize()]
        centre = image.TransformContinuousIndexToPhysicalPoint(middle)
        start = [centre[axis] - step * (SIDE - 1) / 2 for axis in (0, 1)]
        grid.SetOrigin((*start, image.GetOrigin()[2]))
        near = SimpleITK.Resample(image, grid, SimpleITK.Transform(), SimpleITK.sitkLinear, 38.0)
        yield row, windowed(SimpleITK.GetArrayFromImage(near), VOLUME_HU)


def windowed(values: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    """0-255 that stand for `ends` in HU → bytes that stand for the window, black left to masks."""
    hounsfield = values.astype(np.float32) / 255 * (ends[1] - ends[0]) + ends[0]
    unit = (hounsfield - WINDOW[0]) / (WINDOW[1] - WINDOW[0])
    return np.clip(np.rint(unit * 255), 1, 255).astype(np.uint8)


def volume_stacks(read: Sequence[tuple[dict[str, str], np.ndarray]]) -> Iterator[Stack]:
    """The volumes that are benign or malignant, some slices around the middle."""
    for row, volume in read:
        if row["label"] in ("benign", "malignant"):
            middle = len(volume) // 2
            slices = volume[middle - SLICE_REACH : middle + SLICE_REACH + 1 : SLICE_STEP]
            scan = f"volume/{row['path'].partition('.')[0]}"
            yield "volume", row["label"], f"v-{row['patient_id']}", scan, list(slices)


def box_stacks(root: Path) -> Iterator[Stack]:
    """Crops around the boxes; a nodule is the slices that share the start of their name."""
    nodules = defaultdict(list)
    for row in read_rows(root / "manifest.csv"):
        if row["malignancy"] != "3":
            nodules[row["path"].rpartition("_slice")[0]].append(row)
    for name, rows in nodules.items():
        first = rows[0]
        label = "malignant" if int(first["malignancy"]) > 3 else "benign"
        ends = [[int(row[key]) for key in ("x0", "x1", "y0", "y1")] for row in rows]
        x0, x1, y0, y1 = np.mean(ends, axis=0)
        left, top = round((x0 + x1 - SIDE) / 2), round((y0 + y1 - SIDE) / 2)
        slices = []
        for row in rows:
            whole = np.pad(np.asarray(Image.open(root / row["path"]).convert("L")), SIDE)
            crop = whole[top + SIDE : top + 2 * SIDE, left + SIDE : left + 2 * SIDE]
            slices.append(windowed(crop, BOX_HU))
        scan = f"box/{Path(name).name}"
        yield "box", label, f"b-{first['patient_id']}", scan, slices


def backgrounds(read: Sequence[tuple[dict[str, str], np.ndarray]]) -> list[np.ndarray]:
    """Slices of the volumes with nothing but lung around the middle."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    near = x**2 + y**2 < CLEAR**2
    every = [plane for _, volume in read for plane in volume[::3]]
    return [plane for plane in every if plane[near].max() < LUNG * 255]


def covered(stack: Stack, planes: Sequence[np.ndarray], rng: np.random.Generator) -> Stack:
    """A masked nodule laid on lung, turned at random; one background for all its slices."""
    _, label, patient, scan, slices = stack
    plane = np.rot90(planes[int(rng.integers(len(planes)))], int(rng.integers(4)))
    laid = [np.where(each > 0, each, plane) for each in slices]
    return "covered", label, patient, f"covered/{scan}", laid


def write_set(folder: Path, stacks: Sequence[Stack]) -> Path:
    """PNG slices and a manifest."""
    folder.mkdir(parents=True)
    lines = []
    for number, (kind, label, patient, scan, slices) in enumerate(stacks):
        for place, plane in enumerate(slices):
            name = f"{number:04d}_{place:02d}.png"
            Image.fromarray(plane).save(folder / name)
            lines.append((name, label, patient, scan, place, kind))
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(FIELDS)
        writer.writerows(lines)
    return manifest


def build_set(data: Path, folder: Path, seed: int) -> Path:
    """All four kinds as one set."""
    rng = np.random.default_rng(seed)
    read = list(volumes(data / "nodule_volumes"))
    planes = backgrounds(read)
    print(f"{len(planes)} backgrounds of lung")
    masked = list(masked_stacks(data / "nodule_slices"))
    laid = [covered(stack, planes, rng) for stack in masked]
    boxes = list(box_stacks(data / "nodule_boxes"))
    return write_set(folder, [*masked, *laid, *volume_stacks(read), *boxes])


def report(package: ModelPackage, manifest: Path) -> None:
    """AUROC for each kind of the held-out part, and whether the background decides."""
    known = {_pixels(case): case for case in gather_tasks((str(manifest),), "nodule").data.cases}
    with (package.path / SPLITS).open(newline="", encoding="utf-8") as stream:
        tested = [row["pixel_sha256"] for row in csv.DictReader(stream) if row["split"] == "test"]
    held = read_held_out(package)
    assert held is not None
    malignant = {}
    rows = defaultdict(list)
    for row, pixels in enumerate(tested):
        case = known[pixels]
        assert (case.label == "malignant") == bool(held.labels[row]), "another order than told"
        malignant[case.scan_id] = float(held.probabilities[row, 1])
        rows[case.columns["kind"]].append(row)
    print("\n| kind | scans | patients | AUROC |\n|---|---|---|---|")
    for kind, own in rows.items():
        groups = held.groups[own]
        told = _auroc(held.labels[own] == 1, held.probabilities[own, 1], groups)
        print(f"| {kind} | {len(own)} | {len(set(groups.tolist()))} | {told} |")
    pairs = [
        (share, malignant[f"covered/{scan}"])
        for scan, share in malignant.items()
        if f"covered/{scan}" in malignant
    ]
    changed = [(one > 0.5) != (other > 0.5) for one, other in pairs]
    apart = [abs(one - other) for one, other in pairs]
    print(
        f"\nmasked and covered differ in {sum(changed)} of {len(pairs)} held-out nodules; their "
        f"probabilities by {np.median(apart):.3f} in the median"
    )


def _pixels(case: Case) -> str:
    return pixel_sha256(read_scan(case))


def _auroc(truth: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> str:
    area = auroc(truth, scores)
    if area is None:
        return "one class"
    names = [str(group) for group in groups]
    statistic = {"auroc": auroc_statistic(truth, scores)}
    bounds = patient_bootstrap(statistic, patient_groups(names, len(names)))["auroc"].bounds
    return f"{area:.3f}" + (f" ({bounds[0]:.3f}–{bounds[1]:.3f})" if bounds else "")


def main() -> None:
    """Build the set, train, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    asked = parser.parse_args()
    if (asked.output / MODEL_JSON).is_file():  # trained before: only the report
        report(load_package(asked.output), asked.work / "set" / "manifest.csv")
        return
    print(f"{date.today()}, seed {asked.seed}, {asked.epochs} epochs", flush=True)
    manifest = build_set(asked.data, asked.work / "set", asked.seed)
    request = TrainRequest(
        (str(manifest),),
        task="nodule",
        output=asked.output,
        seed=asked.seed,
        epochs=asked.epochs,
        minutes=600.0,  # epochs decide, not the clock
        model=ModelConfig(arch="region_cnn"),
    )
    events = TrainEvents(note=print, warn=print, epoch=lambda line: print(line, flush=True))
    report(train(request, events), manifest)


if __name__ == "__main__":
    main()
