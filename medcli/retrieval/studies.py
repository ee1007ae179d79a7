"""What a gallery may know of when a scan was made: order and intervals, never a date.

The study is a keyed hash. Its date is kept as another day: moved back by a number of days
that belongs to the patient and follows from the gallery's secret key, so that the scans of
one patient keep their order and the days between them, and no date can be read off or
compared between patients or galleries. A scan of an unknown patient has neither.

References
----------
DICOM PS3.15 E.3.6, Retain Longitudinal Temporal Information With Modified Dates Option
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import date, timedelta

STUDY, STUDY_DATE = "study", "study_date"
"""Keys among the metadata of a stored scan."""

_MAX_DAYS = 3650


def study_marks(
    key: bytes, patient_id: str | None, study_uid: str | None, study_date: str | None
) -> dict[str, str]:
    """What is stored of a study; empty where patient or study are unknown.

    Parameters
    ----------
    key : the gallery's secret
    study_date : YYYYMMDD; anything else counts as unknown
    """
    marks = {}
    if study_uid is not None and study_uid.strip():
        marks[STUDY] = _digest(key, "study", study_uid.strip()).hex()[:16]
    if patient_id is not None and patient_id.strip() and study_date is not None:
        moved = _moved(study_date, _days_back(key, patient_id.strip()))
        marks |= {STUDY_DATE: moved} if moved else {}
    return marks


def known_marks(metadata: Mapping[str, str]) -> dict[str, str]:
    """The marks among what is stored of a scan."""
    return {name: metadata[name] for name in (STUDY, STUDY_DATE) if name in metadata}


def days_between(first: str | None, second: str | None) -> int | None:
    """Days from one stored date of a patient to another; None where one is unknown."""
    if first is None or second is None:
        return None
    return (date.fromisoformat(second) - date.fromisoformat(first)).days


def _days_back(key: bytes, patient_id: str) -> int:
    return 1 + int.from_bytes(_digest(key, "study date", patient_id)[:8], "big") % _MAX_DAYS


def _digest(key: bytes, purpose: str, message: str) -> bytes:
    """HMAC-SHA256; the purpose keeps it from ever being a patient's hash."""
    return hmac.new(key, f"{purpose}\0{message}".encode(), hashlib.sha256).digest()


def _moved(study_date: str, days: int) -> str | None:
    """A date as YYYYMMDD `days` earlier, as YYYY-MM-DD; None for what is no date."""
    if len(study_date) != 8 or not (study_date.isascii() and study_date.isdigit()):
        return None
    try:
        return (date.fromisoformat(study_date) - timedelta(days=days)).isoformat()
    except (ValueError, OverflowError):
        return None
