"""Whether a heat map's peak lies in the box that a person drew; prints Markdown.

    python benchmarks/explain.py DATA [--sets polyp,nodule] [--seed 0] [--epochs 6] [--frames 150]

DATA is a folder with gi_polyp_boxes/ and nodule_boxes/, each with a manifest.csv of boxes.

The pointing game of Zhang et al. (Top-down Neural Attention by Excitation Backprop, ECCV 2016),
without a tolerance: a hit is a peak inside a box, and a map without any heat is a miss. Beside
it the share of the heat inside the boxes, 0 for an empty map. The network has never seen a box:
it learns to tell square windows with the thing from windows without it, both of one size and from
different frames, the default network of `medcli train` from scratch at 48 px. Then it is shown
larger pictures at the same scale: of polyps the whole frame, of nodules a window of 144 px with
the nodule anywhere in it. Patients apart: polyps in three parts (55, 10, 35 %), nodules by
leaving out one patient at a time, whose slices are answered by the network that has not seen it.

Baselines: the middle of the picture, and a random place, whose chance is the boxes' share of the
picture. `untrained` is the same network before training. Intervals 95 %, bootstrap over patients;
the difference is to the middle, over the same resamples. `attention` weighs slices and has no
place within one, so it cannot be asked. Occlusion costs a pass a patch, and is asked of the
trained network alone.
"""

from __future__ import annotations

import argparse
import copy
import csv
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from medcli.config import ModelConfig, PreprocessConfig, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.evaluation.intervals import patient_bootstrap, patient_groups, weighted_mean
from medcli.explain.methods import METHODS
from medcli.explain.subject import Subject
from medcli.layers.layout import Layout
from medcli.models.registry import resolve
from medcli.models.scan_model import ScanModel
from medcli.training.loop import fit
from medcli.training.prediction import predict_logits

SIZE = 48  # of a window, as the network sees it
NODULE_VIEW = 144  # px of a slice that are shown of a nodule's surroundings
POLYP_VIEW = 96  # px that a whole frame of 256 is shown with
PLACES = [name for name in METHODS if name != "attention"]
CPU = torch.device("cpu")
BACKGROUND = 15  # the level of nodule_boxes outside the lungs


@dataclass
class Frame:
    """A picture, (H, W, C) uint8, with its boxes, (B, 4) x0, y0, x1, y1."""

    patient: str
    pixels: np.ndarray
    boxes: list[tuple[int, int, int, int]] = field(default_factory=list)

    def inside(self, left: int, top: int, side: int) -> np.ndarray:
        """(B,) pixels of each box inside a window."""
        boxes = np.array(self.boxes)
        width = np.minimum(boxes[:, 2], left + side) - np.maximum(boxes[:, 0], left)
        height = np.minimum(boxes[:, 3], top + side) - np.maximum(boxes[:, 1], top)
        overlap: np.ndarray = width.clip(min=0) * height.clip(min=0)
        return overlap


@dataclass(frozen=True)
class Shown:
    """What a network is asked about: (C, H, W) in 0–1 and (H, W) whether a box covers a pixel."""

    patient: str
    image: np.ndarray
    boxed: np.ndarray


