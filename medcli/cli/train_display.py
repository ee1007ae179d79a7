"""What `medcli train` shows: the split, the running epochs, what was reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medcli.cli.output import note, number, print_json, print_line, say, warn
from medcli.errors import MedcliError
from medcli.home import runs_folder

if TYPE_CHECKING:
    from rich.progress import Progress

    from medcli.data.splits import SplitRow
    from medcli.models.package import ModelPackage


class TrainDisplay:
    """Progress on stderr: reading, then a line of the running epoch over a table of the last."""

    def __init__(self) -> None:
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        from medcli.cli.console import stderr

        self._progress: Progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=stderr(),
        )
        self._live = Live(self._progress, console=stderr(), refresh_per_second=4, transient=True)
        self._bar = self._progress.add_task("reading", total=None, visible=False)
        self._best: float | None = None

    def __enter__(self) -> TrainDisplay:
        if self._progress.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def events(self) -> Any:
        """The hooks that training calls."""
        from medcli.training.request import TrainEvents

        return TrainEvents(
            note=note,
            warn=warn,
            reading=self._reading,
            ready=self._ready,
            batch=self._batch,
            epoch=self._epoch,
            stage=self._stage,
        )

    def _reading(self, done: int, total: int) -> None:
        self._progress.update(self._bar, completed=done, total=total, visible=True)

    def _ready(self, rows: Sequence[SplitRow], plan: str, epochs: int) -> None:
        for task in dict.fromkeys(row.task for row in rows):
            self._progress.console.print(split_table([row for row in rows if row.task == task]))
        for line in plan.splitlines():
            say(line)
        self._progress.reset(self._bar, total=epochs, description="training", visible=True)

    def _batch(self, epoch: int, done: float, loss: float) -> None:
        description = f"epoch {epoch}  loss {loss:.3f}"
        if self._best is not None:
            description += f"  best AUROC {self._best:.3f}"
        self._progress.update(self._bar, description=description, completed=epoch - 1 + done)

    def _epoch(self, epoch: Any) -> None:
        if epoch.best:
            self._best = epoch.val_auroc
        auroc = "–" if epoch.val_auroc is None else f"{epoch.val_auroc:.3f}"
        say(
            f"epoch {epoch.epoch:>3}/{epoch.epochs}  loss {epoch.train_loss:.3f}  "
            f"val loss {epoch.val_loss:.3f}  val AUROC {auroc}"
            f"{' *' if epoch.best else '  '}  {epoch.seconds:.0f} s",
        )

    def _stage(self, name: str) -> None:
        self._progress.update(self._bar, visible=False)
        say(name)


class DetectorDisplay(TrainDisplay):
    """The same for a detector, which is chosen by AP50."""

    def _batch(self, epoch: int, done: float, loss: float) -> None:
        description = f"epoch {epoch}  loss {loss:.3f}"
        if self._best is not None:
            description += f"  best AP50 {self._best:.3f}"
        self._progress.update(self._bar, description=description, completed=epoch - 1 + done)

    def _epoch(self, epoch: Any) -> None:
        if epoch.best:
            self._best = epoch.val_ap50
        looked = "" if epoch.val_ap50 is None else f"  val AP50 {epoch.val_ap50:.3f}"
        say(
            f"epoch {epoch.epoch:>3}/{epoch.epochs}  loss {epoch.train_loss:.3f}{looked}"
            f"{' *' if epoch.best else '  '}  {epoch.seconds:.0f} s",
        )


def split_table(rows: Sequence[SplitRow]) -> Any:
    """Patients and scans of each part, of one task, as a Rich table."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(rows[0].task or "part")
    for name in ("patients", "scans", *rows[0].per_class):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.part, str(row.patients), str(row.scans), *map(str, row.per_class.values())
        )
    return table


PARTS = {
    "test": "held-out test part",
    "val": "validation part",
    "cross-validation": "all folds, each scan by a model that had not seen its patient",
}


def show_folds(metrics: Mapping[str, Any]) -> None:
    """The numbers of each fold, where there are folds; what is kept."""
    rows = metrics.get("folds") or ()
    for row in rows:
        say(f"  fold {row['fold']}: AUROC {number(row['auroc'], row['auroc_ci'])}")
    if not rows:
        return
    kept = metrics["kept"]
    own = number(kept["validation_auroc"], kept["validation_auroc_ci"])
    say(f"kept: one model trained on all patients (AUROC on its validation part {own})")
    lowest = (metrics["auroc_ci"] or [0.0])[0]
    if kept["validation_auroc"] is not None and kept["validation_auroc"] < lowest:
        warn("the kept model does worse on its validation part than the folds did: train longer")


