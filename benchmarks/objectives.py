"""What each way of training gives on small real sets; prints Markdown.

    python benchmarks/objectives.py DATA [--tables metric,imbalance,noise,plain,optimizer]
                                         [--seeds 0,1,2] [--epochs 8]

DATA is a folder with nodule_slices/, lung_cxr/ and gi_colon_histology/, each with a manifest.csv,
and medmnist/pneumoniamnist_train_val.npz, whose pictures count as a patient each. Small on
purpose: 600 scans of lung and of gi (whole patients), all nodules with at most five slices each,
28 or 40 px, few epochs, the default network. Each set is split by patient into a part to train
on, one that chooses the epoch and one that is measured (60, 15, 25 %). All modes of a seed see
the same scans and start from the same weights. A seed has another split and other weights. The
value is the mean over the seeds; intervals are a bootstrap over the patients of each seed's
held-out part. A difference is to the first row, with the same resamples.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from medcli.config import ModelConfig, PreprocessConfig, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.data.presets import PRESETS
from medcli.data.sources import load_cases
from medcli.data.splits import PARTS, Split, split_by_patient
from medcli.evaluation.intervals import patient_groups
from medcli.evaluation.retrieval import average_precision
from medcli.imaging.preprocess import sample_slices
from medcli.models.scan_model import ScanModel
from medcli.records import Case, Task
from medcli.training.gather import ReadScan, part_arrays, read_cases
from medcli.training.loop import fit
from medcli.training.prediction import predict_embeddings, predict_logits
from medcli.training.settings import ObjectiveRequest, choose_objective

SETS = {
    "nodule": ("nodule_slices/manifest.csv", ("benign", "malignant"), 28),
    "lung": ("lung_cxr/manifest.csv", ("normal", "pneumonia"), 40),
    "gi": ("gi_colon_histology/manifest.csv", ("colon_n", "colon_aca"), 40),
    "pneumoniamnist": ("medmnist/pneumoniamnist_train_val.npz", ("normal", "pneumonia"), 28),
}
PRESET = {"pneumoniamnist": PRESETS["lung"], **PRESETS}
SLICES = 5
SMALL = 600  # scans of a set of single pictures
RARE = 20  # the common class is so many times as frequent
NOISE = 0.3  # share of the labels of the training and validation part that are wrong
RESAMPLES = 500
CPU = torch.device("cpu")

Modes = dict[str, ObjectiveRequest]
TABLES: dict[str, tuple[tuple[str, ...], Modes]] = {
    "metric": (
        ("nodule", "lung", "gi"),
        {
            "cross-entropy alone": ObjectiveRequest(),
            "supcon": ObjectiveRequest(metric_loss="supcon"),
            "proxy": ObjectiveRequest(metric_loss="proxy"),
        },
    ),
    "imbalance": (
        ("pneumoniamnist",),
        {
            mode: ObjectiveRequest(imbalance=mode)
            for mode in ("none", "weights", "sampler", "focal", "logit-adjust")
        },
    ),
    "noise": (
        ("pneumoniamnist",),
        {
            "cross-entropy": ObjectiveRequest(),
            "gce": ObjectiveRequest(robust_loss="gce"),
            "symmetric": ObjectiveRequest(robust_loss="symmetric"),
        },
    ),
    "plain": (
        ("pneumoniamnist",),
        {
            "nothing besides": ObjectiveRequest(),
            "label smoothing 0.1": ObjectiveRequest(label_smoothing=0.1),
            "mixup 0.2": ObjectiveRequest(mixup=0.2),
        },
    ),
    "optimizer": (
        ("pneumoniamnist",),
        {name: ObjectiveRequest(optimizer=name) for name in ("adamw", "adam", "sgd")},
    ),
}


@dataclass(frozen=True)
class Outcome:
    """What one training said of its N held-out scans: (N,) arrays."""

    groups: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    right: np.ndarray
    precision: np.ndarray  # strict average precision of five hits
    first: np.ndarray  # whether the first hit is of the class


def main() -> None:
    """Print a table for each question."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    versions = ", ".join(f"{name} {version(name)}" for name in ("medcli", "torch"))
    print(f"{date.today()}, {os.cpu_count()} cores, seeds {options.seeds}, ", end="")
    print(f"{options.epochs} epochs, {versions}")
    read: dict[tuple[str, int], list[ReadScan]] = {}
    for table in options.tables.split(","):
        sets, modes = TABLES[table]
        for name in sets:
            start = time.monotonic()
            outcomes: dict[str, list[Outcome]] = {mode: [] for mode in modes}
            for seed in seeds:
                count = 2400 if table == "imbalance" else SMALL
                if (name, count) not in read:
                    read[name, count] = read_set(options.data, name, count)
                parts = prepare(read[name, count], name, seed, table)
                for mode, asked in modes.items():
                    outcomes[mode].append(run(parts, name, asked, seed, options.epochs))
            minutes = (time.monotonic() - start) / 60
            print(f"\n{table}, {name} ({minutes:.1f} min)\n", flush=True)
            print_table(outcomes, COLUMNS[table])


