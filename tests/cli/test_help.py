"""Every command explains itself with an example, and the README lists what is built."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from medcli.cli.app import app
from medcli.cli.later import Later

Run = Callable[..., Any]
README = Path(__file__).parents[2] / "README.md"


def commands() -> Iterator[tuple[str, Any]]:
    """Name and object of every command, those of groups as "index build"."""

    def walk(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for name, listed in group.commands.items():
            command = listed.real() if isinstance(listed, Later) else listed
            if hasattr(command, "commands"):
                yield from walk(command, f"{prefix}{name} ")
            else:
                yield f"{prefix}{name}", command

    yield from walk(typer.main.get_command(app), "")


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_that_parses(medcli: Run, name: str) -> None:
    done = medcli(*name.split(), "--help")
    assert done.status == 0
    text = re.sub(r"\s+", " ", COMMANDS[name].help)
    example = re.search(r"Example: medcli (.+)$", text.strip())
    assert example is not None
    assert example[1].startswith(name)
    arguments = shlex.split(example[1])[len(name.split()) :]
    context = COMMANDS[name].make_context(name, arguments, resilient_parsing=False)
    assert context.params
    assert "Example: medcli" in re.sub(r"\s+", " ", done.out)


def test_the_lines_of_the_list_are_those_of_the_commands() -> None:
    def listed(group: Any) -> Iterator[Later]:
        for command in group.commands.values():
            if isinstance(command, Later):
                yield command
                real = command.real()
                yield from listed(real) if hasattr(real, "commands") else ()

    compared = list(listed(typer.main.get_command(app)))
    for command in compared:
        first = command.real().help.partition("\n\n")[0].replace("\n", " ")
        assert command.help == first
    assert len(compared) > 20


@pytest.mark.parametrize("name", COMMANDS)
def test_a_line_of_prose_ends_where_the_next_word_has_no_room(medcli: Run, name: str) -> None:
    lines = medcli(*name.split(), "--help").out.splitlines()
    frame = next(place for place, line in enumerate(lines) if line.startswith("╭"))
    room = len(lines[frame]) - 2
    prose = [line.strip() for line in lines[:frame]]
    for line, after in itertools.pairwise(prose):
        if line and after:
            assert len(line) + 1 + len(after.split()[0]) > room, line


def test_the_help_of_evaluate_says_which_word_may_be_left_out(medcli: Run) -> None:
    text = medcli("evaluate", "--help").out
    assert "medcli evaluate [OPTIONS] [MODEL] {DATA}..." in text
    model, data = re.findall(r"│ .{5}(?:MODEL|DATA) .*?(?=│ .{5}DATA|╰)", text, re.DOTALL)[:2]
    assert ("│ *" in model, "[required]" in model) == (False, False)
    assert ("│ *" in data, "[required]" in data) == (True, True)
    done = medcli("evaluate")
    assert done.status == 2
    assert "'DATA'" in done.errors[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str) -> None:
    for parameter in COMMANDS[name].params:
        assert parameter.help, f"{name} {parameter.name}"


def test_an_extra_that_help_names_is_not_taken_for_markup(medcli: Run) -> None:
    found = 0
    for name, command in COMMANDS.items():
        text = " ".join([command.help, *(parameter.help for parameter in command.params)])
        extras = [each.replace("\\", "") for each in re.findall(r"medcli\\?\[\w+\]", text)]
        shown = medcli(*name.split(), "--help").out if extras else ""
        for extra in extras:
            assert extra in shown, name
        found += len(extras)
    assert found >= 2


def test_the_readme_lists_what_is_built() -> None:
    rows = re.findall(r"^\| *`(?:medcli )?([a-z][^`]*)` *\|", README.read_text(), re.MULTILINE)
    if not rows:
        pytest.skip("the README has no table of commands")
    listed = set()
    for row in rows:
        name, *rest = row.split()
        group = any(command.startswith(f"{name} ") for command in COMMANDS)
        listed |= {f"{name} {word}" for word in rest if word.islower()} if group else {name}
    assert listed == set(COMMANDS)


def test_the_version_is_that_of_the_package(medcli: Run) -> None:
    from importlib.metadata import version

    assert medcli("--version").out == f"medcli {version('medcli')}\n"


def test_completion_is_for_medcli_however_it_was_started(
    medcli: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    with pytest.raises(SystemExit, match="0"):
        medcli("--show-completion", "bash")
    script = capsys.readouterr().out
    assert "_MEDCLI_COMPLETE=complete_bash" in script
    assert script.rstrip().endswith(" medcli")


@pytest.mark.parametrize("group", [[], ["index"]])
def test_a_bare_command_shows_its_help(medcli: Run, group: list[str]) -> None:
    done = medcli(*group)
    assert done.status == 2
    assert "Usage: medcli" in done.out
    assert done.err == ""


def test_a_misspelt_command_is_answered_with_the_nearest(medcli: Run) -> None:
    done = medcli("clasify")
    assert done.status == 2
    assert "Did you mean 'classify'?" in done.errors[0]
