"""Libraries' warnings, collected instead of shown, in any number of threads at once.

Their texts quote tags and file names, so nothing but their number may be told. The
filters of `warnings` belong to the whole process: two threads that each saved and
restored them would leave the wrong ones behind. So the first thread to come in changes
them, the last to leave restores them, and every thread collects into a list of its own.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TextIO

Note = Warning | str

_notes: ContextVar[list[Note] | None] = ContextVar("notes", default=None)


class Shared:
    """A process-wide state that holds while at least one thread is inside.

    Calling it gives a context manager; `make` gives the one that changes the process.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._inside = 0
        self._state: AbstractContextManager[object] | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Be inside."""
        with self._lock:
            if not self._inside:
                self._state = self._make()
                self._state.__enter__()
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside and self._state is not None:
                    self._state.__exit__(None, None, None)


@contextmanager
def collected_warnings() -> Iterator[list[Note]]:
    """The warnings raised inside by this thread, as a list that grows."""
    found: list[Note] = []
    token = _notes.set(found)
    try:
        with _redirected():
            yield found
    finally:
        _notes.reset(token)


@contextmanager
def _redirection() -> Iterator[None]:
    """Every warning goes to the list of its thread; where there is none, its usual way."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def collect(
            message: Note,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            found = _notes.get()
            if found is None:
                usual(message, category, filename, lineno, file, line)
            else:
                found.append(message)

        warnings.simplefilter("always")
        warnings.showwarning = collect
        yield


_redirected = Shared(_redirection)
