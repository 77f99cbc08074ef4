"""No decay."""

from __future__ import annotations

from core.train.warmup import Warmup
from registry import register


@register("schedule", "constant")
class Constant:
    """The rate stays as it is, after a linear warm-up.

    Args:
        warmup_epochs: epochs in which the factor rises linearly to 1; fractions are fine.

    Raises:
        ValueError: for negative warm-up.

    Example: {name: constant, warmup_epochs: 0.5}
    """

    def __init__(self, steps_per_epoch: int, *, warmup_epochs: float = 0.0) -> None:
        self.warmup = Warmup(warmup_epochs, steps_per_epoch)

    def __call__(self, step: int) -> float:
        """The factor of update number `step`."""
        return self.warmup(step)
