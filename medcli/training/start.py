"""Where a run begins: at weights of its own, or at those of another."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from medcli.models.memory import run_memory
from medcli.models.scan_model import ScanModel
from medcli.models.weights import Start, start_from


def begin(
    model: ScanModel,
    start: Start,
    held_out: Iterable[tuple[str | None, str, str]],
    *,
    note: Callable[[str], None],
    warn: Callable[[str], None],
) -> str:
    """Take the weights over, and warn where they were taught what is to be held out.

    Parameters
    ----------
    held_out : patient, pixel hash and task of each scan outside the training part

    Returns
    -------
    Which parts of the model came from where, for the provenance
    """
    origin = f"{' and '.join(start_from(model, start))} of {start.origin}"
    note(f"starting from {origin}")
    warn_if_taught(start, held_out, warn)
    return origin


def warn_if_taught(
    start: Start, held_out: Iterable[tuple[str | None, str, str]], warn: Callable[[str], None]
) -> None:
    """Warn where the run whose weights are taken learnt from what is held out here."""
    memory = run_memory(start.package) if start.package else None
    if memory is not None:
        taught = [memory.part(*scan) == "train" for scan in held_out]
        if any(taught):
            warn(
                f"{sum(taught)} of {len(taught)} scans outside the training part come from "
                "patients that taught the run whose weights are taken: the numbers flatter; "
                "the same data with the same --seed have the same parts"
            )
