"""Two processes on one machine, joined by gloo, train one model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from medcli.errors import UsageError
from medcli.models.package import load_package
from medcli.training.processes import ALONE, Processes, joined

pytestmark = pytest.mark.usefixtures("one_thread")

TRAINING = """
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from medcli.config import ModelConfig, PreprocessConfig, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.models.scan_model import ScanModel
from medcli.training.loop import fit
from medcli.training.processes import joined

PLAIN = TrainConfig(epochs=2, batch_slices=4, augmentation="none", learning_rate=1e-3)


def scans():
    rng = np.random.default_rng(0)
    lengths = np.ones(32, dtype=np.int64)
    images = rng.integers(0, 80, (32, 1, 16, 16), dtype=np.uint8)
    labels = np.arange(32) % 2
    images[labels == 1, :, :6, :6] += 150
    return ScanArrays(images, lengths, labels)


def train(config, arch="cnn_lrn", dropout=0.0, seed=0, **more):
    torch.manual_seed(seed)
    model = ScanModel(ModelConfig(arch=arch, embedding_dim=8, dropout=dropout), 1, 16, 2)
    preprocess = PreprocessConfig(size=16, mean=(0.3,), std=(0.2,))
    cpu = torch.device("cpu")
    return fit(model, scans(), scans(), preprocess, config, device=cpu, **more)


def write(fitted, name, folder):
    save_file(fitted.model.state_dict(), folder / name)
"""
IN_TWO = (
    TRAINING
    + """
with joined() as processes:
    folder, rank, more = Path(sys.argv[1]), processes.rank, {"processes": processes}
    write(train(PLAIN, **more), f"plain-{rank}", folder)
    states = []
    more |= {"config": replace(PLAIN, augmentation="ct"), "arch": "resnet18_half", "dropout": 0.5}
    write(train(**more, on_state=states.append), f"whole-{rank}", folder)
    write(train(**more, seed=9, resumed=states[1]), f"resumed-{rank}", folder)
"""
)


def torchrun(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.run(
        [sys.executable, *command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    squares = [(one[name].double() - other[name].double()).square().sum() for name in one]
    return float(torch.stack(squares).sum().sqrt())


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(IN_TWO)
    done = torchrun("two.py", tmp_path, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    weights = {path.name: load_file(path) for path in tmp_path.glob("*-?")}
    for name in ("plain", "whole", "resumed"):
        assert distance(weights[f"{name}-0"], weights[f"{name}-1"]) == 0, name
    assert distance(weights["whole-0"], weights["resumed-0"]) == 0
    alone: dict[str, object] = {}
    exec(compile(TRAINING, "training", "exec"), alone)
    fitted = {
        slices: eval(f"train(replace(PLAIN, batch_slices={slices})).model.state_dict()", alone)
        for slices in (4, 8)
    }
    start = eval("train(replace(PLAIN, learning_rate=0.0)).model.state_dict()", alone)
    way = distance(start, fitted[8])
    assert distance(weights["plain-0"], fitted[8]) < 0.02 * way
    assert distance(weights["plain-0"], fitted[4]) > 0.2 * way


@pytest.mark.slow
def test_a_run_of_two_processes_is_written_and_told_once(
    tmp_path: Path, picture_manifest: Callable[..., Path]
) -> None:
    manifest = picture_manifest(24)
    options = ("-o", "run", "--size", "16", "--epochs", "2", "--device", "cpu", "--json")
    done = torchrun("-m", "medcli", "train", manifest, *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["path"] == str(tmp_path / "run")
    assert done.stderr.count("epoch   2/2") == 1
    assert load_package(tmp_path / "run").provenance["epochs_run"] == 2
    left = {path.name for path in tmp_path.iterdir()} - {f"{n:03d}.png" for n in range(24)}
    assert left == {"manifest.csv", "run"}


def test_one_process_is_alone() -> None:
    with joined() as processes:
        assert processes is ALONE
    assert ALONE.mean(3.0, 2.0) == 3.0
    batch = np.arange(5)
    assert np.array_equal(ALONE.share(batch), batch)


def test_shares_of_a_batch_are_the_batch() -> None:
    batch = np.random.default_rng(0).permutation(11)
    shares = [Processes(rank, 3).share(batch) for rank in range(3)]
    assert np.array_equal(np.concatenate(shares), batch)
    assert max(map(len, shares)) - min(map(len, shares)) == 1


def test_too_few_scans_for_the_processes_are_refused() -> None:
    alone: dict[str, object] = {}
    exec(compile(TRAINING, "training", "exec"), alone)
    alone["nine"] = Processes(0, 17)
    with pytest.raises(UsageError, match="32 scans are too few for 17 processes"):
        eval("train(PLAIN, processes=nine)", alone)
