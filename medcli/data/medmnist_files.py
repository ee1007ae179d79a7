"""``medmnist:name[@size]`` → the archive on this machine, downloaded once where it is asked for.

References
----------
Yang et al., MedMNIST v2, Scientific Data 10:41 (2023); addresses and checksums are those of
``medmnist/info.py`` of the authors' package (v3.0), github.com/MedMNIST/MedMNIST, CC BY 4.0
(DermaMNIST: CC BY-NC 4.0).
"""

from __future__ import annotations

import hashlib
import os
import secrets
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path

from medcli.data.manifest import closest
from medcli.errors import ScanError, UsageError
from medcli.home import medcli_home

ADDRESS = "https://zenodo.org/records/10519652/files"
SIZES = (28, 64, 128, 224)
_CHUNK = 2**20
_TIMEOUT = 30  # seconds without an answer

# MD5 of the archive in each of SIZES; volumes come in two of them.
CHECKSUMS: dict[str, tuple[str, ...]] = {
    "pathmnist": (
        "a8b06965200029087d5bd730944a56c1",
        "55aa9c1e0525abe5a6b9d8343a507616",
        "ac42d08fb904d92c244187169d1fd1d9",
        "2c51a510bcdc9cf8ddb2af93af1eadec",
    ),
    "chestmnist": (
        "02c8a6516a18b556561a56cbdd36c4a8",
        "9de6cd0b934ebb5b7426cfba5efbae16",
        "db107e5590b27930b62dbaf558aebee3",
        "45bd33e6f06c3e8cdb481c74a89152aa",
    ),
    "dermamnist": (
        "0744692d530f8e62ec473284d019b0c7",
        "b70a2f5635c6199aeaa28c31d7202e1f",
        "2defd784463fa5243564e855ed717de1",
        "8974907d8e169bef5f5b96bc506ae45d",
    ),
    "octmnist": (
        "c68d92d5b585d8d81f7112f81e2d0842",
        "e229e9440236b774d9f0dfef9d07bdaf",
        "0a97e76651ace45c5d943ee3f65b63ae",
        "abc493b6d529d5de7569faaef2773ba3",
    ),
    "pneumoniamnist": (
        "28209eda62fecd6e6a2d98b1501bb15f",
        "8f4eceb4ccffa70c672198ea285246c6",
        "05b46931834c231683c68f40c47b2971",
        "d6a3c71de1b945ea11211b03746c1fe1",
    ),
    "retinamnist": (
        "bd4c0672f1bba3e3a89f0e4e876791e4",
        "afda852cc34dcda56f86ad2b2457dbcc",
        "e48e916a24454daf90583d4e6efb1a18",
        "eae7e3b6f3fcbda4ae613ebdcbe35348",
    ),
    "breastmnist": (
        "750601b1f35ba3300ea97c75c52ff8f6",
        "742edef2a1fd1524b2efff4bd7ba9364",
        "363e4b3f8d712e9b5de15470a2aaadf1",
        "b56378a6eefa9fed602bb16d192d4c8b",
    ),
    "bloodmnist": (
        "7053d0359d879ad8a5505303e11de1dc",
        "2b94928a2ae4916078ca51e05b6b800b",
        "adace1e0ed228fccda1f39692059dd4c",
        "b718ff6835fcbdb22ba9eacccd7b2601",
    ),
    "tissuemnist": (
        "ebe78ee8b05294063de985d821c1c34b",
        "123ece2eba09d0aa5d698fda57103344",
        "61b955355d7425a89687b06cca3ce0c2",
        "b077128c4a949f0a4eb01517f9037b9c",
    ),
    "organamnist": (
        "68e3f8846a6bd62f0c9bf841c0d9eacc",
        "2dcccc29b88e6da5a01161ef20cda288",
        "eeae80d0a227a8d099027e1b3cfd3b60",
        "50747347e05c87dd3aaf92c49f9f3170",
    ),
    "organcmnist": (
        "b9ceb9546e10131b32923c5bbeaea2b1",
        "3ce34a8724ea6f548e6db4744d03b6a9",
        "773c1f009daa3fe5d9a2a201b2a7ed94",
        "050f5e875dc056f6768abf94ec9995d1",
    ),
    "organsmnist": (
        "9ab87b696fb54e2a387ebe992d6ed5f1",
        "53a6d115339d874c25e309a994ff46d3",
        "ded0c5fa01a95dc4978b956f613e9b8e",
        "b354719e553fbbb2513d5533f52a4cb1",
    ),
    "organmnist3d": ("a0c5a1ff56af4f155c46d46fbb45a2fe", "58a2205adf14a9d0a189cb06dc78bf10"),
    "nodulemnist3d": ("8755a7e9e05a4d9ce80a24c3e7a256f3", "c47c5b7d457bf6332200d2ea6d64ecd8"),
    "adrenalmnist3d": ("bbd3c5a5576322bc4cdfea780653b1ce", "17721accfe9fb005146a47d33bc54b2f"),
    "fracturemnist3d": ("6aa7b0143a6b42da40027a9dda61302f", "f01d7e6316aedf4210da0da5b7437b42"),
    "vesselmnist3d": ("b41fd4f7e7e2feedddb201585ecafa1b", "6bb274a8846e1097066dcd64e2c4520f"),
    "synapsemnist3d": ("1235b78a3cd6280881dd7850a78eadb6", "43bd14ebf3af9d3dd072446fedc14d5e"),
}


