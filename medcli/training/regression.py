"""A trained network → the same with a regression on measures of the finding beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medcli.config import ModelConfig, PreprocessConfig
from medcli.data.arrays import ScanArrays
from medcli.data.presets import PRESETS
from medcli.errors import UsageError
from medcli.evaluation.calibration import fit_pool
from medcli.layers.measures import measure_scans
from medcli.models.heads import column_ranges
from medcli.models.measured_model import MeasuredModel
from medcli.models.registry import BACKBONES
from medcli.models.scan_model import ScanModel
from medcli.records import Task
from medcli.training.batches import Pixels, batches, draw_slices, standardise
from medcli.training.by_task import own_scans
from medcli.training.prediction import predict_logits

PENALTY = 0.01  # C of the regression: of a hundred measures many say the same


def choose_measured(
    asked: bool | None, model: ModelConfig, tasks: Sequence[Task]
) -> tuple[int, int] | None:
    """The columns that a regression on measures has a say in; None: there is to be none.

    Parameters
    ----------
    asked : None: where the name of a task says that it is about a finding in the middle

    Raises
    ------
    UsageError : asked for where it cannot be
    """
    able = model.arch in BACKBONES and not any(task.multi_label for task in tasks)
    known = [
        n for n, task in enumerate(tasks) if task.name in PRESETS and PRESETS[task.name].measures
    ]
    if asked and not able:
        raise UsageError(
            "--measures goes with classes and a network that sees slices: "
            f"{', '.join(sorted(BACKBONES))}",
            "Leave it out",
        )
    if asked and not known and len(tasks) > 1:
        raise UsageError(
            "--measures: which of the tasks is about a finding in the middle of a crop?",
            "Leave it out, or train that task alone",
        )
    if asked is False or not able or not (known or asked):
        return None
    columns = column_ranges(tasks)[known[0] if known else 0]
    return columns.start, columns.stop


def with_measures(
    model: ScanModel,
    config: ModelConfig,
    train: ScanArrays,
    val: ScanArrays,
    preprocess: PreprocessConfig,
    *,
    batch_slices: int,
    device: torch.device,
) -> MeasuredModel:
    """Fit the regression on the training part and add it to the trained network.

    How much each of the two says is fitted on the validation part (`fit_pool`), so what knows
    little says little; the network's columns are scaled in its head.

    Parameters
    ----------
    config : that of `model`, with `measured_columns`
    """
    assert config.measured_columns is not None
    columns = slice(*config.measured_columns)
    whole = MeasuredModel(config, preprocess.channels, preprocess.size, model.head.out_features)
    whole.load_state_dict(model.state_dict(), strict=False)
    whole.get_buffer("pixel_mean").copy_(torch.tensor(preprocess.mean))
    whole.get_buffer("pixel_std").copy_(torch.tensor(preprocess.std))
    whole = whole.eval().to(device)

    def measures(scans: ScanArrays) -> Tensor:
        return _measures(whole, scans, preprocess, batch_slices, device)

    _, own = own_scans(train, columns)
    _fit(whole, measures(own), own.labels)
    _, asked = own_scans(val, columns)
    network = predict_logits(model, asked, preprocess, batch_slices, device)[:, columns]
    with torch.inference_mode():
        beside = whole.regression(measures(asked).to(device)).cpu()
    own_share, beside_share = fit_pool(asked.labels, np.stack([network.numpy(), beside.numpy()]))
    with torch.no_grad():
        for tensor in whole.head.parameters():
            tensor[columns] = tensor[columns] * own_share
        for tensor in whole.regression.linear.parameters():
            tensor.mul_(beside_share)
    return whole


@torch.inference_mode()
def _measures(
    model: MeasuredModel,
    scans: ScanArrays,
    preprocess: PreprocessConfig,
    batch_slices: int,
    device: torch.device,
) -> Tensor:
    """(N, M) measures of all scans, in their order, on the CPU."""
    pixels, found = Pixels(scans.images, device), []
    for batch in batches(scans, batch_slices, None):
        rows, lengths = draw_slices(scans, batch)
        raw = model.measure(standardise(pixels.take(rows), preprocess))
        padded = torch.nn.utils.rnn.pad_sequence(list(torch.split(raw, lengths)), batch_first=True)
        mask = (
            torch.arange(max(lengths), device=device)
            < torch.tensor(lengths, device=device)[:, None]
        )
        found.append(measure_scans(padded, mask))
    return torch.cat(found).cpu()


@torch.no_grad()
def _fit(model: MeasuredModel, measures: Tensor, labels: np.ndarray) -> None:
    """Fit scores and regression to (N, M) measures of scans with (N,) classes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores, linear = model.regression.scores, model.regression.linear
    scores.fit(measures)
    inputs = scores.cpu()(measures).numpy()
    scores.to(linear.weight.device)
    regression = LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=1000)
    scaler, found = make_pipeline(StandardScaler(), regression).fit(inputs, labels)
    weights = found.coef_ / scaler.scale_
    bias = found.intercept_ - weights @ scaler.mean_
    if linear.out_features == 2:  # one row stands for the difference of both
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    linear.weight.copy_(torch.from_numpy(weights))
    linear.bias.copy_(torch.from_numpy(bias))