def read_set(data: Path, name: str, count: int) -> list[ReadScan]:
    """At most `count` scans of whole patients, drawn by a fixed seed; nodules all."""
    file, classes, size = SETS[name]
    cases: Sequence[Case] = load_cases([str(data / file)], task=name, classes=classes).cases
    if name != "nodule":
        patients = sorted({case.patient_id or case.scan_id for case in cases})
        order = np.random.default_rng(0).permutation(len(patients))
        rank = {patients[index]: place for place, index in enumerate(order)}
        cases = sorted(cases, key=lambda case: rank[case.patient_id or case.scan_id])[:count]
    preset = PRESET[name]
    preprocess = PreprocessConfig(size=size, channels=preset.channels, pictures=preset.pictures)
    read = read_cases(
        cases, preprocess, on_read=lambda done, total: None, on_failure=lambda failure: None
    )
    return [slim(item) for item in read]


def slim(item: ReadScan) -> ReadScan:
    """At most `SLICES` slices, a patient, and no part that the source put the scan into."""
    case = replace(item.case, patient_id=item.case.patient_id or item.case.scan_id, split=None)
    chosen = sample_slices(len(item.images), SLICES)
    return replace(item, case=case, images=item.images[chosen])


@dataclass(frozen=True)
class Parts:
    """The arrays by part, with the patients of the held-out part."""

    arrays: dict[str, ScanArrays]
    patients: list[str | None]


def prepare(read: list[ReadScan], name: str, seed: int, table: str) -> Parts:
    """Split by patient; make the classes unequal, or labels wrong, where that is the question."""
    split = split_by_patient(
        [item.case for item in read], val_fraction=0.15, test_fraction=0.25, seed=seed
    )
    rng = np.random.default_rng(seed)
    if table == "imbalance":
        split = Split(*(thinned(getattr(split, part), name, part, rng) for part in PARTS))
    arrays = part_arrays(read, split, Task(name, SETS[name][1], SETS[name][1][1]))
    if table == "noise":
        for part in ("train", "val"):
            labels = arrays[part].labels
            wrong = rng.random(len(labels)) < NOISE
            arrays[part] = replace(arrays[part], labels=np.where(wrong, 1 - labels, labels))
    return Parts(arrays, [case.patient_id for case in split.test])


def thinned(cases: Sequence[Case], name: str, part: str, rng: Any) -> tuple[Case, ...]:
    """1 : `RARE` of the second class in the parts that teach; the held-out part as it is."""
    rare = SETS[name][1][1]
    if part == "test":
        return tuple(cases)
    few = [case for case in cases if case.label == rare]
    many = [case for case in cases if case.label != rare]
    kept = rng.permutation(len(few))[: max(2, round(len(many) / RARE))]
    return (*many, *(few[index] for index in kept))


def run(parts: Parts, name: str, asked: ObjectiveRequest, seed: int, epochs: int) -> Outcome:
    """Train once and ask the held-out part."""
    train, val, test = (parts.arrays[part] for part in PARTS)
    preset, size = PRESET[name], SETS[name][2]
    mean, std = train.statistics()
    preprocess = PreprocessConfig(size=size, channels=preset.channels, mean=mean, std=std)
    stacks = bool((train.lengths > 1).any())
    config = TrainConfig(
        seed=seed,
        epochs=epochs,
        patience=epochs,
        batch_slices=128 if stacks else 32,
        augmentation=preset.augmentation,
    )
    config = choose_objective(config, asked, train, pretrained=False)
    torch.manual_seed(seed)
    model = ScanModel(ModelConfig(), preset.channels, size, 2)
    model = fit(model, train, val, preprocess, config, device=CPU).model
    logits = predict_logits(model, test, preprocess, 128, CPU).numpy()
    known = [predict_embeddings(model, part, preprocess, 128, CPU).numpy() for part in (train, val)]
    queries = predict_embeddings(model, test, preprocess, 128, CPU).numpy()
    stored = np.concatenate([train.labels, val.labels])
    nearest = np.argsort(-queries @ np.concatenate(known).T, axis=1, kind="stable")[:, :5]
    hits = stored[nearest] == test.labels[:, None]
    return Outcome(
        groups=patient_groups(parts.patients, len(test.labels)),
        labels=test.labels,
        scores=logits[:, 1] - logits[:, 0],
        right=(logits.argmax(axis=1) == test.labels).astype(float),
        precision=np.array([average_precision(list(row), 5) for row in hits]),
        first=hits[:, 0].astype(float),
    )


