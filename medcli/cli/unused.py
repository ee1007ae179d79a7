"""Modules that libraries load in vain: they come when something asks for them.

Typer's help imports Rich's Markdown and traceback, which bring a Markdown parser and the table of
all languages that Pygments can colour: a third of the time of `--help`. medcli's help has neither.
pydicom imports its test data and what downloads them, with the library's own network and progress
bars; medcli reads files.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

HELP = {"rich.markdown": ("Markdown",), "rich.traceback": ("Traceback",)}
PYDICOM = {"pydicom.data": ("get_palette_files",), "pydicom.examples": ()}


def put_off(modules: Mapping[str, tuple[str, ...]]) -> None:
    """Stand in for modules; the real ones come when they are asked.

    In a process of medcli's own only: other code in it would find the stand-ins, too.

    Parameters
    ----------
    modules : names, each with the classes or functions that are imported out of it by name
    """
    for name, parts in modules.items():
        if name not in sys.modules:
            module = _LaterModule(name)
            for part in parts:
                setattr(module, part, type(part, (_Later,), {"module": name, "part": part}))
            sys.modules[name] = module


class _LaterModule(ModuleType):
    """A module whose other names are those of the real one."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the interpreter asks of every module
            raise AttributeError(name)
        return getattr(_real(self.__name__), name)


class _Later:
    """A class or function that becomes the real one as soon as it is used."""

    module: str
    part: str

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        return getattr(_real(cls.module), cls.part)(*arguments, **named)

    @classmethod
    def from_exception(cls, *arguments: Any, **named: Any) -> Any:
        """As `rich.traceback.Traceback.from_exception`."""
        return getattr(_real(cls.module), cls.part).from_exception(*arguments, **named)


def _real(name: str) -> ModuleType:
    if isinstance(sys.modules.get(name), _LaterModule):
        del sys.modules[name]
    return importlib.import_module(name)
