"""The least that one answer needs: read one DICOM, load the graph, run it once.

A program of its own, the reference of a cold `medcli classify`:
python -m medcli.bench.bare GRAPH SCAN CHANNELS SIZE
"""

from __future__ import annotations

import sys


def main(graph: str, scan: str, channels: int, size: int) -> None:
    """Pydicom and ONNX Runtime without medcli: no checks, no preprocessing, no answer."""
    import numpy as np
    import onnxruntime
    import pydicom

    pixels = pydicom.dcmread(scan).pixel_array
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    images = np.full((1, 1, channels, size, size), pixels.mean() > 0, np.float32)
    session.run(["logits"], {"images": images, "mask": np.ones((1, 1), bool)})


if __name__ == "__main__":
    from medcli.imaging.decoders import keep_out

    keep_out("gdcm", "pylibjpeg", "openjpeg", "jpeg_ls")  # as in medcli, which loads no decoder
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
