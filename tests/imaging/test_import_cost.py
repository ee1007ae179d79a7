"""What a cold start pays for: reading one CT slice loads pydicom and nothing heavier."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PROGRAM = """
import sys
from medcli.imaging.discovery import find_scans
from medcli.imaging.preprocess import Preprocessor
from medcli.imaging.reader import read_scan
from medcli.config import PreprocessConfig

assert not {"pydicom", "SimpleITK", "PIL"} & sys.modules.keys(), "loaded before a file is seen"
(case,) = find_scans(sys.argv[1:])
Preprocessor(PreprocessConfig()).model_input(read_scan(case))
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def loaded_by_reading(path: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, path],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    return set(done.stdout.split())


def test_a_ct_slice_loads_pydicom_only(make_dicom: Any) -> None:
    loaded = loaded_by_reading(make_dicom(RescaleSlope=1, RescaleIntercept=-1024))
    assert "pydicom" in loaded
    assert not {"SimpleITK", "torch", "scipy", "faiss", "onnxruntime"} & loaded


def test_a_picture_loads_pillow_only(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "x.png")
    loaded = loaded_by_reading(str(tmp_path / "x.png"))
    assert "PIL" in loaded
    assert not {"SimpleITK", "pydicom", "torch", "scipy"} & loaded
