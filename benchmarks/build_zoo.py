"""Make the bundled models of medcli/zoo: train, bundle in float16, measure, write the card.

    python benchmarks/build_zoo.py train NAME... --data DATA     train with the recorded settings,
                                                                 bundle, measure
    python benchmarks/build_zoo.py bundle RUN NAME --data DATA   bundle and measure a run
    python benchmarks/build_zoo.py short                         both on generated scans, quickly

DATA holds nodule_slices/, lung_cxr/ and gi_colon_histology/, each with a manifest.csv; without
it nothing is measured again. NAME is a folder of the zoo: a task has its specialist there under
its own name, the shared model is called so. --zoo names another folder to write to; `short`
writes to one that goes away. The last lines say what the files take and who they are.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from medcli.data.synthetic import write_sample_data
from medcli.home import ZOO
from medcli.inference.predictor import Predictor
from medcli.models.package import ModelPackage, load_package
from medcli.training.card_bundled import Source
from medcli.training.request import TrainRequest
from medcli.training.run import train
from medcli.workflows.bundling import bundle
from medcli.workflows.evaluating import evaluate

MOST_BYTES = 20_000_000  # of the whole zoo
SETS = {"nodule": "nodule_slices", "lung": "lung_cxr", "gi": "gi_colon_histology"}
SOURCES = {
    "nodule": Source(
        "nodule",
        "LIDC-IDRI, CT slices of pulmonary nodules with what lies around them masked out",
        "CC BY 3.0",
        "Armato SG III, McLennan G, Bidaut L, et al. Data From LIDC-IDRI. The Cancer Imaging "
        "Archive, 2015, doi:10.7937/K9/TCIA.2015.LO9QL9SX; Armato SG III, et al. The Lung Image "
        "Database Consortium (LIDC) and Image Database Resource Initiative (IDRI). Medical "
        "Physics 38:915–931, 2011, doi:10.1118/1.3528204. Slices were cropped, masked and resized.",
        "adults, CT of several centres in the USA. Malignancy is what radiologists rated, mostly "
        "without proof by pathology; nodules rated as indeterminate are not among them. The size "
        "of a nodule alone tells much of it: the baselines say how much. It answers about a crop "
        "around a nodule, not about a whole CT.",
    ),
    "lung": Source(
        "lung",
        "chest radiographs of children, the training part of Kermany et al. 2018",
        "CC BY 4.0",
        "Kermany D, Zhang K, Goldbaum M. Labeled Optical Coherence Tomography (OCT) and Chest "
        "X-Ray Images for Classification. Mendeley Data, 2018, doi:10.17632/rscbjbr9sj; Kermany "
        "DS, et al. Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep "
        "Learning. Cell 172:1122–1131, 2018, doi:10.1016/j.cell.2018.02.010. Pictures were "
        "resized.",
        "children of one to five years, one hospital in Guangzhou, anterior-posterior films; "
        "normal or pneumonia and nothing else. Adults, other hospitals and other diseases were "
        "not seen. The published test part, which is known to differ, was not used.",
    ),
    "gi": Source(
        "gi",
        "LC25000, colon tiles (H&E histology)",
        "published as free to use; no formal licence text was found",
        "Borkowski AA, Bui MM, Thomas LB, Wilson CP, DeLand LA, Mastorides SM. Lung and Colon "
        "Cancer Histopathological Image Dataset (LC25000). arXiv:1912.12142, 2019. Tiles were "
        "resized.",
        "tiles of colon adenocarcinoma or benign colon tissue from one hospital in the USA. The "
        "published tiles are few originals, turned and flipped; tiles of one original stay in "
        "one part, but whose tissue an original is was not published, so patients may be shared. "
        "Another scanner or stain was not seen.",
    ),
}
# How the bundled models were trained. Data and seed fix the parts; weights are the same bit by
# bit on the same machine with the same versions only.
RECIPES: dict[str, dict[str, Any]] = {
    "shared": {"tasks": ("nodule", "lung", "gi"), "size": 96, "epochs": 40},
    "nodule": {"tasks": ("nodule",), "size": 64, "epochs": 40},
}
REGION_MM = 64.0


def main() -> None:
    """Do what the first word says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", type=Path, default=ZOO)
    steps = parser.add_subparsers(dest="step", required=True)
    training = steps.add_parser("train")
    training.add_argument("names", nargs="+", choices=RECIPES, metavar="NAME")
    training.add_argument("--data", type=Path, required=True)
    training.add_argument("--runs", type=Path, default=Path("zoo-runs"))
    bundling = steps.add_parser("bundle")
    bundling.add_argument("run", type=Path)
    bundling.add_argument("name")
    bundling.add_argument("--data", type=Path)
    steps.add_parser("short")
    asked = parser.parse_args()
    if asked.step == "short":
        short()
        return
    if asked.step == "train":
        for name in asked.names:
            run = train(request(name, asked.data, asked.runs / name, **RECIPES[name]))
            into_zoo(run, asked.zoo / name, asked.data)
    else:
        into_zoo(load_package(asked.run), asked.zoo / asked.name, asked.data)
    show(asked.zoo)


