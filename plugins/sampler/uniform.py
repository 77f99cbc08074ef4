"""Every sample once an epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.contracts import Record
from registry import register


@register("sampler", "uniform")
class Uniform:
    """Every sample once an epoch, in an order shuffled by seed and epoch.

    Raises:
        ValueError: if there are no records.

    Example: {name: uniform}
    """

    def __init__(self, records: Sequence[Record]) -> None:
        if not records:
            raise ValueError("there are no training samples to draw from; check `dataset` (keep) and `split`")
        self.length = len(records)

    def order(self, seed: int, epoch: int) -> Sequence[int]:
        """A permutation of all positions."""
        return np.random.default_rng([seed, epoch]).permutation(self.length).tolist()
