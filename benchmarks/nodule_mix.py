"""Nodules in the forms a user shows one in: masked, laid on lung, in a volume, in a box.

    python benchmarks/nodule_mix.py build DATA FOLDER [--seed 0] [--parts-of MODEL]
    python benchmarks/nodule_mix.py report MODEL FOLDER [--part test]

DATA holds `nodule_slices`, `nodule_volumes`, `nodule_boxes`, all of LIDC-IDRI (CC BY 3.0). Their
identifiers cannot be matched to each other, so a person may be in two of the sets, and in two
parts; only within a set are parts apart by patient. Patients of `nodule_slices` whom MODEL knows
stay in the parts they had there, so that two models can be compared on the same ones.

FOLDER gets stacks of 64 px crops of 45 mm, grey as in a lung window (-1350 to 150 HU), and a
manifest with the part of each:

- masked: `nodule_slices` as they are (taken to be 0.7 mm a pixel)
- covered: the same nodules laid on lung of the volumes, so that the black is no shortcut
- volume: `nodule_volumes` (1 mm, 0-255 taken to be -1200 to 400 HU), malignancy 3 left out
- box: `nodule_boxes` (0-255 taken to be -1000 to 400 HU), malignancy 3 left out

`report` prints, for each kind of a part: AUROC and its interval, that above the nodule's area alone
(of its masked form) from paired resamples, what is flagged as out of distribution; and how often
the masked and the covered form of a nodule get different answers.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import SimpleITK
from PIL import Image

from medcli.data.sources import load_cases
from medcli.data.splits import assign_by_patient
from medcli.evaluation.area import foreground_area
from medcli.evaluation.intervals import patient_bootstrap, patient_groups
from medcli.evaluation.ranking import auroc, auroc_statistic
from medcli.imaging.batch import read_all
from medcli.inference.predictor import Predictor
from medcli.models.memory import run_memory
from medcli.models.package import ModelPackage, load_package
from medcli.records import Case, Prediction, Scan

SIDE, REGION_MM = 64, 45.0
WINDOW = (-1350.0, 150.0)
VOLUME_HU, BOX_HU = (-1200.0, 400.0), (-1000.0, 400.0)
SLICE_STEP, SLICE_REACH = 2, 10  # mm: slices of a volume that are taken
LUNG = 0.5  # highest value of a background within `CLEAR` pixels of its middle
CLEAR = 14
NARROWER = 1.45  # of a turned background: beyond √2 no corner of it is empty
PARTS = {"train": 0.7, "val": 0.15, "test": 0.15}
FIELDS = ("path", "label", "patient_id", "scan_id", "slice", "kind", "split")


@dataclass(frozen=True, slots=True)
class Stack:
    """A nodule: slices of 64 × 64 bytes."""

    kind: str
    label: str
    patient: str
    scan: str
    slices: list[np.ndarray]


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
        yield Stack("masked", rows[0]["label"], rows[0]["patient_id"], scan, slices)


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
            yield Stack("volume", row["label"], f"v-{row['patient_id']}", scan, list(slices))


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
        yield Stack("box", label, f"b-{first['patient_id']}", scan, slices)


def backgrounds(read: Sequence[tuple[dict[str, str], np.ndarray]]) -> list[np.ndarray]:
    """Slices of the volumes with nothing but lung around the middle."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    near = x**2 + y**2 < CLEAR**2
    every = [plane for _, volume in read for plane in volume[::3]]
    return [plane for plane in every if plane[near].max() < LUNG * 255]


def covered(stack: Stack, planes: Sequence[np.ndarray], rng: np.random.Generator) -> Stack:
    """A masked nodule laid on lung; one background for all its slices.

    The background is turned by any angle and brought nearer, so that nodules which share one
    are not taken for copies of each other.
    """
    plane = Image.fromarray(planes[int(rng.integers(len(planes)))])
    turned = plane.rotate(float(rng.uniform(0, 360)), Image.Resampling.BICUBIC)
    edge = SIDE / 2 * (1 - 1 / NARROWER)
    box = (edge, edge, SIDE - edge, SIDE - edge)
    lung = np.asarray(turned.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box))
    laid = [np.where(each > 0, each, lung) for each in stack.slices]
    return Stack("covered", stack.label, stack.patient, f"covered/{stack.scan}", laid)


def parts_of(stacks: Sequence[Stack], seed: int, model: ModelPackage | None) -> list[str]:
    """The part of each stack; patients whom the model knows keep theirs."""
    memory = run_memory(model) if model is not None else None
    known = [memory.part(s.patient, "", "nodule") if memory is not None else None for s in stacks]
    new = [place for place, part in enumerate(known) if part is None]
    cases = [_case(stacks[place]) for place in new]
    carved = dict(zip(new, assign_by_patient(cases, PARTS, seed=seed), strict=True))
    return [part or carved[place] for place, part in enumerate(known)]


def _case(stack: Stack) -> Case:
    return Case(stack.scan, (), "picture", stack.scan, stack.label, stack.patient)


def write_set(folder: Path, stacks: Sequence[Stack], parts: Sequence[str]) -> Path:
    """PNG slices and a manifest."""
    folder.mkdir(parents=True)
    lines = []
    for number, (stack, part) in enumerate(zip(stacks, parts, strict=True)):
        for place, plane in enumerate(stack.slices):
            name = f"{number:04d}_{place:02d}.png"
            Image.fromarray(plane).save(folder / name)
            own = (stack.label, stack.patient, stack.scan, place, stack.kind, part)
            lines.append((name, *own))
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(FIELDS)
        writer.writerows(lines)
    return manifest


