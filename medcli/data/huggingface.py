"""``hf:owner/name[@config][:split]`` → a folder of picture files with a manifest, written once.

Pictures are kept as they are stored, byte for byte, so that every command reads them as it
reads any file, in any number. A local data set (``hf:/path/to/saved``) needs no network.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcli.data.manifest import SPLIT_NAMES, closest
from medcli.errors import ManifestError, ScanError, UsageError
from medcli.files import new_folder
from medcli.home import medcli_home
from medcli.imaging.formats import picture_format

if TYPE_CHECKING:
    from datasets import Dataset

IMAGE_NAMES = ("image", "img", "picture")
LABEL_NAMES = ("label", "labels", "class", "target", "diagnosis")
PATIENT_NAMES = ("patientid", "patient", "subjectid", "subject")  # letters alone, in small
MANIFEST = "manifest.csv"
DROPPED = "dropped.csv"
_TAKEN = {"path", "label", "patient_id", "scan_id", "slice", "split", "time_point"}
_SUFFIX = {"png": "png", "jpeg": "jpg", "tiff": "tif", "bmp": "bmp"}
_BLOCK = 1000  # pictures in one folder


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which column of a data set means what."""

    image: str
    label: str
    patient: str | None
    others: tuple[str, ...]


def huggingface_manifest(
    wanted: str, on_note: Callable[[str], None] = lambda note: None
) -> tuple[Path, Counter[str]]:
    """The manifest of a data set in the medcli home, and what was left out of it, by reason.

    Parameters
    ----------
    wanted : ``owner/name``, ``owner/name@config``, ``owner/name:train`` or the path of a folder
        that `datasets` saved. A single split is a set without parts
    on_note : told where the pictures go

    Raises
    ------
    UsageError : the package `datasets` is missing; no such split; several labels a picture
    ManifestError : no column of pictures or of labels
    ScanError : the data set is neither on this machine nor within reach
    """
    name, config, split = _parsed(wanted)
    parts = _load(name, config, split)
    columns = _columns(wanted, next(iter(parts.values())))
    prints = [f"{part}:{data._fingerprint}" for part, data in parts.items()]
    key = hashlib.sha256("|".join([name, config or "", *prints]).encode()).hexdigest()[:12]
    slug = re.sub(r"[^\w.-]+", "-", Path(name).name if _is_local(name) else name)
    folder = medcli_home() / "cache" / "hf" / f"{slug}-{key}"
    if not (folder / MANIFEST).is_file():
        on_note(f"writing the pictures of hf:{wanted} into {folder}, once")
        with new_folder(folder, overwrite=False, replaceable=lambda path: False) as draft:
            _write(draft, parts, columns, single=split is not None)
    with (folder / DROPPED).open(newline="", encoding="utf-8") as file:
        return folder / MANIFEST, Counter({row[0]: int(row[1]) for row in csv.reader(file)})


def _is_local(name: str) -> bool:
    return Path(name).is_dir()


def _parsed(wanted: str) -> tuple[str, str | None, str | None]:
    """Name, configuration and split; a path that exists is a name as it stands."""
    if _is_local(wanted):
        return wanted, None, None
    rest, _, split = wanted.rpartition(":") if ":" in wanted else (wanted, "", "")
    name, _, config = rest.partition("@")
    if not name:
        raise UsageError(f"hf:{wanted} names no data set", "Write hf:owner/name or hf:/folder")
    return name, config or None, split or None


def _load(name: str, config: str | None, split: str | None) -> dict[str, Dataset]:
    """The parts of a data set by the name of their split."""
    try:
        import datasets
        from huggingface_hub.utils import logging as hub_logging
    except ImportError as error:
        raise UsageError(
            f"hf:{name} needs the package datasets", "pip install 'medcli[datasets]'"
        ) from error
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    hub_logging.set_verbosity(logging.CRITICAL)
    saved = any((Path(name) / file).is_file() for file in ("dataset_dict.json", "state.json"))
    try:
        found = datasets.load_from_disk(name) if saved else datasets.load_dataset(name, config)
    except Exception as error:  # the package's errors, and Arrow's, have no base class of their own
        first = str(error).strip().partition("\n")[0]
        raise ScanError(
            "not_found",
            f"hf:{name} cannot be loaded: {first}",
            "Check the name and the network; behind a proxy set HTTPS_PROXY. A data set that "
            "datasets.save_to_disk wrote is read offline, as hf:/folder",
        ) from error
    parts = dict(found) if isinstance(found, dict) else {"train": found}
    if split is not None and split not in parts:
        raise UsageError(
            f"hf:{name} has no split {split!r}",
            f"{closest(split, parts)}it has {', '.join(parts)}",
        )
    return parts if split is None else {split: parts[split]}


