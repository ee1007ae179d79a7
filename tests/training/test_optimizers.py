from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from medcli.config import ModelConfig, TrainConfig
from medcli.models.scan_model import ScanModel
from medcli.training.optimizers import MOMENTUM, make_optimizer, parameter_groups, set_rate

pytestmark = pytest.mark.usefixtures("one_thread")


def small_model() -> ScanModel:
    return ScanModel(ModelConfig(embedding_dim=4), channels=1, size=16, num_classes=2)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)],
)
def test_each_name_makes_its_optimizer(name: str, kind: type) -> None:
    config = TrainConfig.from_json({"optimizer": name, "learning_rate": 0.3})
    optimizer = make_optimizer(small_model(), config)
    assert type(optimizer) is kind
    assert {group["lr"] for group in optimizer.param_groups} == {0.3}
    if name == "sgd":
        assert all(group["nesterov"] for group in optimizer.param_groups)
        assert {group["momentum"] for group in optimizer.param_groups} == {MOMENTUM}


def test_the_backbone_and_it_alone_gets_its_share_of_the_rate() -> None:
    model = small_model()
    optimizer = make_optimizer(model, replace(TrainConfig(), backbone_rate=0.1))
    set_rate(optimizer, 0.02)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        expected = 0.002 if name.startswith("backbone.") else 0.02
        assert rates[id(parameter)] == pytest.approx(expected), name


@pytest.mark.parametrize("share", [1.0, 0.1])
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_every_parameter_is_in_one_group(share: float, decay: float) -> None:
    model = small_model()
    config = replace(TrainConfig(), backbone_rate=share, weight_decay=decay)
    grouped = [id(p) for group in parameter_groups(model, config) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


def test_the_shares_survive_saving_the_optimizer() -> None:
    config = replace(TrainConfig(), backbone_rate=0.1)
    first, second = (make_optimizer(small_model(), config) for _ in range(2))
    second.load_state_dict(first.state_dict())
    set_rate(second, 1.0)
    assert {group["lr"] for group in second.param_groups} == {0.1, 1.0}
