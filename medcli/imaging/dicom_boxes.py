r"""The boxes that a detector found in a scan as a DICOM structured report.

::

    Imaging Measurement Report (TID 1500)
    ├── observer: the device medcli, known by the model's fingerprint
    ├── procedure reported: Imaging Procedure
    └── of each box a planar region (TID 1410)
        ├── tracking identifier: the same for the boxes of one lesion
        ├── finding: the class, of medcli's own coding scheme
        ├── algorithm: medcli, its version, task and model
        ├── image region: a closed polyline on the image of the box's slice
        └── the score, without a unit

References
----------
DICOM PS3.16, TID 1500 and TID 1410; PS3.3 C.18.6 (image-relative coordinates: column, row, with
0\0 at the upper left corner of the first pixel, as for our boxes)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset

from medcli.errors import UsageError
from medcli.imaging.dicom_answer import algorithm, device_context, own_code, write_report
from medcli.imaging.dicom_derived import (
    SERIES_NUMBER,
    check_extra,
    source_headers,
)
from medcli.records import Detection, FoundBox, Scan

if TYPE_CHECKING:
    from pydicom.uid import UID


def write_boxes(path: Path, scan: Scan, detection: Detection) -> None:
    """Write what was found in a scan as a Comprehensive SR of the scan's study.

    The report is complete, preliminary and not verified: a person has not seen it. Without
    boxes it says that nothing was found.

    Raises
    ------
    UsageError : highdicom is not installed, the scan is not of DICOM files, or its slices
        are frames of one file
    ScanError : as `source_headers` and `building`
    """
    check_extra()
    headers = source_headers(scan)
    if len(headers) < len(scan.pixels):
        raise UsageError(
            f"{scan.path} holds several frames in a file, to which a report cannot point here",
            "Choose another output: --json, --csv, --coco",
        )
    write_report(
        path,
        scan,
        headers,
        lambda: _content(headers, detection),
        task=detection.task,
        model=detection.model,
        series_number=SERIES_NUMBER + 2,
    )


def _content(headers: Sequence[Dataset], detection: Detection) -> Any:
    """The tree of the report."""
    import highdicom
    from highdicom.sr import MeasurementReport
    from pydicom.sr.codedict import codes

    lesions = [highdicom.UID() for _ in detection.lesions]
    return MeasurementReport(
        observation_context=device_context(detection.model),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=[
            _region(headers[box.slice], box, detection, lesions[box.lesion])
            for box in detection.boxes
        ]
        or [_nothing(headers, detection)],
        title=codes.DCM.ImagingMeasurementReport,
    )


def _nothing(headers: Sequence[Dataset], detection: Detection) -> Any:
    """That the images were looked at and nothing was found."""
    import highdicom
    from highdicom.sr import (
        MeasurementsAndQualitativeEvaluations,
        SourceImageForMeasurementGroup,
        TrackingIdentifier,
    )

    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=highdicom.UID(), identifier=detection.task),
        finding_type=own_code("no finding"),
        algorithm_id=algorithm(detection.task, detection.model),
        source_images=[
            SourceImageForMeasurementGroup(header.SOPClassUID, header.SOPInstanceUID)
            for header in headers
        ],
    )


def _region(header: Dataset, box: FoundBox, detection: Detection, lesion: UID) -> Any:
    """One box."""
    import numpy as np
    from highdicom.sr import (
        ImageRegion,
        Measurement,
        PlanarROIMeasurementsAndQualitativeEvaluations,
        SourceImageForRegion,
        TrackingIdentifier,
    )
    from pydicom.sr.codedict import codes

    corners = [(box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1)]
    region = ImageRegion(
        graphic_type="POLYLINE",
        graphic_data=np.array([*corners, corners[0]]),
        source_image=SourceImageForRegion(header.SOPClassUID, header.SOPInstanceUID),
    )
    score = Measurement(name=own_code("Score"), value=box.score, unit=codes.UCUM.NoUnits)
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=lesion, identifier=f"{detection.task} {box.lesion}"
        ),
        referenced_region=region,
        finding_type=own_code(box.label),
        algorithm_id=algorithm(detection.task, detection.model),
        measurements=[score],
    )
