"""What the console script sets for its own process, and how that ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def ended(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`code`, then the console script, in a process of its own."""
    start = "from medcli.cli.start import main\nmain()"
    program = f"import sys; sys.argv[0] = 'medcli'\n{code}\n{start}"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("code", ["", "import torch._dynamo", "import onnxruntime, pydicom, faiss"])
def test_a_process_ends_without_a_word_of_its_libraries(code: str) -> None:
    done = ended(code, "--version")
    assert done.returncode == 0
    assert done.stderr == ""


def test_the_process_keeps_decoders_out(sample_folder: Path) -> None:
    look = "import atexit; atexit.register(lambda: print([m for m in names if sys.modules.get(m)]))"
    names = "names = 'gdcm', 'pylibjpeg', 'openjpeg', 'jpeg_ls', 'torch'"
    done = ended(f"{names}\n{look}", "inspect", str(sample_folder / "scan.dcm"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
