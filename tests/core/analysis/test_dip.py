import numpy as np
import pytest
from scipy.optimize import linprog

from core.analysis.dip import bimodality, design_effect, dip, p_value


def by_linear_programme(values):
    """The least distance from a distribution that is convex up to a mode and concave after it, over all modes."""
    places, counts = np.unique(values, return_counts=True)
    k, after = len(places), np.cumsum(counts) / counts.sum()
    before = after - counts / counts.sum()
    unit = np.eye(k + 2)  # left limits at each place, the right limit at the mode, the distance
    least = 1.0
    for mode in range(k):
        left = unit[:k]
        right = np.where(np.arange(k)[:, None] == mode, unit[k], unit[:k])
        rows, bounds = [], []
        for limit, target in ((left, before), (right, after)):
            rows += [*(limit - unit[-1]), *(-limit - unit[-1])]
            bounds += [*target, *-target]
        slopes = (left[1:] - right[:-1]) / np.diff(places)[:, None]
        shape = [(slopes[i] - slopes[i + 1]) * (1 if i + 1 < mode else -1) for i in range(k - 2) if i + 1 != mode]
        rising = [unit[mode] - unit[k], *(right[:-1] - left[1:])]
        rows += shape + rising
        bounds += [0] * len(shape + rising)
        found = linprog(unit[-1], A_ub=np.array(rows), b_ub=bounds, bounds=[(0, 1)] * (k + 2))
        least = min(least, found.fun)
    return least


def test_the_dip_is_the_least_distance_from_a_unimodal_distribution():
    rng = np.random.default_rng(0)
    samples = [rng.random(n) ** 2 for n in (2, 5, 9)]
    samples += [rng.integers(0, 8, n).astype(float) for n in (6, 9, 11)]  # ties
    samples += [np.r_[rng.random(5), 3 + rng.random(n)] for n in (3, 6)]
    for values in samples:
        assert dip(values) == pytest.approx(by_linear_programme(values), abs=1e-7)


def test_known_values():
    assert dip(np.array([0, 0, 1, 1])) == 0.25  # as far from one mode as can be
    assert dip(np.arange(10)) == pytest.approx(1 / 20)  # the least for ten different values
    assert dip(np.full(7, 0.3)) == 0


def test_p_agrees_with_the_published_table():
    # 5 % points of the dip of uniform samples, as tabulated by Hartigan and Hartigan and recomputed in R's diptest.
    for n, point in ((10, 0.1396), (20, 0.1051), (50, 0.0703), (200, 0.0368)):
        assert p_value(point, n) == pytest.approx(0.05, abs=0.025)
    assert p_value(0.25, 100) < 0.002


def test_clusters_are_not_taken_for_modes():
    rng = np.random.default_rng(1)
    owner = np.repeat([f"p{i:02}" for i in range(12)], 100)
    centres = np.repeat(rng.random(12), 100)
    lumps = bimodality(centres + rng.normal(0, 0.01, 1200), owner)
    assert lumps["p_if_independent"] < 0.01
    assert lumps["p"] > 0.2
    assert lumps["design_effect"] == pytest.approx(100, rel=0.2)
    # Two modes in every patient are two modes.
    within = bimodality(np.tile([0.2, 0.8], 600) + rng.normal(0, 0.05, 1200), owner)
    assert within["p"] < 0.01
    assert within["design_effect"] < 2


def test_independent_values_have_no_design_effect():
    values = np.random.default_rng(0).random(300)
    assert design_effect(values, np.arange(300)) == pytest.approx(1, abs=0.01)
    assert bimodality(values, [str(i) for i in range(300)])["p"] > 0.1


def test_too_few_patients_or_values_are_said():
    few = bimodality(np.linspace(0.1, 0.9, 40), ["a", "b"] * 20)
    assert (few["p"], few["why"]) == (None, "2 patients with values above 0: too few for a test, which takes 10")
    assert few["statistic"] == pytest.approx(1 / 80)
    assert bimodality(np.array([0.5]), ["a"])["why"] == "1 value above 0: the dip of up to three is always the same"
