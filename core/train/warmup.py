"""The linear warm-up that every schedule can begin with."""

from __future__ import annotations


class Warmup:
    """The learning rate rises linearly over the first updates (Goyal et al. 2017, arXiv:1706.02677).

    Args:
        epochs: its length; fractions are fine. A training shorter than its warm-up only rises.
        steps_per_epoch: global batches an epoch.

    Attributes:
        steps: its length in updates; update number `steps` is the first with the whole rate.

    Raises:
        ValueError: for a negative length.
    """

    def __init__(self, epochs: float, steps_per_epoch: int) -> None:
        if not 0 <= epochs < float("inf"):
            raise ValueError(f"warmup_epochs must not be negative, got {epochs}")
        self.steps = round(epochs * steps_per_epoch)

    def __call__(self, step: int) -> float:
        """The share of the rate for update number `step`, above 0; 1 after the warm-up."""
        return min((step + 1) / (self.steps + 1), 1.0)

    def progress(self, step: int, total_steps: int) -> float:
        """How much of what follows the warm-up lies behind update number `step`: 0 in the warm-up, 1 at the end."""
        return min(max(step - self.steps, 0) / max(total_steps - self.steps, 1), 1.0)
