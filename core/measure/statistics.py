"""Descriptive figures, bootstrap intervals and paired tests, all over patients; definitions in docs/comparing.md.

Every figure here is a ratio of sums over cases (a mean is one over a denominator of ones; recall, F1, global Dice, PQ),
so a resample is a row of counts times a column of sums per patient, and 10,000 of them are one matrix product.
Scans of one patient are not independent: they are drawn, exchanged and left out together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

RESAMPLES = 10_000
LEAST_PATIENTS = 10
"""Below it a bootstrap interval is far too narrow to be shown."""

Method = Literal["bca", "percentile"]
_BLOCK = 1 << 21  # counts that are floats at a time
_TIE = 1e-12  # relative; sums of the same numbers in another order


class Ratio(NamedTuple):
    """A figure that is a sum over a sum: a numerator and a denominator a case, float64 ``[N]``; 0 and 0 if left out."""

    numerator: np.ndarray
    denominator: np.ndarray

    @classmethod
    def mean(cls, numbers: np.ndarray) -> Ratio:
        """The mean of what is a number."""
        return cls.of(numbers, np.ones(len(numbers)))

    @classmethod
    def of(cls, numerator: np.ndarray, denominator: np.ndarray) -> Ratio:
        """Cases with a NaN on either side count on neither."""
        top, bottom = (np.asarray(side, np.float64) for side in (numerator, denominator))
        known = np.isfinite(top) & np.isfinite(bottom)
        return cls(np.where(known, top, 0.0), np.where(known, bottom, 0.0))

    @property
    def value(self) -> float | None:
        """The figure, None if its denominator is 0."""
        bottom = float(self.denominator.sum())
        return float(self.numerator.sum()) / bottom if bottom else None


@dataclass(frozen=True)
class Interval:
    """A 95 % interval.

    Attributes:
        low: None where there is no interval.
        high: None where there is no interval.
        method: "bca", or "percentile" where BCa degenerates; None without an interval.
        patients: how many contribute.
        why: why there is no interval, or what to know about it; empty otherwise.
    """

    low: float | None
    high: float | None
    method: Method | None
    patients: int
    why: str = ""

    @property
    def ci95(self) -> list[float] | None:
        """Both ends as ``summary.json`` has them."""
        return None if self.low is None or self.high is None else [self.low, self.high]


def describe(numbers: np.ndarray, patients: Sequence[str] | None = None) -> dict[str, Any]:
    """Mean, median, quartiles, least and greatest of what is a number; `n` of these, and how many were left out.

    Args:
        numbers: ``[N]``, NaN where there is none.
        patients: whose each is; adds the mean's ``ci95`` (or None, with the reason as ``ci_why``), ``ci_method`` and
            ``patients``.
    """
    numbers = np.asarray(numbers, np.float64)
    kept = numbers[np.isfinite(numbers)]
    out: dict[str, Any] = dict.fromkeys(("mean", "median", "q25", "q75", "min", "max"))
    if len(kept):
        q25, median, q75 = (float(q) for q in np.quantile(kept, (0.25, 0.5, 0.75)))
        out.update(mean=float(kept.mean()), median=median, q25=q25, q75=q75)
        out.update(min=float(kept.min()), max=float(kept.max()))
    out.update(n=len(kept), left_out=len(numbers) - len(kept))
    if patients is not None:
        found = ratio_interval(numbers, np.ones(len(numbers)), patients)
        out.update(ci95=found.ci95, ci_method=found.method, patients=found.patients)
        if found.why:
            out["ci_why"] = found.why
    return out


def ratio_interval(
    numerator: np.ndarray,
    denominator: np.ndarray,
    patients: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """95 % bootstrap interval of ``sum(numerator) / sum(denominator)`` over patients.

    BCa (Efron, Better bootstrap confidence intervals, JASA 82, 1987): bias z0 from the share of resamples below the
    figure (ties count half), acceleration from leaving out one patient at a time; quantiles interpolated linearly, as
    in scipy.stats.bootstrap. Where z0 or the acceleration does not exist, the plain percentiles. Patients without any
    case that counts (0 and 0) are no part of the sample.

    Args:
        numerator: ``[N]``, one a case; a case with a NaN on either side counts on neither.
        denominator: ``[N]``.
        patients: whose each case is.
        seed: of the resamples.
        resamples: how many.
    """
    ratio = Ratio.of(numerator, denominator)
    return _interval(_sums(ratio, patients), _quotient, seed, resamples)


def difference_interval(
    a: Ratio, b: Ratio, patients: Sequence[str], *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """95 % bootstrap interval of ``a - b`` on the same cases: a resampled patient brings both sides."""
    return _interval(np.hstack([_sums(a, patients), _sums(b, patients)]), _difference, seed, resamples)


def paired_permutation(
    a: Ratio, b: Ratio, patients: Sequence[str], *, seed: int = 0, resamples: int = RESAMPLES
) -> float | None:
    """Two-sided p of ``a - b`` if within each patient the two sides were exchangeable; None without a patient.

    For means this flips the signs of the differences (Fisher, The Design of Experiments, 1935). All exchanges where
    these are at most `resamples`, else as many at random and ``(1 + as far out) / (1 + drawn)``, which is never 0
    (Phipson and Smyth, Stat Appl Genet Mol Biol 9, 2010). Patients with the same sums on both sides change nothing and
    are not drawn.
    """
    ours, theirs = _sums(a, patients), _sums(b, patients)
    counting = np.hstack([ours, theirs]).any(axis=1)
    change = theirs - ours
    moving = change.any(axis=1)
    if not counting.any() or not (ours[:, 1].sum() and theirs[:, 1].sum()):
        return None
    if not moving.any():
        return 1.0
    change, total = change[moving], np.hstack([ours.sum(axis=0), theirs.sum(axis=0)])
    observed = abs(float(_difference(total)))
    exact = len(change) < 30 and 2 ** len(change) <= resamples
    signs = _all_exchanges(len(change)) if exact else _exchanges(len(change), resamples, seed)
    moved = np.concatenate([block @ np.hstack([change, -change]) for block in _blocks(signs)])
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.abs(_difference(total + moved))
    # An exchange that leaves one side without a denominator has no difference: it counts against a finding.
    far = int(np.count_nonzero(~(found < observed * (1 - _TIE))))
    return far / len(signs) if exact else (1 + far) / (1 + len(signs))


def wilcoxon_pratt(differences: np.ndarray, patients: Sequence[str]) -> float | None:
    """Two-sided p of the signed-rank test on each patient's mean difference; None if nothing differs.

    Zeros are ranked and then dropped (Pratt, Remarks on zeros and ties, JASA 54, 1959), ties share their mean rank. All
    signs where these are few, else the normal approximation. It asks about the differences' median under symmetry,
    which is not the mean's question: descriptive.
    """
    sums = _sums(Ratio.mean(differences), patients)
    sums = sums[sums[:, 1] > 0]
    means = sums[:, 0] / sums[:, 1]
    if not means.any():
        return None
    _, place, counts = np.unique(np.abs(means), return_inverse=True, return_counts=True)
    ranks = (np.sign(means) * (np.cumsum(counts) - (counts - 1) / 2)[place])[means != 0]
    if len(ranks) <= 13:
        names = [str(i) for i in range(len(ranks))]
        return paired_permutation(Ratio.mean(ranks), Ratio.mean(np.zeros(len(ranks))), names)
    return float(2 * ndtr(-abs(ranks.sum()) / math.sqrt(float((ranks**2).sum()))))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Adjusted p of a family of tests (Holm, Scand J Stat 6, 1979); None is a test that could not be made."""
    made = sorted((value, place) for place, value in enumerate(p) if value is not None)
    out: list[float | None] = [None] * len(p)
    greatest = 0.0
    for rank, (value, place) in enumerate(made):
        greatest = max(greatest, min(1.0, value * (len(made) - rank)))
        out[place] = greatest
    return out