def medmnist_archive(wanted: str, on_note: Callable[[str], None] = lambda note: None) -> Path:
    """The `.npz` of a MedMNIST set.

    Looked for in the folder that is named with it, else in the medcli home and in the folder
    of the authors' package (``~/.medmnist``); what is nowhere is downloaded into the medcli
    home and its checksum compared.

    Parameters
    ----------
    wanted : ``pneumoniamnist``, ``pathmnist@64`` or ``/folder/pathmnist``
    on_note : told of a download

    Raises
    ------
    UsageError : there is no such set, or not in this size
    ScanError : not in the folder that was named; no network; a wrong checksum
    """
    place, _, size = wanted.partition("@")
    name = Path(place).name.lower()
    checksum = _checksum(name, size or "28")
    file = f"{name}.npz" if size in ("", "28") else f"{name}_{size}.npz"
    if place != Path(place).name:
        path = Path(place).with_name(file)
        if not path.is_file():
            raise ScanError("not_found", f"{path} does not exist")
        return path
    cache = medcli_home() / "cache" / "medmnist"
    for folder in (cache, Path.home() / ".medmnist"):
        if (folder / file).is_file():
            return folder / file
    address = f"{ADDRESS}/{file}?download=1"
    on_note(f"downloading {address} into {cache}")
    _download(address, cache / file, checksum)
    return cache / file


def _checksum(name: str, size: str) -> str:
    """The MD5 of a set in a size."""
    if name not in CHECKSUMS:
        raise UsageError(
            f"MedMNIST has no set {name!r}",
            f"{closest(name, CHECKSUMS)}it has {', '.join(CHECKSUMS)}",
        )
    sizes = dict(zip(map(str, SIZES), CHECKSUMS[name], strict=False))
    if size not in sizes:
        raise UsageError(f"{name} has no size {size}", f"it has {', '.join(sizes)}")
    return sizes[size]


def _download(address: str, target: Path, checksum: str) -> None:
    """Fetch a file; it gets its name when its checksum is right."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{secrets.token_hex(8)}.part")
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with draft.open("xb") as file:
            for part in _fetch(address, target):
                digest.update(part)
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != checksum:
            raise ScanError(
                "crc", f"{address}: the download has a wrong checksum", "Run the command again"
            )
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _fetch(address: str, target: Path) -> Iterator[bytes]:
    """The bytes at an address, part by part."""
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT) as answer:
            while part := answer.read(_CHUNK):
                yield part
    except (urllib.error.URLError, HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise ScanError(
            "not_found",
            f"{target.name} is not on this machine and cannot be downloaded: {reason}",
            f"Behind a proxy set HTTPS_PROXY; else fetch {address} elsewhere and put it into "
            f"{target.parent}",
        ) from error
