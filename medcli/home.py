"""Where runs and galleries live when the user names no place."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

ZOO = Path(__file__).parent / "zoo"
"""The bundled models, a package a folder."""


def medcli_home() -> Path:
    """`MEDCLI_HOME`, else the platform's folder for user data."""
    named = os.environ.get("MEDCLI_HOME")
    if named:
        return Path(named).expanduser()
    from platformdirs import user_data_path

    return user_data_path("medcli", appauthor=False)


def runs_folder() -> Path:
    """The folder of the runs in the medcli home."""
    return medcli_home() / "runs"


def default_gallery() -> Path:
    """The gallery in the medcli home."""
    return medcli_home() / "gallery"


def for_gallery(command: str, gallery: Path) -> str:
    """A command line for the gallery at this path, to be pasted: with -g if it needs that.

    Without -g a command is about the default gallery.
    """
    if gallery.resolve() == default_gallery().resolve():
        return command
    return f"{command} -g {shlex.quote(str(gallery))}"


def scan_cache() -> Path:
    """What training has read, kept for the next time."""
    return medcli_home() / "cache" / "scans"