def request(
    name: str, data: Path, output: Path, *, tasks: tuple[str, ...], **settings: Any
) -> TrainRequest:
    """What is trained for one of the bundled models."""
    inputs = [f"{task}={data / SETS[task] / 'manifest.csv'}" for task in tasks]
    settings.setdefault("minutes", 600.0)  # epochs decide, not the clock
    return TrainRequest(inputs=tuple(inputs), output=output, seed=0, **settings)


def into_zoo(run: ModelPackage, target: Path, data: Path | None) -> ModelPackage:
    """Bundle a run; measured where the data are at hand."""

    def measured(package: ModelPackage) -> Mapping[str, Any]:
        assert data is not None
        return measure(package, {t.name: data / SETS[t.name] for t in package.tasks})

    return bundle(
        run,
        target,
        [SOURCES[task.name] for task in run.tasks],
        region_mm=None if run.preprocess.region_mm or not has_nodules(run) else REGION_MM,
        measure=measured if data is not None else None,
        overwrite=True,
    )


def has_nodules(run: ModelPackage) -> bool:
    """Whether the model answers about the region around a nodule, among others."""
    return any(task.name == "nodule" for task in run.tasks)


def measure(package: ModelPackage, data: Mapping[str, Path]) -> dict[str, Any]:
    """AUROC and accuracy of each task on the patients that the run kept apart."""
    predictor, tasks = Predictor(package), {}
    for task, manifest in data.items():
        metrics = evaluate(predictor.for_task(task), [str(manifest)]).metrics
        wanted = ("split", "n", "n_patients", "auroc", "auroc_ci", "accuracy", "accuracy_ci")
        tasks[task] = {name: metrics[name] for name in wanted}
        print(f"{task}: {tasks[task]}")
    return {"date": date.today().isoformat(), "tasks": tasks}


def show(zoo: Path) -> None:
    """What each package takes and who it is.

    Raises
    ------
    SystemExit : together they are too large
    """
    total = 0
    for folder in sorted(path for path in zoo.iterdir() if path.is_dir()):
        size = sum(file.stat().st_size for file in folder.iterdir())
        total += size
        package = load_package(folder)
        print(f"{folder.name}: {package.task_names}, {package.fingerprint}, {size / 1e6:.1f} MB")
    print(f"all: {total / 1e6:.1f} MB")
    if total > MOST_BYTES:
        raise SystemExit(f"more than {MOST_BYTES / 1e6:.0f} MB: train smaller networks")


def short() -> None:
    """The same road with tiny networks on generated scans, in a folder that goes away."""
    with tempfile.TemporaryDirectory(prefix="medcli-zoo-") as scratch:
        data, zoo = Path(scratch) / "data", Path(scratch) / "zoo"
        write_sample_data(data, patients=8)
        for name, recipe in RECIPES.items():
            tasks = recipe["tasks"]
            asked = TrainRequest(
                inputs=tuple(f"{task}={data / task}.csv" for task in tasks),
                output=Path(scratch) / "runs" / name,
                size=16,
                epochs=1,
                cache=False,
            )
            drawn = [
                Source(task, "generated scans", "Apache-2.0", "medcli.data.synthetic", "no patient")
                for task in tasks
            ]
            manifests = {task: data / f"{task}.csv" for task in tasks}
            bundle(
                train(asked),
                zoo / name,
                drawn,
                region_mm=REGION_MM,
                measure=lambda package, manifests=manifests: measure(package, manifests),
            )
        show(zoo)


if __name__ == "__main__":
    main()
