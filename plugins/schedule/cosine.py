"""Cosine decay."""

from __future__ import annotations

import math

from core.train.warmup import Warmup
from registry import register


@register("schedule", "cosine")
class Cosine:
    """Half a cosine from 1 down to `min_factor`, after a linear warm-up (Loshchilov and Hutter 2017, arXiv:1608.03983).

    Args:
        warmup_epochs: epochs in which the factor rises linearly to 1; fractions are fine. A training shorter than its
            warm-up only rises.
        min_factor: the factor at the end, from 0 to 1.

    Raises:
        ValueError: for negative warm-up or a minimum outside [0, 1].

    Example: {name: cosine, warmup_epochs: 3, min_factor: 0.01}
    """

    def __init__(
        self, total_steps: int, steps_per_epoch: int, *, warmup_epochs: float = 0.0, min_factor: float = 0.0
    ) -> None:
        if not 0 <= min_factor <= 1:
            raise ValueError(f"min_factor must be from 0 to 1, got {min_factor}")
        self.total_steps, self.min_factor = total_steps, min_factor
        self.warmup = Warmup(warmup_epochs, steps_per_epoch)

    def __call__(self, step: int) -> float:
        """The factor of update number `step`."""
        cosine = 0.5 * (1 + math.cos(math.pi * self.warmup.progress(step, self.total_steps)))
        return self.warmup(step) * (self.min_factor + (1 - self.min_factor) * cosine)
