"""Lesions, each as often as another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from core.contracts import Record
from core.data.drawn import SIZE_BINS_MM, size_bin
from core.data.orders import check_records, check_share, member, nested, spread, stretch
from registry import register


@register("sampler", "lesion_balanced")
class LesionBalanced:
    """Draw lesions, not samples: a large lesion is on many slices, and of all its voxels a patch may be cut.

    For a share of the samples a lesion is drawn, then one of the samples that show it; the rest have no tumour. All
    come from endless rows of shuffles that run on from epoch to epoch: no lesion comes up a second time before each
    (of its size, with ``by: size``) came up once, nor a sample of a lesion before all of that lesion. A slice that
    shows several lesions comes up for each of them.

    Args:
        lesion_fraction: share of samples drawn by lesion, from 0 to 1; any stretch of the order has it, to within one.
        by: "lesion" draws one lesion as often as another; "size" one size bin as often as another, and in it one
            lesion as often as another.
        bins: bounds of the size bins, equivalent diameter in mm, rising; lesions of unknown size are a bin of their
            own, and bins without any are left out.
        length: samples an epoch; null takes as many as there are records.

    Raises:
        ValueError: if no record names a lesion or none is without tumour though they must be drawn, or a value is out
            of range.

    Example: {name: lesion_balanced, lesion_fraction: 0.5, by: size, bins: [10, 20]}
    """

    def __init__(
        self,
        records: Sequence[Record],
        *,
        lesion_fraction: float = 0.5,
        by: Literal["lesion", "size"] = "lesion",
        bins: tuple[float, ...] = SIZE_BINS_MM,
        length: int | None = None,
    ) -> None:
        self.share = check_share("lesion_fraction", lesion_fraction)
        check_records(records, length)
        if not bins or min(bins) <= 0 or any(a >= b for a, b in pairwise(bins)):
            raise ValueError(f"bins must be positive and rising, in mm, got {list(bins)}")
        shown: dict[tuple[str, int], list[int]] = {}
        sizes: dict[tuple[str, int], float] = {}
        for index, record in enumerate(records):
            diameters = record.diameters_mm or (float("nan"),) * len(record.lesions)
            for lesion, diameter in zip(record.lesions, diameters, strict=True):
                shown.setdefault((record.case, lesion), []).append(index)
                sizes[record.case, lesion] = diameter
        if lesion_fraction > 0 and not shown:
            raise ValueError(
                f"none of the {len(records)} training samples shows a lesion; use the sampler 'uniform', "
                "or a split with tumour-bearing cases in training"
            )
        self.other = np.flatnonzero([r.tumour_voxels == 0 for r in records])
        if lesion_fraction < 1 and not len(self.other):
            raise ValueError(
                f"all {len(records)} training samples have tumour; set lesion_fraction: 1, or keep samples without "
                "tumour in `dataset`"
            )
        self.lesions = list(shown.values())
        groups: dict[int, list[int]] = {}
        for number, key in enumerate(shown):
            groups.setdefault(size_bin(sizes[key], bins) if by == "size" else 0, []).append(number)
        self.groups = [groups[bin_] for bin_ in sorted(groups)]
        self.length = length or len(records)

    def order(self, seed: int, epoch: int) -> Sequence[int]:
        """Positions in `records`; those drawn by lesion wherever the running share crosses a whole number."""
        by_lesion = spread(self.length, self.share)

        def draw(group: int, turn: int) -> int:
            lesions = self.groups[group]
            lesion = member(lesions, turn, (seed, 2, group))
            # Each shuffle of the group holds the lesion once, so its number is the lesion's turn.
            return member(self.lesions[lesion], turn // len(lesions), (seed, 3, lesion))

        order = np.empty(self.length, np.int64)
        count = int(by_lesion.sum())
        order[by_lesion] = nested(len(self.groups), epoch * count, count, (seed, 0), draw)
        rest = self.length - count
        order[~by_lesion] = stretch(self.other, epoch * rest, rest, (seed, 1))
        return order.tolist()
