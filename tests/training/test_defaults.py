from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from medcli.config import TrainConfig
from medcli.errors import UsageError
from medcli.records import Scan
from medcli.training.defaults import (
    CPU_MINUTES,
    CPU_SIDE,
    EPOCHS,
    GPU_SIDE,
    DataFacts,
    choose_device,
    choose_preprocess,
    choose_shared_preprocess,
    choose_training,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda")
PICTURES = DataFacts(side=512, colour=False, stacks=False, unit="display", modality=None)
SERIES = replace(PICTURES, stacks=True, unit="HU", modality="CT")


def scan(shape: tuple[int, int, int, int], unit: Any = "stored", modality: Any = None) -> Scan:
    return Scan(
        pixels=np.zeros(shape, np.uint8),
        path="a",
        files=("a",),
        slice_files=("a",),
        scan_id="a",
        format="png",
        modality=modality,
        unit=unit,
    )


def training(slices: int, facts: DataFacts = PICTURES, size: int = 64, **more: Any) -> TrainConfig:
    asked = {"epochs": None, "minutes": None, "spent": 0.0, "device": CPU, "task": "x"} | more
    device, task = asked.pop("device"), asked.pop("task")
    return choose_training(facts, task, slices, size, device, TrainConfig(seed=7), **asked)


def test_facts_are_the_median_side_and_the_most_frequent_unit() -> None:
    facts = DataFacts.of(
        [
            scan((1, 20, 30, 1), "HU", "CT"),
            scan((5, 100, 40, 1), "HU", "CT"),
            scan((5, 600, 600, 1), "display"),
        ]
    )
    assert facts == DataFacts(side=100, colour=False, stacks=True, unit="HU", modality="CT")


def test_one_colour_picture_makes_the_set_colour() -> None:
    facts = DataFacts.of([scan((1, 9, 9, 1)), scan((1, 9, 9, 3)), scan((1, 9, 9, 1))])
    assert facts.colour
    assert not facts.stacks
    assert facts.modality is None


def test_small_pictures_keep_their_side() -> None:
    small = replace(PICTURES, side=28)
    assert choose_preprocess(small, "x", CPU, None).size == 28
    assert choose_preprocess(small, "x", GPU, None).size == 28


@pytest.mark.parametrize(
    ("facts", "device", "limit"),
    [
        (PICTURES, CPU, CPU_SIDE["single"]),
        (SERIES, CPU, CPU_SIDE["stack"]),
        (PICTURES, GPU, GPU_SIDE),
        (SERIES, GPU, GPU_SIDE),
    ],
)
def test_large_pictures_are_limited_by_the_device(
    facts: DataFacts, device: torch.device, limit: int
) -> None:
    assert choose_preprocess(facts, "x", device, None).size == limit < facts.side


def test_the_side_asked_for_wins() -> None:
    assert choose_preprocess(PICTURES, "x", CPU, 200).size == 200


def test_tiny_pictures_are_enlarged_to_what_a_network_takes() -> None:
    assert choose_preprocess(replace(PICTURES, side=8), "x", CPU, None).size == 16


@pytest.mark.parametrize(("colour", "channels"), [(True, 3), (False, 1)])
def test_colour_gives_three_channels(colour: bool, channels: int) -> None:
    assert choose_preprocess(replace(PICTURES, colour=colour), "x", CPU, None).channels == channels


def test_known_tasks_bring_their_way_with_pictures() -> None:
    assert choose_preprocess(PICTURES, "lung", CPU, None).pictures == "percentiles"
    assert choose_preprocess(PICTURES, "unheard of", CPU, None).pictures == "full_range"


def test_sets_of_several_tasks_get_what_the_most_demanding_asks_for() -> None:
    colour = replace(PICTURES, colour=True, side=512)
    joined = DataFacts.joined([SERIES, colour])
    assert (joined.side, joined.colour, joined.stacks) == (512, True, True)
    assert choose_shared_preprocess([SERIES, colour], ["nodule", "gi"], CPU, None) == replace(
        choose_preprocess(SERIES, "nodule", CPU, None), channels=3
    )
    assert choose_shared_preprocess([PICTURES], ["lung"], CPU, 40) == choose_preprocess(
        PICTURES, "lung", CPU, 40
    )


@pytest.mark.parametrize(
    ("tasks", "pictures"),
    [
        (["lung", "lung"], "percentiles"),
        (["lung", "nodule"], "full_range"),
        (["x", "lung"], "full_range"),
    ],
)
def test_pictures_are_stretched_only_where_every_task_wants_it(
    tasks: list[str], pictures: str
) -> None:
    shared = choose_shared_preprocess([PICTURES, PICTURES], tasks, CPU, None)
    assert shared.pictures == pictures


def test_fewer_epochs_for_more_slices_and_for_larger_ones() -> None:
    few, many = training(3_000), training(9_000)
    assert EPOCHS[0] < many.epochs < few.epochs < EPOCHS[1]
    assert training(3_000, size=112).epochs < few.epochs
    assert training(10).epochs == EPOCHS[1]
    assert training(10**7).epochs == EPOCHS[0]


def test_epochs_asked_for_win() -> None:
    assert training(10**7, epochs=99).epochs == 99


def test_a_cpu_has_a_time_limit_and_a_gpu_has_none() -> None:
    assert training(100).minutes == CPU_MINUTES
    on_gpu = training(10**7, device=GPU)
    assert on_gpu.minutes is None
    assert on_gpu.epochs == EPOCHS[1]


def test_reading_counts_towards_the_minutes() -> None:
    assert training(100, minutes=5.0, spent=2.0).minutes == 3.0
    assert training(100, minutes=5.0, spent=9.0).minutes == pytest.approx(0.1)
    assert training(100, minutes=5.0, device=GPU).minutes == 5.0


def test_the_rate_follows_the_clock_only_where_minutes_were_asked_for() -> None:
    assert training(100, minutes=5.0).follow_clock
    assert not training(100).follow_clock


@pytest.mark.parametrize(
    ("facts", "task", "augmentation"),
    [
        (PICTURES, "x", "grey"),
        (replace(PICTURES, colour=True), "x", "colour"),
        (SERIES, "x", "ct"),
        (replace(PICTURES, unit="stored", modality="CT"), "x", "ct"),
        (replace(PICTURES, modality="DX"), "x", "radiograph"),
        (replace(PICTURES, modality="MR"), "x", "grey"),
        (PICTURES, "lung", "radiograph"),
        (PICTURES, "nodule", "ct"),
    ],
)
def test_augmentation_suits_task_and_modality(
    facts: DataFacts, task: str, augmentation: str
) -> None:
    assert training(100, facts, task=task).augmentation == augmentation


def test_what_is_not_chosen_stays() -> None:
    assert training(100).seed == 7
    assert training(100).learning_rate == TrainConfig().learning_rate


def test_a_device_that_is_not_there_is_named() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in ("cpu", "cuda")
    for name in ("abacus", "cuda:77"):
        with pytest.raises(UsageError, match=f"no device '{name}'"):
            choose_device(name)


def test_a_larger_side_than_was_measured_gets_fewer_epochs_by_area() -> None:
    at_112, at_224 = (training(2000, size=side).epochs for side in (112, 224))
    assert at_112 == 18
    assert at_224 == 18 // 4
