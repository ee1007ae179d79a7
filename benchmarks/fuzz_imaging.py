"""Damaged files and bombs through the reader: does every one end with a code, in time?

Mutants of real files (`--corpus`, else the folder named by MEDCLI_TEST_DATA, if any) and of
files made here, seeded, so that a run can be repeated; and hand-made bombs. They are read
in batches, each in a process of its own, as a user's command would read a folder.

    python benchmarks/fuzz_imaging.py [--dicom 10000] [--nifti 2000] [--pictures 2000]

Printed are deaths of the reading process (not of its workers, which may die), answers that
took more than ten seconds, inputs without an answer, the peak memory of the process and of
its workers, and how many truncations and wrong checksums went unnoticed. A mutant that
reads as the very pixels of its original has lost nothing and is no such case.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from medcli.errors import MedcliError
from medcli.imaging.batch import read_all
from medcli.imaging.discovery import find_scans
from medcli.imaging.formats import VOLUME_SUFFIXES, has_suffix
from medcli.imaging.hashing import pixel_sha256
from medcli.imaging.isolation.pool import close_workers
from medcli.records import Case, Failure, Scan

HERE = Path(__file__).parent
BATCH = 250
SLOW = 10.0
MAX_BYTES = 2**20  # larger originals would only make the run longer
KINDS = ("cut", "change", "gap", "double", "extreme", "zero")
SUFFIXES = {
    "nifti": (".nii", ".nii.gz"),
    "pictures": (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one input ended.

    Parameters
    ----------
    original : SHA-256 of the pixels of the sound file, "" where there is none
    pixels : of what was read, "" where it was not
    code : "ok", or a code of docs/codes.md; "unaccounted" where there was no answer
    seconds : since the answer before
    """

    name: str
    kind: str
    original: str
    code: str = "unaccounted"
    pixels: str = ""
    seconds: float = 0.0

    @property
    def is_silent_loss(self) -> bool:
        """Whether it was read without a word although its pixels are not the original's."""
        return self.code == "ok" and self.pixels != self.original

    @property
    def must_be_noticed(self) -> bool:
        """Whether the file was cut, or damaged where a checksum tells."""
        checksum = self.name.endswith((".png", ".nii.gz"))
        return bool(self.original) and (self.kind == "cut" or checksum)


def mutated(data: bytes, kind: str, rng: random.Random) -> bytes:
    """`data` with damage of one of `KINDS`; half of it in the first kilobyte, where headers are."""
    changed, size = bytearray(data), len(data)
    place = rng.randrange(min(size, rng.choice((1024, size))))
    length = rng.randrange(1, min(100, size - place) + 1)
    if kind == "cut":
        return data[: rng.randrange(size)]
    if kind == "change":
        for _ in range(rng.choice((1, 3, 10))):
            changed[rng.randrange(min(size, rng.choice((1024, size))))] = rng.randrange(256)
    elif kind == "gap":
        del changed[place : place + length]
    elif kind == "double":
        changed[place:place] = changed[place : place + length]
    elif kind == "extreme":
        value = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\xff"))
        changed[place : place + len(value)] = value
    else:
        changed[place : place + length] = bytes(length)
    return bytes(changed)


