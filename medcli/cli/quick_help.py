"""Help without the half of Rich that it does not use.

Typer's help imports Rich's Markdown and traceback, which bring a Markdown parser and the table of
all languages that Pygments can colour: a third of the time of `--help`. medcli's help has neither.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_UNUSED = {"rich.markdown": "Markdown", "rich.traceback": "Traceback"}


def put_off() -> None:
    """Stand in for modules that only print help in vain; the real ones come when they are asked.

    In a process of medcli's own only: other code in it would find the stand-ins, too.
    """
    for name, part in _UNUSED.items():
        if name not in sys.modules:
            module = ModuleType(name)
            setattr(module, part, type(part, (_Later,), {"module": name, "part": part}))
            sys.modules[name] = module


class _Later:
    """A class that becomes the real one as soon as it is used."""

    module: str
    part: str

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        return cls._real()(*arguments, **named)

    @classmethod
    def from_exception(cls, *arguments: Any, **named: Any) -> Any:
        """As `rich.traceback.Traceback.from_exception`."""
        return cls._real().from_exception(*arguments, **named)

    @classmethod
    def _real(cls) -> Any:
        sys.modules.pop(cls.module, None)
        return getattr(importlib.import_module(cls.module), cls.part)