def build_set(data: Path, folder: Path, seed: int, model: ModelPackage | None = None) -> Path:
    """All four kinds as one set; the manifest."""
    rng = np.random.default_rng(seed)
    read = list(volumes(data / "nodule_volumes"))
    planes = backgrounds(read)
    masked = list(masked_stacks(data / "nodule_slices"))
    laid = [covered(stack, planes, rng) for stack in masked]
    boxes = list(box_stacks(data / "nodule_boxes"))
    stacks = [*masked, *laid, *volume_stacks(read), *boxes]
    return write_set(folder, stacks, parts_of(stacks, seed, model))


def report(predictor: Predictor, folder: Path, part: str) -> None:
    """AUROC and flags for each kind of a part, and whether the background decides."""
    cases = load_cases([str(folder)]).cases
    own = [case for case in cases if case.split == part] if part != "all" else list(cases)
    scans = [scan for _, scan in read_all(own)]
    answers = predictor.for_task("nodule").predict(scans)
    rows = defaultdict(list)
    malignant: dict[str, float] = {}
    areas: dict[str, float] = {}
    for case, scan, answer in zip(own, scans, answers, strict=True):
        assert isinstance(answer, Prediction)
        assert isinstance(scan, Scan)
        rows[case.columns["kind"]].append((case, answer))
        malignant[case.scan_id] = answer.probabilities["malignant"]
        if case.columns["kind"] == "masked":
            areas[case.scan_id] = foreground_area(scan.pixels)
    names = "scans", "patients", "AUROC", "above area alone", "accuracy", "flagged"
    print(f"| kind | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for kind, found in rows.items():
        truth = np.array([case.label == "malignant" for case, _ in found])
        scores = np.array([malignant[case.scan_id] for case, _ in found])
        people = [str(case.patient_id) for case, _ in found]
        right = np.mean([case.label == answer.label for case, answer in found])
        flagged = np.mean([bool(answer.out_of_distribution) for _, answer in found])
        area = [areas.get(case.scan_id.removeprefix("covered/")) for case, _ in found]
        above = "–" if None in area else _above(truth, scores, np.array(area, float), people)
        told = f"{_auroc(truth, scores, people)} | {above} | {right:.3f} | {flagged:.3f}"
        print(f"| {kind} | {len(found)} | {len(set(people))} | {told} |")
    print(_differences(malignant))


def _above(truth: np.ndarray, scores: np.ndarray, area: np.ndarray, people: Sequence[str]) -> str:
    """By how much the AUROC of the scores is above that of the area, paired."""
    own, other = auroc_statistic(truth, scores), auroc_statistic(truth, area)
    found = patient_bootstrap(
        {"above": lambda weights: own(weights) - other(weights)},
        patient_groups(people, len(people)),
    )["above"]
    whole = np.ones((1, len(truth)))
    difference = float(own(whole)[0] - other(whole)[0])
    ends = found.bounds
    return f"{difference:+.3f}" + (f" ({ends[0]:+.3f}–{ends[1]:+.3f})" if ends else "")


def _differences(malignant: Mapping[str, float]) -> str:
    """How far the masked and the covered form of a nodule are apart."""
    pairs = [
        (share, malignant[f"covered/{scan}"])
        for scan, share in malignant.items()
        if f"covered/{scan}" in malignant
    ]
    changed = sum((one > 0.5) != (other > 0.5) for one, other in pairs)
    apart = np.median([abs(one - other) for one, other in pairs])
    return (
        f"\nmasked and covered differ in {changed} of {len(pairs)} nodules; their "
        f"probabilities by {apart:.3f} in the median"
    )


def _auroc(truth: np.ndarray, scores: np.ndarray, people: Sequence[str]) -> str:
    area = auroc(truth, scores)
    if area is None:
        return "one class"
    statistic = {"auroc": auroc_statistic(truth, scores)}
    bounds = patient_bootstrap(statistic, patient_groups(people, len(people)))["auroc"].bounds
    return f"{area:.3f}" + (f" ({bounds[0]:.3f}–{bounds[1]:.3f})" if bounds else "")


def main() -> None:
    """Build the set, or report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    steps = parser.add_subparsers(dest="step", required=True)
    building = steps.add_parser("build")
    building.add_argument("data", type=Path)
    building.add_argument("folder", type=Path)
    building.add_argument("--seed", type=int, default=0)
    building.add_argument("--parts-of", type=Path, metavar="MODEL")
    reporting = steps.add_parser("report")
    reporting.add_argument("model", type=Path)
    reporting.add_argument("folder", type=Path)
    reporting.add_argument("--part", default="test", choices=("val", "test", "all"))
    asked = parser.parse_args()
    if asked.step == "build":
        model = load_package(asked.parts_of) if asked.parts_of else None
        print(build_set(asked.data, asked.folder, asked.seed, model))
        return
    predictor = Predictor(load_package(asked.model))
    print(
        f"{predictor.package.fingerprint}, {asked.part}, {date.today()}, {os.cpu_count()} cores\n"
    )
    report(predictor, asked.folder, asked.part)


if __name__ == "__main__":
    main()
