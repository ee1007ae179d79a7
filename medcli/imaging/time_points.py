"""Which time point of a scan is read."""

from __future__ import annotations

from medcli.errors import ScanError
from medcli.records import Case


def asked_time_point(case: Case, count: int) -> int | None:
    """The time point that was asked for of a scan with `count` of them; None where none was.

    That of the case itself must be there. That for all scans of a command is meant for those
    that hold several: a lone volume has no choice to make.

    Raises
    ------
    ScanError : not_found, there is no such time point
    """
    several = count > 1
    chosen = case.default_time_point if case.time_point is None and several else case.time_point
    if chosen is None or 0 <= chosen < count:
        return chosen
    message = f"{case.path}: there is no time point {chosen}"
    raise ScanError("not_found", message, f"Choose one of 0 to {count - 1}")
