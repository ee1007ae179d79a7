"""`medcli classify`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcli.cli.classify_outputs import Outputs, Report, StructuredReport
from medcli.cli.inputs import exit_status, found_scans
from medcli.cli.options import (
    AsJson,
    EngineOption,
    GalleryPath,
    HidePaths,
    Model,
    Overwrite,
    Scans,
    TaskName,
    TimePoint,
)
from medcli.cli.output import (
    Names,
    common_json,
    counting,
    failure_json,
    note,
    print_json,
    print_line,
    print_table,
    say,
    shorten,
    show_failure,
    warn,
    write_csv,
)
from medcli.cli.region import (
    Point,
    Region,
    asked_crop,
    check_one_scan,
    cropped,
    for_region,
    tell_whole_ct,
)
from medcli.cli.terminal import Show
from medcli.errors import UsageError
from medcli.files import check_file
from medcli.records import Failure, Prediction, Scan, Task, plain

if TYPE_CHECKING:
    from rich.table import Table

    from medcli.models.package import ModelPackage
    from medcli.workflows.boxed import JudgedBox

MAX_CLASS_COLUMNS = 4
NOTES_WIDTH = 20


def classify(
    scans: Scans,
    model: Model = None,
    task: TaskName = None,
    point: Point = None,
    region: Region = None,
    detect: Annotated[
        bool, typer.Option("--detect", help="Also find boxes, and say the class of each.")
    ] = False,
    detector: Annotated[
        str | None,
        typer.Option(
            "--detector",
            metavar="MODEL",
            help="What finds them; by default the newest detector.",
            show_default=False,
        ),
    ] = None,
    time_point: TimePoint = None,
    engine: EngineOption = "auto",
    as_json: AsJson = False,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write a table as CSV.", show_default=False),
    ] = None,
    evidence: Annotated[
        bool,
        typer.Option("--evidence", help="Also the most similar scans of the gallery (-g)."),
    ] = False,
    gallery: GalleryPath = None,
    report: Report = None,
    sr: StructuredReport = None,
    show: Show = False,
    overwrite: Overwrite = False,
    hide_paths: HidePaths = False,
) -> None:
    """Predict the class of each scan.

    Without --model the newest run on real data answers, else the bundled model. Of a model of
    several tasks --task picks one, else its router does for each scan. A bad file is named and
    the others go on. A nodule model answers about a region: --point or --region names it in
    a whole CT, --detect lets a detector look for it. With --evidence the gallery's own model
    answers, and says where the nearest labelled scans disagree with it.

    Example: medcli classify chest.dcm series/ --json
    """
    from concurrent.futures import ThreadPoolExecutor

    from medcli.imaging.batch import read_all
    from medcli.inference.routing import routed
    from medcli.models.locate import find_model, open_model

    if csv is not None:
        check_file(csv, overwrite=overwrite)
    if gallery is not None and not evidence:
        raise UsageError("--gallery is where --evidence comes from", "Give --evidence too")
    outputs = Outputs(report, sr, show)
    outputs.check(overwrite=overwrite)
    crop = asked_crop(point, region)
    if detect and crop is not None:
        raise UsageError(
            "--detect looks for regions itself", "Leave out --point and --region, or --detect"
        )
    names = Names(hide=hide_paths)
    if evidence:
        if detect or detector is not None:
            raise UsageError("--evidence goes without --detect", "Classify twice")
        from medcli.cli.evidence import classify_with_evidence

        status = classify_with_evidence(
            *(scans, gallery, model, task, time_point, engine, crop, names, outputs),
            as_json=as_json,
            csv=csv,
        )
        raise typer.Exit(status)
    find_model(model, task)  # where there is none, that is told before scans are searched for
    with ThreadPoolExecutor(1) as side:  # the model's checksums are taken beside the search
        loading = side.submit(lambda: routed(open_model(model, task), engine, note))
        cases = found_scans(scans, names, time_point)
        predictor = loading.result()
    describe_model(predictor.package, names, chosen=model is not None)
    outputs.check_scans(cases)
    if crop is not None:
        check_one_scan(cases)
        predictor = for_region(predictor)
    judged: deque[list[JudgedBox]] = deque()
    finds = None
    if detect or detector is not None:
        from medcli.inference.detector import Detector
        from medcli.workflows.boxed import with_boxes

        finds = Detector(open_model(detector, kind="detection"))

    def read() -> Iterable[Scan | Failure]:
        scans = (scan for _, scan in read_all(cases))
        return scans if crop is None else cropped(scans, crop, predictor.region_mm)

    asked = read() if finds is None else with_boxes(read(), finds, predictor, judged)
    boxes: list[tuple[str, JudgedBox]] = []
    results = []
    with counting("classifying", beside_data=as_json) as on_scan:
        for result in predictor.predict(asked):
            results.append(result)
            on_scan(len(results), len(cases))
            own = judged.popleft() if judged else []
            boxes += [(names.of(result.path), each) for each in own]
            if as_json:
                beside = {"boxes": list(map(box_json, own))} if detect or detector else {}
                print_json({**prediction_json(result, names), **beside})
            if isinstance(result, Failure):
                show_failure(result, names)
    predictions = [result for result in results if isinstance(result, Prediction)]
    if predictions and not as_json:
        print_table(prediction_table(predictions, names))
        if detect or detector:
            show_boxes(boxes)
    tell_whole_ct(predictions, names)
    if csv is not None:
        write_csv(csv, [csv_row(result, predictor.package.tasks, names) for result in results])
        say("wrote the CSV" if names.hide else f"wrote {csv}")
    outputs.make(read(), results, predictor.package, names)
    failures = [result for result in results if isinstance(result, Failure)]
    raise typer.Exit(exit_status(failures, len(predictions)))


def describe_model(
    package: ModelPackage, names: Names, *, chosen: bool = True, routes: bool = True
) -> None:
    """Say which model answers, and whether it knows generated pictures only.

    Where it was not `chosen` by its name, say too which run it kept from answering; where it
    `routes` scans, that it picks their task.
    """
    from medcli.models.bundled import is_bundled
    from medcli.models.locate import passed_over
    from medcli.retrieval.names import CATALOGUE

    place = package.path.absolute()
    name = "" if names.hide else f"{place.name}, "
    if (place.parent / CATALOGUE).is_file():
        name = "of the gallery, "
    if is_bundled(package):
        name = f"{package.path.name} (bundled), "
    tasks = f"task {package.task_names}"
    if len(package.heads) > 1:
        picks = " (the router picks; --task names one)" if routes else ""
        tasks = f"tasks {package.task_names}{picks}"
    note(f"model {name}{tasks}, fingerprint {package.fingerprint}")
    run = None if chosen else passed_over(package)
    if run is not None:
        named = "latest" if names.hide else run.name
        note(f"a run on generated data answers only where it is named: --model {named}")
    if package.synthetic:
        warn("synthetic: this model knows generated pictures only")
    if package.provenance.get("adaptations"):
        note("adapted to another site; threshold and calibration are those from before")


def prediction_json(result: Prediction | Failure, names: Names) -> dict[str, Any]:
    """The object of one input."""
    if isinstance(result, Failure):
        return failure_json(result, names)
    return {
        **common_json(result.path, result.scan_id, result.files, result.warnings, names),
        "task": result.task,
        "task_probabilities": plain(result.task_probabilities),
        "task_ood_scores": plain(result.task_ood_scores),
        "label": result.label,
        "labels": plain(result.labels),
        "probability": result.probability,
        "probabilities": plain(result.probabilities),
        "positive": result.positive,
        "uncertain": result.uncertain,
        "label_set": plain(result.label_set),
        "out_of_distribution": result.out_of_distribution,
        "ood_score": result.ood_score,
        "synthetic": result.synthetic,
        "model": result.model,
    }


def box_json(judged: JudgedBox) -> dict[str, Any]:
    """A box as `medcli detect` gives it, with the class of what lies in it."""
    said = judged.prediction
    return {
        **plain(judged.box),
        "task": said.task,
        "class": said.label,
        "probability": said.probability,
        "probabilities": plain(said.probabilities),
        "uncertain": said.uncertain,
        "out_of_distribution": said.out_of_distribution,
    }


def show_boxes(boxes: Sequence[tuple[str, JudgedBox]]) -> None:
    """The boxes of all scans and the class of each."""
    from rich.table import Table

    from medcli.cli.console import stdout

    if not boxes:
        print_line("no boxes found")
        return
    print_line("")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("box in", no_wrap=True)
    for name in ("score", "slice", "x0", "y0", "x1", "y1"):
        table.add_column(name, justify="right")
    table.add_column("class", style="bold", overflow="fold")
    table.add_column("probability", justify="right")
    for path, judged in boxes:
        box, said = judged.box, judged.prediction
        corners = [f"{value:.0f}" for value in (box.x0, box.y0, box.x1, box.y1)]
        share = "–" if said.probability is None else f"{said.probability:.3f}"
        place = shorten(path, max(20, stdout().width - 64))
        table.add_row(place, f"{box.score:.3f}", str(box.slice), *corners, _label(said), share)
    print_table(table)


def csv_row(result: Prediction | Failure, tasks: Sequence[Task], names: Names) -> dict[str, Any]:
    """One line of the CSV; every input has one, with the columns of all `tasks`."""
    columns = {
        (task.name, name): f"p_{name}" if len(tasks) == 1 else f"p_{task.name}_{name}"
        for task in tasks
        for name in task.classes
    }
    row: dict[str, Any] = {
        "path": names.of(result.path),
        "scan_id": names.id_of(result.path, result.scan_id),
        "status": result.status,
        "task": tasks[0].name if len(tasks) == 1 else "",
        "task_probability": "",
        "label": "",
        "labels": "",
        "probability": "",
        **dict.fromkeys(columns.values(), ""),
        "uncertain": "",
        "label_set": "",
        "out_of_distribution": "",
        "ood_score": "",
        "synthetic": "",
        "model": "",
        "warnings": "",
        "error": "",
    }
    if isinstance(result, Failure):
        return {**row, "error": result.code}
    return {
        **row,
        "task": result.task,
        "task_probability": _fixed((result.task_probabilities or {}).get(result.task), 6),
        "label": result.label or "",
        "labels": "|".join(result.labels or ()),
        "probability": _fixed(result.probability, 6),
        **{
            columns[result.task, name]: f"{share:.6f}"
            for name, share in result.probabilities.items()
        },
        "uncertain": _flag(result.uncertain),
        "label_set": "|".join(result.label_set or ()),
        "out_of_distribution": _flag(result.out_of_distribution),
        "ood_score": _fixed(result.ood_score, 3),
        "synthetic": str(result.synthetic).lower(),
        "model": result.model,
        "warnings": " ".join(warning.code for warning in result.warnings),
    }


def prediction_table(predictions: Sequence[Prediction], names: Names) -> Table:
    """Scan, label and the probability of the label or, of few in one task, of each class."""
    from rich.table import Table

    from medcli.cli.console import stdout

    classes = list(predictions[0].probabilities)
    one_task = len({result.task for result in predictions}) == 1
    columns = classes if one_task and len(classes) <= MAX_CLASS_COLUMNS else ["probability"]
    notes = [_notes(result) for result in predictions]
    labels = [_label(result) for result in predictions]
    tasks = [result.task for result in predictions] if _was_routed(predictions) else []
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("scan", no_wrap=True)
    if tasks:
        table.add_column("task", overflow="fold")
    table.add_column("label", style="bold", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    if any(notes):
        table.add_column("notes", overflow="fold", max_width=NOTES_WIDTH)
    taken = max(5, *map(len, labels)) + sum(max(5, len(name)) + 2 for name in columns)
    taken += max((len(task) + 2 for task in tasks), default=0)
    taken += min(NOTES_WIDTH, max(map(len, notes))) + 4
    for row, (result, told) in enumerate(zip(predictions, notes, strict=True)):
        shares = result.probabilities
        values = [shares[name] for name in classes] if columns == classes else [result.probability]
        cells = ["–" if value is None else f"{value:.3f}" for value in values]
        scan = shorten(names.of(result.path), max(24, stdout().width - taken))
        told_task = [tasks[row]] if tasks else []
        table.add_row(scan, *told_task, labels[row], *cells, *([told] if any(notes) else []))
    return table


def _label(result: Prediction) -> str:
    """The class, or every finding that is there."""
    if result.labels is None:
        return result.label or ""
    return ", ".join(result.labels) or "no finding"


def _was_routed(predictions: Sequence[Prediction]) -> bool:
    """Whether the task of each scan is worth a column."""
    return any(result.task_probabilities is not None for result in predictions)


def _notes(result: Prediction) -> str:
    """What sets the answer in doubt, and the codes of the warnings."""
    codes = sorted({warning.code for warning in result.warnings})
    foreign = "like no task's scans" if result.like_no_task else "out of distribution"
    doubts = {"uncertain": result.uncertain, foreign: result.out_of_distribution}
    return ", ".join([*(name for name, holds in doubts.items() if holds), *codes])


def _fixed(value: float | None, digits: int) -> str:
    """A number in a CSV; empty where it is unknown."""
    return "" if value is None else f"{value:.{digits}f}"


def _flag(value: bool | None) -> str:
    """A flag in a CSV; empty where it is unknown."""
    return "" if value is None else str(value).lower()
