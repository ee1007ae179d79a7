"""Members of zip archives, read into memory within bounds; nothing is unpacked to disk.

A member is named ``a.zip!/inner``. Its name is looked up as it stands in the archive and
never as a path of the disk, so that ``../`` in it leads nowhere.

References
----------
PKWARE APPNOTE.TXT 6.3.10, 4.3.7 local file header, 4.3.12 central directory
"""

from __future__ import annotations

import io
import itertools
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import BinaryIO, NamedTuple

from medcli.errors import ScanError
from medcli.imaging.archive_stream import MemberStart, damaged_data, inflated
from medcli.imaging.files import MEMBER, open_plain, os_failure
from medcli.imaging.isolation.inside import leave_to_worker
from medcli.imaging.values import MAX_SAMPLES

MEMBER_BYTES = 4 * MAX_SAMPLES
"""Most bytes of one member, inflated."""

ARCHIVE_BYTES = 2**36
"""Most bytes of all members of an archive, inflated."""

IN_PROCESS_BYTES = 2**28
"""Most bytes of a member that is inflated outside of a worker."""

HEADER_BYTES, HEADER_RATIO = 2**26, 16
"""A header is inflated no further than the one, or the other times its compressed bytes."""

MAX_MEMBERS = 200_000

_DEFLATE_RATIO = 1032
"""Deflate cannot do better: who announces more lies."""

_LOCAL_HEADER = 30
_HEAD_PACKED = 2**16  # compressed bytes that are enough for the first bytes of a member


class Member(NamedTuple):
    """One file in an archive, as the central directory announces it."""

    offset: int  # of its local header
    packed: int  # bytes in the archive
    size: int  # bytes inflated
    crc: int
    method: int
    encrypted: bool


def split_path(path: str) -> tuple[str, str] | None:
    """``a.zip!/inner`` as (archive, member) where the first is a file, else None."""
    start = path.find(MEMBER)
    while start >= 0:
        if os.path.isfile(path[:start]):
            return path[:start], path[start + len(MEMBER) :]
        start = path.find(MEMBER, start + 1)
    return None


def open_member(path: str) -> BinaryIO | None:
    """The content of a member, whole and checked; None where `path` names none.

    Raises
    ------
    ScanError : encrypted, unsupported_compression, too_large, truncated, crc,
        damaged_header; what `members` raises
    NeedsWorkerError : a member of more than `IN_PROCESS_BYTES`, outside of a worker
    """
    found = _find_member(path)
    if found is None:
        return None
    if found[1].size > IN_PROCESS_BYTES:
        leave_to_worker()
    content = io.BytesIO()  # grows in place; joined chunks would take twice the memory
    for chunk in _chunks(path, *found):
        content.write(chunk)
    content.seek(0)
    return content


def member_chunks(path: str) -> Iterator[bytes] | None:
    """The content of a member bit by bit, checked at its end; None where `path` names none.

    Raises
    ------
    ScanError : as `open_member`, also while it is read
    """
    found = _find_member(path)
    return None if found is None else _chunks(path, *found)


def open_member_start(path: str, count: int | None = None) -> BinaryIO | None:
    """A member for who reads its header, or its first `count` bytes; None where there is none.

    No more is inflated than is read, and no more than a header takes.

    Raises
    ------
    ScanError : as `open_member`, of damage also while it is read
    """
    found = _find_member(path)
    if found is None:
        return None
    archive, member = found
    size = member.size if count is None else min(count, member.size)
    packed = _packed(archive, member, whole=count is None)
    limit = max(HEADER_BYTES, HEADER_RATIO * member.packed)
    chunks = inflated(packed, deflated=bool(member.method))
    return io.BufferedReader(MemberStart(path, chunks, size, limit))


def check_bomb(path: str, announced: int) -> None:
    """Refuse a member that is far larger than the `announced` bytes of its image.

    Raises
    ------
    ScanError : too_large; what `members` raises
    """
    found = _find_member(path)
    if found is None:
        return
    size, packed = found[1].size, found[1].packed
    if size > announced + max(HEADER_BYTES, HEADER_RATIO * packed):
        message = f"{path}: inflates to {size:,} bytes, more than its image"
        raise ScanError("too_large", message, "No scanner writes such a file")


def _find_member(path: str) -> tuple[str, Member] | None:
    """The archive and the member that `path` names, which can and may be inflated."""
    parts = split_path(path)
    member = members(parts[0]).get(parts[1]) if parts else None
    if parts is None or member is None:
        return None
    _check_member(path, member)
    return parts[0], member


