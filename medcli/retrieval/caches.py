"""The search indexes of a gallery: which there are, where they lie, how they follow the rows.

Nothing in them is truth: what is absent, old or damaged is made anew from the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medcli.records import ScanWarning
from medcli.retrieval.cache_files import (
    LEVELS,
    NOT_SAVED,
    CacheUnusableError,
    Level,
    Stamp,
    check_stamp,
    read_cache,
    saved,
    write_cache,
)
from medcli.retrieval.catalogue import Catalogue
from medcli.retrieval.choice import APPROXIMATE, SETTING, Choice
from medcli.retrieval.columns import Column
from medcli.retrieval.names import LABELS
from medcli.retrieval.rows import State
from medcli.retrieval.storage import storage_errors
from medcli.retrieval.where import column_of

if TYPE_CHECKING:  # faiss is loaded by the first search, never by `index info`
    from medcli.retrieval.approximate import ApproximateIndex
    from medcli.retrieval.vectors import VectorIndex

    Index = VectorIndex | ApproximateIndex

APPROXIMATE_SEARCH = "approximate_search"


class Caches:
    """The indexes of a gallery; all is called inside a transaction of `catalogue`.

    Parameters
    ----------
    uuid, dim : of the gallery
    save : cache files may be written
    """

    def __init__(self, folder: Path, catalogue: Catalogue, uuid: str, dim: int, *, save: bool):
        self._folder = folder
        self._catalogue = catalogue
        self._uuid = uuid
        self._dim = dim
        self._save = save
        self._open: dict[str, tuple[int, Index]] = {}  # by the name of the file: generation

    def clear(self) -> None:
        """Forget the loaded indexes."""
        self._open.clear()

    def choice(self) -> Choice | None:
        """The approximate index that the gallery asks first; None: exact search.

        Raises
        ------
        DamagedError : the setting cannot be read
        """
        try:
            return Choice.of(self._catalogue.meta())
        except (ValueError, TypeError) as error:
            raise self._catalogue.damaged("the choice of its index cannot be read") from error

    def choose(self, choice: Choice | None) -> None:
        """Keep `choice`, inside `writing`, and remove the files of other indexes; rows stay."""
        self._catalogue.set_index(SETTING, choice.setting() if choice else None)
        for file in self._folder.glob("*.faiss"):
            kind = file.name.split(".")[1]
            if kind in APPROXIMATE and (choice is None or kind != choice.kind):
                file.unlink(missing_ok=True)

    def index(self, level: Level, state: State) -> tuple[Index, tuple[ScanWarning, ...]]:
        """The index that answers for `level` at `state`, with notes if it had to be rebuilt.

        A rebuilt index is saved where the folder allows, else it stays in memory. That
        an index is approximate is a note, too.

        Raises
        ------
        DamagedError : a row it would be rebuilt from does not match its checksum
        """
        choice, stamp = self.choice(), self.stamp(level, state)
        if choice is None or not choice.serves(stamp.count):
            return self.exact(level, state)
        index, notes = self._approximate(choice, stamp, state)
        return index, (*notes, ScanWarning(APPROXIMATE_SEARCH, choice.told()))

    def exact(self, level: Level, state: State) -> tuple[VectorIndex, tuple[ScanWarning, ...]]:
        """The exact index of `level` at `state`; see `index`."""
        from medcli.retrieval.vectors import VectorIndex, open_index

        file, stamp = self.file(level), self.stamp(level, state)
        known = self._known(file, state)
        if isinstance(known, VectorIndex):
            return known, ()
        index, notes = open_index(file, stamp, lambda: self.rows(stamp), self._save)
        self._open[file.name] = (state.generation, index)
        return index, notes

    def _approximate(
        self, choice: Choice, stamp: Stamp, state: State
    ) -> tuple[ApproximateIndex, tuple[ScanWarning, ...]]:
        from medcli.retrieval.approximate import ApproximateIndex, open_approximate

        file = self.file(stamp.level, choice)
        known = self._known(file, state)
        if isinstance(known, ApproximateIndex):
            return known.with_effort(choice.effort), ()
        index, notes = open_approximate(
            file,
            stamp,
            choice,
            Behind(self, stamp, state),
            self._save,
        )
        self._open[file.name] = (state.generation, index)
        return index, notes

    def _known(self, file: Path, state: State) -> Index | None:
        generation, index = self._open.get(file.name, (None, None))
        return index if generation == state.generation else None

    def file(self, level: Level, choice: Choice | None = None) -> Path:
        """The cache file of the exact index of `level`, or of the one chosen."""
        return self._folder / f"{level}.{choice.kind}.faiss" if choice else self._exact_file(level)

    def _exact_file(self, level: Level) -> Path:
        return self._folder / f"{level}.faiss"

    def stamp(self, level: Level, state: State) -> Stamp:
        """What the index of `level` at `state` is made from."""
        return Stamp(
            gallery=self._uuid,
            level=level,
            generation=state.generation,
            count=state.scans if level == "scan" else state.slice_vectors,
            dim=self._dim,
        )

    def rows(
        self, stamp: Stamp, scans: Iterable[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The vectors of a level (N, D) float16, of all scans or of `scans`, and their ids (N,).

        Raises
        ------
        DamagedError : a row does not match its checksum, or is missing
        """
        vectors, ids = self._catalogue.matrix(self._dim, scans, whole=stamp.level == "scan")
        if scans is None and len(ids) != stamp.count:
            raise self._catalogue.damaged("rows are missing")
        return vectors, ids

    def labels(self, state: State) -> Column:
        """The label of each scan at `state`, as a number; one cache file, as for an index.

        Where it cannot be saved it serves this process alone.
        """
        file, stamp = self._folder / LABELS, self.stamp("scan", state)
        try:
            return self._saved_labels(file, stamp)
        except CacheUnusableError as error:
            save = self._save and not error.newer
        column = column_of(self._catalogue, "label")
        if save:
            saved(file, lambda: write_cache(file, column.numbers, (), stamp))
        return column

    def _saved_labels(self, file: Path, stamp: Stamp) -> Column:
        """The labels that a cache file holds.

        Raises
        ------
        CacheUnusableError : absent, damaged, or of another generation
        """
        content = read_cache(file)
        check_stamp(content.made_from, stamp)
        numbers, last = content.ids, self._catalogue.last_id()
        if numbers is None or len(numbers) != last + 1 or len(content.index):
            raise CacheUnusableError("damaged")
        return Column(numbers)

    def rebuild(self, state: State) -> None:
        """Make all cache files anew; nothing of the old ones stays.

        Raises
        ------
        DamagedError : a row does not match its checksum
        StorageError : they cannot be written
        """
        from medcli.retrieval.vectors import VectorIndex

        self.clear()
        with storage_errors(self._folder):
            for file in (*self._folder.glob("*.faiss"), self._folder / LABELS):
                file.unlink(missing_ok=True)
            for level in LEVELS:
                stamp = self.stamp(level, state)
                if stamp.count:
                    VectorIndex.build(*self.rows(stamp)).save(self.file(level), stamp)
        self.refresh(state)

    def refresh(self, state: State) -> tuple[ScanWarning, ...]:
        """Bring the cache files up to date; the notes say what could not be saved."""
        notes = [note for level in LEVELS for note in self.index(level, state)[1]]
        if self.choice() is None:
            self.labels(state)
        return tuple(note for note in notes if note.code == NOT_SAVED)

    def unusable(self, state: State) -> Iterator[tuple[Path, CacheUnusableError]]:
        """The cache files that are not those of `state`, and why; absent ones are not meant."""
        for stamp in (self.stamp(level, state) for level in LEVELS):
            for choice in {None, self.choice()} if stamp.count else ():
                file = self.file(stamp.level, choice)
                try:
                    if file.exists():
                        self._check(file, stamp, choice, state)
                except CacheUnusableError as error:
                    yield file, error
        file = self._folder / LABELS
        try:
            if file.exists():
                self._saved_labels(file, self.stamp("scan", state))
        except CacheUnusableError as error:
            yield file, error

    def _check(self, file: Path, stamp: Stamp, choice: Choice | None, state: State) -> None:
        from medcli.retrieval.approximate import check_current, read_approximate
        from medcli.retrieval.vectors import read_index

        if choice is None:
            read_index(file, stamp)
            return
        found, made_from = read_approximate(file, choice, Behind(self, stamp, state))
        check_current(found, made_from, stamp)


@dataclass(frozen=True, slots=True)
class Behind:
    """The truth behind an approximate index; see `approximate.Truth`."""

    caches: Caches
    stamp: Stamp
    state: State

    def exact(self) -> VectorIndex:
        """The exact index of the same rows."""
        return self.caches.exact(self.stamp.level, self.state)[0]

    def rows(self, scans: Iterable[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The vectors of all scans, or of `scans`, and their ids."""
        return self.caches.rows(self.stamp, scans)
