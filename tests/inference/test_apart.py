"""Tests that load OpenVINO, in a process of their own.

An interrupt that comes after it (`signal.pthread_kill` in tests of workers) ends a process that
holds torch, too, by a segmentation fault; a process of medcli's own ends with 130.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("file", ["inference/apart_choice.py", "cli/apart_engine.py"])
def test_those_with_openvino_pass(file: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(TESTS / file)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
