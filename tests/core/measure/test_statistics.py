"""Intervals and tests against scipy, and where they degenerate."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from core.measure import statistics
from core.measure.statistics import Ratio

SKEWED = np.random.default_rng(5).beta(4, 1, 23)
NAMES = [f"p{i:02}" for i in range(23)]


def scipy_interval(data, statistic, resamples=2000):
    found = scipy.stats.bootstrap(
        data,
        statistic,
        n_resamples=resamples,
        method="BCa",
        paired=len(data) > 1,
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return [float(found.low), float(found.high)]


def test_mean_interval_is_scipys_bca_on_the_same_resamples():
    ours = statistics.ratio_interval(SKEWED, np.ones(23), NAMES, resamples=2000)
    assert ours.method == "bca"
    assert ours.ci95 == pytest.approx(scipy_interval((SKEWED,), np.mean), abs=1e-12)


def test_ratio_interval_is_scipys_bca_on_the_same_resamples():
    found = np.random.default_rng(6).integers(0, 6, 23).astype(float)
    all_of_it = np.random.default_rng(7).integers(6, 9, 23).astype(float)

    def recall(top, bottom, axis):
        return top.sum(axis=axis) / bottom.sum(axis=axis)

    ours = statistics.ratio_interval(found, all_of_it, NAMES, resamples=2000)
    assert ours.ci95 == pytest.approx(scipy_interval((found, all_of_it), recall), abs=1e-12)


def test_difference_interval_is_scipys_bca_of_the_differences():
    other = np.clip(SKEWED + np.random.default_rng(6).normal(0.02, 0.1, 23), 0, 1)
    ours = statistics.difference_interval(Ratio.mean(SKEWED), Ratio.mean(other), NAMES, resamples=2000)
    assert ours.ci95 == pytest.approx(scipy_interval((SKEWED - other,), np.mean), abs=1e-9)


def test_default_is_ten_thousand_seeded_resamples():
    ours = statistics.ratio_interval(SKEWED, np.ones(23), NAMES)
    assert ours.ci95 == pytest.approx(scipy_interval((SKEWED,), np.mean, 10_000), abs=1e-12)
    other = statistics.ratio_interval(SKEWED, np.ones(23), NAMES, seed=1)
    assert ours.ci95 != other.ci95
    assert ours.ci95 == pytest.approx(other.ci95, abs=0.01)


def test_scans_of_one_patient_are_drawn_together():
    """A scan that is there five times with its patient is one observation; five patients would be narrower."""
    five, own = np.repeat(SKEWED, 5), [f"{name}-{i}" for name in NAMES for i in range(5)]
    one = statistics.ratio_interval(SKEWED, np.ones(23), NAMES)
    together = statistics.ratio_interval(five, np.ones(115), np.repeat(NAMES, 5))
    apart = statistics.ratio_interval(five, np.ones(115), own)
    assert together.ci95 == pytest.approx(one.ci95, abs=1e-12)
    assert (together.patients, apart.patients) == (23, 115)
    assert apart.high - apart.low < 0.6 * (together.high - together.low)


def test_order_of_rows_changes_nothing():
    turned = statistics.ratio_interval(SKEWED[::-1], np.ones(23), NAMES[::-1])
    assert turned.ci95 == statistics.ratio_interval(SKEWED, np.ones(23), NAMES).ci95


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng, hits = np.random.default_rng(1), 0
    for _ in range(1000):
        drawn = rng.beta(4, 2, 40)
        ours = statistics.ratio_interval(drawn, np.ones(40), [str(i) for i in range(40)], resamples=1000)
        hits += ours.low <= 4 / 6 <= ours.high
    assert 0.92 <= hits / 1000 <= 0.97


def test_few_patients_give_points_only_and_say_why():
    ours = statistics.ratio_interval(np.ones(18), np.ones(18), [f"p{i % 9}" for i in range(18)])
    assert (ours.ci95, ours.method, ours.patients) == (None, None, 9)
    assert ours.why == "9 patients: too few for an interval, which takes 10"
    assert statistics.ratio_interval(np.ones(3), np.ones(3), ["one"] * 3).why.startswith("1 patient: too few")
    assert statistics.ratio_interval(np.full(3, np.nan), np.ones(3), list("abc")).why == "no case has a number"


def test_left_out_cases_count_on_neither_side():
    top, bottom = np.append(SKEWED, [np.nan, 1.0]), np.append(np.ones(23), [1.0, np.nan])
    ours = statistics.ratio_interval(top, bottom, [*NAMES, "x", "y"])
    assert ours == statistics.ratio_interval(SKEWED, np.ones(23), NAMES)
    assert Ratio.of(top, bottom).value == pytest.approx(SKEWED.mean())
    assert Ratio.of(np.zeros(2), np.zeros(2)).value is None


def test_all_equal_is_a_point_that_says_so():
    ours = statistics.ratio_interval(np.full(12, 0.1), np.ones(12), NAMES[:12])
    assert (ours.ci95, ours.method) == ([0.1, 0.1], "percentile") or ours.ci95 == pytest.approx([0.1, 0.1])
    assert ours.why == "every resample gives the same: the width says nothing"


def test_percentiles_where_bca_does_not_exist():
    """All denominators in one patient: without him there is no ratio, so no acceleration."""
    bottom = np.zeros(12)
    bottom[0] = 5
    top = np.arange(12.0)
    ours = statistics.ratio_interval(top, bottom, NAMES[:12])
    assert ours.method == "percentile"
    assert ours.low < top.sum() / 5 < ours.high


def test_describe():
    ours = statistics.describe(np.array([0.0, 1.0, np.nan, 0.5]))
    assert ours == {
        **{"mean": 0.5, "median": 0.5, "q25": 0.25, "q75": 0.75, "min": 0.0, "max": 1.0},
        **{"n": 3, "left_out": 1},
    }
    ours = statistics.describe(np.array([0.0, 1.0, np.nan, 0.5]), list("abcd"))
    assert (ours["ci95"], ours["ci_method"], ours["patients"]) == (None, None, 3)
    assert ours["ci_why"] == "3 patients: too few for an interval, which takes 10"
    ours = statistics.describe(SKEWED, NAMES)
    assert ours["ci95"][0] < ours["mean"] < ours["ci95"][1]
    assert "ci_why" not in ours
    assert statistics.describe(np.array([]), [])["n"] == 0


def test_unequal_lengths_are_named():
    with pytest.raises(ValueError, match=r"must be equally long, got 2, 2 and 3"):
        statistics.ratio_interval(np.ones(2), np.ones(2), list("abc"))


@pytest.mark.parametrize("n", [4, 9])
def test_permutation_is_scipys_exact_one(n):
    a, b = SKEWED[:n], np.random.default_rng(6).beta(3, 1, n)
    ours = statistics.paired_permutation(Ratio.mean(a), Ratio.mean(b), NAMES[:n])
    theirs = scipy.stats.permutation_test(
        (a, b), lambda x, y, axis: (x - y).mean(axis=axis), permutation_type="samples", n_resamples=np.inf
    )
    assert ours == pytest.approx(theirs.pvalue, abs=1e-12)


def test_permutation_of_pooled_ratios_by_patient():
    """Every exchange of patients written out: both scans of `one` change sides together."""
    patients = ["one", "one", "two", "three", "four"]
    a = Ratio.of(np.array([3.0, 1, 4, 2, 5]), np.array([4.0, 4, 5, 3, 6]))
    b = Ratio.of(np.array([1.0, 2, 2, 2, 3]), np.array([4.0, 4, 6, 3, 6]))

    def difference(exchanged):
        swap = np.array([exchanged[name] for name in patients])
        first = [np.where(swap, theirs, ours).sum() for ours, theirs in zip(a, b, strict=True)]
        second = [np.where(swap, ours, theirs).sum() for ours, theirs in zip(a, b, strict=True)]
        return abs(first[0] / first[1] - second[0] / second[1])

    names = ["one", "two", "three", "four"]
    every = [dict(zip(names, bits, strict=True)) for bits in itertools.product([False, True], repeat=4)]
    seen = difference(dict.fromkeys(names, False))
    expected = np.mean([difference(bits) >= seen - 1e-12 for bits in every])
    assert statistics.paired_permutation(a, b, patients) == pytest.approx(expected)


def test_random_exchanges_agree_with_all_of_them_and_are_never_0():
    a, b = SKEWED[:12], SKEWED[:12] - 0.05 + 0.1 * np.random.default_rng(6).random(12)
    exact = statistics.paired_permutation(Ratio.mean(a), Ratio.mean(b), NAMES[:12])
    drawn = statistics.paired_permutation(Ratio.mean(a), Ratio.mean(b), NAMES[:12], resamples=4000)
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 4000) + 1 / 4000)
    far = statistics.paired_permutation(Ratio.mean(SKEWED + 9), Ratio.mean(SKEWED), NAMES, resamples=99)
    assert far == pytest.approx(1 / 100)


def test_permutation_with_nothing_to_exchange():
    same = Ratio.mean(SKEWED)
    assert statistics.paired_permutation(same, same, NAMES) == 1.0
    nothing = Ratio.mean(np.full(23, np.nan))
    assert statistics.paired_permutation(nothing, nothing, NAMES) is None
    one = statistics.paired_permutation(Ratio.mean(np.ones(1)), Ratio.mean(np.zeros(1)), ["p"])
    assert one == 1.0


@pytest.mark.parametrize("n", [5, 8, 23])
def test_wilcoxon_is_scipys_on_patients_means(n):
    gaps = np.round(np.random.default_rng(6).normal(0.4, 1, n) * 8) / 8  # ties
    gaps[:2] = 0.0
    ours = statistics.wilcoxon_pratt(gaps, NAMES[:n])
    assert ours == pytest.approx(scipy.stats.wilcoxon(gaps, zero_method="pratt").pvalue, abs=1e-12)
    twice = np.concatenate([gaps - 2.0, gaps + 2.0, [np.nan]])
    assert statistics.wilcoxon_pratt(twice, [*NAMES[:n], *NAMES[:n], "z"]) == pytest.approx(ours, abs=1e-12)


def test_wilcoxon_of_nothing():
    assert statistics.wilcoxon_pratt(np.zeros(5), list("abcde")) is None
    assert statistics.wilcoxon_pratt(np.full(2, np.nan), list("ab")) is None


def test_holm_worked_out_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.6, None, 0.5]) == [1.0, None, 1.0]
    assert statistics.holm([]) == []


def test_detectable_difference_is_found_four_times_in_five():
    gap = statistics.detectable(0.3, 131, paired=False)
    assert gap == pytest.approx(0.104, abs=0.0005)
    assert statistics.detectable(0.3, 131, paired=True) == pytest.approx(gap / math.sqrt(2))
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 0.3, (2, 2000, 131)) + np.array([gap, 0])[:, None, None]
    assert np.mean(scipy.stats.ttest_ind(a, b, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.03)
