"""`medcli doctor`: decoders, engines and versions, for people and for programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medcli.cli.console import SafeConsole
from medcli.imaging.decoders import DecoderRow
from medcli.workflows import diagnosis

Run = Callable[..., Any]


def test_one_object_holds_everything(medcli: Run, home: Path) -> None:
    done = medcli("doctor", "--json")
    (told,) = done.json
    assert done.status == 0
    assert set(told) == {
        "medcli",
        "python",
        "platform",
        "cores",
        "home",
        "engines",
        "decoders",
        "bundled",
    }
    assert told["home"] == {"path": str(home), "writable": True}
    assert set(told["decoders"][0]) == {
        *("syntax", "name", "decoder", "version", "isolated", "install"),
    }


def test_a_table_names_each_decoder_and_what_is_not_read(medcli: Run) -> None:
    done = medcli("doctor")
    assert done.status == 0
    assert "pydicom" in done.out
    assert "JPEG-LS Lossless" in done.out
    assert "not supported: MPEG-2" in done.out


def test_what_is_not_read_wraps_on_a_terminal_and_is_one_line_in_a_pipe(
    medcli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = [each for each in medcli("doctor").out.splitlines() if "not supported" in each]
    assert len(line) > 80
    monkeypatch.setattr("medcli.cli.console.stdout", lambda: SafeConsole(width=80))
    wrapped = medcli("doctor").out
    assert all(len(each) <= 80 for each in wrapped.splitlines())
    assert line in " ".join(wrapped.split())


def test_a_missing_decoder_is_told_with_the_line_to_type(
    medcli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = DecoderRow("1.2.840.10008.1.2.4.80", "JPEG-LS", None, None, True, "pip install pyjpegls")
    monkeypatch.setattr(diagnosis, "decoder_matrix", lambda: [row])
    done = medcli("doctor")
    assert done.status == 0
    assert "pip install pyjpegls" in done.out


def test_a_broken_engine_ends_with_an_error(medcli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = diagnosis.diagnose()
    engines = (replace(sound.engines[0], problem="not installed; pip install onnxruntime"),)
    monkeypatch.setattr(diagnosis, "diagnose", lambda: replace(sound, engines=engines))
    done = medcli("doctor")
    assert done.status == 1
    assert "ONNX Runtime: not installed; pip install onnxruntime" in done.errors[0]


def test_the_home_is_not_named_where_paths_are_hidden(medcli: Run, home: Path) -> None:
    for form in ([], ["--json"]):
        done = medcli("doctor", "--hide-paths", *form)
        assert str(home) not in done.out + done.err


def test_a_pipe_gets_no_blanks_at_the_ends_of_lines(medcli: Run) -> None:
    lines = medcli("doctor").out.splitlines()
    assert len(lines) > 20
    assert [line for line in lines if line != line.rstrip()] == []


def test_openvino_is_optional(medcli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (there,) = (each for each in medcli("doctor", "--json").json[0]["engines"] if _is_other(each))
    assert there["version"]
    monkeypatch.setattr("medcli.inference.choice.find_spec", lambda name: None)
    done = medcli("doctor")
    assert done.status == 0
    assert "pip install 'medcli[openvino]'" in done.out


def _is_other(engine: dict[str, Any]) -> bool:
    return bool(engine["name"] == "OpenVINO")
