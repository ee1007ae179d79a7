"""The gate against leaks and the ranking of labels on real sets; prints Markdown.

    python benchmarks/data_audit.py DATA [--sets nodule,lung,gi,pneumoniamnist] [--seed 0]
                                         [--copies 150] [--skip-noise]

DATA as for real_data.py. First table: what the gate finds among all scans of a set and what
it costs beside reading them; "closest strangers" is the highest cosine between scans of two
patients that do not have the same pixels (the archive names no patients: between any two).
Second: so many scans drawn from the set, copied in each way; the share that is found again as
a copy of its original. Third: 5 % of the labels changed to another class at random; the share
of these in the first 5 % and 10 % of the ranking by pictures alone, and of what is called
suspicious how much was planted.
"""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
from PIL import Image

from medcli.data.audit import find_copies
from medcli.data.label_noise import picture_features, rank_labels
from medcli.data.likeness import Looks, near_copies
from medcli.data.sources import DataSet, load_cases
from medcli.data.survey import Survey, scan_look, survey
from medcli.imaging.batch import read_all
from medcli.records import Case, Scan

SETS = {
    "nodule": "nodule_slices/manifest.csv",
    "lung": "lung_cxr/manifest.csv",
    "gi": "gi_colon_histology/manifest.csv",
    "pneumoniamnist": "medmnist/pneumoniamnist_train_val.npz",
}
Change = Callable[[np.ndarray], np.ndarray]  # of one (H, W, C) uint8 picture


