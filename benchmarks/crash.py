"""Killed writers and damaged files: does a gallery ever lie?

    python benchmarks/crash.py [--kills 1000] [--damages 2000] [--writers 8] [--seed 0]

Kills. A forked process builds over a gallery, adds to one, removes from one, compacts one or
forgets a patient, and is killed (SIGKILL) after a random time within what the work takes. Then
the gallery must hold the old or the new state, whole: every checksum matches, the caches are
those of the catalogue or are rebuilt, an exact search gives what NumPy gives, every addition
that was acknowledged is there, the lock is free, and the next compaction leaves no draft.

Damages. In a copy of a closed gallery one file, the model package's included, is changed: bits
turned, bytes zeroed or overwritten at random, the end cut. Then three searches with thumbnails are
asked for. Right is an error that says so (status 4), or the very same answers. `verify` must see
all damage but that of caches which are rebuilt, and caches must be right after `repair`.

Together. Eight processes add a hundred scans each, one a transaction, while readers search and
another process compacts again and again: every row must be there, every search must work, and
each must be of one generation. A process killed while it holds the lock must block nobody.

No network is involved: vectors are random, drawn from the seed. The part that the tests run
is the same code with few points.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a forked process cannot use its parent's threads

import numpy as np

from medcli.config import ModelConfig, PreprocessConfig
from medcli.errors import MedcliError
from medcli.models.heads import make_heads
from medcli.models.package import CARD, GRAPH, WEIGHTS, finish_package, load_package, seal
from medcli.records import Embedding, GalleryEntry, Source, Task
from medcli.retrieval.checking import check_rows
from medcli.retrieval.entries import entry_rows, store
from medcli.retrieval.forgetting import forget_patient
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.query import Query, Wanted
from medcli.retrieval.search import search
from medcli.retrieval.upkeep import check_caches, compact

DIM = 16
ROWS = 24
PATIENT = "PATIENT-TO-FORGET"
OPERATIONS = ("build", "add", "remove", "compact", "forget")
_NONE = np.empty(0, np.int64)
State = frozenset[tuple[str, str]]  # (scan_id, digest of its vectors and label)


@dataclass(frozen=True, slots=True)
class Killed:
    """How one killed process left its gallery; `wrong` says what is not as it must be."""

    operation: str
    found: str  # "old", "new" or "between" (of additions, some of which were made)
    lost: int
    wrong: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Damaged:
    """What one damage led to."""

    file: str
    kind: str
    outcome: str  # "detected", "rebuilt", "identical", "wrong", "crash"
    seen_by_verify: bool


def entries(prefix: str, count: int, seed: int) -> list[GalleryEntry]:
    """Scans of two slices with random vectors; every third is of the patient to forget."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        rows = rng.normal(size=(3, DIM))
        rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        name = f"{prefix}-{number}"
        files = (f"/scans/{name}/0.dcm", f"/scans/{name}/1.dcm")
        two = np.arange(2)
        made.append(
            GalleryEntry(
                path=f"/scans/{name}",
                scan_id=name,
                files=files,
                slice_files=files,
                embedding=Embedding(
                    rows[0], np.zeros(2, np.float32), rows[1:], two, ("model",) * 2, two
                ),
                label=("benign", "malignant")[number % 2],
                patient_id=PATIENT if number % 3 == 0 else f"P{number}",
                pixel_sha256=hashlib.sha256(name.encode()).hexdigest(),
                thumbnails={i: rng.bytes(700) for i in range(2)},
                source=Source("dicom", ((1, 1), (1, 1)), hashlib.sha256(name.encode()).hexdigest()),
            )
        )
    return made


def make_package(folder: Path) -> str:
    """A sealed model package of arbitrary bytes, which nobody runs; its fingerprint."""
    folder.mkdir(parents=True)
    for name in (WEIGHTS, GRAPH, CARD):
        (folder / name).write_bytes(hashlib.sha256(name.encode()).digest() * 64)
    package = finish_package(
        folder,
        heads=make_heads([Task("nodule", ("benign", "malignant"), "malignant", 0.5)]),
        preprocess=PreprocessConfig(size=32),
        model=ModelConfig(embedding_dim=DIM, layout_grid=0),
        synthetic=True,
        created="2026-01-01T00:00:00+00:00",
        patient_salt="00" * 16,
        provenance={},
        metrics={},
    )
    seal(folder)
    return package.fingerprint


def fill(path: Path, package: Path, made: Sequence[GalleryEntry], *, overwrite: bool) -> None:
    """Build a gallery of `made` at `path`."""
    with Gallery.build(
        path,
        model_dir=package,
        fingerprint=load_package(package).fingerprint,
        dim=DIM,
        root="/scans",
        overwrite=overwrite,
    ) as gallery:
        gallery.add(made, batch=8)