def _chunks(path: str, archive: str, member: Member) -> Iterator[bytes]:
    """The content of a member, which must be whole and have its checksum."""
    size = crc = 0
    try:
        for chunk in inflated(_packed(archive, member, whole=True), deflated=bool(member.method)):
            chunk = chunk[: member.size - size]
            size, crc = size + len(chunk), zlib.crc32(chunk, crc)
            yield chunk
            if size == member.size:
                break
    except zlib.error as error:
        raise damaged_data(path) from error
    if size < member.size:
        raise ScanError("truncated", f"{path}: the archive ends before it does", "Copy it again")
    if crc != member.crc:
        raise ScanError("crc", f"{path}: a checksum in the archive is wrong", "Copy it again")


def members(archive: str) -> Mapping[str, Member]:
    """The files of an archive by name, as it is on the disk now; folders are left out.

    A name may come again, where an archive was added to: each member is a file of its own.

    Raises
    ------
    ScanError : not_found, unreadable, truncated (no central directory), damaged_header,
        too_large
    """
    with open_plain(archive, 0) as file:
        status = os.fstat(file.fileno())
    return _directory(archive, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)  # it would be parsed again for every member
def _directory(archive: str, modified: int, size: int) -> Mapping[str, Member]:
    """The files of one version of an archive."""
    try:
        with open_plain(archive, 0) as file, zipfile.ZipFile(file) as content:
            # A damaged name may be empty, over which `is_dir` stumbles.
            infos = [info for info in content.infolist() if not info.filename.endswith("/")]
    except ScanError:
        raise
    except zipfile.BadZipFile as error:
        if str(error) == "File is not a zip file":  # it has no end
            message = f"{archive}: the archive ends early"
            raise ScanError("truncated", message, "Copy it again") from error
        raise _damaged(archive) from error
    except OSError as error:
        raise os_failure(archive, error) from error
    except Exception as error:  # a damaged directory can raise anything
        raise _damaged(archive) from error
    _check_directory(archive, infos)
    return {
        name: Member(
            info.header_offset,
            info.compress_size,
            info.file_size,
            info.CRC,
            info.compress_type,
            bool(info.flag_bits & 1),
        )
        for name, info in zip(_distinct([info.filename for info in infos]), infos, strict=True)
    }


def _distinct(names: Sequence[str]) -> Iterable[str]:
    """`names`, where one that comes again is numbered: ``x.png``, ``x~2.png``."""
    taken = set(names)
    if len(taken) == len(names):
        return names
    spare: dict[str, Iterator[str]] = {}
    distinct = []
    for name in names:
        if name in spare:
            name = next(each for each in spare[name] if each not in taken)
            taken.add(name)
        else:
            spare[name] = _numbered(name)
        distinct.append(name)
    return distinct


def _numbered(name: str) -> Iterator[str]:
    """``a/x~2.nii.gz``, ``a/x~3.nii.gz`` …; a hidden name stays hidden, all keep their suffix."""
    folder, slash, file = name.rpartition("/")
    stem, dot, suffix = file[1:].partition(".")
    for number in itertools.count(2):
        yield f"{folder}{slash}{file[:1]}{stem}~{number}{dot}{suffix}"


def _damaged(path: str) -> ScanError:
    return ScanError("damaged_header", f"{path}: the archive is damaged", "Copy it again")


def _check_directory(archive: str, infos: Iterable[zipfile.ZipInfo]) -> None:
    """Refuse bombs: too many members, too much in all, one part of the file used twice."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    if len(ordered) > MAX_MEMBERS or sum(info.file_size for info in ordered) > ARCHIVE_BYTES:
        raise ScanError(
            "too_large", f"{archive}: more in it than the budget allows", "Unpack it first"
        )
    end = 0
    for info in ordered:
        if info.header_offset < end:
            raise _damaged(archive)
        end = info.header_offset + _LOCAL_HEADER + info.compress_size


def _check_member(path: str, member: Member) -> None:
    """Refuse what cannot or must not be inflated."""
    if member.encrypted:
        raise ScanError("encrypted", f"{path}: the archive is encrypted", "Unpack it first")
    if member.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        message = f"{path}: a compression of the archive that medcli does not read"
        raise ScanError("unsupported_compression", message, "Unpack it first")
    if member.size > MEMBER_BYTES:
        raise ScanError("too_large", f"{path}: inflates beyond {MEMBER_BYTES:,} bytes")
    ratio = _DEFLATE_RATIO if member.method else 1
    if member.size > ratio * member.packed:
        raise _damaged(path)


def _packed(archive: str, member: Member, whole: bool) -> bytes:
    """The compressed bytes of a member, or as many as its first bytes need."""
    with open_plain(archive, member.size) as file:
        try:
            file.seek(member.offset)
            local = file.read(_LOCAL_HEADER)
            if len(local) < _LOCAL_HEADER or not local.startswith(b"PK\3\4"):
                raise _damaged(archive)
            file.seek(sum(struct.unpack_from("<2H", local, 26)), os.SEEK_CUR)  # name, extra
            return file.read(member.packed if whole else min(member.packed, _HEAD_PACKED))
        except OSError as error:
            raise os_failure(archive, error) from error
