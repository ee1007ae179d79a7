"""Tags that tell apart images of one position: time points, echoes, acquisitions.

Their values may tell a time of day; they serve to part images and are never shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from medcli.imaging.dicom_tags import functional_groups, macro, text

Marks = tuple[str | None, ...]
"""The values of `MARKS` of one frame, None where absent."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A tag that tells apart images of one position.

    Parameters
    ----------
    keyword : in an image of one frame
    sequences, frame_keyword : the functional group and its tag in an enhanced object
    is_time : whether the images are moments in time, and no repetition of another kind

    References
    ----------
    DICOM PS3.3 C.7.6.16.2.2, Frame Content; C.8.13.5.1, MR Echo and others
    """

    keyword: str
    sequences: tuple[str, ...] = ()
    frame_keyword: str = ""
    is_time: bool = False


_CONTENT, _CARDIAC = ("FrameContentSequence",), ("CardiacSynchronizationSequence",)

MARKS = (
    Mark("TemporalPositionIdentifier", _CONTENT, "TemporalPositionIndex", is_time=True),
    Mark("TriggerTime", _CARDIAC, "NominalCardiacTriggerDelayTime", is_time=True),
    Mark(
        "NominalPercentageOfCardiacPhase",
        _CARDIAC,
        "NominalPercentageOfCardiacPhase",
        is_time=True,
    ),
    Mark(
        "FrameReferenceTime",
        ("TemporalPositionSequence",),
        "TemporalPositionTimeOffset",
        is_time=True,
    ),
    Mark("EchoTime", ("MREchoSequence",), "EffectiveEchoTime"),
    Mark("InversionTime"),
    Mark("FlipAngle"),
    Mark("DiffusionBValue", ("MRDiffusionSequence",), "DiffusionBValue"),
    Mark("AcquisitionNumber", _CONTENT, "FrameAcquisitionNumber"),
    Mark("ImageType", ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence"), "FrameType"),
    Mark("AcquisitionTime", _CONTENT, "FrameAcquisitionDateTime", is_time=True),
)
"""What may tell apart images of one position, the plainest first."""


def read_marks(dataset: Dataset, frames: int) -> tuple[Marks, ...]:
    """The values of `MARKS` of every frame, None where absent."""
    groups = functional_groups(dataset)[:frames]
    if not groups:
        return (tuple(text(dataset, mark.keyword) for mark in MARKS),) * frames
    marks = tuple(tuple(_frame_mark(group, mark) for mark in MARKS) for group in groups)
    return marks + ((None,) * len(MARKS),) * (frames - len(marks))


def _frame_mark(groups: Sequence[Dataset], mark: Mark) -> str | None:
    found = (macro(groups, sequence) for sequence in mark.sequences)
    return next((text(each, mark.frame_keyword) for each in found if each is not None), None)
