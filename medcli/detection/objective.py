"""What both stages are asked for: which anchors and regions hold a lesion, and where it ends.

References
----------
Ren et al.: Faster R-CNN, NeurIPS 2015, section 3.1.2 (sampling, both losses).
Girshick: Fast R-CNN, ICCV 2015, section 2.3 (the second stage).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, Matcher
from torchvision.ops import box_iou, nms

from medcli.config import DetectionConfig
from medcli.detection.network import DetectionModel, Proposed
from medcli.layers.region import box_coder

ANCHORS, REGIONS = 128, 16  # of a slice that count in the losses of the first and second stage
ANCHOR_SHARE, REGION_SHARE = 0.5, 0.25  # of these at most so many hold a lesion
PROPOSED = 300  # best anchors of a slice that regions are drawn from

_anchor_matcher = Matcher(0.6, 0.3, allow_low_quality_matches=True)
_region_matcher = Matcher(0.5, 0.5, allow_low_quality_matches=False)
_anchor_sampler = BalancedPositiveNegativeSampler(ANCHORS, ANCHOR_SHARE)
_region_sampler = BalancedPositiveNegativeSampler(REGIONS, REGION_SHARE)


def detection_loss(
    model: DetectionModel,
    images: Tensor,
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    config: DetectionConfig,
) -> Tensor:
    """The sum of the four losses of a batch.

    Parameters
    ----------
    images : (N, C, H, W) standardised
    boxes, labels : of each slice (n, 4) and (n,), classes from 1
    """
    proposed = model.propose(images)
    first = _first_stage(model.anchors.boxes, proposed, boxes)
    regions, targets, references = _drawn_regions(proposed, boxes, labels, config)
    judged = model.judge(proposed.features, regions)
    second = F.cross_entropy(judged.logits, targets)
    lesion = targets > 0
    if lesion.any():
        wanted = box_coder("second").encode_single(references[lesion], regions[lesion, 1:])
        moved = F.smooth_l1_loss(judged.shifts[lesion], wanted, reduction="sum")
        second = second + moved / len(targets)
    return first + second


def _first_stage(anchors: Tensor, proposed: Proposed, boxes: Sequence[Tensor]) -> Tensor:
    """Objectness and shifts of a sample of the anchors of each slice."""
    matches = [_match(anchors, own, _anchor_matcher) for own in boxes]
    held = [torch.where(each >= 0, 1, torch.where(each == -1, 0, -1)) for each in matches]
    positive, negative = _anchor_sampler(held)
    scores, shifts, wanted, truths = [], [], [], []
    for number, own in enumerate(boxes):
        here, none = (torch.where(each[number])[0] for each in (positive, negative))
        chosen = torch.cat([here, none])
        scores.append(proposed.objectness[number, chosen])
        truths.append((torch.arange(len(chosen), device=chosen.device) < len(here)).float())
        if len(here):
            shifts.append(proposed.shifts[number, here])
            targets = own[matches[number][here]]
            wanted.append(box_coder("first").encode_single(targets, anchors[here]))
    loss = F.binary_cross_entropy_with_logits(torch.cat(scores), torch.cat(truths))
    if not shifts:
        return loss
    moved = F.smooth_l1_loss(torch.cat(shifts), torch.cat(wanted), beta=1 / 9, reduction="sum")
    return loss + moved / sum(map(len, shifts)) / 4


def _match(boxes: Tensor, truths: Tensor, matcher: Matcher) -> Tensor:
    """(A,) the truth that each box stands for; −1 for none, −2 for neither."""
    if not len(truths):
        return torch.full((len(boxes),), -1, device=boxes.device)
    matched: Tensor = matcher(box_iou(truths, boxes))
    return matched


@torch.no_grad()
def _drawn_regions(
    proposed: Proposed,
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    config: DetectionConfig,
) -> tuple[Tensor, Tensor, Tensor]:
    """(R, 5) regions, their (R,) classes and the (R, 4) true boxes of those that hold one."""
    regions, targets, references = [], [], []
    for number, (own, marked) in enumerate(zip(boxes, labels, strict=True)):
        scores, order = proposed.objectness[number].topk(
            min(PROPOSED, proposed.objectness.shape[1])
        )
        found = proposed.boxes[number, order]
        found = found[nms(found, scores, config.proposal_overlap)[: config.proposals]]
        found = torch.cat([found, own])  # the truth itself: early proposals are none
        matches = _match(found, own, _region_matcher)
        held = (matches >= 0).long()
        positive, negative = _region_sampler([held])
        chosen = torch.where(positive[0] | negative[0])[0]
        place = matches[chosen].clamp(min=0)
        given = marked[place] * held[chosen] if len(own) else held[chosen]
        targets.append(given)
        references.append(own[place] if len(own) else found[chosen])
        regions.append(F.pad(found[chosen], (1, 0), value=float(number)))
    return torch.cat(regions), torch.cat(targets), torch.cat(references)
