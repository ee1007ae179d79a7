"""MedMNIST archives: class names of each set, members as cases.

References
----------
Yang et al., MedMNIST v2, Scientific Data 10:41 (2023); the tables are those of
``medmnist/info.py`` of the authors' package (v2.1), github.com/MedMNIST/MedMNIST.
"""

from __future__ import annotations

import itertools
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medcli.data.findings import join_findings
from medcli.errors import ManifestError, ScanError
from medcli.imaging.files import MEMBER
from medcli.records import Case

if TYPE_CHECKING:
    import numpy as np

_ORGANS_2D = (
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
)

# Name of class 0, 1, …; a comma inside a name became "/", since commas separate --classes.
CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "pathmnist": (
        "adipose",
        "background",
        "debris",
        "lymphocytes",
        "mucus",
        "smooth muscle",
        "normal colon mucosa",
        "cancer-associated stroma",
        "colorectal adenocarcinoma epithelium",
    ),
    "dermamnist": (
        "actinic keratoses and intraepithelial carcinoma",
        "basal cell carcinoma",
        "benign keratosis-like lesions",
        "dermatofibroma",
        "melanoma",
        "melanocytic nevi",
        "vascular lesions",
    ),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "pneumoniamnist": ("normal", "pneumonia"),
    "chestmnist": (
        "atelectasis",
        "cardiomegaly",
        "effusion",
        "infiltration",
        "mass",
        "nodule",
        "pneumonia",
        "pneumothorax",
        "consolidation",
        "edema",
        "emphysema",
        "fibrosis",
        "pleural",
        "hernia",
    ),
    "retinamnist": ("0", "1", "2", "3", "4"),
    "breastmnist": ("malignant", "normal/benign"),
    "bloodmnist": (
        "basophil",
        "eosinophil",
        "erythroblast",
        "immature granulocytes",
        "lymphocyte",
        "monocyte",
        "neutrophil",
        "platelet",
    ),
    "tissuemnist": (
        "Collecting Duct/Connecting Tubule",
        "Distal Convoluted Tubule",
        "Glomerular endothelial cells",
        "Interstitial endothelial cells",
        "Leukocytes",
        "Podocytes",
        "Proximal Tubule Segments",
        "Thick Ascending Limb",
    ),
    "organamnist": _ORGANS_2D,
    "organcmnist": _ORGANS_2D,
    "organsmnist": _ORGANS_2D,
    "organmnist3d": (
        "liver",
        "kidney-right",
        "kidney-left",
        "femur-right",
        "femur-left",
        "bladder",
        "heart",
        "lung-right",
        "lung-left",
        "spleen",
        "pancreas",
    ),
    "nodulemnist3d": ("benign", "malignant"),
    "adrenalmnist3d": ("normal", "hyperplasia"),
    "fracturemnist3d": (
        "buckle rib fracture",
        "nondisplaced rib fracture",
        "displaced rib fracture",
    ),
    "vesselmnist3d": ("vessel", "aneurysm"),
    "synapsemnist3d": ("inhibitory synapse", "excitatory synapse"),
}

SPLITS = ("train", "val", "test")


def class_names_of(path: str | Path) -> tuple[str, ...] | None:
    """The class names of the set a file is named after: ``pathmnist_224.npz`` → nine tissues."""
    match = re.match(r"[a-z]+mnist(3d)?", Path(path).name.lower())
    return CLASS_NAMES.get(match.group()) if match else None


def archive_member(path: str) -> Case | None:
    """The picture that ``set.npz!/train_images/17`` names; None where it names none."""
    archive, _, member = path.partition(MEMBER)
    if not archive.lower().endswith(".npz") or not re.fullmatch(r"\w+_images/\d+", member):
        return None
    name = Path(archive).name
    return Case(path, (archive,), "array", f"{name}{MEMBER}{member}", member=member)