Statistic = Callable[[Outcome, np.ndarray], float]


def auroc(outcome: Outcome, weights: np.ndarray) -> float:
    """Of the second class."""
    return float(roc_auc_score(outcome.labels, outcome.scores, sample_weight=weights))


def accuracy(outcome: Outcome, weights: np.ndarray) -> float:
    """Share that the larger logit gets right."""
    return float(np.average(outcome.right, weights=weights))


def balanced_accuracy(outcome: Outcome, weights: np.ndarray) -> float:
    """Mean over the classes of the share that the larger logit gets right."""
    own = [outcome.labels == label for label in (0, 1)]
    return float(np.mean([np.average(outcome.right[rows], weights=weights[rows]) for rows in own]))


def map_at_5(outcome: Outcome, weights: np.ndarray) -> float:
    """Strict mean average precision of five hits among training and validation scans."""
    return float(np.average(outcome.precision, weights=weights))


def acc_at_1(outcome: Outcome, weights: np.ndarray) -> float:
    """Share of first hits of the query's class."""
    return float(np.average(outcome.first, weights=weights))


COLUMNS: dict[str, dict[str, Statistic]] = {
    "metric": {"AUROC": auroc, "accuracy": accuracy, "mAP@5 strict": map_at_5, "ACC@1": acc_at_1},
    "imbalance": {"AUROC": auroc, "balanced accuracy": balanced_accuracy},
    "noise": {"AUROC": auroc, "accuracy": accuracy},
    "plain": {"AUROC": auroc, "accuracy": accuracy},
    "optimizer": {"AUROC": auroc, "accuracy": accuracy},
}


def print_table(outcomes: dict[str, list[Outcome]], columns: dict[str, Statistic]) -> None:
    """One line a mode: each value with its interval and its difference to the first mode."""
    first = next(iter(outcomes.values()))
    draws = [
        [resample(outcome.groups, index, number) for index, outcome in enumerate(first)]
        for number in range(RESAMPLES)
    ]
    titles = [text for name in columns for text in (name, "difference")]
    print("| mode | " + " | ".join(titles) + " |")
    print("|---" * (len(titles) + 1) + "|")
    for mode, each in outcomes.items():
        cells = []
        for statistic in columns.values():
            value, drawn = mean_of(statistic, each, draws)
            base, base_drawn = mean_of(statistic, first, draws)
            low, high = np.percentile(drawn, [2.5, 97.5])
            cells.append(f"{value:.3f} ({low:.3f}–{high:.3f})")
            low, high = np.percentile(drawn - base_drawn, [2.5, 97.5])
            cells.append("" if each is first else f"{value - base:+.3f} ({low:+.3f}–{high:+.3f})")
        print(f"| {mode} | " + " | ".join(cells) + " |", flush=True)


def resample(groups: np.ndarray, seed: int, number: int) -> np.ndarray:
    """(N,) how often each scan occurs where as many patients are drawn as there are."""
    count = int(groups.max()) + 1
    drawn = np.random.default_rng([seed, number]).integers(0, count, count)
    weights: np.ndarray = np.bincount(drawn, minlength=count)[groups].astype(float)
    return weights


def mean_of(
    statistic: Statistic, outcomes: Sequence[Outcome], draws: Sequence[Sequence[np.ndarray]]
) -> tuple[float, np.ndarray]:
    """The mean over the seeds, and (R,) the same of each resample."""
    whole = np.mean([statistic(outcome, np.ones(len(outcome.labels))) for outcome in outcomes])
    drawn = [
        np.mean([statistic(o, weights) for o, weights in zip(outcomes, draw, strict=True)])
        for draw in draws
    ]
    return float(whole), np.array(drawn)


if __name__ == "__main__":
    main()