def made_files(folder: Path) -> dict[str, list[Path]]:
    """Small sound files of the formats and transfer syntaxes that can be encoded here."""
    import pydicom
    import SimpleITK as sitk
    from openjpeg.utils import encode_array
    from PIL import Image
    from pydicom import uid
    from pydicom.encaps import encapsulate

    rng = np.random.default_rng(0)
    grey = np.clip(np.cumsum(rng.integers(-9, 10, (48, 64)), 1) + 120, 0, 255).astype(np.uint8)
    sample = HERE.parent / "sample_data" / "scan.dcm"
    dicom = []
    for name, syntax in (
        ("raw", uid.ExplicitVRLittleEndian),
        ("implicit", uid.ImplicitVRLittleEndian),
        ("deflated", uid.DeflatedExplicitVRLittleEndian),
        ("rle", uid.RLELossless),
        ("jpegls", uid.JPEGLSLossless),
        ("jpeg2000", uid.JPEG2000Lossless),
        ("jpeg", uid.JPEGBaseline8Bit),
    ):
        dataset = pydicom.dcmread(sample)
        if syntax.is_encapsulated:
            dataset.Rows, dataset.Columns = grey.shape
            dataset.BitsAllocated = dataset.BitsStored = 8
            dataset.HighBit, dataset.PixelRepresentation = 7, 0
            dataset.PixelData = grey.tobytes()
            dataset["PixelData"].VR = "OB"
        if name in ("rle", "jpegls"):
            dataset.compress(syntax)
        elif name in ("jpeg2000", "jpeg"):
            stream = io.BytesIO()
            Image.fromarray(grey).save(stream, "JPEG")
            encoded = encode_array(grey) if name == "jpeg2000" else stream.getvalue()
            dataset.PixelData = encapsulate([encoded])
            dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax
        dicom.append(folder / f"{name}.dcm")
        implicit = name == "implicit"
        dataset.save_as(dicom[-1], implicit_vr=implicit, little_endian=True)
    volumes = [folder / f"volume{suffix}" for suffix in SUFFIXES["nifti"]]
    for path in volumes:
        volume = sitk.GetImageFromArray(np.stack([grey[:20, :24]] * 5).astype(np.int16))
        sitk.WriteImage(volume, str(path), useCompression=path.suffix == ".gz")
    pictures = [folder / f"picture{suffix}" for suffix in SUFFIXES["pictures"]]
    for path in pictures:
        Image.fromarray(grey).save(path)
    Image.fromarray(grey.astype(np.uint16) * 200).save(folder / "deep.png")
    return {"dicom": dicom, "nifti": volumes, "pictures": [*pictures, folder / "deep.png"]}


def corpus_files(corpus: Path, rng: random.Random) -> dict[str, list[Path]]:
    """Files of the folders `dicom` and `nifti`, and some pictures of other folders."""
    dicom = _small_files(corpus / "dicom")
    nifti = [p for p in _small_files(corpus / "nifti") if has_suffix(p.name, SUFFIXES["nifti"])]
    others = (
        folder for folder in sorted(corpus.iterdir()) if folder.name not in ("dicom", "nifti")
    )
    pictures = [
        path
        for folder in others
        if folder.is_dir()
        for path in _small_files(folder)[:400]
        if has_suffix(path.name, SUFFIXES["pictures"])
    ]
    return {
        "dicom": dicom,
        "nifti": nifti,
        "pictures": rng.sample(pictures, min(60, len(pictures))),
    }


def _small_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size <= MAX_BYTES)


def sound_files(paths: Sequence[Path]) -> dict[str, str]:
    """Path → SHA-256 of its pixels, for the files that are read as scans of their own."""
    names = set(map(str, paths))
    return {
        scan.path: pixel_sha256(scan)
        for _, scan in read_all(find_scans(sorted(names)))
        if isinstance(scan, Scan) and scan.path in names
    }


def write_mutants(
    folder: Path, originals: dict[str, str], numbers: range, seed: int
) -> list[Outcome]:
    """Write the mutants of these numbers; each depends on its number and the seed only."""
    paths, written = sorted(originals), []
    for number in numbers:
        rng = random.Random(f"{seed}/{number}")
        source, kind = Path(rng.choice(paths)), rng.choice(KINDS)
        suffix = next(
            (s for s in VOLUME_SUFFIXES if source.name.lower().endswith(s)), source.suffix
        )
        target = folder / f"{number}{suffix}"
        target.write_bytes(mutated(source.read_bytes(), kind, rng))
        written.append(Outcome(str(target), kind, originals[str(source)]))
    return written