def _columns(wanted: str, data: Dataset) -> _Columns:
    """What the columns mean, by their kinds, and by their names where a kind is not enough."""
    from datasets import ClassLabel, Image, Value

    kinds = data.features
    images = [name for name, kind in kinds.items() if isinstance(kind, Image)]
    labels = [name for name, kind in kinds.items() if isinstance(kind, ClassLabel)]
    plain = [name for name, kind in kinds.items() if isinstance(kind, Value)]
    image = _chosen(images, IMAGE_NAMES)
    label = _chosen(labels, LABEL_NAMES) or _chosen(
        [name for name in plain if name.lower() in LABEL_NAMES], LABEL_NAMES
    )
    several = [name for name in kinds if name.lower() in LABEL_NAMES and name not in plain]
    if label is None and several and not labels:
        raise UsageError(
            f"hf:{wanted} has several labels for each picture (column {several[0]!r})",
            "medcli trains on one label for each scan; multi-label sets are not supported",
        )
    for what, found in (("pictures", image), ("labels", label)):
        if found is None:
            raise ManifestError(
                f"hf:{wanted} has no column, or several, that could hold the {what}",
                f"columns found: {', '.join(kinds)}; name it {what.removesuffix('s')!r}"
                if what == "labels"
                else f"columns found: {', '.join(kinds)}; name it 'image'",
            )
    patient = next((name for name in plain if _letters(name) in PATIENT_NAMES), None)
    others = [n for n in plain if n not in (label, patient) and n.lower() not in _TAKEN]
    return _Columns(str(image), str(label), patient, tuple(others))


def _chosen(names: list[str], preferred: tuple[str, ...]) -> str | None:
    """The only name, else the first with a preferred one."""
    if len(names) == 1:
        return names[0]
    by_name = {name.lower(): name for name in names}
    return next((by_name[each] for each in preferred if each in by_name), None)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _write(folder: Path, parts: dict[str, Dataset], columns: _Columns, *, single: bool) -> None:
    """The pictures, a manifest over them, and what was left out."""
    dropped: Counter[str] = Counter()
    header = ["path", "label", "patient_id", "split", *map(str.lower, columns.others)]
    with (folder / MANIFEST).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for part, data in parts.items():
            split = SPLIT_NAMES.get(part.lower())
            if split is None and not single:
                dropped[f"split {part!r}, none of train, validation and test"] += len(data)
                continue
            for row in _rows(folder, part, data, columns, dropped):
                writer.writerow([*row[:3], "" if single else split, *row[3:]])
    with (folder / DROPPED).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(dropped.items())


def _rows(
    folder: Path, part: str, data: Dataset, columns: _Columns, dropped: Counter[str]
) -> Iterator[list[str]]:
    """Path, label, patient and further columns of each picture, which is written first."""
    from datasets import Image

    names = getattr(data.features[columns.label], "names", None)
    wanted = [columns.image, columns.label, columns.patient, *columns.others]
    slim = data.select_columns([name for name in wanted if name is not None])
    for number, row in enumerate(slim.cast_column(columns.image, Image(decode=False))):
        place = f"{part}/{number // _BLOCK:04d}/{number:07d}"
        path = _picture(folder, place, row[columns.image])
        if path is None:
            dropped["no picture, or one of a format medcli does not read"] += 1
            continue
        label = row[columns.label]
        if names is not None:
            label = names[label] if label is not None and 0 <= label < len(names) else None
        patient = row[columns.patient] if columns.patient else None
        yield [path, *map(_text, (label, patient, *(row[name] for name in columns.others)))]


def _picture(folder: Path, place: str, stored: dict[str, Any] | None) -> str | None:
    """The path of a picture: where it lies, or where its bytes are written now."""
    content, path = (stored or {}).get("bytes"), (stored or {}).get("path")
    if content is None:
        return str(Path(path).absolute()) if path and Path(path).is_file() else None
    kind = picture_format(content[:64])
    if kind is None:
        return None
    target = folder / f"{place}.{_SUFFIX[kind]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return f"{place}.{_SUFFIX[kind]}"


def _text(value: object) -> str:
    return "" if value is None else str(value)