def show_operating_point(metrics: Mapping[str, Any]) -> None:
    """How the threshold was chosen, and what it reaches where it was and on held-out scans."""
    point = metrics.get("operating_point")
    if not point:
        return
    asked = point["rule"] == "sensitivity"
    rule = f"for a sensitivity of {point['wanted']:g}" if asked else "Youden's"
    reached = f"{point['sensitivity']:.3f} / {point['specificity']:.3f}"
    say(
        f"threshold {point['threshold']:.3f}, {rule}: sensitivity / specificity {reached} on "
        f"{point['n_positive']} + {point['n_negative']} validation scans"
    )
    sensitivity = number(metrics["sensitivity"], metrics["sensitivity_ci"])
    specificity = number(metrics["specificity"], metrics["specificity_ci"])
    say(f"  held-out: sensitivity {sensitivity}, specificity {specificity}")


def check_operating_point(package: ModelPackage) -> None:
    """Raise where the wanted sensitivity is out of reach; the run is written all the same.

    Raises
    ------
    MedcliError : only calling every validation scan positive reaches it
    """
    point = package.metrics.get("operating_point") or {}
    if point.get("wanted") is None or point["rule"] == "sensitivity":
        return
    raise MedcliError(
        f"no threshold reaches a sensitivity of {point['wanted']:g} on the validation part "
        "without calling every scan positive; the run is written with Youden's threshold",
        f"Train longer or on more scans, or ask for less than {point['wanted']:g}",
    )


def show_run(package: ModelPackage, *, as_json: bool) -> None:
    """Say where the run is and what it reached."""
    metrics = package.metrics
    if as_json:
        print_json(
            {
                "path": str(package.path.absolute()),
                "task": package.task_names,
                "model": package.fingerprint,
                "synthetic": package.synthetic,
                **metrics,
            }
        )
        return
    for name, own in metrics.get("tasks", {"": metrics}).items():
        _show_task(name, own)
    show_folds(metrics)
    show_operating_point(metrics)
    if "router" in metrics:
        router = metrics["router"]
        right = number(router["accuracy"], router["accuracy_ci"])
        say(f"router: right for {right} of the scans")
    if package.synthetic:
        warn("synthetic: trained on generated pictures, it says nothing about a patient")
        _say_how_to_use(package)
    print_line(str(package.path))


def show_detector(package: ModelPackage, *, as_json: bool) -> None:
    """Say where the run of a detector is and what it reached."""
    metrics = package.metrics
    if as_json:
        facts = {"path": str(package.path.absolute()), "model": package.fingerprint}
        print_json({**facts, "synthetic": package.synthetic, **metrics})
        return
    recall, bounds = metrics["recall_at_fppi"], metrics["ci"]
    say(
        f"{PARTS[metrics['split']]}: AP50 {number(metrics['ap50'], bounds['ap50'])}, "
        f"AP50–95 {number(metrics['ap50_95'], bounds['ap50_95'])}"
    )
    told = ", ".join(f"{number(recall[each])} at {each}" for each in recall)
    say(f"recall {told} false boxes a slice, of {metrics['n_boxes']} boxes")
    print_line(str(package.path))


def _say_how_to_use(package: ModelPackage) -> None:
    """Where a bundled model goes before a run on generated data, say how the run is asked."""
    from medcli.models.bundled import bundled_models

    if bundled_models():
        named = package.path.name if package.path.parent == runs_folder() else package.path
        note(f"the bundled models answer before it; classify --model {named} asks this one")


def _show_task(name: str, metrics: Mapping[str, Any]) -> None:
    """The numbers of one task; without a `name` the only one."""
    part = PARTS.get(metrics["split"], metrics["split"])
    auroc = number(metrics["auroc"], metrics["auroc_ci"])
    accuracy = number(metrics["accuracy"], metrics["accuracy_ci"])
    say(f"{f'{name}, ' if name else ''}{part}: AUROC {auroc}, accuracy {accuracy}")
    for baseline, reached in metrics["baselines"].items():
        title = baseline.replace("_", " on ", 1)
        say(f"  baseline, {title}: AUROC {number(reached['auroc'], reached['auroc_ci'])}")
    for site, own in (metrics["per_site"] or {}).items():
        auroc = number(own["auroc"], own["auroc_ci"])
        say(f"  {site}: {own['n']} scans, AUROC {auroc}")
