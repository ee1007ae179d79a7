"""The engine that was fastest for a model, kept in the medcli home for this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import get_args

from medcli.config import EngineName
from medcli.files import replace_file
from medcli.home import medcli_home
from medcli.machine import cores, processor

FORMAT = 1  # of the file of choices

Tell = Callable[[str], None]
"""Takes a sentence about what was chosen."""


def choices_file() -> Path:
    """Where choices are kept."""
    return medcli_home() / "engines.json"


def remembered(key: str) -> str | None:
    """The engine that was fastest for the model `key` on this machine; None: not known.

    A file that cannot be read, or of another format, holds nothing: it is measured again.
    """
    known = _choices().get(key)
    return known if known in get_args(EngineName) else None


def remember(key: str, engine: str, tell: Tell) -> None:
    """Keep a choice; where the home cannot be written, say so."""
    kept = {"format": FORMAT, "machine": machine(), "choices": {**_choices(), key: engine}}
    file = choices_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, (json.dumps(kept, indent=1).encode() + b"\n",))
    except OSError as error:
        tell(f"the choice of the engine could not be kept: {error.strerror or error}")


def _choices() -> dict[str, str]:
    try:
        values = json.loads(choices_file().read_text(encoding="utf-8"))
        here = values["format"] == FORMAT and values["machine"] == machine()
        return dict(values["choices"]) if here else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def machine() -> list[str]:
    """What a measurement holds for: processor, cores and the versions of the engines."""
    return [processor(), f"{cores()} cores", *map(_version, ("onnxruntime", "openvino"))]


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"