def state_of(gallery: Gallery) -> State:
    """All scans, each with a digest of what it is answered with."""
    with gallery.snapshot():
        return frozenset(
            (scan.row.scan_id, hashlib.sha256(scan.vectors.tobytes()).hexdigest())
            for scan in gallery.catalogue.stored()
        )


# Kills


def work(operation: str, path: Path, package: Path, acknowledge: Callable[[int], None]) -> None:
    """What the process does that will be killed."""
    if operation == "build":
        fill(path, package, entries("new", ROWS, 2), overwrite=True)
        return
    with Gallery.open(path, write=True) as gallery:
        if operation == "add":

            def acknowledged() -> Iterator[GalleryEntry]:
                for number, entry in enumerate(entries("added", ROWS, 3)):
                    acknowledge(number)  # all before this one are committed: batch is 1
                    yield entry

            gallery.add(acknowledged(), batch=1)
            acknowledge(ROWS)
        elif operation == "remove":
            gallery.remove(range(1, ROWS // 2))
        elif operation == "compact":
            compact(gallery)
        else:
            forget_patient(gallery, PATIENT)


def kill(operation: str, folder: Path, package: Path, seconds: float | None) -> tuple[Path, int]:
    """Start the work in a process of its own and kill it; the gallery, and what it had promised."""
    path = folder / "gallery"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            work(operation, path, package, lambda count: _promise(writer, count))
        finally:
            os._exit(0)
    os.close(writer)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as stream:
        promised = stream.read()
    return path, max(promised, default=0)


def _promise(descriptor: int, count: int) -> None:
    os.write(descriptor, bytes([count]))


def judge(operation: str, path: Path, promised: int, old: State, new: State) -> Killed:
    """Compare the gallery with the states that it may have."""
    wrong: list[str] = []
    with Gallery.open(path, write=True, lock_timeout=2) as gallery:
        wrong += [each.code for each in (*check_rows(gallery), *check_caches(gallery))]
        now = state_of(gallery)
        wrong += [] if _search_is_exact(gallery) else ["search"]
        compact(gallery)  # takes the lock; leaves nothing of the dead process
        wrong += [] if state_of(gallery) == now else ["compaction"]
    # A draft into which nothing was written yet is no gallery's, and stays.
    left = [item for item in path.parent.glob(".*.draft") if any(item.iterdir())]
    wrong += ["draft left"] * len(left)
    found = "old" if now == old else "new" if now == new else "between"
    if operation == "add":
        order = [entry.scan_id for entry in entries("added", ROWS, 3)]
        added = {name for name, _ in now - old}
        if not old <= now or added != set(order[: len(added)]):
            wrong.append("not what was added")
        lost = max(0, promised - len(added))
    else:
        wrong += ["between"] * (found == "between")
        lost = len(old & new - now)
    return Killed(operation, found, lost, tuple(wrong))


def _search_is_exact(gallery: Gallery) -> bool:
    """Whether a search gives what NumPy gives."""
    query = entries("query", 1, 99)[0].embedding
    with gallery.snapshot():
        scans = list(gallery.catalogue.stored())
    scores = {
        scan.id: float(scan.vectors[scan.slice_numbers < 0][0].astype(float) @ query.vector)
        for scan in scans
    }
    expected = sorted(scores, key=lambda scan: (-round(scores[scan], 6), scan))[:5]
    found = search(gallery, Query.from_embedding("q", query), Wanted(compare="scan"))
    return [hit.id for hit in found.hits] == expected


def run_kills(
    count: int, seed: int, folder: Path, operations: Sequence[str] = OPERATIONS
) -> Iterator[Killed]:
    """Kill `count` processes, one operation after the other."""
    chance = random.Random(seed)
    package = folder / "package"
    make_package(package)
    template = folder / "template"
    fill(template, package, entries("old", ROWS, 1), overwrite=False)
    with Gallery.open(template) as gallery:
        old = state_of(gallery)
    known: dict[str, tuple[State, float]] = {}
    for number in range(count):
        operation = operations[number % len(operations)]
        if operation not in known:
            known[operation] = _whole(operation, template, package, folder)
        new, takes = known[operation]
        place = folder / f"kill-{number}"
        place.mkdir()
        shutil.copytree(template, place / "gallery")
        path, promised = kill(operation, place, package, chance.uniform(0, 1.1 * takes))
        yield judge(operation, path, promised, old, new)
        shutil.rmtree(place)


def _whole(operation: str, template: Path, package: Path, folder: Path) -> tuple[State, float]:
    """The state after the whole work, and how long it takes."""
    place = folder / f"whole-{operation}"
    place.mkdir()
    shutil.copytree(template, place / "gallery")
    start = time.monotonic()
    path, _ = kill(operation, place, package, None)
    seconds = time.monotonic() - start
    with Gallery.open(path) as gallery:
        return state_of(gallery), seconds


# Damages


def turn_bits(content: bytearray, chance: random.Random) -> None:
    """One bit, or three."""
    for _ in range(chance.choice([1, 3])):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def zero(content: bytearray, chance: random.Random) -> None:
    """Bytes become zero, up to a page of them."""
    start, length = chance.randrange(len(content)), chance.choice([1, 64, 4096])
    content[start : start + length] = bytes(len(content[start : start + length]))


def overwrite(content: bytearray, chance: random.Random) -> None:
    """Bytes become others."""
    start, length = chance.randrange(len(content)), chance.choice([1, 16, 512])
    content[start : start + length] = chance.randbytes(len(content[start : start + length]))


def cut(content: bytearray, chance: random.Random) -> None:
    """The end is lost."""
    del content[chance.randrange(len(content)) :]


KINDS = (turn_bits, zero, overwrite, cut)


def answers(path: Path) -> tuple[list[object], bool]:
    """The answers to three fixed queries, thumbnails with them; whether an index was rebuilt.

    Raises
    ------
    MedcliError : the gallery, or its model, says that it is damaged
    """
    from medcli.workflows.searching import own_model

    told: list[object] = []
    rebuilt = False
    with Gallery.open(path) as gallery:
        told.append(own_model(gallery).task)
        patient = gallery.patient_hash("P1")
        for number, entry in enumerate(entries("query", 3, 98)):
            query = Query.from_embedding("q", entry.embedding, patient=patient)
            if number == 2:  # one slice, which searches the slices of others
                query = replace(query, slice_vectors=query.slice_vectors[:0], slice_numbers=_NONE)
            result = search(gallery, query)
            rebuilt |= any(each.code == "index_rebuilt" for each in result.warnings)
            told += [(result.hits, tuple(result.vote.items()))]
            told += [gallery.thumbnail(hit.id, hit.slice) for hit in result.hits]
    return [repr(each).replace(str(path), "") for each in told], rebuilt


def seen(path: Path) -> bool:
    """Whether a check of everything names a problem."""
    from medcli.workflows.searching import own_model

    try:
        with Gallery.open(path) as gallery:
            own_model(gallery)
            gallery.patient_hash("P1")
            return bool([*check_rows(gallery), *check_caches(gallery)])
    except MedcliError:
        return True


def damage(path: Path, file: Path, spoil: Callable[..., None], chance: random.Random) -> None:
    """Change `file` in place, really."""
    before = file.read_bytes()
    content = bytearray(before)
    while content == before:  # zeros upon zeros are no damage
        spoil(content, chance)
    file.write_bytes(content)


def run_damages(count: int, seed: int, folder: Path) -> Iterator[Damaged]:
    """Damage `count` copies of one gallery."""
    chance = random.Random(seed)
    make_package(folder / "model-package")
    sound = folder / "sound"
    fill(sound, folder / "model-package", entries("old", ROWS, 1), overwrite=False)
    expected, _ = answers(sound)
    names = sorted(
        str(file.relative_to(sound))
        for file in sound.rglob("*")
        if file.is_file() and file.stat().st_size
    )
    for number in range(count):
        # Half of the damages hit the catalogue, which is most of a gallery.
        name = "catalogue.sqlite" if number % 2 else chance.choice(names)
        path = folder / f"damage-{number}"
        shutil.copytree(sound, path)
        spoil = chance.choice(KINDS)
        damage(path, path / name, spoil, chance)
        try:
            noticed, told = seen(path), outcome(path, expected)
        except Exception as error:
            noticed, told = False, f"crash of verify: {type(error).__name__}"
        yield Damaged(name, spoil.__name__, told, noticed)
        shutil.rmtree(path)


def outcome(path: Path, expected: list[object]) -> str:
    """What the searches of a damaged gallery gave."""
    try:
        told, rebuilt = answers(path)
    except MedcliError as error:
        return f"detected, status {error.exit_status}"
    except Exception as error:
        return f"crash: {type(error).__name__}"
    if told != expected:
        return "wrong"
    return "rebuilt" if rebuilt else "identical"


# Together


@dataclass(frozen=True, slots=True)
class Together:
    """What writers, readers and compactions at the same time came to."""

    rows: int
    expected: int
    searches: int
    failures: int
    problems: int
    after_a_killed_holder: bool


def run_together(writers: int, additions: int, folder: Path) -> Together:
    """`writers` processes add while two read and one compacts; then the lock's holder is killed."""
    make_package(folder / "package-together")
    path = folder / "together"
    fill(path, folder / "package-together", entries("old", ROWS, 1), overwrite=False)
    adding = [
        _forked(lambda number=number: _add(path, f"w{number}", additions))  # type: ignore[misc]
        for number in range(writers)
    ]
    stop = folder / "stop"
    counts = [folder / f"reader-{number}" for number in range(2)]
    others = [_forked(lambda file=file: _read(path, stop, file)) for file in counts]  # type: ignore[misc]
    others.append(_forked(lambda: _compact(path, stop)))
    failures = sum(_status(child) != 0 for child in adding)
    stop.touch()
    failures += sum(_status(child) != 0 for child in others)
    with Gallery.open(path) as gallery:
        gallery.refresh()
        rows = gallery.info()["scans"]
        problems = len([*check_rows(gallery), *check_caches(gallery)])
    searches = sum(int(file.read_text()) for file in counts if file.exists())
    return Together(
        rows, ROWS + writers * additions, searches, failures, problems, _holder_killed(path)
    )


def _forked(do: Callable[[], object]) -> int:
    """Do it in a process of its own, which ends with 0 if nothing was raised."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        do()
        status = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(status)


def _status(child: int) -> int:
    return os.waitpid(child, 0)[1]


def _add(path: Path, prefix: str, count: int) -> None:
    with Gallery.open(path, write=True) as gallery:
        for entry in entries(prefix, count, sum(prefix.encode())):
            with gallery.writing():
                rows = entry_rows(entry, gallery.patient_hash(entry.patient_id), DIM)
                store(gallery.catalogue, rows)


def _read(path: Path, stop: Path, counts: Path) -> None:
    done = 0
    while not stop.exists() or not done:
        with Gallery.open(path) as gallery, gallery.snapshot() as state:
            if len(list(gallery.catalogue.stored())) != state.scans or not _search_is_exact(
                gallery
            ):
                raise AssertionError("a reader saw two generations")
        done += 1
    counts.write_text(str(done))


def _compact(path: Path, stop: Path) -> None:
    while not stop.exists():
        with Gallery.open(path, write=True) as gallery:
            compact(gallery)
        time.sleep(0.05)


def _holder_killed(path: Path) -> bool:
    """Whether a write works after a process was killed while it held the lock."""
    held = path.with_name("held")

    def hold() -> None:
        with Gallery.open(path, write=True) as gallery, gallery.writing():
            gallery.catalogue.delete(1)
            held.touch()
            time.sleep(600)

    child = _forked(hold)
    while not held.exists():
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with Gallery.open(path, write=True, lock_timeout=0.5) as gallery:
        return gallery.remove([1]) == 1  # what the dead process removed is there


# What is printed


def show_kills(results: Iterable[Killed]) -> int:
    """A table of the kills; how many went wrong."""
    told = list(results)
    print(
        f"{'operation':10} {'killed':>6} {'old':>5} {'new':>5} {'part':>5} {'lost':>5} {'wrong':>5}"
    )
    for operation in dict.fromkeys(each.operation for each in told):
        own = [each for each in told if each.operation == operation]
        states = Counter(each.found for each in own)
        print(
            f"{operation:10} {len(own):6} {states['old']:5} {states['new']:5} "
            f"{states['between']:5} {sum(each.lost for each in own):5} "
            f"{sum(bool(each.wrong) for each in own):5}"
        )
    for each in told:
        if each.wrong:
            print(f"  {each.operation}: {', '.join(each.wrong)}")
    return sum(bool(each.wrong) or each.lost > 0 for each in told)


def show_damages(results: Iterable[Damaged]) -> int:
    """A table of the damages; how many went wrong or unseen."""
    told = list(results)
    counts = Counter((each.file, each.outcome) for each in told)
    print(f"{'file':28} {'outcome':24} {'damages':>7}")
    for (file, what), count in sorted(counts.items()):
        print(f"{file:28} {what:24} {count:7}")
    bad = [each for each in told if each.outcome.startswith(("wrong", "crash"))]
    unseen = Counter(each.outcome for each in told if not each.seen_by_verify)
    print(f"wrong answers or crashes: {len(bad)}; not seen by verify: {dict(unseen)}")
    return len(bad)


def show_together(told: Together) -> int:
    """A line for what went on at the same time; 1 if it went wrong."""
    print(f"together: {told}")
    right = (told.rows, told.failures, told.problems) == (told.expected, 0, 0)
    return int(not right or not told.after_a_killed_holder)


def main() -> None:
    """Run both parts and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--damages", type=int, default=2000)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--additions", type=int, default=100, help="of each writer")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, "
        f"seed {arguments.seed}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bad = show_kills(run_kills(arguments.kills, arguments.seed, folder))
        bad += show_damages(run_damages(arguments.damages, arguments.seed, folder))
        bad += show_together(run_together(arguments.writers, arguments.additions, folder))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
