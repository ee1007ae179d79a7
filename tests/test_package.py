"""`from medcli import …`: everything a command does, loaded when it is first used."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import medcli
from medcli.models.package import ModelPackage

ROOT = Path(__file__).parent.parent
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)


def test_importing_medcli_loads_nothing() -> None:
    probe = "import sys; before = set(sys.modules); import medcli; print(set(sys.modules) - before)"
    done = subprocess.run(
        [sys.executable, "-c", probe],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=60,
    )
    loaded = {name.partition(".")[0] for name in ast.literal_eval(done.stdout)}
    assert loaded - sys.stdlib_module_names == {"medcli"}


@pytest.mark.parametrize("name", medcli.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(medcli, name)
    assert value.__name__ == name
    assert value.__doc__


def test_names_are_listed_and_others_are_no_attributes() -> None:
    assert set(medcli.__all__) <= set(dir(medcli))
    assert set(medcli.__all__) == set(medcli._HOMES)
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        medcli.serach  # noqa: B018


def test_the_examples_of_the_documentation_run(
    sample_folder: Path,
    tmp_path: Path,
    make_package: Callable[..., ModelPackage],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, label in enumerate(["normal", "pneumonia"]):
        shutil.copytree(sample_folder / "ct" / f"SYN-000{number + 1}-1", f"scans/{label}/series")
    shutil.copy(sample_folder / "query.png", "query.png")
    make_package(tmp_path / "run", task="lung", classes=("normal", "pneumonia"))
    names: dict[str, object] = {"Path": Path}
    for example in EXAMPLES:
        if "TrainRequest" not in example:  # tests/cli trains
            exec(compile(example, "docs/python.md", "exec"), names)
    said = capsys.readouterr().out.splitlines()
    assert len(EXAMPLES) == 11
    assert "missing.png not_found" in said
    assert "1 0" in said
    assert any(re.match(r"[123] -?[01]\.", line) for line in said)


def test_every_name_in_an_example_is_public() -> None:
    for example in EXAMPLES:
        for node in ast.walk(ast.parse(example)):
            if isinstance(node, ast.ImportFrom) and node.module == "medcli":
                assert {alias.name for alias in node.names} <= set(medcli.__all__)