def read_back(inputs: Sequence[Outcome]) -> list[Outcome]:
    """How each input ends when all are read as one batch; its first answer counts."""
    ended = {each.name: each for each in inputs}
    found: list[Case | Failure] = []
    asked: list[str] = []  # the input behind each of `found`
    for each in inputs:
        start = time.monotonic()
        found += find_scans([each.name])
        asked += [each.name] * (len(found) - len(asked))
        ended[each.name] = replace(each, seconds=time.monotonic() - start)
    start = time.monotonic()
    for name, (_, scan) in zip(asked, read_all(found), strict=True):
        seconds, start = time.monotonic() - start, time.monotonic()
        if ended[name].code != "unaccounted":
            continue
        ended[name] = replace(
            ended[name],
            code=scan.code if isinstance(scan, Failure) else "ok",
            pixels=pixel_sha256(scan) if isinstance(scan, Scan) else "",
            seconds=max(seconds, ended[name].seconds),
        )
    return list(ended.values())


def _dicom(folder: Path, name: str, syntax: str, rows: int = 20_000) -> tuple[Path, object]:
    """The sample scan with another size and transfer syntax, to be given its pixels."""
    import pydicom

    dataset = pydicom.dcmread(HERE.parent / "sample_data" / "scan.dcm")
    dataset.Rows = dataset.Columns = rows
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.file_meta.TransferSyntaxUID = syntax
    return folder / name, dataset


def _save_encapsulated(folder: Path, name: str, syntax: str, frame: bytes) -> Path:
    from pydicom.encaps import encapsulate

    path, dataset = _dicom(folder, name, syntax)
    dataset.PixelData = encapsulate([frame])  # type: ignore[attr-defined]
    dataset["PixelData"].VR = "OB"  # type: ignore[index]
    dataset.save_as(path)  # type: ignore[attr-defined]
    return path


def jpeg2000_bomb(folder: Path) -> Path:
    """A kilobyte whose header and codestream agree on 20,000² pixels."""
    from openjpeg.utils import encode_array
    from pydicom.uid import JPEG2000Lossless

    frame = bytearray(encode_array(np.zeros((64, 64), np.uint8)))
    for place in (8, 12, 24, 28):  # Xsiz, Ysiz, XTsiz, YTsiz
        frame[place : place + 4] = (20_000).to_bytes(4, "big")
    return _save_encapsulated(folder, "bomb_jpeg2000.dcm", JPEG2000Lossless, bytes(frame))


def jpeg_bomb(folder: Path) -> Path:
    """The same as JPEG."""
    from PIL import Image
    from pydicom.uid import JPEGBaseline8Bit

    stream = io.BytesIO()
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(stream, "JPEG")
    frame = bytearray(stream.getvalue())
    place = frame.index(b"\xff\xc0") + 5
    frame[place : place + 4] = (20_000).to_bytes(2, "big") * 2
    return _save_encapsulated(folder, "bomb_jpeg.dcm", JPEGBaseline8Bit, bytes(frame))


def rle_bomb(folder: Path) -> Path:
    """Runs of 128 in 4 MB, for one plane of 400 MB; unpacked 256 MB."""
    from pydicom.uid import RLELossless

    header = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56)
    return _save_encapsulated(folder, "bomb_rle.dcm", RLELossless, header + b"\x81\0" * 2**21)


def deflate_bomb(folder: Path) -> Path:
    """4 MB that inflate to 4 GB."""
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    path, dataset = _dicom(folder, "bomb_deflate.dcm", DeflatedExplicitVRLittleEndian, 64)
    dataset.PixelData = bytes(4096)  # type: ignore[attr-defined]
    dataset.save_as(path, implicit_vr=False, little_endian=True)  # type: ignore[attr-defined]
    data = path.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    with path.open("wb") as file:
        file.write(data[:start])
        file.write(packer.compress(zlib.decompress(data[start:], -zlib.MAX_WBITS)))
        for _ in range(2**8):
            file.write(packer.compress(bytes(2**24)))
        file.write(packer.flush())
    return path


