"""What samplers build their orders from: endless rows of shuffles, and groups spread evenly over an epoch.

A row is one shuffle of a pool after another, without end; an epoch takes the stretch after that of the epoch before. So
nothing comes up again before all of its pool came up once, whatever an epoch's length, and no state is kept.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from core.contracts import Record


def check_records(records: Sequence[Record], length: int | None) -> None:
    """Refuse what no sampler can draw from.

    Raises:
        ValueError: with what to do.
    """
    if length is not None and length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    if not records:
        raise ValueError("there are no training samples to draw from; check `dataset` (keep) and `split`")


def check_share(name: str, share: float) -> Fraction:
    """A share from 0 to 1 as a ratio of integers: floats would now and then put two neighbours into the wrong group.

    Raises:
        ValueError: if it is no share.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"{name} must be from 0 to 1, got {share}")
    return Fraction(share).limit_denominator(10_000)


def spread(length: int, share: Fraction) -> np.ndarray:
    """Bool ``[length]``: true in places that have the share, in any stretch of them to within one."""
    steps = np.arange(length + 1, dtype=np.int64) * share.numerator // share.denominator
    return np.diff(steps) > 0


def stretch(pool: np.ndarray, start: int, count: int, seed: Sequence[int]) -> np.ndarray:
    """Members `start` to ``start + count`` of the endless row of shuffles of `pool`.

    Args:
        pool: what is shuffled, not empty unless `count` is 0.
        start: place in the row.
        count: how many.
        seed: numbers that name the row.
    """
    if count == 0:
        return np.empty(0, np.int64)
    first, last = start // len(pool), (start + count - 1) // len(pool)
    row = np.concatenate([np.random.default_rng([*seed, k]).permutation(pool) for k in range(first, last + 1)])
    return row[start - first * len(pool) :][:count]


def member(pool: Sequence[int], place: int, seed: Sequence[int]) -> int:
    """The member of the endless row of shuffles of `pool` at `place`."""
    number, at = divmod(place, len(pool))
    return pool[int(_shuffle(len(pool), (*seed, number))[at])]


def nested(groups: int, start: int, count: int, seed: Sequence[int], draw: Callable[[int, int], int]) -> np.ndarray:
    """Groups in an endless row of shuffles, and of each in its turn what it has to give.

    Args:
        groups: how many.
        start: place in the row.
        count: how many to draw.
        seed: numbers that name the row.
        draw: ``draw(group, turn)`` gives what stands for the group's turn number `turn`, from 0.
    """
    row = stretch(np.arange(groups), start, count, seed).tolist()
    # Each shuffle holds each group once, so its number is the group's turn.
    return np.array([draw(group, (start + i) // groups) for i, group in enumerate(row)], np.int64)


@functools.lru_cache(maxsize=4096)
def _shuffle(size: int, seed: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).permutation(size)
