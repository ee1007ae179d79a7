"""Hand-made files that cost others gigabytes, minutes or the process."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fuzzing.mutants import SAMPLE


def _dicom(folder: Path, name: str, syntax: str, rows: int = 20_000) -> tuple[Path, object]:
    """The sample scan with another size and transfer syntax, to be given its pixels."""
    import pydicom

    dataset = pydicom.dcmread(SAMPLE)
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
    data = SAMPLE.read_bytes()
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


def _flooded(folder: Path, name: str, flood: bytes) -> Path:
    """The sample scan with a flood of bytes in front of its pixels."""
    path, data = folder / name, SAMPLE.read_bytes()
    pixels = data.index(b"\xe0\x7f\x10\0")
    path.write_bytes(data[:pixels] + flood + data[pixels:])
    return path


def flood_of_elements(folder: Path) -> Path:
    """Four million elements of two bytes, in 40 MB."""
    return _flooded(folder, "flood_elements.dcm", b"\x09\0\x10\x10LO\x02\0ab" * 2**22)


def flood_of_items(folder: Path) -> Path:
    """Four million empty items, as if each were a frame, in 32 MB."""
    length = (2**25).to_bytes(4, "little")
    items = b"\xfe\xff\0\xe0\0\0\0\0" * 2**22
    return _flooded(folder, "flood_items.dcm", b"\0\x52\x30\x92SQ\0\0" + length + items)


def endless_list(folder: Path) -> Path:
    """A pixel spacing of 16 million numbers."""
    path, dataset = _dicom(folder, "endless_list.dcm", "1.2.840.10008.1.2", 64)
    dataset.PixelData = bytes(4096)  # type: ignore[attr-defined]
    dataset.PixelSpacing = ["1", "1"]  # type: ignore[attr-defined]
    dataset.save_as(path, implicit_vr=True, little_endian=True)  # type: ignore[attr-defined]
    data, numbers = path.read_bytes(), b"1\\" * 2**24
    place = data.index(b"\x28\0\x30\0") + 4
    length = int.from_bytes(data[place : place + 4], "little")
    longer = len(numbers).to_bytes(4, "little") + numbers
    path.write_bytes(data[:place] + longer + data[place + 4 + length :])
    return path


def zip_bomb(folder: Path) -> Path:
    """2 MB that hold the sample scan with 2 GB of zeros behind its pixels."""
    import zipfile

    path = folder / "bomb.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.dcm", "w", force_zip64=True) as member,
    ):
        member.write(SAMPLE.read_bytes())
        for _ in range(127):
            member.write(bytes(2**24))
    return path


def unix_socket(folder: Path) -> Path:
    """A socket that nobody listens at."""
    import socket

    path = folder / "s.dcm"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
    return path


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


BOMBS: tuple[Callable[[Path], Path], ...] = (
    jpeg2000_bomb, jpeg_bomb, rle_bomb, deflate_bomb, nested_sequences, nested_sequences_defined,
    flood_of_elements, flood_of_items, endless_list, png_bomb, gzip_bomb, zip_bomb, unix_socket,
    zero_link, pipe, loop, link_to_itself,
)  # fmt: skip
