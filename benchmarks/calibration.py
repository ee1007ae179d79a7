"""What calibration on the validation part gives on the held-out part.

    python benchmarks/calibration.py MODEL DATA [MODEL DATA ...]

Temperature, offsets and label sets are fitted here, as `medcli train` does it, from the run's own
validation part found in DATA, so that runs from before them can be measured too.

Printed: a Markdown table of temperature and offsets, of calibration error and Brier score on the
run's test part before and after them, of the calibration error that so many scans would show by
chance if the probabilities were true, and of how many label sets hold the true class.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np

from medcli.data.sources import load_cases
from medcli.evaluation.calibration import (
    brier_loss,
    calibration_errors_by_chance,
    expected_calibration_error,
    softmax,
)
from medcli.evaluation.conformal import label_set_metrics, label_sets
from medcli.evaluation.intervals import patient_groups
from medcli.imaging.batch import read_all
from medcli.imaging.hashing import pixel_sha256
from medcli.imaging.preprocess import Preprocessor, sample_slices
from medcli.inference.engine import OnnxEngine
from medcli.models.heads import answer_probabilities
from medcli.models.package import GRAPH, SPLITS, ModelPackage, load_package
from medcli.records import Case, Scan
from medcli.training.calibrating import calibrate

COLUMNS = (
    "model",
    "val, test scans",
    "temperature",
    "offsets",
    "ECE by chance",
    "ECE before",
    "ECE after",
    "Brier before",
    "Brier after",
    "sets hold the class (95 % interval)",
    "per class",
    "of one class",
)


def main() -> None:
    """Measure each model and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="+", metavar="MODEL DATA")
    names = parser.parse_args().pairs
    print(f"{date.today()}\n\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for model, data in zip(names[::2], names[1::2], strict=True):
        print(f"| {' | '.join(row(load_package(Path(model)), data))} |")


def row(package: ModelPackage, data: str) -> Iterator[str]:
    """The cells of one model."""
    parts = logits_of_parts(package, data)
    (val_labels, val_logits, _), (labels, logits, patients) = parts["val"], parts["test"]
    # Runs from before the option weighed the classes.
    mode = package.provenance["train"].get("imbalance", "weights")
    _, calibration = calibrate(package.task, val_labels, val_logits, evened=mode != "none")
    before, after = softmax(logits), answer_probabilities(package.task, calibration, logits)
    yield f"{package.task.name} {package.fingerprint}"
    yield f"{len(val_labels)}, {len(labels)}"
    yield f"{calibration.temperature:.3f}"
    yield ", ".join(f"{offset:+.2f}" for offset in calibration.offsets or ())
    yield f"{calibration_errors_by_chance(after).mean():.4f}"
    for measure in (expected_calibration_error, brier_loss):
        yield f"{measure(labels, before):.4f}"
        yield f"{measure(labels, after):.4f}"
    assert calibration.label_set_levels is not None
    sets = label_set_metrics(
        labels,
        label_sets(after, calibration.label_set_levels),
        patient_groups(patients, len(labels)),
        classes=package.task.classes,
        target=calibration.coverage,
    )
    low, high = sets["coverage_ci"]
    yield f"{sets['coverage']:.3f} ({low:.3f}–{high:.3f})"
    yield ", ".join(f"{name} {share:.3f}" for name, share in sets["per_class"].items())
    yield f"{sets['one']:.3f}"


def logits_of_parts(
    package: ModelPackage, data: str
) -> dict[str, tuple[np.ndarray, np.ndarray, list[str | None]]]:
    """Part → (N,) labels, (N, K) logits and patients of the run's own scans."""
    engine, preprocessor = OnnxEngine(package.path / GRAPH), Preprocessor(package.preprocess)
    with (package.path / SPLITS).open(newline="") as stream:
        part_of = {line["pixel_sha256"]: line["split"] for line in csv.DictReader(stream)}
    found: defaultdict[str, list[tuple[int, np.ndarray, str | None]]] = defaultdict(list)
    cases = load_cases([data], task=package.task.name, known=package.task.classes).cases
    for case, scan in read_all(cases):
        part = part_of.get(pixel_sha256(scan)) if isinstance(scan, Scan) else None
        if part in ("val", "test"):
            assert isinstance(scan, Scan)
            assert isinstance(case, Case)
            slices = sample_slices(len(scan.pixels), package.preprocess.slice_budget)
            images = preprocessor.model_input(scan, slices=slices)[None]
            logits = engine.run(images, np.ones(images.shape[:2], dtype=bool)).logits[0]
            label = package.task.classes.index(str(case.label))
            found[part].append((label, logits, scan.patient_id))
    return {
        part: (np.array([r[0] for r in rows]), np.array([r[1] for r in rows]), [r[2] for r in rows])
        for part, rows in found.items()
    }


if __name__ == "__main__":
    main()
