"""What medcli keeps of the header of a DICOM file; readable without pydicom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medcli.records import ScanWarning

if TYPE_CHECKING:
    from medcli.imaging.dicom_marks import Marks
    from medcli.imaging.dicom_tags import Vector


MAKER = "medcli"
"""Manufacturer and model name of what medcli draws; its sample data name no model."""


@dataclass(frozen=True, slots=True)
class Plane:
    """Where one frame lies.

    Parameters
    ----------
    position : LPS mm of the centre of the first pixel
    orientation : direction of a row (x, y, z), then of a column, LPS unit vectors
    spacing : mm between rows, between columns
    in_patient : whether the coordinates are those of the patient, and not of the volume

    References
    ----------
    DICOM PS3.3 C.7.6.2, Image Plane Module
    """

    position: Vector | None = None
    orientation: Vector | None = None
    spacing: tuple[float, float] | None = None
    in_patient: bool = True


@dataclass(frozen=True, slots=True)
class Header:
    """A DICOM file without its pixels; blank tags are None.

    `planes` and `marks` have one entry a frame; `marks` holds the values of `MARKS`, which
    may tell a time of day: they serve to part images and are never shown.
    """

    path: str
    rows: int
    columns: int
    samples: int
    frames: int
    is_localizer: bool
    planes: tuple[Plane, ...] = field(repr=False)
    marks: tuple[Marks, ...] = field(repr=False)
    modality: str | None = None
    sop_class: str | None = None
    series_number: int = -1
    instance_number: int = -1
    sop_uid: str | None = None
    series_uid: str | None = None
    study_uid: str | None = None
    study_date: str | None = field(default=None, repr=False)
    frame_of_reference: str | None = None
    photometric: str | None = None
    transfer_syntax: str | None = None
    patient_id: str | None = field(default=None, repr=False)
    slice_step: float | None = None
    metadata: dict[str, str] = field(default_factory=dict, repr=False)
    warnings: tuple[ScanWarning, ...] = ()

    @property
    def is_own_output(self) -> bool:
        """Whether medcli drew the image, as of a heat map."""
        makers = {self.metadata.get(tag) for tag in ("Manufacturer", "ManufacturerModelName")}
        return makers == {MAKER}


@dataclass(frozen=True, slots=True)
class KnownHeader:
    """A header that was read from a file, and what of the file changes when it is written to.

    Parameters
    ----------
    identity : device, inode, bytes, and the times of its last changes in ns
    """

    identity: tuple[int, ...]
    header: Header
