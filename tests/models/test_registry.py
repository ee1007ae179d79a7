from __future__ import annotations

import subprocess
import sys

import pytest

from medcli.config import ModelConfig
from medcli.errors import UsageError
from medcli.models.registry import AGGREGATORS, BACKBONES, resolve

REGISTRIES = {"architecture": BACKBONES, "aggregator": AGGREGATORS}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in REGISTRIES.items() for name in names]
)
def test_every_name_has_a_builder(kind: str, name: str) -> None:
    assert callable(resolve(REGISTRIES[kind], kind, name))


def test_the_default_model_is_registered() -> None:
    assert ModelConfig().arch in BACKBONES
    assert ModelConfig().aggregator in AGGREGATORS


def test_an_unknown_name_offers_the_nearest_and_lists_all() -> None:
    with pytest.raises(UsageError) as caught:
        resolve(AGGREGATORS, "aggregator", "atention")
    assert caught.value.exit_status == 2
    assert "unknown aggregator 'atention'" in caught.value.message
    assert "Did you mean attention?" in caught.value.hint
    assert all(name in caught.value.hint for name in AGGREGATORS)


def test_a_name_like_no_other_offers_none() -> None:
    with pytest.raises(UsageError) as caught:
        resolve(BACKBONES, "architecture", "zzz")
    assert "Did you mean" not in caught.value.hint


def test_listing_names_imports_no_torch() -> None:
    code = (
        "import sys; from medcli.models.registry import AGGREGATORS, BACKBONES\n"
        "assert BACKBONES and AGGREGATORS; print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"
