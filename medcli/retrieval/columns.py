"""What is asked of every row at once, in arrays by id: one number, or one mark, a scan."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from medcli.retrieval.catalogue import Catalogue

_ROWS_AT_ONCE = 1 << 14


class Members:
    """Scans that may answer: those that have a value in an array.

    Parameters
    ----------
    numbers : (last id + 1,) by id
    number : the value
    """

    def __init__(self, numbers: np.ndarray, number: int = True) -> None:
        self._numbers = numbers
        self._number = number

    @classmethod
    def of(cls, ids: Iterable[int], last: int) -> Members:
        """The scans of `ids`, none above `last`."""
        marks = np.zeros(last + 1, bool)
        marks[np.fromiter(ids, np.int64)] = True
        return cls(marks)

    def __len__(self) -> int:
        return int(np.count_nonzero(self._numbers == self._number))

    def __and__(self, other: Members) -> Members:
        return Members((self._numbers == self._number) & (other._numbers == other._number))

    def marks(self, ids: np.ndarray) -> np.ndarray:
        """(M,) bool, which of the (M,) ids are among them."""
        marks: np.ndarray = self._numbers[ids] == self._number
        return marks

    def held(self, ids: Collection[int]) -> set[int]:
        """Those of `ids` that are among them; they are ids of stored scans, or were."""
        given = np.fromiter(ids, np.int64, len(ids))
        given = given[(given >= 0) & (given < len(self._numbers))]
        return set(given[self.marks(given)].tolist())


class Column:
    """The value of a column for every scan, as a number.

    Parameters
    ----------
    numbers : (last id + 1,) int by id; equal values have one number, counted from 1 in the order of
        their first ids; 0: not known, or no such scan
    """

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers
        self._by_frequency: list[int] | None = None

    @classmethod
    def read(cls, catalogue: Catalogue, sql: str) -> Column:
        """The column that `sql` names, inside `reading`."""
        numbers = np.zeros(catalogue.last_id() + 1, np.int32)
        known: dict[Any, int] = {None: 0}
        rows = catalogue.connection.execute(f"SELECT id, {sql} FROM scans ORDER BY id")
        while part := rows.fetchmany(_ROWS_AT_ONCE):
            ids, values = zip(*part, strict=True)
            numbers[list(ids)] = [known.setdefault(value, len(known)) for value in values]
        return cls(numbers)

    def groups(self, scans: np.ndarray) -> np.ndarray:
        """(M,) the number of each scan's value; where it is not known, the id below zero."""
        own = self.numbers[scans]
        return np.where(own > 0, own, -scans)

    def group(self, scan: int) -> int:
        """As `groups`, of one scan."""
        return int(self.numbers[scan]) or -scan

    def most_frequent(self, most: int) -> list[int]:
        """At most so many numbers, those of the most frequent values, of equals the first."""
        if self._by_frequency is None:
            counts = np.bincount(self.numbers)[1:]
            self._by_frequency = (np.argsort(-counts, kind="stable") + 1).tolist()
        return self._by_frequency[:most]

    def members(self, number: int) -> Members:
        """The scans with the value of that number."""
        return Members(self.numbers, number)
