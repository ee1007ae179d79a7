"""Writing unfinished runs, so that no interruption loses work.

A new state is on disk, whole, before `checkpoint.json` names it, and the old one goes last:
at any moment there is one that can be loaded. What the files are: `medcli.training.unfinished`.
"""

from __future__ import annotations

import contextlib
import secrets
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from safetensors.torch import save

from medcli.errors import StorageError
from medcli.files import replace_file
from medcli.models.package import HISTORY
from medcli.training.history import history_csv
from medcli.training.loop import Epoch
from medcli.training.state import TrainState
from medcli.training.unfinished import (
    CHECKPOINT,
    DATA,
    FORMAT_VERSION,
    Checkpoint,
    Plan,
    draft_of,
    sha256_of,
    to_bytes,
)

PAUSE = 5.0  # seconds between two checkpoints, at least
SHARE = 20  # and so many times what writing one took


class Draft:
    """The folder of an unfinished run; it appears when there is something to keep.

    Parameters
    ----------
    run : the coming run folder
    resumed : the unfinished run that goes on
    """

    def __init__(self, run: Path, plan: Plan, resumed: Checkpoint | None = None) -> None:
        self.run, self.folder = run.absolute(), draft_of(run)
        self._plan = plan
        self._written: Path | None = None
        self.epoch = 0
        if resumed is not None and resumed.folder == self.folder:
            self._written, self.epoch = resumed.state_file, resumed.epoch
            self._plan = replace(plan, scans=resumed.plan.scans)
        self._pending: TrainState | None = None
        self._offered = self._saved = time.monotonic()
        self._cost = 0.0
        self._refused = ""

    @property
    def exists(self) -> bool:
        """Whether there is something that can be gone on with, up to `epoch`."""
        return self._written is not None

    def offer(self, state: TrainState) -> None:
        """Take a state; it is written where that costs less than a twentieth of the time.

        Raises
        ------
        StorageError : the system refused; what was written before stays
        """
        self._pending, self._offered = state, time.monotonic()
        pause = max(PAUSE, SHARE * self._cost)
        if state.facts["history"] and self._offered - self._saved >= pause:
            self.keep()

    def keep(self) -> None:
        """Write what was offered last, unless it is on disk.

        Raises
        ------
        StorageError : the system refused; what was written before stays
        """
        if self._pending is None:
            return
        start = time.monotonic()
        facts = {**self._pending.facts}
        facts["seconds"] += start - self._offered  # an epoch that was lost has cost time too
        try:
            with _undisturbed():
                self._write(TrainState(self._pending.tensors, facts))
        except OSError as error:
            if not self.exists:
                shutil.rmtree(self.folder, ignore_errors=True)
            self._refused = f"cannot save the training in {self.folder}: {error.strerror or error}"
            raise StorageError(
                self._refused,
                "Make room on that disk" if self.exists else "Name another place with --output",
            ) from error
        self._pending = None
        self._saved = time.monotonic()
        self._cost = self._saved - start

    def leave(self, tell: Callable[[str], None]) -> None:
        """Save where an interrupted training stands, and say how to go on."""
        told = self._refused
        with _undisturbed(forget=True):
            try:
                self.keep()
            except StorageError as error:
                if error.message != told:
                    tell(error.message)
        if self.exists:
            tell(
                f"unfinished: what was reached up to epoch {self.epoch} is kept; "
                f"go on with: medcli train --resume {shlex.quote(str(self.run))}"
            )

    def _write(self, state: TrainState) -> None:
        if self._written is None:
            shutil.rmtree(self.folder, ignore_errors=True)  # of a run that is overwritten
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        data = to_bytes([[s.path, s.pixel_sha256, s.label, s.part] for s in self._plan.scans])
        if not (self.folder / DATA).is_file():
            replace_file(self.folder / DATA, [data])
        tensors = save(dict(state.tensors))
        place = self.folder / f"state-{secrets.token_hex(8)}.safetensors"
        replace_file(place, [tensors])
        try:
            files = {DATA: sha256_of(data), place.name: sha256_of(tensors)}
            replace_file(self.folder / CHECKPOINT, [self._checkpoint(state, files)])
        except BaseException:
            place.unlink(missing_ok=True)
            raise
        if self._written is not None:
            self._written.unlink(missing_ok=True)
        self._written, self.epoch = place, len(state.facts["history"])
        history = [Epoch(**line) for line in state.facts["history"]]
        replace_file(self.folder / HISTORY, [history_csv(history)])

    def _checkpoint(self, state: TrainState, files: Mapping[str, str]) -> bytes:
        plan = self._plan
        values = {
            "format_version": FORMAT_VERSION,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "request": plan.request,
            "generated": plan.generated,
            "origin": plan.origin,
            "train": plan.train.to_json(),
            "preprocess": plan.preprocess.to_json(),
            "made_on": plan.made_on,
            "state": state.facts,
            "files": files,
        }
        return to_bytes({**values, "sha256": sha256_of(to_bytes(values))})

    def remove(self) -> None:
        """The run is finished."""
        self._pending = None
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def _undisturbed(*, forget: bool = False) -> Iterator[None]:
    """Put off ctrl-C and a request to end until the block is done; `forget` them where it ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: came.append(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler or signal.SIG_DFL)
        if came and not forget:
            signal.raise_signal(signal.Signals(came[0]))
