"""Workers that come up while scans are still searched for and the model loads.

To start one takes half a second. Whether one will be needed can often be told from the
names of a batch, or from the first bytes of a few files, which cost next to nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice

from medcli.errors import MedcliError, ScanError
from medcli.imaging.batch import AHEAD, WORKERS
from medcli.imaging.decoders import is_isolated, is_supported
from medcli.imaging.files import read_head
from medcli.imaging.formats import HEAD_BYTES, named_syntax

LOOKED_AT = 4
"""Files whose first bytes are looked at."""

ENTRIES = 16
"""Entries of a folder among which a file, or a folder of files, is looked for."""


def foresee(inputs: Sequence[str]) -> None:
    """Let the workers come up that reading `inputs` is likely to need; never fails."""
    count = WORKERS if len(inputs) > AHEAD else 1 if _any_compressed(inputs) else 0
    if not count:
        return
    from medcli.imaging.isolation.pool import start_workers

    try:
        start_workers(count)
    except MedcliError:
        return  # to be told by who needs one


def _any_compressed(inputs: Sequence[str]) -> bool:
    """Whether one of the first few files holds DICOM that is decoded in workers only."""
    files = (path for name in inputs[:LOOKED_AT] for path in islice(_files(name), LOOKED_AT))
    return any(_is_compressed(path) for path in islice(files, LOOKED_AT))


def _files(name: str, depth: int = 4) -> Iterator[str]:
    """`name` where it is a file; some of the files in it where it is a folder."""
    if not os.path.isdir(name):
        yield name
        return
    try:
        with os.scandir(name) as entries:
            some = [entry for entry in islice(entries, ENTRIES) if entry.name[0] != "."]
    except OSError:  # to be told by who reads it
        return
    for entry in some:
        try:
            is_folder = entry.is_dir()
        except OSError:
            continue
        if not is_folder:
            yield entry.path
        elif depth:
            yield from _files(entry.path, depth - 1)


def _is_compressed(path: str) -> bool:
    try:
        syntax = named_syntax(read_head(path, HEAD_BYTES))
    except ScanError:  # to be told by who reads it
        return False
    return syntax is not None and is_supported(syntax) and is_isolated(syntax)
