"""Which share of foreign pictures a model flags as out of distribution.

    python benchmarks/ood.py MODEL DATA [--foreign NAME=PATH ...] [--photographs FOLDER]

The reference is fitted here, as `medcli train` does it, from the run's own training and
validation part found in DATA, so that runs from before it existed can be measured too.
Scans of the run's test part (without one: of the validation part, which set the limit)
stand for the known; crops of scikit-learn's two photographs, even pictures, noise, and
up to `--scans` scans of each foreign set for the unknown. Beside the score that medcli
uses stand its two views alone, and the learnt part of the embedding alone.

Printed: a Markdown table of the share flagged at a budget of 5 %, and of the AUROC
against the known scans.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
from sklearn.datasets import load_sample_image

from medcli.data.gathering import gather_cases
from medcli.data.sources import load_cases
from medcli.evaluation.out_of_distribution import fit_reference, stack_views
from medcli.evaluation.ranking import auroc
from medcli.imaging.batch import read_all, read_case
from medcli.imaging.hashing import pixel_sha256
from medcli.imaging.preprocess import Preprocessor, sample_slices
from medcli.imaging.statistics import picture_views
from medcli.inference.engine import OnnxEngine
from medcli.models.package import GRAPH, SPLITS, load_package
from medcli.records import Case, Failure, Scan

REFERENCE_SCANS, CROPS = 1000, 300
LUMA = (0.299, 0.587, 0.114)
DETECTORS = {
    "medcli": ("statistics", "layout"),
    "statistics": ("statistics",),
    "layout": ("layout",),
    "learnt": ("learnt",),
}
Table = dict[str, np.ndarray]


class Describer:
    """The views of a scan, with the learnt part of the model's embedding beside them."""

    def __init__(self, folder: Path) -> None:
        self.package = load_package(folder)
        self._preprocessor = Preprocessor(self.package.preprocess)
        self._engine = OnnxEngine(folder / GRAPH, threads=1)

    def views(self, scan: Scan) -> Table:
        """View → (F,) of one scan."""
        chosen = sample_slices(len(scan.pixels), self.package.preprocess.slice_budget)
        units = self._preprocessor.unit_input(scan, slices=chosen)
        images = self._preprocessor.standardise(units)[None]
        output = self._engine.run(images, np.ones(images.shape[:2], dtype=bool))
        learnt = output.embedding[0, : self.package.model.embedding_dim]
        return {**picture_views(units), "learnt": learnt / np.linalg.norm(learnt)}

    def table(self, scans: Iterable[Scan]) -> Table:
        """View → (N, F) of many."""
        return stack_views([self.views(scan) for scan in scans])


def own_parts(describer: Describer, data: str, seed: int, scans: int) -> dict[str, Table]:
    """The run's own train, val and test scans, a random sample of each."""
    package = describer.package
    with (package.path / SPLITS).open(newline="") as stream:
        part_of = {row["pixel_sha256"]: row["split"] for row in csv.DictReader(stream)}
    wanted = {"train": REFERENCE_SCANS, "val": scans, "test": scans}
    found: dict[str, list[Table]] = {part: [] for part in wanted}
    cases = load_cases([data], task=package.task.name, known=package.task.classes).cases
    order = np.random.default_rng(seed).permutation(len(cases))
    for _, scan in read_all(cases[i] for i in order):
        part = part_of.get(pixel_sha256(scan)) if isinstance(scan, Scan) else None
        if part and len(found[part]) < wanted[part]:
            assert isinstance(scan, Scan)
            found[part].append(describer.views(scan))
    return {part: stack_views(views) for part, views in found.items() if views}


def display_scan(pixels: np.ndarray) -> Scan:
    """(H, W) or (H, W, 3) of 0–255 as a picture that was just read."""
    shaped = np.atleast_3d(np.rint(pixels).astype(np.uint8))[None]
    return Scan(shaped, "made", ("made",), ("made",), "made", "png", unit="display")


