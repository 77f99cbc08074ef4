"""One rise and one long fall."""

from __future__ import annotations

import math
from typing import Literal

from registry import register


@register("schedule", "one_cycle")
class OneCycle:
    """Up from a small rate to the optimizer's `lr`, then down to almost none (Smith and Topin 2019, arXiv:1708.07120).

    The optimizer's `lr` is the highest rate; one that ``tools/find_lr.py`` suggests suits. The rise is the warm-up. The
    values are those of torch's ``OneCycleLR``, whose momentum, unlike there, stays as the optimizer has it.

    Args:
        pct_start: share of the steps in which the rate rises.
        div_factor: the first rate is `lr` divided by this.
        final_div_factor: the last rate is the first one divided by this.
        anneal: how the rate moves between the three.

    Raises:
        ValueError: for a share that is not between 0 and 1, or a divisor that is not greater than 0.

    Example: {name: one_cycle, pct_start: 0.3, div_factor: 25.0, final_div_factor: 10000.0}
    """

    def __init__(
        self,
        total_steps: int,
        *,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        anneal: Literal["cos", "linear"] = "cos",
    ) -> None:
        if not 0 < pct_start < 1:
            raise ValueError(f"pct_start must be between 0 and 1, got {pct_start}")
        if not 0 < div_factor < math.inf:
            raise ValueError(f"div_factor must be greater than 0, got {div_factor}")
        if not 0 < final_div_factor < math.inf:
            raise ValueError(f"final_div_factor must be greater than 0, got {final_div_factor}")
        self.first, self.final = 1 / div_factor, 1 / (div_factor * final_div_factor)
        # As in torch, positions are those of updates, counted from 0: the last update has the last rate.
        self.peak, self.last, self.anneal = pct_start * total_steps - 1, total_steps - 1, anneal

    def __call__(self, step: int) -> float:
        """The factor of update number `step`."""
        if step <= self.peak:
            return self._between(self.first, 1.0, step / self.peak if self.peak > 0 else 1.0)
        return self._between(1.0, self.final, min((step - self.peak) / (self.last - self.peak), 1.0))

    def _between(self, start: float, end: float, share: float) -> float:
        if self.anneal == "cos":
            return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
        return start + (end - start) * share
