"""Tumour slices in a fixed share."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from core.contracts import Record
from registry import register


@register("sampler", "tumour_focused")
class TumourFocused:
    """Draw tumour slices in a fixed share, spread evenly over the epoch, whatever share of the data they are.

    Tumour slices and the others are each drawn from an endless row of shuffles that runs on from epoch to epoch, so
    that none comes up a second time before all of its group came up once.

    Args:
        tumour_fraction: share of samples with tumour, from 0 to 1. Any stretch of the order has it, to within one
            sample, so every batch has it too.
        length: samples an epoch; null takes as many as there are records.

    Raises:
        ValueError: if a group that must be drawn is empty, or a value is out of range.

    Example: {name: tumour_focused, tumour_fraction: 0.5}
    """

    def __init__(self, records: Sequence[Record], *, tumour_fraction: float = 0.5, length: int | None = None) -> None:
        if not 0 <= tumour_fraction <= 1:
            raise ValueError(f"tumour_fraction must be from 0 to 1, got {tumour_fraction}")
        if length is not None and length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        if not records:
            raise ValueError("there are no training samples to draw from; check `dataset` (keep) and `split`")
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
        # A ratio of integers: floats would now and then put two neighbours into the wrong group.
        self.share = Fraction(tumour_fraction).limit_denominator(10_000)

    def order(self, seed: int, epoch: int) -> Sequence[int]:
        """Positions in `records`; tumour slices wherever the running share crosses a whole number."""
        steps = np.arange(self.length + 1, dtype=np.int64) * self.share.numerator // self.share.denominator
        is_tumour = np.diff(steps) > 0
        order = np.empty(self.length, np.int64)
        for number, (pool, place) in enumerate(((self.tumour, is_tumour), (self.other, ~is_tumour))):
            count = int(place.sum())
            order[place] = _stretch(pool, epoch * count, count, [seed, number])
        return order.tolist()


def _stretch(pool: np.ndarray, start: int, count: int, seed: list[int]) -> np.ndarray:
    """Members `start` to ``start + count`` of the endless row of shuffles of `pool`."""
    if count == 0:
        return np.empty(0, np.int64)
    first, last = start // len(pool), (start + count - 1) // len(pool)
    row = np.concatenate([np.random.default_rng([*seed, k]).permutation(pool) for k in range(first, last + 1)])
    return row[start - first * len(pool) :][:count]
