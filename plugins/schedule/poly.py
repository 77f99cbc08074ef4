"""Polynomial decay."""

from __future__ import annotations

from core.train.warmup import Warmup
from registry import register


@register("schedule", "poly")
class Poly:
    """(1 - progress)^power, after a linear warm-up (Chen et al. 2017, arXiv:1606.00915; nnU-Net's schedule).

    Args:
        power: 1 is a straight line; below it the rate stays high for longer.
        warmup_epochs: epochs in which the factor rises linearly to 1; fractions are fine. A training shorter than its
            warm-up only rises.

    Raises:
        ValueError: if power is not greater than 0 or the warm-up is negative.

    Example: {name: poly, power: 0.9}
    """

    def __init__(
        self, total_steps: int, steps_per_epoch: int, *, power: float = 0.9, warmup_epochs: float = 0.0
    ) -> None:
        if not 0 < power < float("inf"):
            raise ValueError(f"power must be greater than 0, got {power}")
        self.total_steps, self.power = total_steps, power
        self.warmup = Warmup(warmup_epochs, steps_per_epoch)

    def __call__(self, step: int) -> float:
        """The factor of update number `step`."""
        return float(self.warmup(step) * (1 - self.warmup.progress(step, self.total_steps)) ** self.power)