def main() -> None:
    """Measure each set and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--copies", type=int, default=150)
    parser.add_argument("--skip-noise", action="store_true")
    options = parser.parse_args()
    print(f"{date.today()}, {os.cpu_count()} cores, seed {options.seed}")
    gate, found, noise = [], [], []
    for name in options.sets.split(","):
        data = load_cases([str(options.data / SETS[name])])
        features: list[np.ndarray] = []
        start = time.perf_counter()
        seen = survey(data.cases, also=lambda scan, keep=features: keep.append(describe(scan)))
        reading = time.perf_counter() - start
        gate.append(gate_row(name, seen, reading))
        found.append(copies_row(name, data, seen, options))
        if not options.skip_noise:
            noise.append(noise_row(name, data, seen, np.stack(features), options.seed))
    print("\n| set | scans | reading, s | gate, s (CPU) | identical | near, same patient |"
          " near, others | closest strangers |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(gate))
    print(f"\n| set | {' | '.join(CHANGES)} |\n|---|{'---|' * len(CHANGES)}")
    print("\n".join(found))
    if noise:
        print("\n| set | planted | judge agrees | in first 5 % | in first 10 % | suspicious |"
              " of these planted |")  # fmt: skip
        print("|---|---|---|---|---|---|---|")
        print("\n".join(noise))


def describe(scan: Scan) -> np.ndarray:
    """The features of the judge."""
    return picture_features(scan)


def gate_row(name: str, seen: Survey, reading: float) -> str:
    """What the gate finds, and the seconds it takes once the scans are read."""
    start, cpu = time.perf_counter(), time.process_time()
    copies = find_copies(seen.pixels, seen.looks)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    people = [case.patient_id or f"scan {n}" for n, case in enumerate(seen.cases)]
    same = sum(people[one] == people[other] for one, other in copies.near)
    identical = sum(map(len, copies.identical))
    cells = [
        name,
        f"{len(seen.cases):,}",
        f"{reading:.1f}",
        f"{seconds:.1f} ({cpu:.1f})",
        str(identical),
        str(same),
        str(len(copies.near) - same),
        f"{closest(seen, people):.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def closest(seen: Survey, people: Sequence[str]) -> float:
    """The highest cosine of two scans that share neither patient nor pixels, as they are."""
    looks = Looks.of(seen.looks)
    best = -1.0
    who, pixels = np.array(people), np.array(seen.pixels)
    for start in range(0, len(who), 512):
        rows = slice(start, start + 512)
        cosines = looks.vectors[rows] @ looks.vectors.T
        cosines[(who[rows, None] == who) | (pixels[rows, None] == pixels)] = -1
        best = max(best, float(cosines.max()))
    return best


def copies_row(name: str, data: DataSet, seen: Survey, options: argparse.Namespace) -> str:
    """The share of copies that are found, for each way to make them."""
    rng = np.random.default_rng(options.seed)
    places = np.sort(rng.choice(len(seen.cases), options.copies, replace=False))
    scans = [scan for _, scan in read_all([data.cases[place] for place in places])]
    cells = []
    for change in CHANGES.values():
        hits = 0
        for place, scan in zip(places, scans, strict=True):
            assert isinstance(scan, Scan)
            copy = replace(scan, pixels=np.stack([change(each) for each in scan.pixels]))
            pair = Looks.of([seen.looks[place], scan_look(copy)])
            hits += len(near_copies(pair))
        cells.append(f"{hits / len(places):.2f}")
    return f"| {name} | {' | '.join(cells)} |"


def noise_row(name: str, data: DataSet, seen: Survey, features: np.ndarray, seed: int) -> str:
    """How many of the planted errors the ranking begins with."""
    rng = np.random.default_rng(seed)
    true = np.array([data.classes.index(str(case.label)) for case in seen.cases])
    wrong = rng.choice(len(true), round(0.05 * len(true)), replace=False)
    noisy = true.copy()
    noisy[wrong] = (true[wrong] + rng.integers(1, len(data.classes), len(wrong))) % len(
        data.classes
    )
    cases: list[Case] = [
        replace(case, label=data.classes[label])
        for case, label in zip(seen.cases, noisy, strict=True)
    ]
    noise = rank_labels(features, cases, data.classes, links=seen.copies().links, seed=seed)
    first = [np.isin(wrong, noise.ranking[: k * len(wrong)]).mean() for k in (1, 2)]
    precision = noise.suspicious[wrong].sum() / max(1, noise.suspicious.sum())
    return (
        f"| {name} | {len(wrong)} | {noise.accuracy:.3f} | {first[0]:.2f} | {first[1]:.2f} "
        f"| {noise.suspicious.sum()} | {precision:.2f} |"
    )


def as_jpeg(picture: np.ndarray) -> np.ndarray:
    """Saved as JPEG of quality 40."""
    file = io.BytesIO()
    Image.fromarray(picture.squeeze()).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file)).reshape(picture.shape)


def smaller(picture: np.ndarray) -> np.ndarray:
    """Three quarters of the size."""
    rows, columns = (round(side * 0.75) for side in picture.shape[:2])
    small = Image.fromarray(picture.squeeze()).resize((columns, rows), Image.Resampling.BILINEAR)
    return np.asarray(small).reshape(rows, columns, -1)


def brighter(picture: np.ndarray) -> np.ndarray:
    """Contrast 0.9 and 15 grey levels up."""
    return np.rint(picture * 0.9 + 15).astype(np.uint8)


def gamma(picture: np.ndarray) -> np.ndarray:
    """Another gamma, 1.3."""
    return np.rint(255 * (picture / 255) ** 1.3).astype(np.uint8)


def cropped(picture: np.ndarray, share: float) -> np.ndarray:
    """Without a margin of `share` on each side."""
    top, left = (round(side * share) for side in picture.shape[:2])
    return picture[top : len(picture) - top, left : picture.shape[1] - left]


CHANGES: dict[str, Change] = {
    "JPEG 40": as_jpeg,
    "size × 0.75": smaller,
    "brightness": brighter,
    "gamma 1.3": gamma,
    "mirrored": lambda picture: picture[:, ::-1],
    "turned by 90°": np.rot90,
    "1 % cropped": lambda picture: cropped(picture, 0.01),
    "5 % cropped": lambda picture: cropped(picture, 0.05),
}


if __name__ == "__main__":
    main()
