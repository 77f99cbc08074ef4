"""Soft Dice."""

from __future__ import annotations

from typing import Literal

import torch

from core.dist import sum_over_ranks
from core.values import IGNORE
from registry import register


@register("loss", "dice")
class Dice:
    """Soft Dice over the foreground classes (Milletari et al. 2016, arXiv:1606.04797).

    Batch Dice: intersections and sizes are summed over the micro-batch of all ranks, so the value does not depend on
    how a micro-batch is spread over them; gradient accumulation still averages micro-batches. Ignored voxels take no
    part. Computed in float32, also under autocast.

    Args:
        smooth: added to numerator and denominator, in voxels; greater than 0.
        absent: "count" punishes false positives of a class that the micro-batch lacks; "skip" leaves that class out
            of the mean, and a micro-batch without any foreground then costs nothing.

    Shape: logits [B, K, *S], target int64 [B, *S] -> scalar in [0, 1].

    Raises:
        ValueError: if smooth is not greater than 0, or if there is no foreground class.

    Example: {name: dice, smooth: 1.0, absent: count}
    """

    def __init__(self, classes: int, *, smooth: float = 1.0, absent: Literal["count", "skip"] = "count") -> None:
        if classes < 2:
            raise ValueError(f"Dice wants a background and at least one foreground class, got {classes} classes")
        if not 0 < smooth < float("inf"):
            raise ValueError(f"smooth must be greater than 0, got {smooth}; it keeps an absent class finite")
        self.smooth = smooth
        self.absent = absent

    def __call__(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """1 - the mean Dice of the foreground classes."""
        space = [0, *range(2, logits.ndim)]
        valid = (target != IGNORE).unsqueeze(1)
        classes = torch.arange(1, logits.shape[1], device=logits.device).view(1, -1, *[1] * (target.ndim - 1))
        reference = target.unsqueeze(1) == classes
        probability = torch.softmax(logits.float(), dim=1)[:, 1:]
        intersection = (probability * reference).sum(space)
        predicted = (probability * valid).sum(space)
        size = reference.sum(space).float()
        intersection, predicted, size = sum_over_ranks(torch.stack([intersection, predicted, size]))
        dice = (2 * intersection + self.smooth) / (predicted + size + self.smooth)
        if self.absent == "count":
            return 1 - dice.mean()
        present = (size > 0).float()
        return ((1 - dice) * present).sum() / present.sum().clamp(min=1)
