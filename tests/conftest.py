"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data named by MEDCLI_TEST_DATA; the test skips without it."""
    folder = os.environ.get("MEDCLI_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MEDCLI_TEST_DATA does not name a folder of real data")
    return Path(folder).resolve()


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Tiny tensors are several times faster on one thread where cores are shared."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch computes on one thread in this module's tests."""
    with _one_torch_thread():
        yield


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated CT of six patients, `nodule.csv` over them, `scan.dcm` and `query.png`."""
    from medcli.data.synthetic import write_sample_data

    return write_sample_data(
        tmp_path_factory.mktemp("sample"), patients=6, tasks=("nodule",)
    ).parent


@pytest.fixture(scope="session")
def tiny_run(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: one epoch on `sample_folder`. Shared by all tests, so copy it to change it."""
    from medcli.training.run import TrainRequest, train

    output = tmp_path_factory.mktemp("runs") / "tiny"
    request = TrainRequest((str(sample_folder / "nodule.csv"),), output=output, size=32, epochs=1)
    with _one_torch_thread():
        return train(request).path