def nested_sequences(folder: Path, *, defined: bool = False) -> Path:
    """Sequences in sequences to a depth of 100,000, of undefined length or not."""
    path = folder / f"bomb_nested_{'defined' if defined else 'open'}.dcm"
    data = (HERE.parent / "sample_data" / "scan.dcm").read_bytes()
    depth, tag, item = 100_000, b"\x09\0\x10\x10", b"\xfe\xff\0\xe0"
    if defined:
        parts, size = [], 0
        for _ in range(depth):
            parts.append(tag + b"SQ\0\0" + (size + 8).to_bytes(4, "little") + item
                         + size.to_bytes(4, "little"))  # fmt: skip
            size += 20
        nested = b"".join(reversed(parts))
    else:
        endless = b"\xff" * 4
        nested = (tag + b"SQ\0\0" + endless + item + endless) * depth
    pixels = data.index(b"\xe0\x7f\x10\0")
    path.write_bytes(data[:pixels] + nested + data[pixels:])
    return path


def nested_sequences_defined(folder: Path) -> Path:
    """The same with lengths."""
    return nested_sequences(folder, defined=True)


def png_bomb(folder: Path) -> Path:
    """A PNG of 30,000² grey pixels in a megabyte."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body).to_bytes(4, "big")
        return len(body).to_bytes(4, "big") + kind + body + checksum

    size = (30_000).to_bytes(4, "big")
    header = chunk(b"IHDR", size + size + b"\x08\0\0\0\0")
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(30_001)) for _ in range(30_000)) + packer.flush()
    path = folder / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def gzip_bomb(folder: Path) -> Path:
    """A NIfTI that announces 64 voxels, and 4 GB of zeros behind them."""
    import gzip

    import SimpleITK as sitk

    path = folder / "bomb.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 4, 4), np.int16)), str(path))
    data = gzip.decompress(path.read_bytes())
    with gzip.open(path, "wb") as file:
        file.write(data)
        for _ in range(2**8):
            file.write(bytes(2**24))
    return path


def zero_link(folder: Path) -> Path:
    """A picture that is /dev/zero."""
    path = folder / "zero.png"
    path.symlink_to("/dev/zero")
    return path


def pipe(folder: Path) -> Path:
    """A pipe that nobody writes to."""
    path = folder / "pipe.dcm"
    os.mkfifo(path)
    return path


def loop(folder: Path) -> Path:
    """A folder that holds nothing but a link to itself."""
    path = folder / "loop"
    path.mkdir()
    (path / "again").symlink_to(path)
    return path


def link_to_itself(folder: Path) -> Path:
    """A link that leads nowhere but to itself."""
    path = folder / "self.dcm"
    path.symlink_to(path)
    return path


# Hand-made files that cost others gigabytes, minutes or the process.
BOMBS: tuple[Callable[[Path], Path], ...] = (
    jpeg2000_bomb, jpeg_bomb, rle_bomb, deflate_bomb, nested_sequences, nested_sequences_defined,
    png_bomb, gzip_bomb, zero_link, pipe, loop, link_to_itself,
)  # fmt: skip


def batch_main(folder: Path, originals: dict[str, str], numbers: range, seed: int) -> None:
    """Read one batch; the outcomes and the peaks of memory go to stdout."""
    made_before = [Outcome(str(path), "bomb", "") for path in sorted(folder.iterdir())]
    inputs = made_before or write_mutants(folder, originals, numbers, seed)
    ended = read_back(inputs)
    close_workers()
    kib = {
        "process": _own_peak_kib(),
        "workers": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
    }
    print(json.dumps({"peak_kib": kib, "outcomes": [asdict(each) for each in ended]}))


def _own_peak_kib() -> int:
    """Peak resident size; that of `getrusage` would be the parent's where it was larger."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # no Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def run_batch(originals: dict[str, str], numbers: range, seed: int) -> tuple[dict, list[Outcome]]:
    """One batch in a process of its own: mutants of these numbers, or without originals bombs."""
    with tempfile.TemporaryDirectory() as scratch:
        for make in () if originals else BOMBS:
            make(Path(scratch))
        task = json.dumps([scratch, originals, numbers.start, numbers.stop, seed])
        done = subprocess.run(
            [sys.executable, __file__, "--batch", "-"], input=task, text=True, capture_output=True
        )
    if done.returncode:
        print(f"batch {numbers} died with {done.returncode}\n{done.stderr[-2000:]}")
        return {"died": 1}, [Outcome(str(number), "?", "") for number in numbers]
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["peak_kib"], [Outcome(**each) for each in answer["outcomes"]]


