"""What a user would write without medcli: one DICOM through the same network in torch.

Called by cold_start.py: python plain_classify.py RUN_FOLDER SCAN.dcm
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

# pydicom loads every decoder it finds, and medcli brings one that a plain script would not have.
sys.modules["gdcm"] = None  # type: ignore[assignment]

import numpy as np
import pydicom
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from medcli.config import ModelConfig
from medcli.models.scan_model import ScanModel


def main(run: Path, scan: str) -> None:
    """Read, window, resize, predict, print."""
    card = json.loads((run / "model.json").read_text())
    settings = card["preprocess"]
    dataset = pydicom.dcmread(scan)
    hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    center, width = settings["ct_window"]
    image = np.clip((hu - center) / width + 0.5, 0, 1).astype(np.float32)
    tensor = torch.from_numpy(image)[None, None]
    size = settings["size"]
    tensor = F.interpolate(tensor, size=(size, size), mode="bilinear", antialias=True)
    tensor = (tensor - settings["mean"][0]) / settings["std"][0]
    classes = card["task"]["classes"]
    config = ModelConfig.from_json(card["model"])
    model = ScanModel(config, settings["channels"], size, len(classes)).eval()
    model.load_state_dict(load_file(run / "weights.safetensors"))
    with torch.inference_mode():
        output = model(tensor[None], torch.ones(1, 1, dtype=torch.bool))
    print(dict(zip(classes, torch.softmax(output.logits[0], 0).tolist(), strict=True)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
