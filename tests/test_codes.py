"""The closed list of codes: used, listed and documented alike."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import medcli
from medcli.codes import ERRORS, FINDINGS, PROBLEMS, WARNINGS

ROOT = Path(__file__).parents[1]
MODULES = sorted(Path(medcli.__file__).parent.rglob("*.py"))


def texts(node: ast.AST) -> Iterator[str]:
    """String constants that an expression can evaluate to."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)


def used_codes(called: tuple[str, ...]) -> set[str]:
    """The constant codes with which one of `called` is called anywhere."""
    found = set()
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id in called and node.args:
                    found |= set(texts(node.args[0]))
                if node.func.id == "Failure" and len(node.args) > 1:
                    found |= set(texts(node.args[1])) if "Failure" in called else set()
    return found


@cache
def words_of_the_code() -> set[str]:
    """Every string constant of the package outside the list itself and the advice on it."""
    lists = ("codes.py", "advice.py")
    trees = [ast.parse(m.read_text()) for m in MODULES if m.name not in lists]
    nodes = (node for tree in trees for node in ast.walk(tree))
    return {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def test_every_error_code_in_use_is_listed() -> None:
    assert used_codes(("ScanError",)) - {"crc"} <= ERRORS.keys()


def test_every_warning_code_in_use_is_listed() -> None:
    assert used_codes(("ScanWarning", "_warning")) <= WARNINGS.keys()


def test_every_problem_in_use_is_listed() -> None:
    assert used_codes(("Problem",)) <= PROBLEMS.keys()


@pytest.mark.parametrize("code", sorted({*ERRORS, *WARNINGS, *FINDINGS, *PROBLEMS}))
def test_every_listed_code_is_in_use(code: str) -> None:
    assert code in words_of_the_code()


@pytest.mark.parametrize(
    ("code", "meaning"),
    [*ERRORS.items(), *WARNINGS.items(), *FINDINGS.items(), *PROBLEMS.items()],
)
def test_the_document_lists_every_code_with_its_meaning(code: str, meaning: str) -> None:
    assert f"| `{code}` | {meaning} |" in (ROOT / "docs" / "codes.md").read_text()


def test_the_document_lists_nothing_else() -> None:
    rows = [line for line in (ROOT / "docs" / "codes.md").read_text().splitlines() if "| `" in line]
    assert len(rows) == len(ERRORS) + len(WARNINGS) + len(FINDINGS) + len(PROBLEMS)
