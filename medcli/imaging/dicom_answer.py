"""The answer of a model about a scan as a DICOM structured report.

::

    Imaging Measurement Report (TID 1500)
    ├── observer: the device medcli, known by the model's fingerprint
    ├── procedure reported: Imaging Procedure
    └── measurement group (TID 1501) over the images of the scan
        ├── finding: the class, of medcli's own coding scheme
        ├── algorithm: medcli, its version, task and model
        ├── one probability a class
        └── what sets the answer in doubt

References
----------
DICOM PS3.16, TID 1500 Measurement Report; PS3.3 A.35.3 Comprehensive SR IOD
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset
from pydicom.uid import UID

from medcli.imaging.dicom_derived import (
    SERIES_NUMBER,
    building,
    check_extra,
    made_by,
    save,
    source_headers,
    take_over,
)
from medcli.imaging.header import MAKER
from medcli.records import Prediction, Scan

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept

SCHEME = "99MEDCLI"
_LONGEST = 64  # characters of a code's meaning (VR LO)


def write_answer(path: Path, scan: Scan, prediction: Prediction) -> None:
    """Write what a model says of a scan as a Comprehensive SR of the scan's study.

    The report is complete, preliminary and not verified: a person has not seen it.

    Raises
    ------
    UsageError : highdicom is not installed, or the scan is not of DICOM files
    ScanError : as `source_headers` and `building`
    """
    check_extra()
    headers = source_headers(scan)
    write_report(
        path,
        scan,
        headers,
        lambda: _content(headers, prediction),
        task=prediction.task,
        model=prediction.model,
        series_number=SERIES_NUMBER + 1,
    )


def write_report(
    path: Path,
    scan: Scan,
    headers: Sequence[Dataset],
    content: Callable[[], Any],
    *,
    task: str,
    model: str,
    series_number: int,
) -> None:
    """Write a Comprehensive SR, filed in the study of `headers`; complete and preliminary.

    Parameters
    ----------
    headers : of the scan's files, the evidence of the report
    content : makes the tree of the report, in highdicom's terms
    model : fingerprint of the model that answered

    Raises
    ------
    ScanError : as `building`
    """
    with building(scan):
        import highdicom
        from highdicom.sr import ComprehensiveSR

        report = ComprehensiveSR(
            evidence=headers,
            content=content(),
            series_instance_uid=highdicom.UID(),
            series_number=series_number,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            is_complete=True,
            is_final=False,
            is_verified=False,
            series_description=f"medcli {task}, research use"[:_LONGEST],
            **made_by(model),
        )
        take_over(report, headers[0])
        save(path, report)


def _content(headers: Sequence[Dataset], prediction: Prediction) -> Any:
    """The tree of the report."""
    from highdicom.sr import MeasurementReport
    from pydicom.sr.codedict import codes

    return MeasurementReport(
        observation_context=device_context(prediction.model),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=[_group(headers, prediction)],
        title=codes.DCM.ImagingMeasurementReport,
    )


def device_context(fingerprint: str) -> Any:
    """The observer: medcli with one model, as a device that this model is always known by."""
    from highdicom.sr import (
        DeviceObserverIdentifyingAttributes,
        ObservationContext,
        ObserverContext,
    )
    from pydicom.sr.codedict import codes

    device = DeviceObserverIdentifyingAttributes(
        uid=model_uid(fingerprint),
        name=MAKER,
        manufacturer_name=MAKER,
        model_name=MAKER,
        serial_number=fingerprint,
    )
    return ObservationContext(
        observer_device_context=ObserverContext(
            observer_type=codes.DCM.Device, observer_identifying_attributes=device
        )
    )


def model_uid(fingerprint: str) -> UID:
    """The UID of a model: the same for the same fingerprint."""
    from pydicom.uid import generate_uid

    return generate_uid(prefix="2.25.", entropy_srcs=["medcli model", fingerprint])


def algorithm(task: str, fingerprint: str) -> Any:
    """Which software and model measured."""
    from highdicom.sr import AlgorithmIdentification

    return AlgorithmIdentification(
        name=MAKER,
        version=version("medcli"),
        parameters=[f"task={task}", f"model={fingerprint}"],
    )


def _group(headers: Sequence[Dataset], prediction: Prediction) -> Any:
    """Everything that is said of the scan."""
    import highdicom
    from highdicom.sr import (
        MeasurementsAndQualitativeEvaluations,
        SourceImageForMeasurementGroup,
        TrackingIdentifier,
    )

    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=highdicom.UID(), identifier=prediction.task),
        finding_type=own_code(prediction.label or "no finding"),
        algorithm_id=algorithm(prediction.task, prediction.model),
        measurements=[_probability(*item) for item in prediction.probabilities.items()],
        qualitative_evaluations=[_doubt(*item) for item in _doubts(prediction).items()] or None,
        source_images=[
            SourceImageForMeasurementGroup(header.SOPClassUID, header.SOPInstanceUID)
            for header in headers
        ],
    )


def _doubts(prediction: Prediction) -> dict[str, bool]:
    """What is known of the reasons to doubt the answer, by name."""
    known = {
        "Uncertain": prediction.uncertain,
        "Out of distribution": prediction.out_of_distribution,
        "Model knows generated pictures only": prediction.synthetic or None,
    }
    return {name: holds for name, holds in known.items() if holds is not None}


def _probability(name: str, share: float) -> Any:
    """A probability without a unit, named by its class."""
    from highdicom.sr import Measurement
    from pydicom.sr.codedict import codes

    return Measurement(
        name=own_code(f"Probability of {name}"), value=share, unit=codes.UCUM.NoUnits
    )


def _doubt(name: str, holds: bool) -> Any:
    from highdicom.sr import QualitativeEvaluation
    from pydicom.sr.codedict import codes

    return QualitativeEvaluation(own_code(name), codes.SCT.Yes if holds else codes.SCT.No)


def own_code(meaning: str) -> CodedConcept:
    """A concept that no public scheme is known to have: a class that a user named.

    The code value is short (VR SH), made from the meaning, and the same for the same meaning.
    """
    import hashlib

    from highdicom.sr import CodedConcept

    digest = hashlib.sha256(meaning.encode()).hexdigest()[:12].upper()
    return CodedConcept(value=digest, scheme_designator=SCHEME, meaning=meaning[:_LONGEST])
