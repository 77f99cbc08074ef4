import numpy as np
import pytest

from core.measure.calibration import count_bins
from core.measure.pair import CasePair
from plugins.metric.calibration import Calibration


def pair(probability, reference, case="a", **more):
    """A case whose tumour probability is given; what it predicts does not matter."""
    probability = np.asarray(probability, np.float16)
    stacked = np.stack([np.zeros_like(probability), 1 - probability, probability])
    return CasePair(case, np.ones_like(reference), reference, (2.0, 1.0, 1.0), probabilities=stacked, **more)


def of(*pairs, bins=15):
    metric = Calibration(bins=bins)
    tables = {"cases": [], "calibration": []}
    for one in pairs:
        for name, rows in metric.measure(one).items():
            tables[name] += rows
    return tables, metric.summarise(tables)["calibration"]


def test_ece_and_brier_by_hand():
    probability = np.array([0.125, 0.125, 0.125, 0.125, 0.875, 0.875])
    truth = np.array([True, False, False, False, True, True])
    found = count_bins(probability, truth, 4)
    assert found.voxels.tolist() == [4, 0, 0, 2]
    assert found.ece() == pytest.approx((4 * abs(0.125 - 0.25) + 2 * abs(0.875 - 1)) / 6)
    assert found.brier() == pytest.approx((0.875**2 + 3 * 0.125**2 + 2 * 0.125**2) / 6)


def test_ends_of_bins():
    found = count_bins(np.array([0.0, 0.25, 0.5, 0.75, 1.0]), np.zeros(5, bool), 4)
    assert found.voxels.tolist() == [1, 1, 1, 2]


def test_equals_a_loop_over_voxels_on_random_numbers():
    rng = np.random.default_rng(0)
    probability = rng.random(500)
    truth = rng.random(500) < probability**2
    gaps, squares = 0.0, 0.0
    for low in range(10):
        own = [(p, t) for p, t in zip(probability, truth, strict=True) if low <= p * 10 < low + 1]
        gaps += abs(sum(p for p, _ in own) - sum(t for _, t in own))
        squares += sum((p - t) ** 2 for p, t in own)
    found = count_bins(probability, truth, 10)
    assert found.ece() == pytest.approx(gaps / 500)
    assert found.brier() == pytest.approx(squares / 500)


def test_only_the_reference_s_liver_counts():
    reference = np.zeros((2, 3, 4), np.uint8)
    reference[0, 0, :2] = 1, 2
    probability = np.full(reference.shape, 0.75)
    probability[0, 0, :2] = 0.25, 1
    _, found = of(pair(probability, reference))
    assert found["ece"] == pytest.approx(0.125)
    assert found["brier"] == pytest.approx(0.25**2 / 2)
    assert [(r["voxels"], r["predicted"], r["observed"]) for r in found["reliability"]] == [(1, 0.25, 0), (1, 1, 1)]
    assert found["inside"] == "liver of the reference"


def test_pooled_over_voxels_beside_the_mean_over_cases():
    small, large = np.full((1, 1, 2), 1, np.uint8), np.full((1, 1, 6), 1, np.uint8)
    tables, found = of(pair(np.full((1, 1, 2), 0.5), small, "a"), pair(np.zeros((1, 1, 6)), large, "b"))
    assert found["ece"] == pytest.approx(0.5 * 2 / 8)
    assert found["per_case"]["ece"]["mean"] == pytest.approx(0.25)
    assert [row["brier"] for row in tables["cases"]] == [0.25, 0]


def test_the_pooled_brier_score_has_an_interval_over_patients():
    liver = np.ones((1, 1, 2), np.uint8)
    _, found = of(*(pair(np.full((1, 1, 2), n / 16), liver, str(n)) for n in range(10)))
    low, high = found["brier_ci95"]
    assert low < found["brier"] < high


def test_cases_without_a_liver_are_no_number_and_are_left_out():
    tables, found = of(
        pair(np.full((1, 1, 2), 0.5), np.zeros((1, 1, 2), np.uint8), "a"),
        pair(np.full((1, 1, 2), 0.5), np.ones((1, 1, 2), np.uint8), "b"),
    )
    assert tables["cases"][0]["ece"] is None
    assert (found["per_case"]["ece"]["n"], found["per_case"]["ece"]["left_out"]) == (1, 1)


def test_without_probabilities_it_is_not_available_and_says_so():
    labels = np.ones((1, 2, 2), np.uint8)
    tables, found = of(CasePair("a", labels, labels, (1.0, 1.0, 1.0)))
    assert tables["cases"] == [{"case": "a", "structure": "tumour", "ece": None, "brier": None}]
    assert found["available"] is False
    assert found["why"] == "no probabilities were kept: they are there when a run is evaluated, not for label files"
    assert Calibration.probabilities


@pytest.mark.parametrize("bins", [1, 0, 1001])
def test_numbers_of_bins_that_make_no_sense_are_refused(bins):
    with pytest.raises(ValueError, match=f"^bins must be from 2 to 1000, got {bins}$"):
        Calibration(bins=bins)
