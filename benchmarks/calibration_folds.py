"""What calibration gives on real sets, over folds by patient; prints Markdown.

    python benchmarks/calibration_folds.py DATA --sets nodule,gi,lung,pneumoniamnist
                                           [--modes weights,none] [--folds 5] [--keep FOLDER]

DATA as for `objectives.py`, whose small budgets these are (28 or 40 px, few epochs, the default
network, at most 1,500 single pictures of whole patients). Every fold's model is calibrated on
the validation part that `medcli train --folds` would take from the other folds, and answers the
fold; the answers of all folds are pooled. `--modes` are those of `--imbalance`.

Compared are the logits as they are, one temperature, and a temperature with an offset for each
class; "expected" are offsets drawn towards the logarithms of the classes' shares, as
`medcli train` does it where `--imbalance` evens the classes out.

"By chance" is what a model whose probabilities are true would show on as many scans: mean and
95th percentile of the calibration error over 1,000 draws of labels from the calibrated
probabilities. An error within that says nothing against the probabilities.
"Positives said" is the mean probability of the second class, "seen" its share.

`--keep` keeps the logits of each fold: what was trained is not trained again.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from objectives import CPU, PRESET, SETS, read_set
from sklearn.metrics import roc_auc_score

from medcli.config import ModelConfig, PreprocessConfig, TrainConfig
from medcli.data.folds import fold_split
from medcli.evaluation.calibration import (
    brier_loss,
    calibration_errors_by_chance,
    expected_calibration_error,
    fit_scaling,
    fit_temperature,
    softmax,
)
from medcli.models.scan_model import ScanModel
from medcli.records import Task
from medcli.training.gather import ReadScan, part_arrays
from medcli.training.loop import fit
from medcli.training.prediction import predict_logits
from medcli.training.settings import ObjectiveRequest, choose_objective

EPOCHS = {"nodule": 6, "gi": 6, "lung": 3, "pneumoniamnist": 4}
LARGEST = 1500
DRAWS = 1000

Fold = dict[str, np.ndarray]
"""`val_labels` (N,), `val_logits` (N, K), and the same of the fold itself as `test_…`."""

Scaling = tuple[float, Sequence[float] | None]
WAYS: dict[str, Callable[[np.ndarray, np.ndarray], Scaling]] = {
    "as it is": lambda labels, logits: (1.0, None),
    "temperature": lambda labels, logits: (fit_temperature(labels, logits), None),
    "and offsets": lambda labels, logits: fit_scaling(labels, logits),
    "and offsets, expected": lambda labels, logits: fit_scaling(labels, logits, evened=True),
}
COLUMNS = (
    *("set", "mode", "scans", "folds' AUROC, mean (least)", "calibrated by", "ECE", "by chance"),
    *(
        "folds' own ECE, mean",
        "positives said, seen",
        "Brier",
        "accuracy",
        "temperatures",
        "offsets",
    ),
)


def main() -> None:
    """A table over sets, modes and ways of calibrating."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", default=",".join(EPOCHS))
    parser.add_argument("--modes", default="auto")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("medcli", "torch"))
    told = f"{asked.folds} folds, seed {asked.seed}, {versions}"
    print(f"{date.today()}, {os.cpu_count()} cores, {told}", flush=True)
    rows: list[str] = []
    for name in asked.sets.split(","):
        read: list[ReadScan] = []
        for mode in asked.modes.split(","):
            start, folds = time.monotonic(), []
            for number in range(asked.folds):
                file = f"{name}-{mode}-{asked.folds}-{asked.seed}-{number}.npz"
                kept = asked.keep and asked.keep / file
                if kept and kept.is_file():
                    with np.load(kept) as stored:
                        folds.append(dict(stored))
                    continue
                read = read or read_set(asked.data, name, LARGEST)
                folds.append(train_fold(read, name, mode, number, asked.folds, asked.seed))
                if kept:
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    np.savez(kept, **folds[-1])
            print(f"{name}, {mode}: {time.monotonic() - start:.0f} s", flush=True)
            rows += [table_row(name, mode, way, folds) for way in WAYS]
    print(f"\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    print("\n".join(rows))


def table_row(name: str, mode: str, way: str, folds: Sequence[Fold]) -> str:
    """What one way of calibrating gives over all folds."""
    scalings = [WAYS[way](each["val_labels"], each["val_logits"]) for each in folds]
    labels = [each["test_labels"] for each in folds]
    answers = [
        softmax(each["test_logits"], *own) for each, own in zip(folds, scalings, strict=True)
    ]
    truth, said = np.concatenate(labels), np.concatenate(answers)
    chance = calibration_errors_by_chance(said, draws=DRAWS)
    own = [expected_calibration_error(*pair) for pair in zip(labels, answers, strict=True)]
    areas = [roc_auc_score(true, p[:, 1]) for true, p in zip(labels, answers, strict=True)]
    temperatures = [temperature for temperature, _ in scalings]
    # Of two classes one number says both: what is added to the second one's lead.
    leads = [offsets[1] - offsets[0] for _, offsets in scalings if offsets is not None]
    cells = (
        *(name, mode, str(len(truth)), f"{np.mean(areas):.3f} ({min(areas):.3f})", way),
        f"{expected_calibration_error(truth, said):.3f}",
        f"{chance.mean():.3f}, {np.percentile(chance, 95):.3f}",
        f"{np.mean(own):.3f}",
        f"{said[:, 1].mean():.3f}, {truth.mean():.3f}",
        f"{brier_loss(truth, said):.4f}",
        f"{(said.argmax(axis=1) == truth).mean():.3f}",
        f"{min(temperatures):.2f}–{max(temperatures):.2f}",
        f"{min(leads):+.2f} to {max(leads):+.2f}" if leads else "",
    )
    return f"| {' | '.join(cells)} |"


def train_fold(
    read: Sequence[ReadScan], name: str, mode: str, number: int, folds: int, seed: int
) -> Fold:
    """The logits of a model that has not seen fold `number`, there and on its validation part."""
    split = fold_split([item.case for item in read], number, folds, seed=seed)
    arrays = part_arrays(read, split, Task(name, SETS[name][1], SETS[name][1][1]))
    train = arrays["train"]
    preset, size = PRESET[name], SETS[name][2]
    mean, std = train.statistics()
    preprocess = PreprocessConfig(size=size, channels=preset.channels, mean=mean, std=std)
    stacks = bool((train.lengths > 1).any())
    config = TrainConfig(
        seed=seed,
        epochs=EPOCHS[name],
        patience=EPOCHS[name],
        batch_slices=128 if stacks else 32,
        augmentation=preset.augmentation,
    )
    config = choose_objective(config, ObjectiveRequest(imbalance=mode), train, pretrained=False)
    torch.manual_seed(seed)
    model = ScanModel(ModelConfig(), preset.channels, size, 2)
    model = fit(model, train, arrays["val"], preprocess, config, device=CPU).model
    found = {}
    for part in ("val", "test"):
        found[f"{part}_labels"] = arrays[part].labels
        found[f"{part}_logits"] = predict_logits(model, arrays[part], preprocess, 128, CPU).numpy()
    return found


if __name__ == "__main__":
    main()
