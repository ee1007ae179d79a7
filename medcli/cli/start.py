"""Where the command starts: what must hold before the first library is loaded."""

from __future__ import annotations

import gc
import os
import sys

from medcli.cli.unused import HELP, PYDICOM, put_off
from medcli.imaging.decoders import keep_out


def main() -> None:
    """The console script. It sets what only a process of medcli's own may set."""
    gc.set_threshold(50_000)  # loading modules makes objects, but no garbage
    # NumPy's threads cost more to start than they give: what is large here runs in other libraries.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Typer checks values with pydantic, which would read the metadata of every installed
    # package in search of plugins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    keep_out("gdcm", "pylibjpeg", "openjpeg", "jpeg_ls")  # pydicom would load them; workers decode
    if len(sys.argv) == 1 or "--help" in sys.argv:
        put_off(HELP)
    put_off(PYDICOM)
    from medcli.cli.app import run

    try:
        sys.exit(run(sys.argv[1:]))
    finally:
        if "torch" not in sys.modules:  # its bindings call leaked what is not collected
            gc.freeze()  # the process ends: there is nothing to look through any more
