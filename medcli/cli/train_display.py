"""What `medcli train` shows: the split, the running epochs, what was reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medcli.cli.output import note, number, print_json, print_line, say, warn

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
        from medcli.training.run import TrainEvents

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
        say(plan)
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
    if "router" in metrics:
        router = metrics["router"]
        right = number(router["accuracy"], router["accuracy_ci"])
        say(f"router: right for {right} of the scans")
    if package.synthetic:
        warn("synthetic: trained on generated pictures, it says nothing about a patient")
    print_line(str(package.path))


def _show_task(name: str, metrics: Mapping[str, Any]) -> None:
    """The numbers of one task; without a `name` the only one."""
    part = "held-out test part" if metrics["split"] == "test" else "validation part"
    auroc = number(metrics["auroc"], metrics["auroc_ci"])
    accuracy = number(metrics["accuracy"], metrics["accuracy_ci"])
    say(f"{f'{name}, ' if name else ''}{part}: AUROC {auroc}, accuracy {accuracy}")
    for baseline, reached in metrics["baselines"].items():
        title = baseline.replace("_", " on ", 1)
        say(f"  baseline, {title}: AUROC {number(reached['auroc'], reached['auroc_ci'])}")
    for site, own in (metrics["per_site"] or {}).items():
        auroc = number(own["auroc"], own["auroc_ci"])
        say(f"  {site}: {own['n']} scans, AUROC {auroc}")
