import numpy as np
import pytest

from core.measure.froc import candidates, froc
from core.measure.lesion_rows import case_row, lesion_rows
from core.measure.lesion_summary import summarise
from core.measure.pair import CasePair
from core.values import TUMOUR

SHAPE = (4, 12, 12)


def case(name, ref, spots, **more):
    """`spots`: (place, probability) of tumour; `ref`: places of it in the reference."""
    reference, tumour = np.ones(SHAPE, np.uint8), np.zeros(SHAPE, np.float16)
    for place in ref:
        reference[place] = TUMOUR
    for place, probability in spots:
        tumour[place] = probability
    probabilities = np.stack([np.zeros(SHAPE, np.float16), 1 - tumour, tumour])
    pred = np.where(tumour > 0.5, TUMOUR, 1).astype(np.uint8)
    return CasePair(name, pred, reference, (2.0, 1.0, 1.0), probabilities=probabilities, **more)


P, Q, R = np.s_[0, 1:3, 1:3], np.s_[0, 6:8, 6:8], np.s_[3, 9:11, 1:3]


def summary(pairs, **options):
    tables = {"lesions": [], "cases": [], "candidates": []}
    for pair in pairs:
        rows = lesion_rows(pair, **options)
        row = case_row(pair, rows)
        if pair.probabilities is not None:
            found = candidates(pair, **options)
            tables["candidates"] += found
            row["candidates"] = len(found)
        tables["lesions"] += rows
        tables["cases"].append(row)
    return summarise(tables, **options)["lesions"]["froc"]


def test_candidates_are_components_above_a_tenth_with_mean_and_greatest_probability():
    pair = case("a", [P], [(P, 0.5), (np.s_[0, 1, 1], 0.9), (Q, 0.2), (R, 0.1)])
    rows = candidates(pair)
    assert [(row["candidate"], row["hits"]) for row in rows] == [(1, "1"), (2, "")]
    assert rows[0]["score_mean"] == pytest.approx(0.6, abs=1e-3)
    assert rows[0]["score_max"] == pytest.approx(0.9, abs=1e-3)
    assert rows[1]["score_mean"] == rows[1]["score_max"] == pytest.approx(0.2, abs=1e-3)
    assert rows[0]["diameter_mm"] == pytest.approx((6 * 8 / np.pi) ** (1 / 3))


def test_the_curve_by_hand():
    # Scores: a hit 0.9, false 0.8, a hit 0.6 in case a; false 0.7 in case b. Two cases, three lesions, one never seen.
    a = case("a", [P, Q, R], [(P, 0.9), (np.s_[2, 5, 1], 0.8), (Q, 0.6)])
    b = case("b", [], [(P, 0.7)])
    out = summary([a, b])
    assert (out["available"], out["why"]) == (True, None)
    assert out["curve"] == [[0.0, pytest.approx(1 / 3)], [1.0, pytest.approx(2 / 3)]]
    third = pytest.approx(1 / 3)
    assert out["recall_at"] == {"0.25": third, "0.5": third, **dict.fromkeys("1248", pytest.approx(2 / 3))}


def test_a_second_hit_on_one_lesion_is_no_false_positive():
    pair = case("a", [np.s_[0, 1, 1:8]], [(np.s_[0, 1, 1:3], 0.9), (np.s_[0, 1, 6:8], 0.4)])
    assert len(candidates(pair)) == 2
    assert summary([pair])["curve"] == [[0.0, 1.0]]


def test_candidates_of_one_score_are_taken_together():
    lesions = {"a": 1}
    rows = [
        {"case": "a", "score_mean": 0.5, "hits": "1", "ignored": 0},
        {"case": "a", "score_mean": 0.5, "hits": "", "ignored": 0},
    ]
    for order in (rows, rows[::-1]):
        out = froc(order, lesions, {("a", 1)}, "score_mean")
        assert out["curve"] == [[0.0, 0.0], [1.0, 1.0]]
        assert out["recall_at"]["0.5"] == 0.0


def test_ignored_lesions_make_a_candidate_neither_right_nor_wrong():
    pair = case("a", [P, np.s_[0, 10, 10]], [(P, 0.9), (np.s_[0, 10, 10], 0.8), (np.s_[3, 5, 5], 0.7)])
    out = summary([pair], min_lesion_ml=0.004)
    assert out["curve"] == [[0.0, 1.0]]
    assert summary([pair])["curve"] == [[0.0, 1.0], [1.0, 1.0]]


def test_scores_by_their_maximum_rank_on_their_own():
    pair = case("a", [P], [(P, 0.3), (np.s_[0, 1, 1], 0.9), (Q, 0.6)])
    out = summary([pair])
    assert out["recall_at"]["0.25"] == 0.0
    assert out["by_max"]["recall_at"]["0.25"] == 1.0


def test_a_long_curve_keeps_at_most_200_points_and_both_ends():
    count = 1500
    rows = [
        {"case": "a", "score_mean": 1 - i / 4000, "hits": str(i // 2 + 1) if i % 2 else "", "ignored": 0}
        for i in range(2 * count)
    ]
    out = froc(rows, {"a": count}, {("a", i + 1) for i in range(count)}, "score_mean")
    assert len(out["curve"]) <= 200
    assert out["curve"][0] == [0.0, 0.0]
    assert out["curve"][-1] == [count, 1.0]


def test_without_probabilities_it_is_not_available_and_says_why():
    with_them, without = case("a", [P], [(P, 0.9)]), case("b", [P], [(P, 0.9)])
    without.probabilities = None
    out = summary([with_them, without])
    assert (out["available"], out["curve"]) == (False, [])
    assert out["why"] == "no probabilities for 1 of 2 cases, such as 'b'"
    assert set(out["recall_at"].values()) == {None}
    assert summary([case("a", [], [(P, 0.9)])])["why"] == "no reference lesion"