def main() -> None:
    """Print a table for each set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", default="polyp,nodule")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--frames", type=int, default=150, help="of polyps that are asked, at most")
    options = parser.parse_args()
    torch.set_num_threads(1)
    versions = ", ".join(f"{name} {version(name)}" for name in ("medcli", "torch"))
    print(f"{date.today()}, one thread of {os.cpu_count()} cores, seed {options.seed}, ", end="")
    print(f"{options.epochs} epochs, {versions}")
    for name in options.sets.split(","):
        rng = np.random.default_rng(options.seed)
        run = {"polyp": polyps, "nodule": nodules}[name]
        started = time.monotonic()
        answers, told = run(options, rng)
        minutes = (time.monotonic() - started) / 60
        print(f"\n{name}: {told}; {minutes:.0f} min in all\n", flush=True)
        print_table(answers)


def polyps(
    options: argparse.Namespace, rng: np.random.Generator
) -> tuple[dict[str, list[Point]], str]:
    """One network, asked about the whole frames of other patients."""
    frames = read_frames(options.data / "gi_polyp_boxes")
    train, val, test = parted(frames, (0.55, 0.1, 0.35), rng)
    sides = (64, 128)
    parts = [windows(part, rng, sides, count) for part, count in ((train, 3), (val, 3))]
    network = train_network(*parts, options.seed, options.epochs)
    asked = [frame for frame in test if frame.pixels.shape[:2] == (256, 256)][: options.frames]
    shown = [view(frame, (0, 0, 256), POLYP_VIEW) for frame in asked]
    answers = pointed(network, shown, POLYP_VIEW, options.seed)
    held = windows(test, rng, sides, 2)
    told = f"{len(train)} frames to learn from, {len(shown)} of {len(test)} others asked about, "
    return answers, told + f"AUROC on windows of these patients {network.auroc(held):.3f}"


def nodules(
    options: argparse.Namespace, rng: np.random.Generator
) -> tuple[dict[str, list[Point]], str]:
    """A network for each patient left out, asked about that patient's slices."""
    frames = read_frames(options.data / "nodule_boxes")
    patients = sorted({frame.patient for frame in frames})
    answers: dict[str, list[Point]] = defaultdict(list)
    scores, truth = [], []
    for number, patient in enumerate(patients):
        other = patients[(number + 1) % len(patients)]
        own = [frame for frame in frames if frame.patient == patient]
        val = [frame for frame in frames if frame.patient == other]
        train = [frame for frame in frames if frame.patient not in (patient, other)]
        parts = [windows(part, rng, (SIZE, SIZE), count) for part, count in ((train, 6), (val, 6))]
        network = train_network(*parts, options.seed, options.epochs)
        shown = [view(frame, around(frame, NODULE_VIEW, rng), NODULE_VIEW) for frame in own]
        for method, points in pointed(network, shown, NODULE_VIEW, options.seed).items():
            answers[method] += points
        held = windows(own, rng, (SIZE, SIZE), 10)
        scores.append(network.scores(held))
        truth.append(held.labels)
    auroc = roc_auc_score(np.concatenate(truth), np.concatenate(scores))
    told = f"{len(frames)} slices of {len(patients)} patients, each left out in turn, "
    return dict(answers), told + f"AUROC on windows of the patients left out {auroc:.3f}"


def read_frames(folder: Path) -> list[Frame]:
    """The pictures of a manifest with all boxes of each."""
    frames: dict[str, Frame] = {}
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["path"] not in frames:
                pixels = np.asarray(Image.open(folder / row["path"]))
                pixels = pixels[..., None] if pixels.ndim == 2 else pixels
                frames[row["path"]] = Frame(row["patient_id"], pixels)
            x0, y0, x1, y1 = (round(float(row[name])) for name in ("x0", "y0", "x1", "y1"))
            frames[row["path"]].boxes.append((x0, y0, x1, y1))
    return list(frames.values())


def parted(
    frames: Sequence[Frame], shares: Sequence[float], rng: np.random.Generator
) -> list[list[Frame]]:
    """Frames in parts that share no patient."""
    patients = sorted({frame.patient for frame in frames})
    order = rng.permutation(len(patients))
    ends = np.round(np.cumsum(shares) * len(patients)).astype(int)
    part_of = {patients[index]: int(np.searchsorted(ends, place, "right"))
               for place, index in enumerate(order)}  # fmt: skip
    return [[f for f in frames if part_of[f.patient] == part] for part in range(len(shares))]


def windows(
    frames: Sequence[Frame], rng: np.random.Generator, sides: tuple[int, int], count: int
) -> ScanArrays:
    """`count` windows of each frame with the thing, and one without it from another for each."""
    images, labels = [], []
    for frame in frames:
        for _ in range(count):
            side = int(rng.integers(sides[0], sides[1] + 1))
            place = with_thing(frame, side, rng)
            beside = without_thing(frames, frame, side, rng)
            if place is None or beside is None:
                continue
            images += [cut(frame, *place, side), cut(*beside, side)]
            labels += [1, 0]
    stacked = np.stack(images).transpose(0, 3, 1, 2)
    return ScanArrays(stacked, np.ones(len(labels), np.int64), np.array(labels, np.int64))


