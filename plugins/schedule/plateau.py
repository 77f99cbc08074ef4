"""Decay on a plateau."""

from __future__ import annotations

import math

from core.train.warmup import Warmup
from registry import register


@register("schedule", "plateau")
class Plateau:
    """Lower the rate when validations stop improving, after a linear warm-up.

    What has to improve is `train.early_stop.metric`.

    Args:
        factor: what a plateau multiplies the rate by, above 0 and below 1.
        patience: validations without improvement that are borne; the next one lowers the rate.
        min_factor: the factor never falls below this.
        threshold: a value must be better than the best by more than this to be an improvement.
        warmup_epochs: epochs in which the factor rises linearly to 1; fractions are fine.

    Raises:
        ValueError: for a factor outside (0, 1), negative patience, threshold or warm-up, or a minimum outside [0, 1].

    Example: {name: plateau, factor: 0.5, patience: 5, min_factor: 0.01}
    """

    def __init__(
        self,
        steps_per_epoch: int,
        *,
        factor: float = 0.5,
        patience: int = 5,
        min_factor: float = 0.01,
        threshold: float = 1e-4,
        warmup_epochs: float = 0.0,
    ) -> None:
        if not 0 < factor < 1:
            raise ValueError(f"factor must be above 0 and below 1, got {factor}")
        if patience < 0:
            raise ValueError(f"patience must not be negative, got {patience}")
        if not 0 <= min_factor <= 1:
            raise ValueError(f"min_factor must be from 0 to 1, got {min_factor}")
        if not 0 <= threshold < float("inf"):
            raise ValueError(f"threshold must not be negative, got {threshold}")
        self.factor, self.patience, self.min_factor, self.threshold = factor, patience, min_factor, threshold
        self.warmup = Warmup(warmup_epochs, steps_per_epoch)
        self.scale, self.best, self.waited = 1.0, math.inf, 0

    def __call__(self, step: int) -> float:
        """The factor of update number `step`; after the warm-up it depends on the validations seen alone."""
        return self.warmup(step) * self.scale

    def observe(self, value: float) -> None:
        """Take in a validation's value; lower is better, and one that is not a number is no improvement."""
        if value < self.best - self.threshold:
            self.best, self.waited = float(value), 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.scale, self.waited = max(self.scale * self.factor, self.min_factor), 0

    def state_dict(self) -> dict[str, float]:
        """What resuming needs."""
        return {"scale": self.scale, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Take back what `state_dict` gave."""
        self.scale, self.best, self.waited = float(state["scale"]), float(state["best"]), int(state["waited"])
