"""`medcli train --resume`: after ctrl-C, after a kill, and what it refuses."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medcli.training import loop

Run = Callable[..., Any]
OPTIONS = ("--size", "16", "--device", "cpu", "--task", "marks", "--no-cache")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Twenty-four small pictures, dark ones and bright ones."""
    lines = ["path,label"]
    for number in range(24):
        noise = np.random.default_rng(number).integers(0, 60, (16, 16))
        picture = (noise + 150 * (number % 2)).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{number:02d}.png")
        lines.append(f"{number:02d}.png,{'ab'[number % 2]}")
    (tmp_path / "scans.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "scans.csv"


@pytest.fixture
def interrupted(medcli: Run, manifest: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A training that heard ctrl-C in its first epoch."""

    def ctrl_c(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "augment", ctrl_c)
        return medcli("train", manifest, "-o", "runs/marks", *OPTIONS)


def test_ctrl_c_says_how_to_go_on(interrupted: Any) -> None:
    assert interrupted.status == 130
    assert interrupted.out == ""
    run = Path("runs/marks").absolute()
    assert f"go on with: medcli train --resume {run}" in interrupted.err
    assert interrupted.errors == ["error: interrupted"]
    assert [path.name for path in Path("runs").iterdir()] == [".marks.unfinished"]


def test_a_request_to_end_is_a_ctrl_c(
    medcli: Run, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(loop, "augment", lambda *_: signal.raise_signal(signal.SIGTERM))
    done = medcli("train", manifest, "-o", "run", *OPTIONS)
    assert done.status == 130
    assert "--resume" in done.err
    assert signal.getsignal(signal.SIGTERM) == before


def test_settings_come_from_the_unfinished_run(medcli: Run, interrupted: Any) -> None:
    done = medcli("train", "--resume", "runs/marks", "--epochs", "3", "--no-cache")
    assert done.status == 2
    assert "not from --epochs, --no-cache" in done.errors[0]


def test_what_is_no_unfinished_run_is_said(medcli: Run, interrupted: Any) -> None:
    done = medcli("train", "--resume", "runs/other")
    assert done.status == 2
    assert "no unfinished run 'runs/other'" in done.errors[0]
    assert medcli("train", "--resume", "latest").status == 2  # those of the home


def test_a_damaged_one_is_status_4_with_a_way_out(medcli: Run, interrupted: Any) -> None:
    (state,) = Path("runs/.marks.unfinished").glob("state-*")
    state.write_bytes(state.read_bytes()[:-1])
    done = medcli("train", "--resume", "runs/marks")
    assert done.status == 4
    assert state.name in done.errors[0]
    assert "train again" in done.err


def test_a_run_that_is_there_and_an_unfinished_one_are_not_overwritten(
    medcli: Run, interrupted: Any, manifest: Path
) -> None:
    done = medcli("train", manifest, "-o", "runs/marks", *OPTIONS)
    assert done.status == 2
    assert "an unfinished run is kept for runs/marks" in done.errors[0]
    assert "--resume runs/marks" in done.err


def test_tensorboard_that_is_not_there_names_the_line_that_installs_it(
    medcli: Run, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medcli.training import tensorboard

    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    done = medcli("train", manifest, "--tensorboard", "logs")
    assert done.status == 2
    assert "pip install 'medcli[tensorboard]'" in done.err


# A process of its own, that saves after every epoch that took long enough: here every one.
IN_A_HURRY = (
    "import sys; from medcli.training import checkpoint; checkpoint.PAUSE = 0.0;"
    "checkpoint.SHARE = 0; from medcli.cli.start import main; main()"
)


def begin(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", IN_A_HURRY, "train", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stderr is not None
    assert any(word in line for line in process.stderr), f"no {word!r}"


@pytest.mark.slow
def test_signals_to_a_process_change_no_bit_of_its_weights(home: Path, manifest: Path) -> None:
    options = (*OPTIONS, "--epochs", "6", "--arch", "cnn_lrn")
    whole = begin(manifest, "-o", "whole", *options)
    assert whole.communicate(timeout=240)[0].strip() == "whole"

    killed = begin(manifest, "-o", "run", *options)
    wait_for(killed, "epoch   2/6")
    killed.kill()  # SIGKILL
    killed.communicate(timeout=60)
    assert not Path("run").exists()

    stopped = begin("--resume", "run")
    wait_for(stopped, "epoch   4/6")
    stopped.send_signal(signal.SIGINT)
    _, told = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    assert "go on with: medcli train --resume" in told

    last = begin("--resume", "run")
    out, told = last.communicate(timeout=240)
    assert last.returncode == 0, told
    assert "epoch   4/6" not in told
    assert "epoch   6/6" in told
    assert Path(out.strip()).samefile("run")
    weights = [Path(name, "weights.safetensors").read_bytes() for name in ("run", "whole")]
    assert weights[0] == weights[1]
    assert sorted(path.name for path in Path().iterdir()) == ["run", "whole"]
