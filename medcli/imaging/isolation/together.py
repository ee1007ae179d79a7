"""Scans that are read together, so that they can be given up together."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Protocol


class Killable(Protocol):
    """A worker, as far as a batch needs it."""

    def kill(self) -> None:
        """End at once."""


class Batch:
    """The workers that are asked on behalf of one caller."""

    def __init__(self) -> None:
        self.cancelled = False
        self._lock = threading.Lock()
        self._asked: set[Killable] = set()

    @contextlib.contextmanager
    def using(self, worker: Killable) -> Iterator[None]:
        """Hold a worker that is asked."""
        with self._lock:
            self._asked.add(worker)
            if self.cancelled:
                worker.kill()
        try:
            yield
        finally:
            with self._lock:
                self._asked.discard(worker)

    def cancel(self) -> None:
        """End the workers that are asked now, and those that will be."""
        with self._lock:
            self.cancelled = True
            for worker in self._asked:
                worker.kill()
