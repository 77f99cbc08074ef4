"""Every sample once an epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.contracts import Record
from core.data.orders import check_records
from registry import register


@register("sampler", "uniform")
class Uniform:
    """Every sample once an epoch, in an order shuffled by seed and epoch.

    Raises:
        ValueError: if there are no records.

    Example: {name: uniform}
    """

    def __init__(self, records: Sequence[Record]) -> None:
        check_records(records, None)
        self.length = len(records)

    def order(self, seed: int, epoch: int) -> Sequence[int]:
        """A permutation of all positions."""
        return np.random.default_rng([seed, epoch]).permutation(self.length).tolist()