def with_thing(frame: Frame, side: int, rng: np.random.Generator) -> tuple[int, int] | None:
    """A window that holds half of a box or is half filled by it."""
    height, width = frame.pixels.shape[:2]
    for _ in range(30):
        index = int(rng.integers(len(frame.boxes)))
        x0, y0, x1, y1 = frame.boxes[index]
        left = int(np.clip(rng.integers(x0, x1) - rng.integers(side), 0, width - side))
        top = int(np.clip(rng.integers(y0, y1) - rng.integers(side), 0, height - side))
        enough = min((x1 - x0) * (y1 - y0), side * side) / 2
        if frame.inside(left, top, side)[index] >= enough:
            return left, top
    return None


def without_thing(
    frames: Sequence[Frame], own: Frame, side: int, rng: np.random.Generator
) -> tuple[Frame, int, int] | None:
    """A window of another frame that touches no box and shows tissue."""
    for _ in range(100):
        frame = frames[int(rng.integers(len(frames)))]
        height, width = frame.pixels.shape[:2]
        left, top = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
        if frame is own or frame.inside(left, top, side).any():
            continue
        pixels = frame.pixels[top : top + side, left : left + side]
        shows = pixels != BACKGROUND if pixels.shape[2] == 1 else pixels.max(axis=2) > BACKGROUND
        if shows.mean() > 0.6:
            return frame, left, top
    return None


def cut(frame: Frame, left: int, top: int, side: int, size: int = SIZE) -> np.ndarray:
    """(size, size, C) uint8."""
    pixels = frame.pixels[top : top + side, left : left + side]
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    resized = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0))
    return resized.reshape(size, size, -1)


def around(frame: Frame, side: int, rng: np.random.Generator) -> tuple[int, int, int]:
    """Left, top and side of a window that holds a nodule anywhere."""
    x0, y0, x1, y1 = frame.boxes[0]
    height, width = frame.pixels.shape[:2]
    left = rng.integers(max(0, x1 - side), min(x0, width - side) + 1)
    top = rng.integers(max(0, y1 - side), min(y0, height - side) + 1)
    return int(left), int(top), side


def view(frame: Frame, window: tuple[int, int, int], size: int) -> Shown:
    """A window of a frame, resized, with its boxes."""
    left, top, side = window
    scale = size / side
    boxed = np.zeros((size, size), bool)
    for x0, y0, x1, y1 in frame.boxes:
        columns = slice(*(round(max(0, (x - left) * scale)) for x in (x0, x1)))
        rows = slice(*(round(max(0, (y - top) * scale)) for y in (y0, y1)))
        boxed[rows, columns] = True
    image = cut(frame, left, top, side, size).transpose(2, 0, 1) / 255
    return Shown(frame.patient, image.astype(np.float32), boxed)


@dataclass(frozen=True)
class Network:
    """A network for windows, with the preprocessing it learnt with."""

    model: ScanModel
    preprocess: PreprocessConfig

    def scores(self, held: ScanArrays) -> np.ndarray:
        """(N,) by how much the logit of the thing is above the other."""
        logits = predict_logits(self.model, held, self.preprocess, 64, CPU).numpy()
        difference: np.ndarray = logits[:, 1] - logits[:, 0]
        return difference

    def auroc(self, held: ScanArrays) -> float:
        """Of windows with the thing against windows without it."""
        return float(roc_auc_score(held.labels, self.scores(held)))


def resized(model: ScanModel, size: int) -> ScanModel:
    """The same weights for pictures of another size; only the layout knows the size."""
    other = copy.deepcopy(model).eval()
    other.layout = Layout(size, ModelConfig().layout_grid)
    return other


