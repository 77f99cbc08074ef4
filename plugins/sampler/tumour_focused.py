"""Tumour slices in a fixed share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.contracts import Record
from core.data.orders import check_records, check_share, spread, stretch
from registry import register


@register("sampler", "tumour_focused")
class TumourFocused:
    """Draw samples with tumour in a fixed share, spread evenly over the epoch, whatever share of the data they are.

    Samples with tumour and the others are each drawn from an endless row of shuffles that runs on from epoch to epoch,
    so that none comes up a second time before all of its group came up once.

    Args:
        tumour_fraction: share of samples with tumour, from 0 to 1. Any stretch of the order has it, to within one
            sample, so every batch has it too.
        length: samples an epoch; null takes as many as there are records.

    Raises:
        ValueError: if a group that must be drawn is empty, or a value is out of range.

    Example: {name: tumour_focused, tumour_fraction: 0.5}
    """

    def __init__(self, records: Sequence[Record], *, tumour_fraction: float = 0.5, length: int | None = None) -> None:
        self.share = check_share("tumour_fraction", tumour_fraction)
        check_records(records, length)
        tumour = np.array([r.tumour_voxels > 0 for r in records])
        self.tumour, self.other = np.flatnonzero(tumour), np.flatnonzero(~tumour)
        if tumour_fraction > 0 and not len(self.tumour):
            raise ValueError(
                f"none of the {len(records)} training samples has tumour; use the sampler 'uniform', "
                "or a split with tumour-bearing cases in training"
            )
        if tumour_fraction < 1 and not len(self.other):
            raise ValueError(
                f"all {len(records)} training samples have tumour; set tumour_fraction: 1, or keep slices without "
                "tumour in `dataset`"
            )
        self.length = length or len(records)

    def order(self, seed: int, epoch: int) -> Sequence[int]:
        """Positions in `records`; samples with tumour wherever the running share crosses a whole number."""
        is_tumour = spread(self.length, self.share)
        order = np.empty(self.length, np.int64)
        for number, (pool, place) in enumerate(((self.tumour, is_tumour), (self.other, ~is_tumour))):
            count = int(place.sum())
            order[place] = stretch(pool, epoch * count, count, [seed, number])
        return order.tolist()
