"""What the long forms print first, and how they print tables: Markdown with medians."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from medcli.bench.run import machine
from medcli.models.locate import find_model
from medcli.models.package import ModelPackage, load_package


def package_of(model: str | None) -> ModelPackage:
    """The model that is named, else the bundled one."""
    return load_package(find_model(model or "shared"))


def print_machine(package: ModelPackage, *more: str) -> None:
    """Machine, versions, date, load, threads; `more` names further packages."""
    told = machine(package)
    versions = {**told["versions"], **{name: version(name) for name in more}}
    print(f"{told['date']}, {told['processor']}, {told['cores']} cores, load {told['load']},")
    print(f"threads set to {os.environ.get('OMP_NUM_THREADS', 'the default')};")
    print(f"Python {told['python']}, " + ", ".join(f"{n} {v}" for n, v in versions.items()) + ";")
    print(f"model {told['model']} ({told['arch']}, {told['size']} px)\n", flush=True)


def device_name(device: str) -> str:
    """What a training ran on, for the line above a table."""
    cores = f"{os.cpu_count()} cores"
    if not device.startswith("cuda"):
        return cores
    import torch

    return f"{torch.cuda.get_device_name(device)} and {cores}, torch {torch.__version__}"


def print_head(*names: str) -> None:
    """The head of a table."""
    print_row(names)
    print_row("---" for _ in names)


def print_row(cells: Iterable[object]) -> None:
    """A row; numbers have three digits that count."""
    print("| " + " | ".join(map(_cell, cells)) + " |", flush=True)


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def draw_growth(path: Path, title: str, curves: dict[str, Sequence[tuple[float, float]]]) -> None:
    """Curves of (size of the work, amount) on two log axes, with a line of proportional growth."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, points in curves.items():
        sizes, amounts = zip(*points, strict=True)
        (line,) = axes.loglog(sizes, amounts, marker="o", label=name)
        straight = [amounts[0] * size / sizes[0] for size in sizes]
        axes.loglog(sizes, straight, linestyle=":", linewidth=1, color=line.get_color())
    axes.set(title=title, xlabel="size of the work", ylabel="amount")
    axes.legend(title="dotted: in proportion")
    figure.savefig(path, dpi=120)
    plt.close(figure)
