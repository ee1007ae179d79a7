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


def printed(code: str) -> str:
    """What `code` prints in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout


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


@pytest.mark.parametrize("arguments", [["--help"], [], ["train", "--help"]])
def test_help_is_the_same_without_what_it_does_not_use(arguments: list[str]) -> None:
    look = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('pygments' in sys.modules, file=sys.stderr))"
    )
    quick = ended(look, *arguments)
    whole = ended("import rich.markdown, rich.traceback", *arguments)
    assert quick.stdout == whole.stdout
    assert "Usage" in quick.stdout
    assert quick.stderr.splitlines()[-1] == "False"


def test_what_is_put_off_comes_when_it_is_asked() -> None:
    told = printed(
        "from medcli.cli.unused import HELP, put_off\nput_off(HELP)\n"
        "from rich.markdown import Markdown\nfrom rich.traceback import Traceback\n"
        "from rich.console import Console\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n"
        "    found = Traceback.from_exception(type(error), error, error.__traceback__)\n"
        "Console(width=80).print(Markdown('# Title'), found)"
    )
    assert "Title" in told
    assert "ZeroDivisionError" in told


def test_reading_dicom_loads_no_downloads(sample_folder: Path) -> None:
    look = "import atexit; atexit.register(lambda: print([m for m in names if m in sys.modules]))"
    names = "names = 'urllib.request', 'tqdm', 'pydicom.data.download'"
    done = ended(f"{names}\n{look}", "inspect", str(sample_folder / "scan.dcm"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_what_pydicom_has_put_off_comes_when_it_is_asked() -> None:
    told = printed(
        "from medcli.cli.unused import PYDICOM, put_off\nput_off(PYDICOM)\n"
        "from pydicom import examples\nfrom pydicom.pixels import processing\n"
        "from pydicom.data import get_testdata_file\n"
        "print(get_testdata_file('CT_small.dcm'))\n"
        "print(len(processing.get_palette_files('*.dcm')), examples.ct.Modality)"
    )
    file, rest = told.splitlines()
    assert Path(file).is_file()
    assert int(rest.split()[0]) > 0
    assert rest.split()[1] == "CT"
