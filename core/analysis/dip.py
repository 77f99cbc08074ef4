"""Hartigans' dip: how far a sample is from any distribution with one mode; and its test for clustered values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from core.measure.statistics import LEAST_PATIENTS

NULL_SAMPLES = 1000
NULL_SIZES = (*range(4, 21), 50, 200)
"""Sizes of the null's samples: the next larger one stands for n, with sqrt(n) times the dip the same; so does 200 for
all above. That quantity still grows a little (its 95th percentile by 3 % from 200 to 1,000)."""


def dip(values: np.ndarray) -> float:
    """The dip statistic: the least sup-distance of the sample's distribution from a unimodal one (0 to 1/4).

    The greatest convex minorant and the least concave majorant of the distribution are drawn on an interval, which
    shrinks to where they are furthest apart until the gap is no larger than the misfit outside (Hartigan and Hartigan,
    The dip test of unimodality, Ann Stat 13, 1985; Hartigan, Algorithm AS 217, JRSS C 34, 1985).

    Args:
        values: ``[N]``, finite, in any order.
    """
    places, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    if len(places) < 2:
        return 0.0
    upper = np.cumsum(counts).astype(np.float64)
    lower = upper - counts
    low, high, worst = 0, len(places) - 1, 0.0
    while low < high:
        below = low + _hull(places[low : high + 1], lower[low : high + 1])
        above = low + _hull(places[low : high + 1], -upper[low : high + 1])
        at = places[low : high + 1]
        minorant = np.interp(at, places[below], lower[below])
        majorant = np.interp(at, places[above], upper[above])
        gap = majorant - minorant
        at_below, at_above = gap[below - low], gap[above - low]
        if at_below.max() >= at_above.max():
            left = int(below[at_below.argmax()])
            right = int(above[np.searchsorted(above, left)])
        else:
            right = int(above[at_above.argmax()])
            left = int(below[np.searchsorted(below, right, side="right") - 1])
        if gap.max() <= worst:
            break
        # An atom at the mode is no misfit, so the ends of the new interval are judged with it.
        misfits = upper[low:left] - minorant[: left - low], (majorant - lower[low : high + 1])[right + 1 - low :]
        worst = max(worst, *(float(misfit.max(initial=0.0)) for misfit in misfits))
        low, high = left, right
    return worst / (2 * float(upper[-1]))


def p_value(statistic: float, n: int) -> float:
    """Share of samples of n independent uniform values whose dip is as large: the test's p, never 0.

    Of unimodal distributions the uniform has, in large samples, the largest dips (Hartigan and Hartigan 1985), so the
    test is conservative for others.
    """
    size = next((size for size in NULL_SIZES if size >= n), NULL_SIZES[-1])
    null = _null(size)
    as_large = len(null) - int(np.searchsorted(null, statistic * math.sqrt(n / size) * (1 - 1e-9)))
    return (1 + as_large) / (1 + len(null))


def bimodality(values: np.ndarray, patients: Sequence[str]) -> dict[str, Any]:
    """The dip test of unimodality of values that come in clusters, a patient each.

    Values of one patient resemble each other, so n of them scatter like fewer independent ones, and the plain test
    takes the clusters for modes. The dip of all values is therefore judged as that of ``n / design_effect`` values: the
    correction of Rao and Scott (JASA 76, 1981) for clustered counts, with the greatest design effect of the nine
    deciles. A bootstrap of the dip itself would not do: resampled values repeat, and ties make dips.

    Args:
        values: ``[N]``, finite.
        patients: whose each is.

    Returns:
        ``test``, ``statistic`` (the dip), ``p`` (None below 10 patients or 4 values, then ``why``), ``n``,
        ``patients``, ``design_effect``, ``p_if_independent`` (without the correction).
    """
    names, owner = np.unique(np.asarray(patients, str), return_inverse=True)
    out: dict[str, Any] = {
        "test": "Hartigans' dip test of unimodality, with a design effect for patients",
        **dict.fromkeys(("statistic", "p", "why")),
        "n": len(values),
        "patients": len(names),
        **dict.fromkeys(("design_effect", "p_if_independent")),
    }
    if len(values) < 4:
        out["why"] = f"{len(values)} value{'s' * (len(values) != 1)} above 0: the dip of up to three is always the same"
        return out
    out["statistic"] = dip(values)
    out["p_if_independent"] = p_value(out["statistic"], len(values))
    if len(names) < LEAST_PATIENTS:
        who = f"{len(names)} patient{'s' * (len(names) != 1)} with values above 0"
        out["why"] = f"{who}: too few for a test, which takes {LEAST_PATIENTS}"
        return out
    out["design_effect"] = design_effect(values, owner)
    out["p"] = p_value(out["statistic"], max(4, int(len(values) / out["design_effect"])))
    return out


def design_effect(values: np.ndarray, owner: np.ndarray) -> float:
    """How many times the variance of the values' distribution exceeds that of independent ones; at least 1.

    The greatest over the nine deciles of the clustered variance of the share below (a ratio over patients, linearised)
    over the binomial variance.

    Args:
        values: ``[N]``.
        owner: int ``[N]``, whose each is, from 0.
    """
    held = np.bincount(owner)
    greatest = 1.0
    for at in np.quantile(values, np.arange(1, 10) / 10):
        below = values <= at
        share = float(below.mean())
        if share < 1:
            residual = np.bincount(owner, below, minlength=len(held)) - held * share
            clustered = len(held) / (len(held) - 1) * float((residual**2).sum()) / len(values) ** 2
            greatest = max(greatest, clustered * len(values) / (share * (1 - share)))
    return greatest


def _hull(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Indices of the knots of the greatest convex minorant of points with increasing x."""
    knots: list[int] = []
    xs, ys = x.tolist(), y.tolist()
    for i, (px, py) in enumerate(zip(xs, ys, strict=True)):
        while len(knots) > 1:
            a, b = knots[-2], knots[-1]
            if (ys[b] - ys[a]) * (px - xs[a]) < (py - ys[a]) * (xs[b] - xs[a]):
                break
            knots.pop()
        knots.append(i)
    return np.array(knots)


@lru_cache(maxsize=8)
def _null(n: int) -> np.ndarray:
    """Dips of uniform samples of n, in increasing order."""
    rng = np.random.default_rng(n)
    return np.sort([dip(rng.random(n)) for _ in range(NULL_SAMPLES)])
