"""What was tried on a set and what it gave, by cross-validation over patients.

    python benchmarks/accuracy.py DATA --set nodule --try resnet18_half --try cnn_lrn+max

DATA holds the sets (`nodule_slices`, `lung_cxr`, `gi_colon_histology`). A try is a network, or
network+aggregator, or either with options of the objective: `resnet18_half:mixup=0.2`.

Printed: a Markdown table. Every scan is answered by the model of its fold, which had not seen
its patient; intervals 95 %, bootstrap over patients. The baselines of the same folds stand
below it. Folds depend on data and seed alone, so tries are compared on the same folds.

For nodules a second table sets each try against the area of the largest slice and against
radiomics (the measures of `medcli.layers.measures`, quantile transform, logistic regression) on
the same scans: differences with paired intervals, and AUROC inside terciles of the area. The first
columns rank all scans together, as far as the models of the folds are calibrated alike; the next
ones are the mean of what each fold ranks by itself.
`--try radiomics` alone prints that table without training a network.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import device_name

from medcli.config import NO_AGGREGATOR, ModelConfig, PreprocessConfig
from medcli.data.audit import find_copies
from medcli.data.folds import fold_split
from medcli.data.gate import pass_gate
from medcli.data.likeness import look_of
from medcli.evaluation.intervals import patient_bootstrap, patient_groups
from medcli.evaluation.ranking import auroc, auroc_statistic
from medcli.layers.measures import MEASURES, measure_scans
from medcli.models.held_out import read_held_out
from medcli.models.region_model import measured
from medcli.models.registry import VOLUMES
from medcli.training import writing
from medcli.training.folds import cross_validate
from medcli.training.gather import ReadScan, read_cases
from medcli.training.request import TrainRequest
from medcli.training.settings import ObjectiveRequest
from medcli.training.tasks import gather_tasks

SETS = {
    "nodule": ("nodule_slices", "nodule"),
    "lung": ("lung_cxr", "lung"),
    "gi": ("gi_colon_histology", "gi"),
    "volumes": ("nodule_volumes", "nodule"),
}
RADIOMICS, AREA = "radiomics", "largest_area"
PENALTY = 0.01  # C of the logistic regression
COLUMNS = ("try", "AUROC", "accuracy", "ECE", "Brier", "folds' AUROC, sd", "seconds")


def leave_out_graphs() -> None:
    """Folds are measured in torch, and the export of some networks takes a minute."""
    vars(writing)["export_onnx"] = lambda model, path, *rest: path.write_bytes(b"none")
    vars(writing)["check_onnx"] = lambda *rest: 0.0


def main() -> None:
    """Cross-validate each try and print a row when it is done."""
    leave_out_graphs()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--set", choices=SETS, required=True)
    parser.add_argument("--try", action="append", dest="tries", metavar="NETWORK")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    folder, task = SETS[asked.set]
    base = TrainRequest(
        inputs=(str(asked.data / folder / "manifest.csv"),),
        task=task,
        classes=("benign", "malignant") if task == "nodule" else None,
        size=asked.size,
        epochs=asked.epochs,
        minutes=600.0,  # epochs decide, not the clock
        seed=asked.seed,
        device=asked.device,
    )
    print(
        f"{date.today()}, {device_name(asked.device)}, {asked.set}, {asked.folds} folds, "
        f"seed {asked.seed}, epochs {asked.epochs or 'auto'}, {asked.size or 'auto'} px"
    )
    print(f"\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    baselines: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    scores: dict[str, np.ndarray] = {}
    answered: dict[str, np.ndarray] = {}
    tries = asked.tries or ["resnet18_half"]
    for name in [each for each in tries if each != RADIOMICS]:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            request = replace(_tried(base, name), output=Path(scratch) / "run")
            package = cross_validate(request, asked.folds)
            metrics = dict(package.metrics)
            held = read_held_out(package)
            assert held is not None
            scores[name], answered[name] = held.probabilities[:, 1], held.labels == 1
        print(f"| {name} | {_row(metrics)} | {time.monotonic() - start:.0f} |", flush=True)
        baselines |= {key: each["auroc"] for key, each in metrics["baselines"].items()}
    if metrics:
        told = ", ".join(f"{name} {value:.3f}" for name, value in baselines.items())
        count = f"{metrics['n']} scans of {metrics['n_patients']} patients"
        print(f"\n{count}. Baselines, mean AUROC: {told}")
    if asked.set == "nodule":
        _compare(base, asked.folds, scores, answered)


def _compare(
    base: TrainRequest,
    folds: int,
    scores: dict[str, np.ndarray],
    answered: dict[str, np.ndarray],
) -> None:
    """Print each try beside area and radiomics on the same scans, in the order of the folds."""
    found = gather_tasks(base.inputs, base.task, base.classes, base.positive)
    settings = PreprocessConfig(size=base.size or 64)
    read = read_cases(
        found.data.cases,
        settings,
        settings.slice_budget,
        on_read=lambda done, total: None,
        on_failure=lambda failure: None,
    )
    copies = find_copies(
        [item.pixel_sha256 for item in read], [look_of(item.images) for item in read]
    )
    gate = pass_gate([item.case for item in read], copies, clean="")  # as training does
    cases = list(gate.cases)
    measures = torch.cat([_measures(item) for item in read]).numpy()
    at = {(case.scan_id, case.path): row for row, case in enumerate(cases)}
    malignant = np.array([case.label == "malignant" for case in cases])
    order: list[int] = []
    radiomics: list[np.ndarray] = []
    places: list[int] = []  # the fold of each
    for fold in range(folds):
        split = fold_split(cases, fold, folds, seed=base.seed, links=gate.links)
        known = [at[case.scan_id, case.path] for case in (*split.train, *split.val)]
        asked = [at[case.scan_id, case.path] for case in split.test]
        radiomics.append(_regression(measures[known], malignant[known], measures[asked]))
        order += asked
        places += [fold] * len(asked)
    truth, fold_of = malignant[order], np.array(places)
    for name, labels in answered.items():
        assert (labels == truth).all(), f"{name} answers other scans"
    groups = patient_groups([cases[row].patient_id for row in order], len(order))
    area = measures[order, MEASURES.index(AREA)]
    rows = {"area": area, RADIOMICS: np.concatenate(radiomics), **scores}
    names = "AUROC", "minus area", "mean of folds", "minus area", "minus radiomics"
    print(f"\n| scores | {' | '.join(names)} | small, medium, large |\n|---|{'---|' * 6}")
    together = np.zeros(len(truth), dtype=int)
    for name, own in rows.items():
        cells = []
        for parts, others in ((together, ("area",)), (fold_of, ("area", RADIOMICS))):
            cells.append(_gain(own, None, truth, parts, groups))
            cells += [_gain(own, rows[other], truth, parts, groups) for other in others]
        print(f"| {name} | {' | '.join(cells)} | {_in_terciles(own, area, truth)} |")


def _measures(item: ReadScan) -> torch.Tensor:
    """(1, len(MEASURES)) of one scan."""
    images = torch.from_numpy(item.images).float()[:, :1] / 255
    raw = measured(images)[0][None]
    return measure_scans(raw, torch.ones(raw.shape[:2], dtype=torch.bool))


def _regression(known: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Scores of logistic regression on measures brought to normal by quantiles."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import QuantileTransformer, StandardScaler

    chain = make_pipeline(
        QuantileTransformer(n_quantiles=100, output_distribution="normal", random_state=0),
        StandardScaler(),
        LogisticRegression(C=PENALTY, max_iter=2000, class_weight="balanced"),
    )
    scores: np.ndarray = chain.fit(known, labels).decision_function(asked)
    return scores


def _gain(
    own: np.ndarray,
    other: np.ndarray | None,
    truth: np.ndarray,
    parts: np.ndarray,
    groups: np.ndarray,
) -> str:
    """Mean AUROC of the parts, minus that of `other`; its interval over resamples of patients."""

    def gain(weights: np.ndarray) -> np.ndarray:
        each = []
        for part in np.unique(parts):
            at = parts == part
            each.append(auroc_statistic(truth[at], own[at])(weights[:, at]))
            if other is not None:
                each[-1] = each[-1] - auroc_statistic(truth[at], other[at])(weights[:, at])
        return np.asarray(np.mean(each, axis=0))

    bounds = patient_bootstrap({"gain": gain}, groups)["gain"].bounds
    assert bounds is not None
    value = gain(np.ones((1, len(truth))))[0]
    if other is None:
        return f"{value:.3f} ({bounds[0]:.3f}–{bounds[1]:.3f})"
    return f"{value:+.3f} ({bounds[0]:+.3f} to {bounds[1]:+.3f})"


def _in_terciles(own: np.ndarray, area: np.ndarray, truth: np.ndarray) -> str:
    """AUROC among the smallest, middle and largest third."""
    places = np.searchsorted(np.quantile(area, [1 / 3, 2 / 3]), area)
    each = [auroc(truth[places == third], own[places == third]) for third in range(3)]
    return ", ".join("–" if value is None else f"{value:.3f}" for value in each)


def _tried(base: TrainRequest, name: str) -> TrainRequest:
    """The request of one try."""
    network, _, options = name.partition(":")
    arch, _, aggregator = network.partition("+")
    chosen = aggregator or (NO_AGGREGATOR if arch in VOLUMES else "attention")
    given = dict(pair.split("=") for pair in options.split(",") if pair)
    kinds = {field.name: str(field.type).partition(" |")[0] for field in fields(ObjectiveRequest)}
    read = {"float": float, "int": int}
    values = {key: read.get(kinds.get(key, ""), str)(value) for key, value in given.items()}
    objective = ObjectiveRequest.from_json(values)
    return replace(base, model=ModelConfig(arch=arch, aggregator=chosen), objective=objective)


def _row(metrics: Mapping[str, Any]) -> str:
    def interval(name: str) -> str:
        low, high = metrics[f"{name}_ci"]
        return f"{metrics[name]:.3f} ({low:.3f}–{high:.3f})"

    aurocs = [fold["auroc"] for fold in metrics["folds"]]
    mean = sum(aurocs) / len(aurocs)
    spread = (sum((value - mean) ** 2 for value in aurocs) / (len(aurocs) - 1)) ** 0.5
    cells = (
        interval("auroc"),
        interval("accuracy"),
        f"{metrics['ece']:.3f}",
        f"{metrics['brier']:.3f}",
        f"{mean:.3f}, {spread:.3f}",
    )
    return " | ".join(cells)


if __name__ == "__main__":
    main()
