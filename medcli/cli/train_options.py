"""What `medcli train` can be told, by panel of its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcli.models.registry import AGGREGATORS, ARCHITECTURES

DATA, NETWORK, TRAINING, LOSS = "Data", "Network", "Training", "Loss and balance"

Data = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="DATA",
        help="Manifest (.csv), class folders, MedMNIST .npz, medmnist:NAME or hf:OWNER/NAME; of "
        "several tasks as TASK=DATA; without: what is here, else generated sample data.",
        show_default=False,
    ),
]
Tasks = Annotated[
    str | None,
    typer.Option(
        "--task",
        "-t",
        metavar="NAME[,NAME…]",
        help="The task; several, which a column 'task' of the data names, become one model.",
        show_default=False,
    ),
]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FOLDER",
        help="The run folder; by default in the medcli home.",
        show_default=False,
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,…",
        help="Classes to keep, in this order; others are dropped.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
Positive = Annotated[
    str | None,
    typer.Option(
        metavar="CLASS",
        help="Positive one of two classes; of several tasks one each, A,B,….",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
Domain = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column of the manifest (site, scanner …) whose values are to count the same; "
        "numbers are given for each.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
Arch = Annotated[
    str,
    typer.Option(
        metavar="NAME", help=f"Backbone: {', '.join(ARCHITECTURES)}.", rich_help_panel=NETWORK
    ),
]
Aggregator = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"How slices become a scan: {', '.join(AGGREGATORS)}.",
        show_default="attention; none for a 3-D network",
        rich_help_panel=NETWORK,
    ),
]
Measures = Annotated[
    bool | None,
    typer.Option(
        "--measures/--no-measures",
        help="Beside the network, a regression on size, density and edges of the finding in the "
        "middle of a crop.",
        show_default="for the task nodule",
        rich_help_panel=NETWORK,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="imagenet|FILE|RUN",
        help="Start the backbone from ImageNet (downloaded), a .safetensors file or a run.",
        show_default="from scratch",
        rich_help_panel=NETWORK,
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        metavar="PX",
        min=16,
        max=1024,
        help="Input side.",
        show_default="by data",
        rich_help_panel=NETWORK,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Passes over the data.",
        show_default="by data",
        rich_help_panel=TRAINING,
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        metavar="M",
        min=0.1,
        help="Time budget.",
        show_default="13 on a CPU",
        rich_help_panel=TRAINING,
    ),
]
Device = Annotated[
    str, typer.Option(metavar="NAME", help="auto, cpu, cuda.", rich_help_panel=TRAINING)
]
OptimizerName = Annotated[
    str, typer.Option("--optimizer", metavar="NAME", help="adamw, adam, sgd (Nesterov).",
                      rich_help_panel=TRAINING)
]  # fmt: skip
LearningRate = Annotated[
    float | None,
    typer.Option(
        metavar="R",
        help="Peak learning rate.",
        show_default="0.001; sgd 0.05",
        rich_help_panel=TRAINING,
    ),
]
BackboneRate = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Share of the learning rate for the backbone.",
        show_default="1; with --weights 0.1",
        rich_help_panel=TRAINING,
    ),
]
WeightDecay = Annotated[
    float | None,
    typer.Option(
        metavar="W",
        help="Decay of matrices and kernels.",
        show_default="0.05; adam 0.0001, sgd 0.0005",
        rich_help_panel=TRAINING,
    ),
]
ImbalanceMode = Annotated[
    str,
    typer.Option(
        "--imbalance",
        metavar="MODE",
        help="Classes of unequal size: auto, none, weights, sampler, focal, logit-adjust.",
        rich_help_panel=LOSS,
    ),
]
LabelSmoothing = Annotated[
    float,
    typer.Option(metavar="E", help="Share of the label given to all.", rich_help_panel=LOSS),
]
Mixup = Annotated[
    float,
    typer.Option(
        metavar="ALPHA", help="Mix scans with each other; 0.2 is usual.", rich_help_panel=LOSS
    ),
]
RobustLossName = Annotated[
    str,
    typer.Option(
        "--robust-loss",
        metavar="NAME",
        help="For noisy labels: none, gce, symmetric.",
        rich_help_panel=LOSS,
    ),
]
MetricLossName = Annotated[
    str,
    typer.Option(
        "--metric-loss",
        metavar="NAME",
        help="For retrieval, beside the other loss: none, supcon, proxy.",
        rich_help_panel=LOSS,
    ),
]
MetricWeight = Annotated[
    float | None,
    typer.Option(
        metavar="W",
        help="Its weight.",
        show_default="supcon 0.5, proxy 0.1",
        rich_help_panel=LOSS,
    ),
]
AllowOverlap = Annotated[
    bool,
    typer.Option(
        "--allow-overlap",
        help="Also where parts share a patient or a picture.",
        rich_help_panel=DATA,
    ),
]
Folds = Annotated[
    int | None,
    typer.Option(
        metavar="K",
        min=2,
        max=20,
        help="Measure in K folds by patient, then train on all; --minutes is for the whole.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
Sensitivity = Annotated[
    float | None,
    typer.Option(
        metavar="S",
        help="Wanted sensitivity of the threshold, fixed on the validation part.",
        show_default="Youden's threshold",
        rich_help_panel=LOSS,
    ),
]
Resume = Annotated[
    str | None,
    typer.Option(
        metavar="RUN",
        help="Go on with the unfinished run that was to be written there, or 'latest'.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
NoCache = Annotated[
    bool,
    typer.Option(
        "--no-cache",
        help="Keep nothing of what was read for the next time.",
        rich_help_panel=DATA,
    ),
]
TensorBoard = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Log for TensorBoard there.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
