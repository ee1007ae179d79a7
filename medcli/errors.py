"""Everything a user can cause, in one tree.

::

    MedcliError                 1  anything that has no better place
    ├── UsageError              2  options, no model or gallery, unknown task
    │   ├── ManifestError       2  an unusable manifest: column, label, classes, patients
    │   ├── LeakageError        2  a patient or a picture stands on both sides of a split
    │   └── OutputExistsError   2  what would be written exists
    ├── ScanError               3  an input is missing or unreadable
    ├── DamagedError            4  a model package or a gallery is damaged
    ├── MismatchError           5  an explicit model and a gallery do not belong together
    ├── LockedError             6  another process writes to the gallery
    └── StorageError            7  disk full, no permission, input/output error

The number is the exit status of the command line. The message says what is
wrong with which file, the hint what to do next. `ValueError` stays a
programmer's mistake. A missing or undecodable scan in a batch is caught where
the batch is read and becomes a `medcli.records.Failure`.
"""

from __future__ import annotations


class MedcliError(Exception):
    """An error with a message for the user and a hint that names the way out."""

    exit_status = 1
    code = "error"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class UsageError(MedcliError):
    """Options that do not fit, a model or gallery that is not there, an unknown task."""

    exit_status = 2
    code = "usage"


class ManifestError(UsageError):
    """A manifest or data set that cannot be used as it is."""

    code = "manifest"


class LeakageError(UsageError):
    """A patient, or an identical picture, stands on both sides of a split."""

    code = "leakage"


class OutputExistsError(UsageError):
    """The output exists and `--overwrite` was not given."""

    code = "output_exists"


class ScanError(MedcliError):
    """A scan that is missing or cannot be read; `code` is one of docs/codes.md."""

    exit_status = 3

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.code = code


class DamagedError(MedcliError):
    """A model package or gallery whose files do not match their checksums."""

    exit_status = 4
    code = "damaged"


class MismatchError(MedcliError):
    """An explicit model that is not the one a gallery was built with."""

    exit_status = 5
    code = "mismatch"


class LockedError(MedcliError):
    """Another process holds the gallery's writer lock."""

    exit_status = 6
    code = "locked"


class StorageError(MedcliError):
    """The disk is full, or the operating system refused to read or write."""

    exit_status = 7
    code = "storage"
