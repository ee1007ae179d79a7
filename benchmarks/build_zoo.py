"""Make the bundled models of medcli/zoo: train, bundle in float16, calibrate, measure, tell.

    python benchmarks/build_zoo.py train NAME... --data DATA     train with the recorded settings,
                                                                 then as `bundle`
    python benchmarks/build_zoo.py bundle RUN NAME --data DATA   bundle a run, calibrated anew on
                                                                 its validation patients, measure
    python benchmarks/build_zoo.py measures RUN OUT --data DATA  the run with a regression on what
                                                                 nodules measure beside its network,
                                                                 as training adds it by itself
    python benchmarks/build_zoo.py answers                       what they say of sample_data, for
                                                                 tests/bundled_answers.json
    python benchmarks/build_zoo.py short                         both on generated scans, quickly

DATA holds nodule_slices/, nodule_volumes/, nodule_boxes/, lung_cxr/ and gi_colon_histology/, each
with a manifest.csv; without it calibration and numbers are the run's own. nodule_mix.py makes one
set of the nodules, whose patients keep the parts they had for the bundled model. NAME is a folder
of the zoo: a task has its specialist there under its own name, the shared model is called so. --zoo
names another folder to write to; `short` writes to one that goes away. A table puts the held-out
numbers with the run's own calibration beside those of the files. The last lines say what these
take and who they are.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from nodule_mix import REGION_MM, build_set
from safetensors.torch import save
from zoo_recipe import SETS

from medcli.config import ModelConfig
from medcli.data.sources import load_cases
from medcli.data.splits import PARTS, Split
from medcli.data.synthetic import write_sample_data
from medcli.files import new_folder
from medcli.home import ZOO
from medcli.imaging.batch import read_all
from medcli.inference.predictor import Predictor
from medcli.models.export import check_onnx, export_onnx
from medcli.models.package import (
    CARD,
    GRAPH,
    HISTORY,
    REFERENCE,
    SPLITS,
    WEIGHTS,
    ModelPackage,
    finish_package,
    is_replaceable,
    load_package,
    seal,
)
from medcli.models.weights import load_model
from medcli.records import Prediction
from medcli.training.card import model_card
from medcli.training.card_bundled import Source
from medcli.training.card_cells import of
from medcli.training.gather import part_arrays, read_cases
from medcli.training.regression import choose_measured, with_measures
from medcli.training.request import TrainRequest
from medcli.training.run import train
from medcli.training.tasks import gather_tasks
from medcli.workflows.bundling import bundle
from medcli.workflows.recalibrating import recalibrate

MOST_BYTES = 20_000_000  # of the whole zoo
SOURCES = {
    "nodule": Source(
        "nodule",
        "LIDC-IDRI, nodules in CT: slices with what lies around masked out, the same laid on lung, "
        "volumes, and crops around boxes",
        "CC BY 3.0",
        "Armato SG III, McLennan G, Bidaut L, et al. Data From LIDC-IDRI. The Cancer Imaging "
        "Archive, 2015, doi:10.7937/K9/TCIA.2015.LO9QL9SX; Armato SG III, et al. The Lung Image "
        "Database Consortium (LIDC) and Image Database Resource Initiative (IDRI). Medical "
        "Physics 38:915–931, 2011, doi:10.1118/1.3528204. Slices were cropped, masked, laid on "
        "other lung, turned and resized.",
        "adults, CT of several centres in the USA. Malignancy is what radiologists rated, mostly "
        "without proof by pathology; nodules rated as indeterminate are not among them. The size "
        "of a nodule alone tells much of it: the baselines say how much. It answers about a crop "
        "around a nodule, not about a whole CT. Half of the scans are the other half laid on lung "
        "that is not their own; nodules that touch the chest wall are known from 71 volumes and 9 "
        "boxes only, and the identifiers of the sources cannot be matched, so that a person may "
        "be in two of them.",
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
# What trains each model, with its settings and seed. Data and seed fix the parts; weights are the
# same bit by bit on the same machine with the same versions only.
RECIPES = {"shared": "zoo_recipe.py"}
TASKS = {"shared": ("nodule", "lung", "gi"), "nodule": ("nodule",)}  # of the short form
ROOT = Path(__file__).parents[1]
SAMPLES, ANSWERS, SCANS = ROOT / "sample_data", ROOT / "tests" / "bundled_answers.json", 3


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
    measuring = steps.add_parser("measures")
    measuring.add_argument("run", type=Path)
    measuring.add_argument("out", type=Path)
    measuring.add_argument("--data", type=Path, required=True)
    steps.add_parser("short")
    steps.add_parser("answers")
    asked = parser.parse_args()
    if asked.step == "short":
        short()
        return
    if asked.step == "answers":
        write_answers(asked.zoo)
        return
    with tempfile.TemporaryDirectory(prefix="medcli-zoo-") as scratch:
        data = asked.data and sets(asked.data, Path(scratch), asked.zoo)
        if asked.step == "measures":
            add_measures(load_package(asked.run), data["nodule"], asked.out)
            return
        if asked.step == "train":
            for name in asked.names:
                into_zoo(train_recipe(name, data, asked.runs), asked.zoo / name, data)
        else:
            into_zoo(load_package(asked.run), asked.zoo / asked.name, data)
    show(asked.zoo)


def sets(data: Path, scratch: Path, zoo: Path) -> dict[str, Path]:
    """Where the set of each task lies; that of the nodules is made in `scratch`."""
    known = load_package(zoo / "shared") if (zoo / "shared").is_dir() else None
    nodules = build_set(data, scratch / "nodules", 0, known)
    return {"nodule": nodules, **{task: data / folder for task, folder in SETS.items()}}


def train_recipe(name: str, data: dict[str, Path], runs: Path) -> ModelPackage:
    """The run that a recipe makes."""
    recipe = str(Path(__file__).with_name(RECIPES[name]))
    places = [str(data["nodule"]), str(data["lung"].parent)]
    subprocess.run([sys.executable, recipe, *places, "-o", str(runs / name)], check=True)
    return load_package(runs / name)


def add_measures(run: ModelPackage, nodules: Path, output: Path) -> ModelPackage:
    """The run as if its training had measured the nodules; its network and parts stay."""
    found = gather_tasks((str(nodules),), "nodule", None, None)
    (task,) = found.tasks
    read = read_cases(
        found.data.cases,
        run.preprocess,
        run.preprocess.slice_budget,
        on_read=lambda done, total: None,
        on_failure=lambda failure: sys.exit(failure.message),
    )
    cases = [each.case for each in read]
    parts = [tuple(case for case in cases if case.split == part) for part in PARTS]
    arrays = part_arrays(read, Split(*parts), task)
    columns = choose_measured(None, run.model, run.tasks)
    config = replace(run.model, measured_columns=columns)
    model = with_measures(
        load_model(run),
        config,
        arrays["train"],
        arrays["val"],
        run.preprocess,
        batch_slices=run.provenance["train"]["batch_slices"],
        device=torch.device("cpu"),
    )
    with new_folder(output, overwrite=False, replaceable=is_replaceable) as folder:
        for name in (REFERENCE, SPLITS, HISTORY):
            shutil.copyfile(run.path / name, folder / name)
        (folder / WEIGHTS).write_bytes(save(model.state_dict()))
        size = run.preprocess.size
        export_onnx(model, folder / GRAPH, run.preprocess.channels, size)
        difference = check_onnx(model, folder / GRAPH, run.preprocess.channels, size)
        package = finish_package(
            folder,
            heads=run.heads,
            router=run.router,
            preprocess=run.preprocess,
            model=config,
            synthetic=run.synthetic,
            created=run.created,
            patient_salt=run.patient_salt,
            provenance={**run.provenance, "onnx_difference": difference},
            metrics=run.metrics,
        )
        (folder / CARD).write_text(model_card(package), encoding="utf-8")
        seal(folder)
    return load_package(output)


def into_zoo(run: ModelPackage, target: Path, data: dict[str, Path] | None) -> ModelPackage:
    """Bundle a run; calibrated and measured where the data are at hand."""
    known = {task.name: str(data[task.name]) for task in run.tasks} if data else {}
    package = bundle(
        run,
        target,
        [SOURCES[task.name] for task in run.tasks],
        region_mm=REGION_MM if has_nodules(run) else None,
        region_task="nodule" if has_nodules(run) else None,
        settle=partial(recalibrate, data=known) if known else None,
        overwrite=True,
    )
    compare(run, package)
    return package


def has_nodules(run: ModelPackage) -> bool:
    """Whether the model answers about the region around a nodule, among others."""
    return any(task.name == "nodule" for task in run.tasks)


def compare(run: ModelPackage, package: ModelPackage) -> None:
    """Print the held-out numbers of the run and of the package made from it, task by task."""
    names = ("auroc", "accuracy", "sensitivity", "specificity", "threshold", "ece", "ece_by_chance")
    print(f"| task | calibrated | {' | '.join(names)} | brier | sets hold the class | flagged |")
    print(f"|---|---|{'---|' * len(names)}---|---|---|")
    for task in run.tasks:
        for when, model in (("in training", run), ("anew", package)):
            own: dict[str, Any] = dict(model.only(task.name).metrics)
            cells = [of(own, name) if name in own else "–" for name in (*names, "brier")]
            sets = ", ".join(f"{k} {p:.3f}" for k, p in own["label_sets"]["per_class"].items())
            cells += [
                f"{of(own['label_sets'], 'coverage')}: {sets}",
                f"{own['out_of_distribution']:.3f}",
            ]
            print(f"| {task.name} | {when} | {' | '.join(cells)} |")


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


def write_answers(zoo: Path) -> None:
    """Write down what each package says of some of the committed sample scans."""
    found = {}
    for folder in sorted(path for path in zoo.iterdir() if path.is_dir()):
        package, answers = load_package(folder), []
        for task in (task.name for task in package.tasks):
            predictor = Predictor(package).for_task(task)
            cases = load_cases([str(SAMPLES / f"{task}.csv")]).cases[:SCANS]
            for answer in predictor.predict(scan for _, scan in read_all(cases)):
                assert isinstance(answer, Prediction)
                shares = {name: round(p, 4) for name, p in answer.probabilities.items()}
                scan = Path(answer.path).relative_to(SAMPLES).as_posix()
                answers.append({"task": task, "scan": scan, "probabilities": shares})
        found[folder.name] = {"fingerprint": package.fingerprint, "answers": answers}
    ANSWERS.write_text(json.dumps(found, indent=2) + "\n")


def short() -> None:
    """The same road with tiny networks on generated scans, in a folder that goes away."""
    with tempfile.TemporaryDirectory(prefix="medcli-zoo-") as scratch:
        data, zoo = Path(scratch) / "data", Path(scratch) / "zoo"
        write_sample_data(data, patients=8)
        for name, tasks in TASKS.items():
            asked = TrainRequest(
                inputs=tuple(f"{task}={data / f'{task}.csv'}" for task in tasks),
                output=Path(scratch) / "runs" / name,
                size=16,
                epochs=1,
                model=ModelConfig(arch="cnn_lrn"),
                cache=False,
            )
            drawn = [
                Source(task, "generated scans", "Apache-2.0", "medcli.data.synthetic", "no patient")
                for task in tasks
            ]
            manifests = {task: str(data / f"{task}.csv") for task in tasks}
            run = train(asked)
            package = bundle(
                run,
                zoo / name,
                drawn,
                region_mm=REGION_MM,
                region_task="nodule",
                settle=partial(recalibrate, data=manifests),
            )
            compare(run, package)
        show(zoo)


if __name__ == "__main__":
    main()
