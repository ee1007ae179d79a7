"""Where the command starts: what must hold before the first library is loaded."""

from __future__ import annotations

import os
import sys

from medcli.imaging.decoders import keep_out


def main() -> None:
    """The console script. It sets what only a process of medcli's own may set."""
    # NumPy's threads cost more to start than they give: what is large here runs in other libraries.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Typer checks values with pydantic, which would read the metadata of every installed
    # package in search of plugins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    keep_out("gdcm", "pylibjpeg", "jpeg_ls")  # pydicom would load them; workers decode
    from medcli.cli.app import run

    sys.exit(run(sys.argv[1:]))
