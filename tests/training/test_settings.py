from __future__ import annotations

import typing
from typing import Any

import numpy as np
import pytest

from medcli.config import Imbalance, MetricLoss, Optimizer, RobustLoss, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.errors import UsageError
from medcli.training.settings import (
    METRIC_WEIGHTS,
    RATES,
    ObjectiveRequest,
    check_objective,
    choose_imbalance,
    choose_objective,
    describe_objective,
)


def scans(*counts: int) -> ScanArrays:
    labels = np.repeat(np.arange(len(counts)), counts)
    return ScanArrays(np.zeros((len(labels), 1, 2, 2), np.uint8), np.ones_like(labels), labels)


def chosen(*, pretrained: bool = False, **asked: Any) -> TrainConfig:
    request = ObjectiveRequest(**asked)
    return choose_objective(TrainConfig(seed=3), request, scans(5, 5), pretrained=pretrained)


def test_nothing_asked_is_the_default_configuration() -> None:
    assert chosen() == TrainConfig(seed=3)


def test_what_was_asked_is_what_is_recorded_and_survives_json() -> None:
    config = chosen(
        optimizer="sgd",
        learning_rate=0.2,
        weight_decay=0.0,
        backbone_rate=0.3,
        label_smoothing=0.1,
        mixup=0.4,
        imbalance="sampler",
        robust_loss="gce",
        metric_loss="supcon",
        metric_weight=0.7,
        domain="site",
    )
    stored = config.to_json()
    assert TrainConfig.from_json(stored) == config
    for name, value in {
        **{"optimizer": "sgd", "learning_rate": 0.2, "weight_decay": 0.0, "backbone_rate": 0.3},
        **{"label_smoothing": 0.1, "mixup": 0.4, "imbalance": "sampler", "robust_loss": "gce"},
        **{"metric_loss": "supcon", "metric_weight": 0.7, "domain": "site"},
    }.items():
        assert stored[name] == value


def test_settings_of_before_these_options_are_read_as_what_they_were() -> None:
    old = {"epochs": 3, "learning_rate": 0.002, "augmentation": "ct"}
    config = TrainConfig.from_json(old)
    assert (config.optimizer, config.imbalance, config.backbone_rate) == ("adamw", "weights", 1)
    assert (config.mixup, config.robust_loss, config.metric_loss) == (0, "none", "none")


def test_every_name_has_its_settings() -> None:
    assert set(RATES) == set(typing.get_args(Optimizer))
    assert set(METRIC_WEIGHTS) == set(typing.get_args(MetricLoss))


@pytest.mark.parametrize("name", RATES)
def test_each_optimizer_brings_its_rate_and_decay(name: str) -> None:
    config = chosen(optimizer=name)
    assert (config.learning_rate, config.weight_decay) == RATES[name]


def test_a_pretrained_backbone_gets_a_tenth_unless_told_otherwise() -> None:
    assert chosen(pretrained=True).backbone_rate == 0.1
    assert chosen(pretrained=True, backbone_rate=1.0).backbone_rate == 1


@pytest.mark.parametrize(
    ("counts", "mode"),
    [((50, 50), "weights"), ((99, 10), "weights"), ((100, 10), "logit-adjust"),
     ((100, 90, 5), "logit-adjust")],
)  # fmt: skip
def test_auto_adjusts_logits_from_one_to_ten_on(counts: tuple[int, ...], mode: str) -> None:
    assert choose_imbalance(scans(*counts).labels) == mode


@pytest.mark.parametrize(
    ("asked", "said", "hint"),
    [
        ({"optimizer": "adamm"}, "unknown optimizer 'adamm'", "Did you mean adam"),
        ({"imbalance": "weight"}, "unknown --imbalance 'weight'", "Did you mean weights?"),
        ({"imbalance": "automatic"}, "unknown --imbalance", "auto"),
        ({"robust_loss": "gcee"}, "unknown --robust-loss", "Did you mean gce?"),
        ({"metric_loss": "supercon"}, "unknown --metric-loss", "Did you mean supcon?"),
        ({"learning_rate": float("nan")}, "--learning-rate nan", "Leave it out"),
        ({"learning_rate": 0.0}, "--learning-rate 0 teaches nothing", ""),
        ({"mixup": -0.1}, "--mixup -0.1", ""),
        ({"weight_decay": float("inf")}, "--weight-decay inf", ""),
        ({"label_smoothing": 1.0}, "--label-smoothing 1 leaves nothing", "0.1"),
        ({"imbalance": "focal", "robust_loss": "gce"}, "contradict", "weights"),
        ({"metric_weight": 0.5}, "--metric-weight weighs nothing", "supcon"),
        ({"task_shares": (1.0, 2.0)}, "task_shares draw nothing", "sampler"),
        ({"task_shares": (1.0, 0.0), "imbalance": "sampler"}, "above 0", ""),
        ({"step_slices": 0}, "step_slices 0 leaves nothing", ""),
    ],
)
def test_what_cannot_be_is_a_usage_error(asked: dict[str, Any], said: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_objective(ObjectiveRequest(**asked))
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_the_plan_names_what_is_not_plain() -> None:
    plain = describe_objective(chosen())
    assert plain == "adamw at 0.001, classes evened out by weights"
    told = describe_objective(
        chosen(optimizer="sgd", mixup=0.2, robust_loss="gce", metric_loss="proxy", domain="site")
    )
    for word in ("sgd at 0.05", "mixup 0.2", "robust loss gce", "0.1 × proxy", "site evened out"):
        assert word in told
    several = TrainConfig(imbalance="sampler", task_shares=(1.0, 2.5), step_slices=3)
    for word in ("tasks drawn as 1 : 2.5", "3 slices of a stack a step"):
        assert word in describe_objective(several)


def test_there_is_a_share_for_each_task() -> None:
    with pytest.raises(UsageError, match="2 task_shares for 1 tasks"):
        chosen(imbalance="sampler", task_shares=(1.0, 2.0))


def test_the_help_names_every_choice() -> None:
    from medcli.cli import train_options

    for option, known in (
        (train_options.OptimizerName, Optimizer),
        (train_options.ImbalanceMode, Imbalance),
        (train_options.RobustLossName, RobustLoss),
        (train_options.MetricLossName, MetricLoss),
    ):
        told = typing.get_args(option)[1].help
        assert all(name in told for name in typing.get_args(known)), told
