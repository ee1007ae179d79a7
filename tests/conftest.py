"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data named by MEDCLI_TEST_DATA; the test skips without it."""
    folder = os.environ.get("MEDCLI_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MEDCLI_TEST_DATA does not name a folder of real data")
    return Path(folder).resolve()
