import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from core.measure.lesions import find_lesions
from core.measure.matching import Overlaps, match, match_at, overlaps


def best_by_trying(pairs, scores):
    """The most pairs and then the greatest score, of every choice that uses nobody twice."""
    best = (0, 0.0)
    for size in range(len(pairs), 0, -1):
        for chosen in itertools.combinations(range(len(pairs)), size):
            if len({pairs[i][0] for i in chosen}) == len({pairs[i][1] for i in chosen}) == size:
                best = max(best, (size, sum(scores[i] for i in chosen)))
        if best[0]:
            return best
    return best


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 100)), max_size=9, unique_by=lambda e: e[:2]
    )
)
def test_the_most_pairs_and_among_these_the_greatest_sum(entries):
    ref, pred = (np.array([e[i] for e in entries], np.int64) for i in (0, 1))
    score = np.array([e[2] / 100 for e in entries])
    chosen = match(ref, pred, score)
    assert len(set(ref[chosen])) == len(set(pred[chosen])) == len(chosen)
    size, total = best_by_trying([e[:2] for e in entries], score)
    assert (len(chosen), round(float(score[chosen].sum()), 9)) == (size, round(total, 9))


def test_the_greatest_overlap_alone_would_lose_a_detection():
    # Prediction 1 overlaps both references, best the first; prediction 2 only the first.
    ref, pred = np.array([1, 2, 1]), np.array([1, 1, 2])
    chosen = match(ref, pred, np.array([0.9, 0.2, 0.1]))
    assert sorted(zip(ref[chosen].tolist(), pred[chosen].tolist(), strict=True)) == [(1, 2), (2, 1)]


def test_thresholds_are_strict():
    found = Overlaps(np.array([1, 2]), np.array([1, 2]), np.array([5, 6]), np.array([0.5, 0.51]))
    assert match_at(found, 0.5).tolist() == [1]
    assert match_at(found, 0.1).tolist() == [0, 1]


def test_many_groups_are_solved_apart():
    count = 3000
    ref = np.repeat(np.arange(1, count + 1), 2)
    pred = np.stack([np.arange(1, count + 1), np.arange(count + 1, 2 * count + 1)], axis=1).ravel()
    chosen = match(ref, pred, np.tile([0.2, 0.7], count))
    assert chosen.tolist() == list(range(1, 2 * count, 2))


def test_overlaps_equal_those_of_all_pairs_of_masks():
    rng = np.random.default_rng(0)
    a, b = (rng.random((5, 12, 11)) < 0.12 for _ in range(2))
    b[0] = False  # boxes that differ
    ref, pred = find_lesions(a), find_lesions(b)
    found = overlaps(ref, pred)
    whole = tuple(slice(0, n) for n in a.shape)
    theirs, ours = ref.inside(whole), pred.inside(whole)
    wanted = {}
    for r, p in itertools.product(range(1, ref.count + 1), range(1, pred.count + 1)):
        both = int(((theirs == r) & (ours == p)).sum())
        if both:
            wanted[r, p] = (both, both / int(((theirs == r) | (ours == p)).sum()))
    got = zip(found.ref.tolist(), found.pred.tolist(), found.voxels.tolist(), found.iou.tolist(), strict=True)
    assert {(r, p): (n, iou) for r, p, n, iou in got} == wanted


def test_lesions_that_are_far_apart_or_none_do_not_overlap():
    a, b = np.zeros((2, 4, 9, 9), bool)
    a[0, 0, 0] = b[3, 8, 8] = True
    for ref, pred in ((a, b), (a, np.zeros_like(a)), (np.zeros_like(a), np.zeros_like(a))):
        found = overlaps(find_lesions(ref), find_lesions(pred))
        assert len(found.ref) == 0
        assert match_at(found, 0.0).tolist() == []