def train_network(train: ScanArrays, val: ScanArrays, seed: int, epochs: int) -> Network:
    """Tell windows with the thing from windows without it."""
    channels = train.images.shape[1]
    mean, std = train.statistics()
    preprocess = PreprocessConfig(size=SIZE, channels=channels, mean=mean, std=std)
    config = TrainConfig(
        seed=seed,
        epochs=epochs,
        patience=epochs,
        batch_slices=32,
        augmentation="colour" if channels == 3 else "ct",
    )
    torch.manual_seed(seed)
    model = ScanModel(ModelConfig(), channels, SIZE, 2)
    before = time.process_time()
    fitted = fit(model, train, val, preprocess, config, device=CPU)
    spent = time.process_time() - before
    print(f"{len(train.labels)} windows, {spent:.0f} s of one core", flush=True)
    return Network(fitted.model.eval(), preprocess)


@dataclass(frozen=True)
class Point:
    """Whether a peak lies in a box (of a random place the chance), and the heat's share there."""

    patient: str
    hit: float
    inside: float


def pointed(
    network: Network, shown: Sequence[Shown], size: int, seed: int
) -> dict[str, list[Point]]:
    """What every method and baseline points at."""
    torch.manual_seed(seed)
    fresh = ScanModel(ModelConfig(), network.preprocess.channels, SIZE, 2)
    trained, untrained = resized(network.model, size), resized(fresh, size)
    asked = {name: (name, trained) for name in PLACES}
    asked |= {f"{name}, untrained": (name, untrained) for name in PLACES if name != "occlusion"}
    answers: dict[str, list[Point]] = {}
    for title, (method, model) in asked.items():
        answers[title] = list(heated(method, model, network.preprocess, shown))
    middle = size // 2
    answers["middle of the picture"] = [
        Point(each.patient, float(each.boxed[middle, middle]), np.nan) for each in shown
    ]
    answers["random place"] = [
        Point(each.patient, float(each.boxed.mean()), float(each.boxed.mean())) for each in shown
    ]
    return answers


def heated(
    method: str, model: ScanModel, preprocess: PreprocessConfig, shown: Sequence[Shown]
) -> Iterator[Point]:
    """The point of each picture by one method."""
    run = resolve(METHODS, "method", method)
    mean, std = (np.array(each, np.float32)[:, None, None] for each in
                 (preprocess.mean, preprocess.std))  # fmt: skip
    for each in shown:
        images = torch.from_numpy((each.image - mean) / std)[None]
        maps = run(Subject(model, images, 1)).detach()[None]
        heat = F.interpolate(maps, each.boxed.shape, mode="bilinear", align_corners=False)[0, 0]
        total = float(heat.sum())
        place = np.unravel_index(int(heat.argmax()), each.boxed.shape)
        inside = float(heat[torch.from_numpy(each.boxed)].sum()) / total if total else 0.0
        yield Point(each.patient, float(bool(total) and each.boxed[place]), inside)


def print_table(answers: dict[str, list[Point]]) -> None:
    """One line a method, with intervals over patients."""
    middle = np.array([point.hit for point in answers["middle of the picture"]])
    groups = patient_groups([point.patient for point in answers["random place"]], len(middle))
    print("| method | peak in a box | difference to the middle | heat in the boxes |")
    print("|---|---|---|---|")
    for title, points in answers.items():
        hits = np.array([point.hit for point in points])
        values = {"hit": hits, "difference": hits - middle}
        values["inside"] = np.array([point.inside for point in points])
        known = {name: each for name, each in values.items() if not np.isnan(each).any()}
        bounds = patient_bootstrap(
            {name: weighted_mean(each) for name, each in known.items()}, groups
        )
        cells = [_cell(known.get(name), bounds.get(name), sign) for name, sign in
                 (("hit", ""), ("difference", "+"), ("inside", ""))]  # fmt: skip
        print(f"| {title} | " + " | ".join(cells) + " |", flush=True)


def _cell(values: np.ndarray | None, interval: object, sign: str) -> str:
    bounds = getattr(interval, "bounds", None)
    if values is None or bounds is None:
        return "–"
    low, high = bounds
    return f"{values.mean():{sign}.3f} ({low:{sign}.3f}–{high:{sign}.3f})"


if __name__ == "__main__":
    main()
