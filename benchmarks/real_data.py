"""The whole road on real sets: train, evaluate, classify, index, search; prints Markdown.

    python benchmarks/real_data.py DATA [--out FOLDER] [--sets nodule,lung,gi,pneumoniamnist]
                                        [--seed 0] [--minutes M] [--keep]

DATA is a folder with nodule_slices/, lung_cxr/, gi_colon_histology/ (each with a
manifest.csv) and medmnist/pneumoniamnist_train_val.npz. Each set is split by patient by
`medcli train`; the numbers are those of its held-out part (of the archive: its validation
part, which also chose the weights). Galleries hold all scans of a set; queries are the
held-out scans, their own patients left out of the answers. "search" is one query, of the
archive all its pictures. --keep measures runs that lie in --out already; the time of their
training is then the one they remember.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

SETS = {
    "nodule": ("nodule_slices/manifest.csv", "nodule"),
    "lung": ("lung_cxr/manifest.csv", "lung"),
    "gi": ("gi_colon_histology/manifest.csv", "gi"),
    "pneumoniamnist": ("medmnist/pneumoniamnist_train_val.npz", "lung"),
}


def main() -> None:
    """Run each set and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("real-runs"))
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    rows = [run_set(name, options) for name in options.sets.split(",")]
    print(f"\n{date.today()}, {os.cpu_count()} cores, seed {options.seed}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in ("medcli", "torch", "onnxruntime")))
    print("\n| set | part | scans | patients | AUROC | accuracy | sens. | spec. | area AUROC |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(classifier_row(row))
    print("\n| set | mAP@5 (strict) | ACC@1 | P@10 | chance P@10 |")
    print("|---|---|---|---|---|")
    for row in rows:
        print(retrieval_row(row))
    print("\n| set | epochs | train | evaluate | classify 20 | index | search |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        seconds = " | ".join(f"{row['seconds'][step]:.1f} s" for step in row["seconds"])
        print(f"| {row['name']} | {row['epochs']} | {seconds} |")


def run_set(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Every command on one set, timed as whole processes."""
    file, task = SETS[name]
    data = options.data / file
    run, gallery = options.out / name, options.out / f"{name}-gallery"
    seconds: dict[str, float] = {}

    def medcli(step: str, *arguments: object) -> list[dict[str, Any]]:
        start = time.perf_counter()
        command = [sys.executable, "-m", "medcli", *map(str, arguments), "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds[step] = time.perf_counter() - start
        return [json.loads(line) for line in done.stdout.splitlines()]

    budget = ["--minutes", options.minutes] if options.minutes else []
    if not (options.keep and run.is_dir()):
        medcli("train", "train", data, "--task", task, "-o", run, "--overwrite",
               "--seed", options.seed, *budget)  # fmt: skip
    provenance = json.loads((run / "model.json").read_text())["provenance"]
    seconds.setdefault("train", provenance["seconds"])
    metrics = medcli("evaluate", "evaluate", run, data)[0]
    queries = some_scans(data)
    medcli("classify", "classify", *queries, "--model", run)
    medcli("index", "index", "build", data, "-g", gallery, "--model", run, "--overwrite")
    medcli("search", "search", queries[0], "-g", gallery)
    retrieval = medcli("retrieval", "evaluate", run, data, "--gallery", gallery)[0]
    del seconds["retrieval"]
    return {"name": name, "metrics": metrics, "retrieval": retrieval,
            "seconds": seconds, "epochs": provenance["epochs_run"]}  # fmt: skip


def some_scans(data: Path) -> list[Path]:
    """Twenty files of a set spread evenly; an archive stands for itself."""
    if data.suffix == ".npz":
        return [data]
    files = sorted(p for p in data.parent.rglob("*") if p.suffix in (".png", ".jpeg", ".jpg"))
    return files[:: max(1, len(files) // 20)][:20]


def classifier_row(row: dict[str, Any]) -> str:
    """One line of the first table."""
    m = row["metrics"]
    area = m["baselines"].get("area", {})
    cells = [
        row["name"],
        m["split"],
        m["n"],
        m["n_patients"],
        number(m["auroc"], m["auroc_ci"]),
        number(m["accuracy"], m["accuracy_ci"]),
        number(m["sensitivity"]),
        number(m["specificity"]),
        number(area.get("auroc"), area.get("auroc_ci")),
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def retrieval_row(row: dict[str, Any]) -> str:
    """One line of the second table."""
    m = row["retrieval"]
    names = ("map_at_5_strict", "acc_at_1", "precision_at_10")
    cells = [number(m[name], m["ci"][name]) for name in names]
    return "| " + " | ".join([row["name"], *cells, number(m["chance"]["precision_at_10"])]) + " |"


def number(value: float | None, bounds: Any = None) -> str:
    """`.912 (.875–.944)`."""
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" ({bounds[0]:.3f}–{bounds[1]:.3f})" if bounds else "")


if __name__ == "__main__":
    main()
