"""The history of a training as TensorBoard reads it, on request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from medcli.errors import UsageError
from medcli.training.loop import Epoch

OnEpoch = Callable[[Epoch], None]


def check_tensorboard() -> None:
    """Raise where the package is missing, before the long work.

    Raises
    ------
    UsageError : with the line that installs it
    """
    if find_spec("tensorboard") is None:
        raise UsageError(
            "--tensorboard needs the package tensorboard", "pip install 'medcli[tensorboard]'"
        )


@contextmanager
def logged(on_epoch: OnEpoch, folder: Path | None, run: str, epoch: int) -> Iterator[OnEpoch]:
    """`on_epoch`, and the curves in ``folder/run``; without a folder `on_epoch` alone.

    Parameters
    ----------
    epoch : the last one that ended; what an interrupted run logged beyond it is taken back
    """
    if folder is None:
        yield on_epoch
        return
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / run), purge_step=epoch + 1)

    def log(line: Epoch) -> None:
        values = {
            "loss/train": line.train_loss,
            "loss/val": line.val_loss,
            "auroc/val": line.val_auroc,
            "learning_rate": line.learning_rate,
        }
        for name, value in values.items():
            if value is not None:
                writer.add_scalar(name, value, line.epoch)
        writer.flush()
        on_epoch(line)

    try:
        yield log
    finally:
        writer.close()
