"""One picture finds its series and its slice: CT slices saved as 8-bit pictures; prints Markdown.

    python benchmarks/slice_by_picture.py MODEL SERIES_FOLDER... [--with FOLDER...] [--every N]

The gallery holds the series (and what --with names). Each query is a slice of a CT series,
saved as PNG through the file's first window, a lung and a soft-tissue window, and the first
of these again as JPEG. The pictures carry no identifiers; only vectors can find them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
from PIL import Image

from medcli.data.gathering import gather_cases
from medcli.imaging.intensity import apply_window
from medcli.imaging.reader import read_scan
from medcli.inference.predictor import Predictor
from medcli.models.locate import find_model
from medcli.models.package import load_package
from medcli.records import Case, Failure, Scan
from medcli.retrieval.query import Wanted
from medcli.workflows.indexing import absolute, build_gallery
from medcli.workflows.searching import Answer, open_gallery, search_scans

LUNG, SOFT_TISSUE = (-600.0, 1500.0), (40.0, 400.0)


def main() -> None:
    """Build, query and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("series", nargs="+")
    parser.add_argument("--with", dest="others", nargs="*", default=[])
    parser.add_argument("--every", type=int, default=1, help="use every N-th slice as a query")
    options = parser.parse_args()
    predictor = Predictor(load_package(find_model(options.model)))
    print(f"{date.today()}, model {predictor.package.fingerprint} ({predictor.package.task.name})")
    print("\n| series | saved as | queries | right series first | slice within 1 | exact |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for row in measure(predictor, options, folder):
            print("| " + " | ".join(map(str, row)) + " |")


def measure(
    predictor: Predictor, options: argparse.Namespace, folder: Path
) -> Iterator[tuple[object, ...]]:
    """A row for each series and way of saving."""
    cases = gather_cases([*options.series, *options.others])
    build_gallery(folder / "gallery", predictor, cases)
    gallery, searcher = open_gallery(folder / "gallery")
    with gallery:
        for case in gather_cases(options.series):
            if isinstance(case, Failure):
                continue
            scan = read_scan(case)
            if scan.unit != "HU" or len(scan.pixels) < 3:  # a localizer; windows are those of CT
                continue
            pictures = save_pictures(scan, folder / "pictures", options.every)
            for kind, saved in pictures.items():
                answers = search_scans(gallery, searcher, gather_cases(list(saved)), Wanted(k=1))
                yield count(case, kind, list(saved.values()), list(answers))


def save_pictures(scan: Scan, folder: Path, every: int) -> dict[str, dict[str, int]]:
    """Kind → picture file → slice number."""
    folder.mkdir(exist_ok=True)
    first = scan.window or LUNG
    saved: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for number in range(0, len(scan.pixels), every):
        windows = {"first window": first, "lung": LUNG, "soft tissue": SOFT_TISSUE}
        for kind, window in windows.items():
            values = apply_window(scan.pixels[number, :, :, 0], *window)
            picture = Image.fromarray(np.rint(values * 255).astype(np.uint8))
            stem = folder / f"{abs(hash(scan.path))}-{kind.replace(' ', '-')}-{number}"
            picture.save(f"{stem}.png")
            saved[f"{kind}, PNG"][f"{stem}.png"] = number
            if kind == "first window":
                picture.save(f"{stem}.jpg", quality=85)
                saved[f"{kind}, JPEG"][f"{stem}.jpg"] = number
    return saved


def count(
    case: Case, kind: str, numbers: list[int], answers: list[Answer | Failure]
) -> tuple[object, ...]:
    """How many first hits are the series, and how far off their slice is."""
    first = [answer.result.hits[0] for answer in answers if isinstance(answer, Answer)]
    right = [
        (hit.slice or 0, number)
        for hit, number in zip(first, numbers, strict=True)
        if hit.path == absolute(case.path)
    ]
    near = sum(abs(found - number) <= 1 for found, number in right)
    exact = sum(found == number for found, number in right)
    return Path(case.path).name, kind, len(numbers), len(right), near, exact


if __name__ == "__main__":
    main()