def read_archive(path: str | Path, class_names: Sequence[str] | None = None) -> list[Case]:
    """The members of a MedMNIST `.npz` as cases, train before val before test.

    Only headers of the picture arrays and the labels are read. A case's `member` is
    ``train_images/17``, its split that of the array. Without labels `label` is None; where
    there are several of 0 and 1 for each picture it names the findings that are 1, as in
    ``effusion|edema`` (`medcli.data.findings`).

    Parameters
    ----------
    class_names : names of class 0, 1, …; by default those of an array `class_names`, else
        of the set in the file's name, else the digits themselves

    Raises
    ------
    ScanError : the file is missing, damaged, or holds no MedMNIST arrays
    ManifestError : as many labels as pictures are needed, and a name for each digit
    """
    path = Path(path)
    names = tuple(class_names) if class_names else class_names_of(path)
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = set(archive.namelist())
            if class_names is None and "class_names.npy" in arrays:
                names = tuple(map(str, _labels(archive, "class_names.npy").reshape(-1)))
            present = [split for split in SPLITS if f"{split}_images.npy" in arrays]
            counts = {split: _length(archive, f"{split}_images.npy") for split in present}
            digits = {
                split: _labels(archive, f"{split}_labels.npy")
                for split in present
                if f"{split}_labels.npy" in arrays
            }
    except FileNotFoundError as error:
        raise ScanError("not_found", f"{path} does not exist") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ScanError("truncated", f"{path} is damaged or no NumPy archive: {error}") from error
    if not present:
        raise ScanError(
            "not_an_image",
            f"{path} holds none of train_images, val_images and test_images",
            "medcli reads .npz files laid out as MedMNIST does",
        )
    return [
        _case(path, split, index, label)
        for split in present
        for index, label in enumerate(_names(path, split, digits.get(split), names, counts[split]))
    ]


def _length(archive: zipfile.ZipFile, name: str) -> int:
    """Number of pictures in an array, from its header alone."""
    import numpy as np

    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape = read_header(file)[0]
    return int(shape[0]) if shape else 0


def _labels(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    import numpy as np

    with archive.open(name) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def _names(
    path: Path,
    split: str,
    digits: np.ndarray | None,
    names: tuple[str, ...] | None,
    count: int,
) -> list[str | None]:
    """(N,) or (N, 1) digits → N class names, (N, F) of 0 and 1 → names of findings.

    N times None without digits.
    """
    if digits is None:
        return [None] * count
    if digits.ndim > 1 and digits.shape[1] > 1:
        return [*_findings(path, digits.reshape(len(digits), -1), names, count)]
    numbers = [int(digit) for digit in digits.reshape(-1)]
    if len(numbers) != count:
        raise ManifestError(f"{path}: {count} {split} pictures but {len(numbers)} labels")
    if names is None:
        return [str(number) for number in numbers]
    if numbers and not 0 <= min(numbers) <= max(numbers) < len(names):
        raise ManifestError(
            f"{path} has labels {min(numbers)} to {max(numbers)} but {len(names)} class names",
            "give one name for each digit with --class-names",
        )
    return [names[number] for number in numbers]


def _findings(
    path: Path, flags: np.ndarray, names: tuple[str, ...] | None, count: int
) -> list[str]:
    """(N, F) of 0 and 1 → N labels that name the findings."""
    width = flags.shape[1]
    names = names or tuple(map(str, range(width)))
    if len(flags) != count or not ((flags == 0) | (flags == 1)).all():
        raise ManifestError(
            f"{path}: {count} pictures, but labels of shape {flags.shape} from {flags.min()} to "
            f"{flags.max()}",
            "several labels of a picture are 0 or 1 each, one row a picture",
        )
    if len(names) != width:
        raise ManifestError(
            f"{path} has {width} labels for each picture but {len(names)} class names",
            "give one name for each column with --class-names",
        )
    return [join_findings(itertools.compress(names, row)) for row in flags]


def _case(path: Path, split: str, index: int, label: str | None) -> Case:
    member = f"{split}_images/{index}"
    return Case(
        path=f"{path}{MEMBER}{member}",
        files=(str(path),),
        kind="array",
        scan_id=f"{path.name}{MEMBER}{member}",
        label=label,
        split=split,
        member=member,
    )
