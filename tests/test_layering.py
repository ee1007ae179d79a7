"""Dependencies flow downwards, and what must start at once stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "medcli"
LEVELS = [
    {"errors", "codes", "records", "config", "home", "files", "machine"},
    {"imaging", "layers", "retrieval", "evaluation", "report"},
    {"data", "models", "inference"},
    {"training", "explain", "detection"},
    {"workflows"},
    {"bench"},
    {"cli", "__init__"},
    {"__main__"},
]
# Siblings of one level that may meet.
ALLOWED = {("inference", "models"), ("files", "errors"), ("detection", "training")}
HEAVY = {"torch", "faiss", "SimpleITK", "pydicom", "onnxruntime", "openvino", "numpy"}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def level_of(room: str) -> int:
    return next(level for level, rooms in enumerate(LEVELS) if room in rooms)


def imported_rooms(source: Path) -> set[str]:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    return {room_of(name) for name in modules if name.startswith("medcli.")}


@pytest.mark.parametrize(
    "source", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_imports_go_downwards(source: Path) -> None:
    relative = source.relative_to(ROOT)
    room = relative.parts[0].removesuffix(".py")
    for other in imported_rooms(source) - {room}:
        down = level_of(other) < level_of(room)
        assert down or (room, other) in ALLOWED, f"{relative} imports {other}"


def loaded_after(code: str) -> set[str]:
    """The heavy modules that a fresh interpreter has loaded after `code`."""
    probe = f"{code}\nimport sys; print(*({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.splitlines()[-1].split()) if done.stdout.strip() else set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["index", "build", "--help"],
        ["inspect", "--help"],
        ["data", "check", "--help"],
        ["data", "convert", "--help"],
        ["data", "split", "--help"],
        ["data", "audit", "--help"],
        ["doctor", "--help"],
        ["bench", "--help"],
        ["report", "--help"],
        ["detect", "--help"],
        ["models", "export", "--help"],
    ],
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['medcli', *{arguments!r}]\n"
        "from medcli.cli.start import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
    )
    assert loaded_after(code) == set()


def test_prediction_and_search_never_load_torch() -> None:
    modules = "predictor", "engine", "choice"
    code = "\n".join(f"import medcli.inference.{name}" for name in modules)
    code += (
        "\nimport medcli.workflows.searching, medcli.workflows.evaluating, medcli.imaging.reader"
        "\nimport medcli.inference.detector, medcli.workflows.detecting, medcli.cli.detect"
        "\nimport medcli.workflows.evaluating_boxes"
    )
    assert "torch" not in loaded_after(code)


def test_every_room_has_an_empty_init() -> None:
    for init in ROOT.glob("*/__init__.py"):
        body = ast.parse(init.read_text(encoding="utf-8")).body
        assert len(body) == 1, f"{init} holds more than a docstring"
