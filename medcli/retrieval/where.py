"""The language of `--where`: a condition on what a gallery stores of its scans.

::

    condition  = conjunction { "or" conjunction }
    conjunction = negation { "and" negation }
    negation   = "not" negation | "(" condition ")" | comparison
    comparison = column ("=" | "!=" | "<" | "<=" | ">" | ">=") value
               | column ["not"] "like" value          % any letters, _ one letter
               | column ["not"] "in" "(" value { "," value } ")"
               | column "is" ["not"] "null"
    value      = number | word | 'text' | "text"      a quote inside is doubled

Text is compared without regard to the case of A–Z. What is not known (null) meets no
comparison, nor its negation; `is null` asks for it. A condition is parsed into SQL whose
columns come from a table of this module and whose values are parameters.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medcli.errors import UsageError
from medcli.retrieval.columns import Column, Members

if TYPE_CHECKING:
    from medcli.retrieval.catalogue import Catalogue

MAX_LENGTH = 4000  # characters
_MAX_DEPTH = 40  # brackets and "not" inside each other


@dataclass(frozen=True, slots=True)
class _Column:
    """What a name stands for in SQL; numbers are compared as numbers."""

    sql: str
    number: bool = False

    @property
    def compared(self) -> str:
        """The left side of a comparison; texts without regard to the case of A–Z."""
        return self.sql if self.number else f"{self.sql} COLLATE NOCASE"


def _tag(*keywords: str, number: bool = False) -> _Column:
    parts = [f"json_extract(metadata, '$.{keyword}')" for keyword in keywords]
    value = parts[0] if len(parts) == 1 else f"coalesce({', '.join(parts)})"
    if not number:
        return _Column(value)
    return _Column(f"CASE WHEN {value} GLOB '*[0-9]*' THEN CAST({value} AS REAL) END", number=True)


COLUMNS: Mapping[str, _Column] = {
    "label": _Column("label"),
    "modality": _Column("modality"),
    "format": _Column("format"),
    "site": _tag("site"),
    "manufacturer": _tag("Manufacturer"),
    "scanner": _tag("ManufacturerModelName"),
    "kernel": _tag("ConvolutionKernel"),
    "body_part": _tag("BodyPartExamined"),
    "view": _tag("ViewPosition"),
    "laterality": _tag("ImageLaterality", "Laterality"),
    "sex": _tag("PatientSex"),
    "kvp": _tag("KVP", number=True),
    "slice_thickness": _tag("SliceThickness", number=True),
    "area": _tag("area", number=True),
    "slices": _Column("n_slices", number=True),
    "patient": _Column("patient"),
    "study": _tag("study"),
    "decoder": _Column("decoder"),
    "id": _Column("id", number=True),
}

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
    |(?P<sign><=|>=|!=|<>|==|[=<>(),])
    |(?P<word>[^\s'"=<>!(),]+)""",
    re.VERBOSE,
)
_WORDS = ("and", "or", "not", "in", "like", "is", "null")
_SIGNS = {"==": "=", "<>": "!="}
_COMPARISONS = ("=", "!=", "<", "<=", ">", ">=")


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed condition: `text` as it was given, SQL, and the values of its marks."""

    text: str
    sql: str
    values: tuple[str | float, ...]


@dataclass(frozen=True, slots=True)
class _Token:
    """A piece of a condition: `kind` is text, sign, word or end; `at` counts from 0."""

    kind: str
    text: str
    at: int

    def says(self, *words: str) -> bool:
        """Whether it is one of the signs or unquoted words."""
        return self.kind != "text" and self.text.lower() in words


def parse_where(text: str) -> Filter:
    """The filter of a condition.

    Raises
    ------
    UsageError : no condition; the message names the position, the hint the columns
    """
    if len(text) > MAX_LENGTH:
        raise UsageError(f"--where is longer than {MAX_LENGTH} characters", "Say it in less")
    parser = _Parser(text)
    sql = parser.condition()
    if parser.next.kind != "end":
        raise parser.error("'and', 'or' or the end is expected")
    return Filter(text, sql, tuple(parser.values))


def matching(catalogue: Catalogue, chosen: Filter) -> Members:
    """The stored scans that meet a filter, inside `reading`."""
    rows = catalogue.connection.execute(f"SELECT id FROM scans WHERE {chosen.sql}", chosen.values)
    return Members.of((scan for (scan,) in rows), catalogue.last_id())


def column_of(catalogue: Catalogue, name: str) -> Column:
    """The values of a column for every scan, as numbers, inside `reading`."""
    return Column.read(catalogue, COLUMNS[name].sql)


class _Parser:
    """Reads a condition from left to right; `values` collects what the marks stand for."""

    def __init__(self, text: str) -> None:
        self.values: list[str | float] = []
        self._text = text
        self._depth = 0
        self._tokens = self._split(text)
        self.next = next(self._tokens)

    def condition(self) -> str:
        """A condition, as SQL."""
        parts = [self._conjunction()]
        while self._take("or"):
            parts.append(self._conjunction())
        return parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})"

    def _conjunction(self) -> str:
        parts = [self._negation()]
        while self._take("and"):
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else f"({' AND '.join(parts)})"

    def _negation(self) -> str:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self.error("too many brackets")
        if self._take("not"):
            sql = f"(NOT {self._negation()})"
        elif self._take("("):
            sql = self.condition()
            self._expect(")")
        else:
            sql = self._comparison()
        self._depth -= 1
        return sql

    def _comparison(self) -> str:
        column = self._column()
        if self._take("is"):
            negated = self._take("not")
            self._expect("null")
            return f"({column.sql} IS {'NOT ' if negated else ''}NULL)"
        negated = self._take("not")
        if self._take("in"):
            return f"({column.compared} {'NOT ' if negated else ''}IN ({self._list(column)}))"
        if self._take("like"):
            self._add(_Column(column.sql))  # a pattern is a text, of numbers too
            return f"({column.sql} {'NOT ' if negated else ''}LIKE ?)"
        sign = _SIGNS.get(self.next.text, self.next.text)
        if negated or self.next.kind != "sign" or sign not in _COMPARISONS:
            raise self.error(
                "'in' or 'like' is expected"
                if negated
                else "one of = != < <= > >=, 'in', 'like' or 'is null' is expected"
            )
        self._advance()
        if self.next.says("null"):
            raise self.error("'is null' or 'is not null' asks for what is not known")
        return f"({column.compared} {sign} {self._add(column)})"

    def _column(self) -> _Column:
        token = self.next
        if token.kind != "word" or token.says(*_WORDS):
            raise self.error("a column is expected")
        found = COLUMNS.get(token.text.lower())
        if found is None:
            close = difflib.get_close_matches(token.text.lower(), COLUMNS, n=1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise self.error(f"there is no column {token.text!r}{meant}")
        self._advance()
        return found

    def _list(self, column: _Column) -> str:
        """The values between brackets, as marks."""
        self._expect("(")
        marks = [self._add(column)]
        while self._take(","):
            marks.append(self._add(column))
        self._expect(")")
        return ", ".join(marks)

    def _add(self, column: _Column) -> str:
        """Take a value; its mark."""
        token = self.next
        if token.kind not in ("word", "text") or token.says(*_WORDS):
            raise self.error("a value is expected")
        value: str | float = token.text
        if token.kind == "text":
            quote = token.text[0]
            value = token.text[1:-1].replace(quote * 2, quote)
        if column.number:
            try:
                value = float(value)
            except ValueError:
                raise self.error("a number is expected") from None
        self._advance()
        self.values.append(value)
        return "?"

    def _take(self, word: str) -> bool:
        """Go past the next piece if it is `word`."""
        if not self.next.says(word):
            return False
        self._advance()
        return True

    def _expect(self, word: str) -> None:
        if not self._take(word):
            raise self.error(f"{word!r} is expected")

    def _advance(self) -> None:
        self.next = next(self._tokens)

    def _split(self, text: str) -> Iterator[_Token]:
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                self.next = _Token("sign", text[at], at)
                what = "a quote that is not closed" if text[at] in "'\"" else "not understood"
                raise self.error(what)
            if found.lastgroup != "space":
                yield _Token(found.lastgroup, found[0], at)
            at = found.end()
        while True:
            yield _Token("end", "", len(text))

    def error(self, what: str) -> UsageError:
        """What is wrong at the next piece, with its position from 1."""
        here = repr(self.next.text) if self.next.text else "the end"
        return UsageError(
            f"--where, position {self.next.at + 1} ({here}): {what}",
            f"columns: {', '.join(COLUMNS)}; as in: modality = CT and not label in (benign, "
            "'not sure')",
        )