def crops(photographs: list[np.ndarray], count: int, seed: int, *, grey: bool) -> Iterator[Scan]:
    """Square crops of (H, W, 3) photographs, sides from 48 px to the shorter one."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        height, width, _ = photograph.shape
        side = int(np.exp(rng.uniform(np.log(48), np.log(min(height, width)))))
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        crop = photograph[top : top + side, left : left + side]
        yield display_scan(crop @ np.array(LUMA) if grey else crop)


def even_pictures() -> Iterator[Scan]:
    """Every 15th grey, and 25 colours."""
    for level in range(0, 256, 15):
        yield display_scan(np.full((200, 200), level))
    for red in range(0, 256, 51):
        for blue in range(0, 256, 63):
            yield display_scan(np.full((120, 160, 3), (red, 255 - red, blue)))


def noise(seed: int) -> Iterator[Scan]:
    """Uniform, normal, and salt-and-pepper noise; grey, colour, fine and coarse."""
    rng = np.random.default_rng(seed)
    for number in range(20):
        for shape in ((224, 224), (224, 224, 3), (64, 64), (28, 28), (512, 512, 3)):
            yield display_scan(rng.integers(0, 256, shape))
            yield display_scan(np.clip(rng.normal(128, 4 + 6 * number, shape), 0, 255))
            yield display_scan(255 * (rng.random(shape) < 0.02 + 0.04 * number))


def some(path: str, count: int, seed: int) -> list[Scan]:
    """A random sample of the scans that lie at `path`."""
    cases = [case for case in gather_cases([path]) if isinstance(case, Case)]
    order = np.random.default_rng(seed).permutation(len(cases))[:count]
    return [s for _, s in read_all([cases[i] for i in order]) if not isinstance(s, Failure)]


def main() -> None:
    """Measure one model and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--foreign", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--photographs", type=Path, help="folder of further photographs")
    parser.add_argument("--scans", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    describer = Describer(options.model)
    parts = own_parts(describer, options.data, options.seed, max(options.scans, 400))
    sets: dict[str, Iterable[Scan]] = {}
    photographs = {name: [load_sample_image(f"{name}.jpg")] for name in ("china", "flower")}
    if options.photographs:
        paths = sorted(path for path in options.photographs.iterdir() if path.is_file())
        photographs[options.photographs.name] = [_photograph(path) for path in paths]
    for name, pictures in photographs.items():
        sets[f"{name}, colour"] = crops(pictures, CROPS, options.seed, grey=False)
        sets[f"{name}, grey"] = crops(pictures, CROPS, options.seed + 1, grey=True)
    sets |= {"even": even_pictures(), "noise": noise(options.seed)}
    for each in options.foreign:
        name, _, path = each.partition("=")
        sets[name] = some(path, options.scans, options.seed)
    tables = {name: describer.table(scans) for name, scans in sets.items()}

    known = "test" if "test" in parts else "val"
    print(
        f"{describer.package.task.name}, {describer.package.fingerprint}, {date.today()}, ", end=""
    )
    print(f"seed {options.seed}; train {len(parts['train']['layout'])}, ", end="")
    print(f"val {len(parts['val']['layout'])} scans\n")
    print(f"| pictures | n | {' | '.join(DETECTORS)} |\n|---|---|{'---|' * len(DETECTORS)}")
    scores = {name: detector_scores(parts, tables, views) for name, views in DETECTORS.items()}
    flagged = " | ".join(f"{(score[known] > 1).mean():.3f}" for score in scores.values())
    print(f"| own {known} part | {len(parts[known]['layout'])} | {flagged} |")
    for name, table in tables.items():
        cells = " | ".join(cell(score[name], score[known]) for score in scores.values())
        print(f"| {name} | {len(table['layout'])} | {cells} |")


def detector_scores(
    parts: dict[str, Table], tables: dict[str, Table], views: tuple[str, ...]
) -> Table:
    """Scores of each set and part by a reference over some of the views."""
    chosen = [{view: parts[part][view] for view in views} for part in ("train", "val")]
    reference = fit_reference(*chosen)
    return {name: reference.scores(table) for name, table in {**parts, **tables}.items()}


def cell(scores: np.ndarray, known: np.ndarray) -> str:
    """Share flagged and AUROC against the known scans."""
    foreign = np.repeat([True, False], [len(scores), len(known)])
    return f"{(scores > 1).mean():.3f} / {auroc(foreign, np.concatenate([scores, known])):.3f}"


def _photograph(path: Path) -> np.ndarray:
    """(H, W, 3), 0–255."""
    (case,) = gather_cases([str(path)])
    scan = read_case(case) if isinstance(case, Case) else case
    assert isinstance(scan, Scan), f"{path} is no picture"
    pixels = scan.pixels[0]
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


if __name__ == "__main__":
    main()
