"""Hartigans' dip: how far a sample is from any distribution with one mode; and its test for clustered values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from core.measure.statistics import LEAST_PATIENTS

NULL_SAMPLES = 1000
NULL_SIZE = 200
"""Above this size the null's distribution of sqrt(n) times the dip is taken from samples of this size."""
DRAWS = 100
"""Samples of one value a patient."""


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
    size = min(n, NULL_SIZE)
    null = _null(size)
    as_large = len(null) - int(np.searchsorted(null, statistic * math.sqrt(n / size) * (1 - 1e-9)))
    return (1 + as_large) / (1 + len(null))


def bimodality(values: np.ndarray, patients: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """The dip test of unimodality, once as if all values were independent, once with one value a patient.

    Values of one patient resemble each other: a few patients with many slices each make peaks that are no property of
    the method. So one value a patient is drawn at random, `DRAWS` times (within-cluster resampling: Hoffman, Sen and
    Weinberg, Biometrika 88, 2001), and each draw is tested; twice the median of their p is a valid p however they
    depend on each other (Meinshausen, Meier and Buehlmann, JASA 104, 2009). A bootstrap of the dip itself would not do:
    its ties make dips.

    Args:
        values: ``[N]``, finite.
        patients: whose each is.
        seed: of the draws.

    Returns:
        ``test``, ``statistic`` (dip of all values), ``n``, ``patients``, ``p`` (robust; None below 10 patients, then
        ``why``), ``p_if_independent``, ``median_statistic_one_a_patient``, ``draws``.
    """
    names, owner = np.unique(np.asarray(patients, str), return_inverse=True)
    out: dict[str, Any] = {
        "test": "dip test of unimodality, one value a patient (Hartigan and Hartigan 1985)",
        "statistic": None,
        "p": None,
        "why": None,
        "n": len(values),
        "patients": len(names),
        "p_if_independent": None,
        "median_statistic_one_a_patient": None,
        "draws": 0,
    }
    if len(names) < LEAST_PATIENTS:
        out["why"] = f"{len(names)} patients with a value above 0: too few for a test, which takes {LEAST_PATIENTS}"
    if len(values) < 4:  # the dip of up to three values is always the same
        return out
    out["statistic"] = dip(values)
    out["p_if_independent"] = p_value(out["statistic"], len(values))
    if out["why"] is not None:
        return out
    # Sorted within patients, so that the draws do not depend on the order of cases.
    order = np.lexsort((values, owner))
    first, held = np.searchsorted(owner[order], np.arange(len(names))), np.bincount(owner)
    draws = 1 if len(values) == len(names) else DRAWS
    picks = np.random.default_rng(seed).random((draws, len(names)))
    dips = np.array([dip(values[order][first + (pick * held).astype(np.int64)]) for pick in picks])
    p = float(np.median([p_value(float(d), len(names)) for d in dips]))
    out["p"] = p if draws == 1 else min(1.0, 2 * p)
    out["median_statistic_one_a_patient"] = float(np.median(dips))
    out["draws"] = draws
    return out


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