def batches(count: int) -> Iterator[range]:
    """0 to `count` in steps of `BATCH`."""
    for start in range(0, count, BATCH):
        yield range(start, min(count, start + BATCH))


def summarise(name: str, peaks: Sequence[dict], ended: Sequence[Outcome]) -> bool:
    """Print what became of the inputs; whether nothing went wrong."""
    codes = Counter(each.code for each in ended)
    died = sum(peak.get("died", 0) for peak in peaks)
    slow = [each for each in ended if each.seconds > SLOW]
    damaged = [e for e in ended if e.must_be_noticed and (e.code != "ok" or e.is_silent_loss)]
    silent = [each for each in damaged if each.is_silent_loss]
    cut = [each for each in damaged if each.kind == "cut" and each.code != "ok"]
    named = sum(each.code in ("truncated", "crc") for each in cut)
    print(f"\n{name}: {len(ended):,} inputs, {dict(codes.most_common())}")
    print(
        f"  deaths of the process {died}, unaccounted {codes['unaccounted']}, over 10 s {len(slow)}"
    )
    for who in ("process", "workers"):
        print(f"  peak memory of {who}: {max(p.get(who, 0) for p in peaks) / 1024:.0f} MiB")
    if damaged:
        share = 1 - len(silent) / len(damaged)
        print(f"  cut, or damaged under a checksum: {len(damaged):,}, noticed {share:.2%}")
        print(f"  of the cut ones {named / max(1, len(cut)):.2%} are called truncated or crc")
        others = Counter(each.code for each in cut if each.code not in ("truncated", "crc"))
        print(f"  the others: {dict(others)}")
    for each in (*slow, *silent):
        print(f"  {Path(each.name).name} {each.kind}: {each.code}, {each.seconds:.1f} s")
    return not (died or codes["unaccounted"] or slow or silent)


def main() -> None:
    """Fuzz every kind, then the bombs."""
    parser = argparse.ArgumentParser(description=__doc__)
    for kind, count in (("dicom", 10_000), ("nifti", 2_000), ("pictures", 2_000)):
        parser.add_argument(f"--{kind}", type=int, default=count)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--corpus", type=Path, default=os.environ.get("MEDCLI_TEST_DATA"))
    parser.add_argument("--batch", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.batch:
        folder, originals, start, stop, seed = json.load(sys.stdin)
        batch_main(Path(folder), originals, range(start, stop), seed)
        return
    well = True
    with tempfile.TemporaryDirectory() as scratch:
        sources = made_files(Path(scratch))
        if options.corpus:
            for kind, paths in corpus_files(options.corpus, random.Random(options.seed)).items():
                sources[kind] += paths
        for kind, paths in sources.items():
            originals = sound_files(paths)
            runs = [
                run_batch(originals, numbers, options.seed)
                for numbers in batches(getattr(options, kind))
            ]
            name = f"{kind}, of {len(originals)} originals"
            well &= summarise(name, [run[0] for run in runs], [e for run in runs for e in run[1]])
        peaks, ended = run_batch({}, range(len(BOMBS)), options.seed)
        well &= summarise("bombs", [peaks], ended)
        for each in ended:
            print(f"  {Path(each.name).name}: {each.code}, {each.seconds:.1f} s")
    close_workers()
    sys.exit(not well)


if __name__ == "__main__":
    try:
        main()
    except MedcliError as error:
        sys.exit(str(error))
