"""The short form: every group of measures, one after the other."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, get_args

from medcli.bench.measure import Group, Measure, Sizes
from medcli.machine import cores, processor
from medcli.models.package import ModelPackage

GROUPS: tuple[Group, ...] = get_args(Group)
_VERSIONS = ("medcli", "numpy", "onnxruntime", "faiss-cpu", "pydicom", "Pillow")


def machine(package: ModelPackage) -> dict[str, Any]:
    """What the numbers depend on: machine, versions, model, date, and what else was running."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "system": platform.platform(terse=True),
        "processor": processor(),
        "cores": cores(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _VERSIONS},
        "model": package.fingerprint,
        "arch": package.model.arch,
        "size": package.preprocess.size,
    }


def measure_speed(
    package: ModelPackage, sizes: Sizes | None = None, groups: Collection[Group] = GROUPS
) -> Iterator[Measure]:
    """The measures of `groups`, as they come; about a minute with the usual sizes.

    Everything is made from fixed seeds, in temporary folders that are gone afterwards.

    Raises
    ------
    MedcliError : a command that is measured failed
    """
    sizes = sizes or Sizes()
    for group, measure in _measures(package, sizes).items():
        if group in groups:
            yield from measure()


def _measures(
    package: ModelPackage, sizes: Sizes
) -> Mapping[Group, Callable[[], Iterator[Measure]]]:
    from medcli.bench.embedding import measure_embedding
    from medcli.bench.reading import measure_reading
    from medcli.bench.searching import measure_gallery, measure_search
    from medcli.bench.starting import measure_classify, measure_start

    return {
        "start": lambda: measure_start(sizes.turns),
        "classify": lambda: measure_classify(package, sizes.turns),
        "embed": lambda: measure_embedding(package, sizes.scans, sizes.turns),
        "search": lambda: measure_search(sizes.vectors, sizes.queries, sizes.turns),
        "gallery": lambda: measure_gallery(sizes.rows, sizes.queries, sizes.turns),
        "read": lambda: measure_reading(sizes.files, max(1, sizes.turns - 1)),
    }
