"""The methods by name, readable without importing torch."""

from __future__ import annotations

from collections.abc import Mapping

METHODS: Mapping[str, str] = {
    "gradcam": "medcli.explain.gradients:gradcam",
    "gradcam++": "medcli.explain.gradients:gradcam_plus_plus",
    "deconv": "medcli.explain.reversal:deconvolution",
    "occlusion": "medcli.explain.hiding:occlusion",
    "attention": "medcli.explain.weighing:attention",
}
