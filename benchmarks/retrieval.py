"""How often the nearest scans of other patients agree; prints Markdown.

    python benchmarks/retrieval.py DATA MODEL [--queries 400] [--gallery 1500] [--seed 0]
                                   [--sets nodule lung lung-shifted gi modality cross]

DATA is a folder with nodule_slices/, lung_cxr/, gi_colon_histology/ and modality_mednist/, each
with a manifest.csv. MODEL is a run of the tasks nodule, lung and gi together. Galleries hold
scans that the run was trained on, queries are scans of its own test patients; of
modality_mednist, which no task knows, both are drawn by the seed. Where there are more, --gallery
and --queries are drawn by the seed, whole patients and classes alike. The shifted queries of the
lung are its own, each changed by one of the recipes of benchmarks/shifts.py in turn.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from shifts import RECIPES, shifted

from medcli.data.sources import load_cases
from medcli.inference.predictor import Predictor
from medcli.models.locate import find_model
from medcli.models.memory import RunMemory, run_memory
from medcli.models.package import load_package
from medcli.records import Case
from medcli.retrieval.query import Wanted
from medcli.workflows.evaluating_retrieval import evaluate_retrieval
from medcli.workflows.indexing import build_gallery
from medcli.workflows.searching import Answer, open_gallery, search_scans

FOLDERS = {
    "nodule": "nodule_slices",
    "lung": "lung_cxr",
    "gi": "gi_colon_histology",
    "modality": "modality_mednist",
}
SETS = ("nodule", "lung", "lung-shifted", "gi", "modality", "cross")
METRICS = ("map_at_5", "map_at_5_strict", "mmv_at_5", "acc_at_1", "acc_at_5", "precision_at_10")
Rows = list[dict[str, str]]


def main() -> None:
    """Build a gallery a set, ask it, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("model")
    parser.add_argument("--queries", type=int, default=400)
    parser.add_argument("--gallery", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    options = parser.parse_args()
    predictor = Predictor(load_package(find_model(options.model)))
    package = predictor.package
    print(f"{date.today()}, {os.cpu_count()} cores, model {package.fingerprint}, tasks", end=" ")
    print(f"{package.task_names}, {package.preprocess.size} px, seed {options.seed}; galleries of")
    print(f"up to {options.gallery} scans, up to {options.queries} queries a set\n")
    with tempfile.TemporaryDirectory() as scratch:
        bench = _Bench(predictor, options, Path(scratch))
        print(f"| set | compared by | queries | gallery | {' | '.join(METRICS)} |")
        print("|---|---|---|---|" + "---|" * len(METRICS))
        told = [line for name in options.sets if name != "cross" for line in bench.tables(name)]
        if told:
            print("\n| set | first 5 share | of them | by chance | of the wrong hits |")
            print("|---|---|---|---|---|")
            print("\n".join(told))
        if "cross" in options.sets:
            print(
                "\n| queries of | n | domain right | class right | first hit: domain | class | ",
                end="",
            )
            print("wrong domain: query → hit |\n|---|---|---|---|---|---|---|")
            for row in bench.cross():
                print(f"| {' | '.join(row)} |", flush=True)


class _Bench:
    """The sets, parted, and what has been made of them."""

    def __init__(self, predictor: Predictor, options: argparse.Namespace, folder: Path) -> None:
        self._predictor = predictor
        self._options = options
        self._folder = folder
        self._parts: dict[str, tuple[Rows, Rows]] = {}

    def tables(self, name: str) -> Iterator[str]:
        """Print the lines of a set; what its neighbours share comes back."""
        source = name.partition("-")[0]
        stored, asked = self.parts(source)
        if name == "lung-shifted":
            asked = list(self._shifted(asked))
        gallery = self._folder / f"{name}.gallery"
        report = build_gallery(
            gallery,
            self._predictor,
            load_cases([str(self._manifest(stored, name, "stored"))]).cases,
        )
        assert not report.failures
        queries = self._manifest(asked, name, "asked")
        several = any(row.get("slice") for row in stored)
        metrics: dict[str, Any] = {}
        for compare in ("slices", "scan") if several else ("slices",):
            task = source if source != "modality" else "lung"
            metrics = evaluate_retrieval(
                self._predictor.for_task(task), gallery, [str(queries)], compare=compare
            ).metrics
            self._line(name, compare, metrics, metrics["ci"], metrics)
        self._line(name, "chance", metrics["chance"], {}, metrics)
        for baseline, each in metrics["baselines"].items():
            self._line(name, baseline.replace("_", " "), each, each["ci"], metrics)
        for label, each in metrics["per_class"].items():
            self._line(f"{name}: {label}", "slices", each, each["ci"], each)
        for what, row in metrics["shortcuts"].items():
            wrong = row["share_of_wrong"]
            told = "–" if wrong is None else f"{wrong:.3f}"
            yield f"| {name} | {what} | {row['share']:.3f} | {row['chance']:.3f} | {told} |"

    def _line(
        self,
        name: str,
        how: str,
        values: dict[str, Any],
        bounds: dict[str, Any],
        of: dict[str, Any],
    ) -> None:
        cells = [name, how, str(of["n_queries"]), str(of["n_gallery"])]
        cells += [_told(values[metric], bounds.get(metric)) for metric in METRICS]
        print(f"| {' | '.join(cells)} |", flush=True)

    def parts(self, name: str) -> tuple[Rows, Rows]:
        """The rows to store and to ask of a set: those of training patients, and the others."""
        if name not in self._parts:
            rows = _manifest_rows(self._options.data / FOLDERS[name])
            memory = run_memory(self._predictor.package)
            if name == "modality":
                order = np.random.default_rng(self._options.seed).permutation(len(rows))
                half = len(rows) // 2
                stored, asked = [rows[i] for i in order[:half]], [rows[i] for i in order[half:]]
            else:
                assert memory is not None
                known = _parts_of(rows, name, memory)
                stored = [row for row, part in zip(rows, known, strict=True) if part == "train"]
                asked = [row for row, part in zip(rows, known, strict=True) if part == "test"]
            seed = self._options.seed
            self._parts[name] = (
                drawn(stored, self._options.gallery, seed),
                drawn(asked, self._options.queries, seed),
            )
        return self._parts[name]

    def _manifest(self, rows: Rows, name: str, kind: str) -> Path:
        """A manifest of its own, with absolute paths and no parts."""
        path = self._folder / f"{name}-{kind}.csv"
        kept = [column for column in rows[0] if column != "split"]
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, kept, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return path

    def _shifted(self, rows: Rows) -> Iterator[dict[str, str]]:
        """The pictures of the queries, each changed by one recipe of its task, in turn."""
        folder = self._folder / "shifted"
        folder.mkdir(exist_ok=True)
        names = sorted(set(RECIPES["lung"]) - {"none"})
        for number, row in enumerate(rows):
            with Image.open(row["path"]) as image:
                pixels = np.asarray(image.convert("L"))[np.newaxis, ..., np.newaxis]
            changed = shifted(
                "lung", names[number % len(names)], pixels, self._options.seed + number
            )
            path = folder / f"{number}.png"
            Image.fromarray(changed[0, ..., 0]).save(path)
            yield {**row, "path": str(path)}

    def cross(self) -> Iterator[tuple[str, ...]]:
        """One gallery of all sets: how many of the first five are of the query's set and class."""
        sets = {name: self.parts(name) for name in FOLDERS}
        stored: list[Case] = []
        domain: dict[str, str] = {}
        for name, (rows, _) in sets.items():
            for case in load_cases([str(self._manifest(rows, name, "cross"))]).cases:
                stored.append(case)
                domain[str(Path(case.path).absolute())] = name
        build_gallery(self._folder / "cross.gallery", self._predictor, stored)
        gallery, searcher = open_gallery(self._folder / "cross.gallery")
        with gallery:
            for name, (_, rows) in sets.items():
                cases = load_cases([str(self._manifest(rows, name, "cross-asked"))]).cases
                found = list(search_scans(gallery, searcher, cases, Wanted(k=5)))
                answers = [each for each in found if isinstance(each, Answer)]
                right, classes = [], []
                wrong: Counter[str] = Counter()
                for answer in answers:
                    assert answer.case is not None
                    near = [(domain[hit.path] == name, hit.label) for hit in answer.result.hits]
                    right.append([own for own, _ in near])
                    classes.append([own and label == answer.case.label for own, label in near])
                    others = (domain[hit.path] for hit in answer.result.hits)
                    wrong.update(f"{answer.case.label} → {each}" for each in others if each != name)
                shares = (np.mean(right), np.mean(classes))
                first = (np.mean([r[0] for r in right]), np.mean([c[0] for c in classes]))
                told = "; ".join(f"{each} {count}" for each, count in wrong.most_common())
                figures = (f"{each:.4f}" for each in (*shares, *first))
                yield (name, str(len(answers)), *figures, told or "–")


def _manifest_rows(folder: Path) -> Rows:
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        return [{**row, "path": str(folder / row["path"])} for row in csv.DictReader(stream)]


def _parts_of(rows: Rows, task: str, memory: RunMemory) -> list[str | None]:
    """The part of each row in the run, by its patient; nothing is read unless that is unknown."""
    parts = {}
    for row in rows:
        patient = row.get("patient_id") or None
        if patient not in parts or patient is None:
            parts[patient] = memory.part(patient, "", task)
    return [parts[row.get("patient_id") or None] for row in rows]


def drawn(rows: Rows, most: int, seed: int) -> Rows:
    """Rows of at most about `most` scans, whole patients, the classes as they are spread."""
    groups: defaultdict[str, Rows] = defaultdict(list)
    for number, row in enumerate(rows):
        groups[row.get("patient_id") or row.get("scan_id") or str(number)].append(row)

    def scans(group: Rows) -> int:
        return len({row.get("scan_id") or row["path"] for row in group})

    if sum(map(scans, groups.values())) <= most:
        return rows
    order = np.random.default_rng(seed).permutation(sorted(groups))
    kept: Rows = []
    count = 0
    for name in order.tolist():
        if count >= most:
            break
        kept += groups[name]
        count += scans(groups[name])
    return kept


def _told(value: float, bounds: Sequence[float] | None) -> str:
    return f"{value:.3f}" + (f" ({bounds[0]:.3f}–{bounds[1]:.3f})" if bounds else "")


if __name__ == "__main__":
    main()
