"""Run with faults.c loaded: every call that changes the disk fails once; what comes of it?

    LD_PRELOAD=faults.so python fault_points.py OPERATION FOLDER STEP

One line a point: the number of the call, the exit status of the error (0: none was raised), the
scans and problems found afterwards by a process without faults.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a forked process cannot use its parent's threads

import numpy as np

from medcli.errors import MedcliError
from medcli.records import Embedding, GalleryEntry
from medcli.retrieval.checking import check_rows
from medcli.retrieval.forgetting import forget_patient
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.query import Query, Wanted
from medcli.retrieval.search import search
from medcli.retrieval.upkeep import check_caches, compact

SETTINGS = {"fingerprint": "f" * 64, "dim": 8}


def entry(number: int) -> GalleryEntry:
    """A scan of two slices with a thumbnail larger than a page of SQLite."""
    vectors = np.eye(8, dtype=np.float32)[[number % 8, (number + 1) % 8, (number + 2) % 8]]
    two = np.arange(2)
    embedding = Embedding(vectors[0], two, vectors[1:], two, ("m", "m"), two)
    name = f"/scans/{number}"
    return GalleryEntry(
        name,
        name,
        (name,),
        (name, name),
        embedding,
        pixel_sha256=name,
        patient_id=f"P{number}",
        thumbnails={0: bytes(range(256)) * 20},
    )


def work(operation: str, path: Path) -> None:
    """What is disturbed."""
    if operation == "build":
        with Gallery.build(
            path,
            model_dir=path.parent / "model",
            overwrite=True,
            **SETTINGS,  # type: ignore[arg-type]
        ) as new:
            new.add([entry(9)])
        return
    with Gallery.open(path, write=True) as gallery:
        if operation == "add":
            gallery.add([entry(9)])
        elif operation == "remove":
            gallery.remove([1])
        elif operation == "compact":
            compact(gallery)
        elif operation == "forget":
            forget_patient(gallery, "P1")
        else:
            raise ValueError(operation)


def in_a_child(do: Callable[[], int]) -> int:
    """The status with which a process of its own ends."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            status = do()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(operation: str, folder: Path, step: int) -> None:
    """Every `step`th point of the operation, once alone and once with all that follow."""
    faults = ctypes.CDLL(None)
    template = folder / "template"
    (folder / "model").mkdir()
    (folder / "model" / "model.json").write_text("{}")
    with Gallery.build(template, model_dir=folder / "model", **SETTINGS) as gallery:  # type: ignore[arg-type]
        gallery.add([entry(number) for number in range(4)])
    query = Query("q", np.eye(8, dtype=np.float32)[0], np.empty((0, 8)), np.empty(0, int))
    with Gallery.open(template) as gallery:  # loads all that is imported late
        search(gallery, query)
    path, total = folder / "gallery", [0]

    def disturbed(nth: int, stays: bool) -> int:
        faults.fault_at(nth, int(stays))
        try:
            work(operation, path)
        except MedcliError as error:
            return error.exit_status
        finally:
            if not nth:
                (folder / "total").write_text(str(faults.fault_count()))
            faults.fault_at(0, 0)
        return 0

    def looked_at() -> int:
        with Gallery.open(path, write=True) as gallery:
            scans = gallery.info()["scans"]
            found = search(gallery, query, Wanted(10)).hits
            problems = [*check_rows(gallery), *check_caches(gallery)]
            gallery.add([entry(20)])
        return 90 if problems or len(found) != scans else scans

    for nth, stays in [(0, False), *((n, s) for n in range(1, 10**6, step) for s in (False, True))]:
        if nth > total[0] > 0:
            break
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(template, path)
        status = in_a_child(lambda nth=nth, stays=stays: disturbed(nth, stays))  # type: ignore[misc]
        total[0] = total[0] or int((folder / "total").read_text())
        print(nth, int(stays), status, in_a_child(looked_at), flush=True)
    print("calls", total[0])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
