import numpy as np
import pytest

from core.measure.pair import CasePair
from core.measure.score import CaseScore, ScoreMetric, halves, measure, score


def pair(pred, ref, case="a"):
    """Tumours as spans of x, one row each: lesions of a chosen size."""
    volumes = []
    for spans in (pred, ref):
        labels = np.ones((1, 2 * max(len(pred), len(ref), 1), 40), np.uint8)
        for row, (first, last) in enumerate(spans):
            labels[0, 2 * row, first:last] = 2
        volumes.append(labels)
    return CasePair(case, *volumes, (1.0, 1.0, 1.0))


def test_the_score_is_the_one_computed_by_hand():
    # Rows: 10 of 10 voxels; 2 of 12 and 10 (IoU 2 / 20 = 0.1, which is not above it); a false one of 4.
    first = measure(pair([(0, 10), (8, 20), (0, 4)], [(0, 10), (0, 10)]))
    assert first == CaseScore(dice=pytest.approx(2 * 12 / (26 + 20)), matched=1, pred=3, ref=2)
    # IoU 3 / 19 = 0.158.
    second = measure(pair([(7, 19)], [(0, 10)], "b"))
    assert second == CaseScore(dice=pytest.approx(6 / 22), matched=1, pred=1, ref=1)
    dice, f1 = (24 / 46 + 6 / 22) / 2, 2 * 2 / (4 + 3)
    assert halves([first, second]) == pytest.approx((dice, f1))
    assert score([first, second]) == pytest.approx((dice + f1) / 2)


def test_one_prediction_over_two_lesions_is_one_match():
    assert measure(pair([(0, 22)], [(0, 10)])).matched == 1
    both = pair([(0, 22)], [])
    both.reference[0, 0, 0:10] = both.reference[0, 0, 12:22] = 2
    assert measure(both) == CaseScore(dice=pytest.approx(40 / 42), matched=1, pred=1, ref=2)


def test_a_case_without_tumour_counts_as_lits_does():
    assert measure(pair([], [])) == CaseScore(1.0, 0, 0, 0)
    assert measure(pair([(0, 3)], [])) == CaseScore(0.0, 0, 1, 0)
    assert score([CaseScore(1.0, 0, 0, 0), CaseScore(1.0, 1, 1, 1)]) == 1.0


def test_nothing_predicted_is_a_score_of_0_and_no_reference_lesion_is_none():
    assert score([CaseScore(0.0, 0, 0, 3)]) == 0.0
    assert score([CaseScore(1.0, 0, 0, 0), CaseScore(0.0, 0, 2, 0)]) is None
    assert score([]) is None


def test_as_a_metric_it_gives_the_same_and_leaves_out_what_is_not_defined():
    metric, pairs = ScoreMetric(), [pair([(0, 10)], [(0, 10)]), pair([], [], "b")]
    rows = [row for one in pairs for row in metric.measure(one)["score"]]
    assert [row["case"] for row in rows] == ["a", "b"]
    assert metric.summarise({"score": rows}) == {"score": score([measure(one) for one in pairs])}
    assert metric.summarise({"score": rows[1:]}) == metric.summarise({}) == {}
