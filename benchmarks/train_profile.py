"""Where the time of a training goes: one epoch under a profiler, after one without; Markdown.

    python benchmarks/train_profile.py DATA.csv [--task NAME] [--size 112] [--arch resnet18_half]
                                       [--device cpu] [--minimum 0.005]

On a processor: the functions of the loop with their share of the epoch's seconds (cProfile; what
a function calls counts as its own too). On a GPU that would show who waits, so there the
kernels are told (torch.profiler) with the share of the epoch in which the GPU was busy, and how
often the processor waited for it.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import time
from collections.abc import Callable
from datetime import date
from typing import Any

import torch
from machine import print_head, print_row

from medcli.config import NO_AGGREGATOR, ModelConfig
from medcli.models.heads import head_width
from medcli.models.registry import VOLUMES
from medcli.models.scan_model import build_model
from medcli.training.loop import fit
from medcli.training.preparing import Prepared, prepare
from medcli.training.processes import ALONE
from medcli.training.request import Steps, TrainEvents, TrainRequest

TOLD = (  # names of the loop and what it calls
    *(
        "run_epoch",
        "_learn",
        "augment",
        "_move",
        "retake",
        "restain",
        "recolour",
        "_shade",
        "_take",
    ),
    *("coarsen", "soften", "add_noise", "blank_edges", "hide_patch", "mix", "take", "standardise"),
    *("encode", "aggregate_ragged", "__call__", "backward", "clip_grad_norm_", "step", "update"),
    *("_validate", "predict_logits", "mean_auroc", "state", "offer"),
)
WAITING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def main() -> None:
    """Read, train an epoch, train another under a profiler, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--task")
    parser.add_argument("--size", type=int)
    parser.add_argument("--arch", default="resnet18_half")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minimum", type=float, default=0.005, help="smallest share that is told")
    options = parser.parse_args()
    aggregator = NO_AGGREGATOR if options.arch in VOLUMES else ModelConfig().aggregator
    model = ModelConfig(arch=options.arch, aggregator=aggregator)
    request = TrainRequest(
        (options.data,),
        options.task,
        size=options.size,
        device=options.device,
        epochs=2,
        minutes=1e6,
        model=model,
    )
    data = prepare(request, TrainEvents(), ALONE, Steps(), None)
    config = data.train
    print(
        f"{date.today()}, {os.cpu_count()} cores, threads {torch.get_num_threads()}, torch "
        f"{torch.__version__}, {_device(data.device)}\n{model.network}, {data.preprocess.size} px, "
        f"{data.preprocess.channels} channels, batches of {config.batch_slices}, "
        f"{len(data.arrays['train'].images)} slices, bf16 {config.bf16}\n"
    )
    (_on_gpu if data.device.type == "cuda" else _on_cpu)(data, model, options.minimum)


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _train(
    data: Prepared, model: ModelConfig, start: Callable[[], Any], end: Callable[[], Any]
) -> float:
    """Two epochs, the second between `start` and `end`; its seconds."""
    torch.manual_seed(0)
    size, channels = data.preprocess.size, data.preprocess.channels
    network = build_model(model, channels, size, head_width(data.tasks))
    times: list[float] = []

    def on_epoch(epoch: Any) -> None:
        if data.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter())
        start() if epoch.epoch == 1 else end()

    arrays = data.arrays
    fit(
        *(network, arrays["train"], arrays["val"], data.preprocess, data.train),
        device=data.device,
        tasks=data.tasks,
        on_epoch=on_epoch,
    )
    return times[1] - times[0]


def _on_cpu(data: Prepared, model: ModelConfig, minimum: float) -> None:
    plain = _train(data, model, lambda: None, lambda: None)
    profile = cProfile.Profile()
    seconds = _train(data, model, profile.enable, profile.disable)
    print(f"{plain:.2f} s an epoch, {seconds:.2f} s under the profiler\n")
    print_head("function", "calls", "seconds", "share")
    rows = []
    for (file, _, name), (_, calls, _, total, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if name.strip("_") in {each.strip("_") for each in TOLD} and total / seconds >= minimum:
            rows.append((total, f"{os.path.basename(file)}: {name}", calls))
    for total, name, calls in sorted(rows, reverse=True):
        print_row([name, calls, float(total), f"{total / seconds:.3f}"])


def _on_gpu(data: Prepared, model: ModelConfig, minimum: float) -> None:
    from torch.profiler import ProfilerActivity, profile

    plain = _train(data, model, lambda: None, lambda: None)
    profiler = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
    seconds = _train(data, model, profiler.start, profiler.stop)
    events = profiler.key_averages()
    kernels = [each for each in events if each.device_type == torch.autograd.DeviceType.CUDA]
    kernels = [each for each in kernels if "#" not in each.key]  # a span, Optimizer.step#…
    busy = sum(each.self_device_time_total for each in kernels) / 1e6
    waits = sum(each.count for each in events if each.key in WAITING)
    steps = len(data.arrays["train"].images) / data.train.batch_slices
    launches = sum(each.count for each in events if "LaunchKernel" in each.key)
    print(
        f"{plain:.3f} s an epoch of about {steps:.0f} steps ({seconds:.3f} s under the profiler), "
        f"GPU busy for {busy:.3f} s: {busy / plain:.2f} of the epoch; {launches / steps:.0f} "
        f"launches and {waits / steps:.1f} waits a step\n"
    )
    print_head("kernel", "calls", "GPU, s", "share")
    for each in sorted(kernels, key=lambda event: -event.self_device_time_total):
        gpu = each.self_device_time_total / 1e6
        if gpu >= max(minimum, 0.03) * busy:
            print_row([each.key[:60], each.count, gpu, f"{gpu / busy:.3f}"])
    print()
    print_head("operation", "calls", "processor, s", "share of the epoch under the profiler")
    for each in sorted(events, key=lambda event: -event.self_cpu_time_total):
        own = each.self_cpu_time_total / 1e6
        if own >= max(minimum, 0.02) * seconds:
            print_row([each.key[:60], each.count, own, f"{own / seconds:.3f}"])


if __name__ == "__main__":
    main()
