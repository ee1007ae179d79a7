"""Does a model of several tasks know what a picture is? Prints Markdown.

    python benchmarks/domains.py MODEL DATA [--part test] [--scans N] [--gallery N] [--seed 0]

DATA holds nodule_slices/, lung_cxr/ and gi_colon_histology/ on which the model was trained, and
modality_mednist/ and gi_polyp_boxes/ that it never saw.

Two tables. The first: scans of the held-out patients, the foreign sets and crops of
scikit-learn's two photographs; the share that each task is given by the router, and the share
flagged as out of distribution by the task that answers. The second: held-out scans as queries
among scans of the training part of all sets, by cosine; the share of the five nearest that come
from the query's own set and that are of its own class, and the share of queries all of whose
five come from the own set; intervals 95 %, bootstrap over patients of the queries.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from ood import crops, some
from sklearn.datasets import load_sample_image

from medcli.data.sources import load_cases
from medcli.evaluation.intervals import patient_bootstrap, patient_groups, weighted_mean
from medcli.imaging.batch import read_all
from medcli.imaging.preprocess import sample_slices
from medcli.inference.predictor import Predictor
from medcli.models.memory import run_memory
from medcli.models.package import load_package
from medcli.records import Case, Prediction, Scan

SETS = {"nodule": "nodule_slices", "lung": "lung_cxr", "gi": "gi_colon_histology"}
FOREIGN = ("modality_mednist", "gi_polyp_boxes")
NEAREST = 5


@dataclass(frozen=True, slots=True)
class Group:
    """Labelled scans of one set, with their patients."""

    scans: list[Scan]
    labels: list[str]
    patients: list[str | None]


def main() -> None:
    """Print both tables of one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--part", default="test", choices=("val", "test"))
    parser.add_argument("--scans", type=int, default=1000, help="of each set at most")
    parser.add_argument("--gallery", type=int, default=400, help="training scans of each set")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    predictor = Predictor(load_package(options.model))
    queries = {task: group(options, task, options.part, options.scans) for task in SETS}
    print(
        f"{predictor.package.fingerprint}, {options.part} part, seed {options.seed}, "
        f"{date.today()}, {os.cpu_count()} cores\n"
    )
    names = list(SETS)
    print(f"| pictures | n | {' | '.join(f'given to {n}' for n in names)} | flagged |")
    print("|---|---|" + "---|" * (len(names) + 1), flush=True)
    for task, own in queries.items():
        print(row(f"{task}, held out", predictor, own.scans), flush=True)
    for name in FOREIGN:
        found = some(str(options.data / name), options.scans, options.seed)
        by_kind: dict[str, list[Scan]] = {}
        for scan in found:
            kind = Path(scan.path).parent.name if name == "modality_mednist" else ""
            by_kind.setdefault(kind, []).append(scan)
        for kind, scans in sorted(by_kind.items()):
            print(row(f"{name} {kind}".strip(), predictor, scans), flush=True)
    photographs = [load_sample_image(f"{name}.jpg") for name in ("china", "flower")]
    for grey in (False, True):
        made = crops(photographs, 200, options.seed, grey=grey)
        print(row(f"photographs, {'grey' if grey else 'colour'}", predictor, made), flush=True)
    gallery = {task: group(options, task, "train", options.gallery) for task in SETS}
    neighbours(predictor, queries, gallery)


def group(options: argparse.Namespace, task: str, part: str, most: int) -> Group:
    """Read at most `most` scans of one part of the run, evenly over its list."""
    package = load_package(options.model)
    memory = run_memory(package)
    assert memory is not None, "the model does not know what it was trained on"
    classes = next(each.classes for each in package.tasks if each.name == task)
    cases = load_cases([str(options.data / SETS[task])], task=task, known=classes).cases
    own: list[Case] = [c for c in cases if memory.part(c.patient_id, "", task) == part]
    chosen = [own[i] for i in sample_slices(len(own), most)]
    pairs = [(c, s) for c, s in read_all(chosen) if isinstance(s, Scan)]
    return Group(
        [scan for _, scan in pairs],
        [f"{task}/{case.label}" for case, _ in pairs],
        [case.patient_id for case, _ in pairs],
    )


def row(name: str, predictor: Predictor, scans: Iterable[Scan]) -> str:
    """Who answers, and how many are flagged."""
    answers = [a for a in predictor.predict(scans) if isinstance(a, Prediction)]
    given = Counter(answer.task for answer in answers)
    flagged = np.mean([bool(answer.out_of_distribution) for answer in answers])
    shares = [f"{given[task] / len(answers):.3f}" for task in SETS]
    return f"| {name} | {len(answers)} | {' | '.join(shares)} | {flagged:.3f} |"


def neighbours(predictor: Predictor, queries: dict[str, Group], gallery: dict[str, Group]) -> None:
    """Print what the five nearest are."""
    stored = np.stack([predictor.embed(s).vector for g in gallery.values() for s in g.scans])
    labels = np.array([label for g in gallery.values() for label in g.labels])
    domains = np.array([label.partition("/")[0] for label in labels])
    print(f"\n{len(stored)} scans of the training part in the gallery\n")
    print(
        "| queries | n | of the own set among the 5 | of the own class among the 5 | "
        "queries with all 5 of the own set |\n|---|---|---|---|---|"
    )
    every: list[np.ndarray] = []
    for task, own in queries.items():
        vectors = np.stack([predictor.embed(scan).vector for scan in own.scans])
        nearest = np.argsort(-vectors @ stored.T, axis=1)[:, :NEAREST]
        right = (domains[nearest] == task).mean(axis=1)
        same = (labels[nearest] == np.array(own.labels)[:, None]).mean(axis=1)
        values = {"own": right, "class": same, "all": (right == 1).astype(float)}
        every.append(right)
        groups = patient_groups(own.patients, len(right))
        found = patient_bootstrap({k: weighted_mean(v) for k, v in values.items()}, groups)
        cells = [f"{v.mean():.4f} {told(found[k].bounds)}" for k, v in values.items()]
        print(f"| {task} | {len(right)} | {' | '.join(cells)} |", flush=True)
    print(f"\nall queries: {np.concatenate(every).mean():.4f} of the five from the own set")


def told(bounds: list[float] | None) -> str:
    """`(.912–.944)`."""
    return f"({bounds[0]:.4f}–{bounds[1]:.4f})" if bounds else ""


if __name__ == "__main__":
    main()
