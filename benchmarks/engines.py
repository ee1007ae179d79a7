"""The engines of prediction on this processor: speed, and whether they say the same; Markdown.

    python benchmarks/engines.py SCANS… [--pictures 320] [--threads 1 2] [--model MODEL]

SCANS are folders of pictures or DICOM of one slice. Milliseconds of processor time would say
nothing of threads, so these are milliseconds on the clock for a picture, the median of batches in
turns. Then the embeddings of all pictures beside ONNX Runtime's: the largest 1 - cos, and for how
many pictures the ten nearest differ, which is what decides whether bfloat16 may be used.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from machine import package_of, print_head, print_machine, print_row

from medcli.imaging.batch import read_all
from medcli.imaging.discovery import find_scans
from medcli.imaging.preprocess import Preprocessor
from medcli.inference.choice import agreement, seconds_of
from medcli.inference.engine import Engine, OnnxEngine
from medcli.inference.openvino import OpenVinoEngine, has_bfloat16
from medcli.models.package import GRAPH, ModelPackage
from medcli.records import Scan

BATCHES = (1, 8, 32)


def pictures_of(package: ModelPackage, inputs: Sequence[str], most: int) -> np.ndarray:
    """(N, C, H, W) pictures as the network sees them, evenly taken from the scans."""
    prepared = Preprocessor(package.preprocess)
    cases = find_scans(inputs)
    chosen = [cases[i] for i in np.linspace(0, len(cases) - 1, min(most, len(cases))).astype(int)]
    scans = (scan for _, scan in read_all(chosen) if isinstance(scan, Scan))
    return np.concatenate([prepared.model_input(s) for s in scans if len(s.pixels) == 1])


def engines_of(package: ModelPackage, threads: int) -> dict[str, Engine]:
    """What this processor can run."""
    graph = package.path / GRAPH
    found: dict[str, Engine] = {
        "onnxruntime": OnnxEngine(graph, threads),
        "openvino": OpenVinoEngine(graph, threads),
    }
    if has_bfloat16():
        found["openvino-bf16"] = OpenVinoEngine(graph, threads, bfloat16=True)
    return found


def embedded(engine: Engine, pictures: np.ndarray) -> np.ndarray:
    """(N, D) embeddings, in batches."""
    starts = range(0, len(pictures), BATCHES[-1])
    parts = (pictures[start : start + BATCHES[-1], None] for start in starts)
    return np.concatenate([engine.run(p, np.ones((len(p), 1), bool)).embedding for p in parts])


def main() -> None:
    """Measure, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("scans", nargs="+")
    parser.add_argument("--pictures", type=int, default=320)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--model")
    options = parser.parse_args()
    package = package_of(options.model)
    print_machine(package, "openvino")
    pictures = pictures_of(package, options.scans, options.pictures)
    for number, threads in enumerate(options.threads):
        engines = engines_of(package, threads)
        if not number:
            print_head("threads", "batch", *(f"{name}, ms" for name in engines), "fastest, ×")
        for batch in BATCHES:
            images, mask = pictures[:batch, None], np.ones((batch, 1), bool)
            taken = seconds_of(engines, images, mask, turns=15)
            each = [1000 * seconds / batch for seconds in taken.values()]
            print_row([threads, batch, *each, each[0] / min(each)])
    print("\n")
    print_head("engine", "pictures", "largest 1 - cos", "with other nearest")
    reference = embedded(engines["onnxruntime"], pictures)
    for name, engine in engines.items():
        found = agreement(embedded(engine, pictures), reference)
        print_row([name, found.pictures, f"{found.distance:.1e}", found.moved])


if __name__ == "__main__":
    main()
