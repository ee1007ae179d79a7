"""Train, classify, index and search medical images; what each command does as a call.

Names are loaded when they are first used, so that `import medcli` costs nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# ONNX Runtime would note every session in the user's cache folder, to report it some day.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from medcli.bench.measure import Measure, Sizes
    from medcli.bench.run import measure_speed
    from medcli.data.check import Check, check_scans
    from medcli.data.convert import Conversion, convert_scans
    from medcli.data.gathering import gather_cases
    from medcli.data.resplit import Resplit, resplit
    from medcli.data.sources import load_cases
    from medcli.detection.run import train_detector
    from medcli.errors import MedcliError
    from medcli.imaging.batch import read_all
    from medcli.imaging.dicom_answer import write_answer
    from medcli.imaging.discovery import find_scans
    from medcli.imaging.inspection import Inspection, inspect_scan
    from medcli.imaging.reader import read_scan
    from medcli.imaging.region import Box, crop_box, crop_point
    from medcli.inference.detector import Detector
    from medcli.inference.predictor import Predictor
    from medcli.inference.routing import routed
    from medcli.models.locate import find_model, open_model
    from medcli.models.package import load_package
    from medcli.records import Case, Detection, Failure, Hit, Prediction, Scan, SearchResult
    from medcli.retrieval.gallery import Gallery
    from medcli.retrieval.query import Wanted
    from medcli.training.adapting import Adaptation, adapt
    from medcli.training.folds import cross_validate
    from medcli.training.request import TrainRequest
    from medcli.training.run import resume_training, train
    from medcli.training.settings import ObjectiveRequest
    from medcli.workflows.auditing import Audit, audit
    from medcli.workflows.demonstration import demonstrate
    from medcli.workflows.diagnosis import diagnose
    from medcli.workflows.evaluating import evaluate
    from medcli.workflows.evaluating_boxes import evaluate_boxes
    from medcli.workflows.evaluating_retrieval import evaluate_retrieval
    from medcli.workflows.exporting import export_model
    from medcli.workflows.gallery_reporting import gallery_report
    from medcli.workflows.indexing import add_to_gallery, build_gallery
    from medcli.workflows.maintaining import repair_gallery, verify_gallery
    from medcli.workflows.migrating import migrate_gallery
    from medcli.workflows.previewing import Preview
    from medcli.workflows.reporting import evaluated_page, run_page
    from medcli.workflows.scan_reporting import ScanReport
    from medcli.workflows.searching import open_gallery, search_scans
    from medcli.workflows.updating import update_gallery

_HOMES = {
    "Adaptation": "medcli.training.adapting",
    "Audit": "medcli.workflows.auditing",
    "Box": "medcli.imaging.region",
    "Case": "medcli.records",
    "Check": "medcli.data.check",
    "Conversion": "medcli.data.convert",
    "Detection": "medcli.records",
    "Detector": "medcli.inference.detector",
    "Failure": "medcli.records",
    "Gallery": "medcli.retrieval.gallery",
    "Hit": "medcli.records",
    "Inspection": "medcli.imaging.inspection",
    "Measure": "medcli.bench.measure",
    "MedcliError": "medcli.errors",
    "ObjectiveRequest": "medcli.training.settings",
    "Prediction": "medcli.records",
    "Predictor": "medcli.inference.predictor",
    "Preview": "medcli.workflows.previewing",
    "Resplit": "medcli.data.resplit",
    "Scan": "medcli.records",
    "ScanReport": "medcli.workflows.scan_reporting",
    "SearchResult": "medcli.records",
    "Sizes": "medcli.bench.measure",
    "TrainRequest": "medcli.training.request",
    "Wanted": "medcli.retrieval.query",
    "adapt": "medcli.training.adapting",
    "add_to_gallery": "medcli.workflows.indexing",
    "audit": "medcli.workflows.auditing",
    "build_gallery": "medcli.workflows.indexing",
    "check_scans": "medcli.data.check",
    "convert_scans": "medcli.data.convert",
    "crop_box": "medcli.imaging.region",
    "crop_point": "medcli.imaging.region",
    "cross_validate": "medcli.training.folds",
    "demonstrate": "medcli.workflows.demonstration",
    "diagnose": "medcli.workflows.diagnosis",
    "evaluate": "medcli.workflows.evaluating",
    "evaluate_retrieval": "medcli.workflows.evaluating_retrieval",
    "evaluate_boxes": "medcli.workflows.evaluating_boxes",
    "evaluated_page": "medcli.workflows.reporting",
    "export_model": "medcli.workflows.exporting",
    "find_model": "medcli.models.locate",
    "find_scans": "medcli.imaging.discovery",
    "gather_cases": "medcli.data.gathering",
    "inspect_scan": "medcli.imaging.inspection",
    "gallery_report": "medcli.workflows.gallery_reporting",
    "load_cases": "medcli.data.sources",
    "load_package": "medcli.models.package",
    "measure_speed": "medcli.bench.run",
    "migrate_gallery": "medcli.workflows.migrating",
    "open_gallery": "medcli.workflows.searching",
    "open_model": "medcli.models.locate",
    "read_all": "medcli.imaging.batch",
    "read_scan": "medcli.imaging.reader",
    "resplit": "medcli.data.resplit",
    "run_page": "medcli.workflows.reporting",
    "resume_training": "medcli.training.run",
    "repair_gallery": "medcli.workflows.maintaining",
    "routed": "medcli.inference.routing",
    "search_scans": "medcli.workflows.searching",
    "train": "medcli.training.run",
    "train_detector": "medcli.detection.run",
    "update_gallery": "medcli.workflows.updating",
    "verify_gallery": "medcli.workflows.maintaining",
    "write_answer": "medcli.imaging.dicom_answer",
}

__all__ = [
    "Adaptation",
    "Audit",
    "Box",
    "Case",
    "Check",
    "Conversion",
    "Detection",
    "Detector",
    "Failure",
    "Gallery",
    "Hit",
    "Inspection",
    "Measure",
    "MedcliError",
    "ObjectiveRequest",
    "Prediction",
    "Predictor",
    "Preview",
    "Resplit",
    "Scan",
    "ScanReport",
    "SearchResult",
    "Sizes",
    "TrainRequest",
    "Wanted",
    "adapt",
    "add_to_gallery",
    "audit",
    "build_gallery",
    "check_scans",
    "convert_scans",
    "crop_box",
    "crop_point",
    "cross_validate",
    "demonstrate",
    "diagnose",
    "evaluate",
    "evaluate_boxes",
    "evaluate_retrieval",
    "evaluated_page",
    "export_model",
    "find_model",
    "find_scans",
    "gallery_report",
    "gather_cases",
    "inspect_scan",
    "load_cases",
    "load_package",
    "measure_speed",
    "migrate_gallery",
    "open_gallery",
    "open_model",
    "read_all",
    "read_scan",
    "repair_gallery",
    "resplit",
    "resume_training",
    "routed",
    "run_page",
    "search_scans",
    "train",
    "train_detector",
    "update_gallery",
    "verify_gallery",
    "write_answer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