def detectable(sd: float, n: int, *, paired: bool) -> float:
    """The smallest true difference of two means that a two-sided test at 5 % finds in four of five trials.

    ``(z_0.975 + z_0.8) * sd * sqrt(1 / n)``, with ``2 / n`` for two groups of n (normal approximation; Chow, Shao and
    Wang, Sample Size Calculations in Clinical Research, 2008).

    Args:
        sd: of the paired differences, or of each group.
        n: pairs, or patients in each group.
        paired: whether the two sides are of the same patients.
    """
    return float((ndtri(0.975) + ndtri(0.8)) * sd * math.sqrt((1 if paired else 2) / n))


def _sums(ratio: Ratio, patients: Sequence[str]) -> np.ndarray:
    """Numerator and denominator ``[P, 2]`` of each patient, in the order of their names."""
    if len(patients) != len(ratio.numerator) or len(patients) != len(ratio.denominator):
        raise ValueError(
            f"numerator, denominator and patients must be equally long, got {len(ratio.numerator)}, "
            f"{len(ratio.denominator)} and {len(patients)}"
        )
    names, place = np.unique(np.asarray(patients, str), return_inverse=True)
    return np.stack([np.bincount(place, weights=side, minlength=len(names)) for side in ratio], axis=1)


def _quotient(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def _difference(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3]


def _interval(sums: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int, resamples: int) -> Interval:
    """Of a statistic of the sums over patients ``[P, k]``."""
    sums = sums[sums.any(axis=1)]
    n = len(sums)
    if n < LEAST_PATIENTS:
        few = f"{n} patient{'s' * (n != 1)}: too few for an interval, which takes {LEAST_PATIENTS}"
        return Interval(None, None, None, n, few if n else "no case has a number")
    with np.errstate(invalid="ignore", divide="ignore"):
        total = sums.sum(axis=0)
        figure = float(statistic(total))
        left_one_out = statistic(total - sums)
        drawn = statistic(np.concatenate([block @ sums for block in _blocks(_counts(n, resamples, seed))]))
    drawn = drawn[np.isfinite(drawn)]
    if not math.isfinite(figure) or not len(drawn):
        return Interval(None, None, None, n, "the denominator is 0")
    if np.ptp(drawn) <= _TIE * abs(figure):
        return Interval(figure, figure, "percentile", n, "every resample gives the same: the width says nothing")
    ends = _bca(figure, drawn, left_one_out)
    method: Method = "percentile" if ends is None else "bca"
    low, high = np.quantile(drawn, (0.025, 0.975) if ends is None else ends)
    return Interval(float(low), float(high), method, n)


def _bca(figure: float, drawn: np.ndarray, left_one_out: np.ndarray) -> tuple[float, float] | None:
    """The two probabilities whose quantiles are the interval, None where they do not exist."""
    edge = _TIE * abs(figure)
    below, above = np.count_nonzero(drawn < figure - edge), np.count_nonzero(drawn > figure + edge)
    z0 = ndtri((len(drawn) + below - above) / (2 * len(drawn)))
    if not np.isfinite(left_one_out).all():
        return None
    apart = left_one_out.mean() - left_one_out
    spread = float((apart**2).sum()) ** 1.5
    if not math.isfinite(z0) or not spread > 0:
        return None
    acceleration = float((apart**3).sum()) / (6 * spread)
    ends = []
    for z in ndtri((0.025, 0.975)):
        bottom = 1 - acceleration * (z0 + z)
        if bottom <= 0:
            return None
        ends.append(float(ndtr(z0 + (z0 + z) / bottom)))
    return ends[0], ends[1]


@lru_cache(maxsize=16)
def _counts(n: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of n patients is in each resample, ``[resamples, n]``; kept, since a report has 100 intervals."""
    drawn = np.random.default_rng(seed).integers(0, n, (resamples, n), np.int64)  # as scipy.stats.bootstrap draws
    drawn += np.arange(0, resamples * n, n)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.uint8)  # about 1 each


@lru_cache(maxsize=8)
def _exchanges(n: int, resamples: int, seed: int) -> np.ndarray:
    """Which of n patients have their sides exchanged, 0 or 1 ``[resamples, n]``."""
    return np.random.default_rng(seed).integers(0, 2, (resamples, n), np.uint8)


def _all_exchanges(n: int) -> np.ndarray:
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(np.uint8)


def _blocks(counts: np.ndarray) -> Iterator[np.ndarray]:
    """Its rows as float64, a bounded number at a time."""
    rows = max(1, _BLOCK // counts.shape[1])
    for first in range(0, len(counts), rows):
        yield counts[first : first + rows].astype(np.float64)
