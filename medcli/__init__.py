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
    from medcli.data.check import Check, check_scans
    from medcli.data.convert import Conversion, convert_scans
    from medcli.data.resplit import Resplit, resplit
    from medcli.data.sources import gather_cases, load_cases
    from medcli.errors import MedcliError
    from medcli.imaging.batch import read_all
    from medcli.imaging.discovery import find_scans
    from medcli.imaging.inspection import Inspection, inspect_scan
    from medcli.imaging.reader import read_scan
    from medcli.inference.predictor import Predictor
    from medcli.models.locate import find_model
    from medcli.models.package import load_package
    from medcli.records import Case, Failure, Hit, Prediction, Scan, SearchResult
    from medcli.retrieval.gallery import Gallery
    from medcli.training.adapting import Adaptation, adapt
    from medcli.training.folds import cross_validate
    from medcli.training.request import TrainRequest
    from medcli.training.run import resume_training, train
    from medcli.training.settings import ObjectiveRequest
    from medcli.workflows.auditing import Audit, audit
    from medcli.workflows.demonstration import demonstrate
    from medcli.workflows.diagnosis import diagnose
    from medcli.workflows.evaluating import evaluate, evaluate_retrieval
    from medcli.workflows.exporting import export_model
    from medcli.workflows.indexing import add_to_gallery, build_gallery
    from medcli.workflows.maintaining import repair_gallery, verify_gallery
    from medcli.workflows.migrating import migrate_gallery
    from medcli.workflows.previewing import Preview
    from medcli.workflows.reporting import evaluated_page, run_page
    from medcli.workflows.searching import open_gallery, search_scans
    from medcli.workflows.updating import update_gallery

_HOMES = {
    "Adaptation": "medcli.training.adapting",
    "Audit": "medcli.workflows.auditing",
    "Case": "medcli.records",
    "Check": "medcli.data.check",
    "Conversion": "medcli.data.convert",
    "Failure": "medcli.records",
    "Gallery": "medcli.retrieval.gallery",
    "Hit": "medcli.records",
    "Inspection": "medcli.imaging.inspection",
    "MedcliError": "medcli.errors",
    "ObjectiveRequest": "medcli.training.settings",
    "Prediction": "medcli.records",
    "Predictor": "medcli.inference.predictor",
    "Preview": "medcli.workflows.previewing",
    "Resplit": "medcli.data.resplit",
    "Scan": "medcli.records",
    "SearchResult": "medcli.records",
    "TrainRequest": "medcli.training.request",
    "adapt": "medcli.training.adapting",
    "add_to_gallery": "medcli.workflows.indexing",
    "audit": "medcli.workflows.auditing",
    "build_gallery": "medcli.workflows.indexing",
    "check_scans": "medcli.data.check",
    "convert_scans": "medcli.data.convert",
    "cross_validate": "medcli.training.folds",
    "demonstrate": "medcli.workflows.demonstration",
    "diagnose": "medcli.workflows.diagnosis",
    "evaluate": "medcli.workflows.evaluating",
    "evaluate_retrieval": "medcli.workflows.evaluating",
    "evaluated_page": "medcli.workflows.reporting",
    "export_model": "medcli.workflows.exporting",
    "find_model": "medcli.models.locate",
    "find_scans": "medcli.imaging.discovery",
    "gather_cases": "medcli.data.sources",
    "inspect_scan": "medcli.imaging.inspection",
    "load_cases": "medcli.data.sources",
    "load_package": "medcli.models.package",
    "migrate_gallery": "medcli.workflows.migrating",
    "open_gallery": "medcli.workflows.searching",
    "read_all": "medcli.imaging.batch",
    "read_scan": "medcli.imaging.reader",
    "resplit": "medcli.data.resplit",
    "run_page": "medcli.workflows.reporting",
    "resume_training": "medcli.training.run",
    "repair_gallery": "medcli.workflows.maintaining",
    "search_scans": "medcli.workflows.searching",
    "train": "medcli.training.run",
    "update_gallery": "medcli.workflows.updating",
    "verify_gallery": "medcli.workflows.maintaining",
}

__all__ = [
    "Adaptation",
    "Audit",
    "Case",
    "Check",
    "Conversion",
    "Failure",
    "Gallery",
    "Hit",
    "Inspection",
    "MedcliError",
    "ObjectiveRequest",
    "Prediction",
    "Predictor",
    "Preview",
    "Resplit",
    "Scan",
    "SearchResult",
    "TrainRequest",
    "adapt",
    "add_to_gallery",
    "audit",
    "build_gallery",
    "check_scans",
    "convert_scans",
    "cross_validate",
    "demonstrate",
    "diagnose",
    "evaluate",
    "evaluate_retrieval",
    "evaluated_page",
    "export_model",
    "find_model",
    "find_scans",
    "gather_cases",
    "inspect_scan",
    "load_cases",
    "load_package",
    "migrate_gallery",
    "open_gallery",
    "read_all",
    "read_scan",
    "repair_gallery",
    "resplit",
    "resume_training",
    "run_page",
    "search_scans",
    "train",
    "update_gallery",
    "verify_gallery",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
