import math
import re
from collections import Counter

import numpy as np
import pytest

from core.contracts import Record
from core.data.drawn import size_bin
from plugins.sampler.case_balanced import CaseBalanced
from plugins.sampler.lesion_balanced import LesionBalanced

# Of case a: lesion 1 on one slice, lesion 2 on 20; of case b: lesion 1 on two slices, one of which shows lesion 2 too.
SIZES = {("a", 1): 5.0, ("a", 2): 40.0, ("b", 1): 6.0, ("b", 2): math.nan}
SHOWN = [("a", (1,)), *[("a", (2,))] * 20, ("b", (1,)), ("b", (1, 2))]
RECORDS = [Record(c, c, z, 9, 3, ids, tuple(SIZES[c, i] for i in ids)) for z, (c, ids) in enumerate(SHOWN)] + [
    Record("c", "c", z, 9, 0) for z in range(30)
]
TUMOUR = len(SHOWN)


def epochs(sampler, count, seed=3):
    return np.concatenate([sampler.order(seed, epoch) for epoch in range(count)])


def test_every_lesion_is_drawn_as_often_however_many_samples_show_it():
    sampler = LesionBalanced(RECORDS, lesion_fraction=0.5, length=80)
    drawn = epochs(sampler, 5)
    count = Counter(RECORDS[i].lesions for i in drawn if i < TUMOUR)
    assert sum(count.values()) == 200  # half of 5 x 80
    assert (sum(drawn[drawn < TUMOUR] == 0), count[2,]) == (50, 50)  # lesions 1 and 2 of case a
    assert sum(drawn == 21) + sum(drawn == 22) == 100  # the two lesions of case b


def test_a_lesions_samples_take_turns():
    drawn = epochs(LesionBalanced(RECORDS, lesion_fraction=1.0, length=60), 4)
    large = [i for i in drawn if 1 <= i <= 20]
    assert len(large) == 60
    for turn in np.reshape(large, (3, 20)):
        assert sorted(turn) == list(range(1, 21))


def test_no_lesion_comes_up_again_before_all_have():
    drawn = epochs(LesionBalanced(RECORDS[:21], lesion_fraction=1.0, length=5), 6)
    for pair in drawn.reshape(-1, 2):
        assert sorted(pair > 0) == [False, True]


def test_the_rest_has_no_tumour_and_runs_on_over_epochs():
    drawn = epochs(LesionBalanced(RECORDS, lesion_fraction=0.75, length=40), 6)
    rest = drawn[drawn >= TUMOUR]
    assert len(rest) == 60
    assert set(Counter(rest.tolist()).values()) == {2}
    running = np.concatenate([[0], np.cumsum(drawn[:40] < TUMOUR)])
    for size in (4, 8, 20):
        assert set((running[size:] - running[:-size]).tolist()) == {3 * size // 4}


def test_by_size_every_bin_that_has_lesions_is_drawn_as_often():
    sampler = LesionBalanced(RECORDS, lesion_fraction=1.0, by="size", bins=(10.0, 20.0), length=60)
    assert [[size_bin(list(SIZES.values())[i]) for i in group] for group in sampler.groups] == [[0, 0], [2], [3]]
    drawn = epochs(sampler, 3)
    assert sum((drawn >= 1) & (drawn <= 20)) == 60  # the large one
    assert sum(drawn == 0) == 30  # half of the small ones
    # The other small one, and the one of unknown size, which only the last slice shows.
    assert sum(drawn == 21) + sum(drawn == 22) == 90
    assert sum(drawn == 22) == 75


def test_records_without_diameters_are_one_bin():
    plain = [Record(r.case, r.patient, r.z, 9, 3, r.lesions) for r in RECORDS[:TUMOUR]]
    assert len(LesionBalanced(plain, lesion_fraction=1.0, by="size").groups) == 1


def many(case, tumour, other):
    return [Record(case, case, z, 9, 5 if z < tumour else 0) for z in range(tumour + other)]


def test_every_case_is_drawn_as_often_and_its_samples_take_turns():
    records = many("a", 2, 3) + many("b", 0, 60) + many("c", 20, 0)
    sampler = CaseBalanced(records, length=50)
    drawn = epochs(sampler, 6)
    count = Counter(records[i].case for i in drawn)
    assert count == {"a": 100, "b": 100, "c": 100}
    for triple in drawn.reshape(-1, 3):
        assert {records[i].case for i in triple} == {"a", "b", "c"}
    of_a = [i for i in drawn if records[i].case == "a"]
    for turn in np.reshape(of_a, (-1, 5)):
        assert sorted(turn) == [0, 1, 2, 3, 4]
    assert len(CaseBalanced(records).order(0, 0)) == len(records)


def test_within_a_case_tumour_has_its_share_and_cases_are_out_of_step():
    records = [r for case in "abcdefgh" for r in many(case, 3, 30)]
    drawn = epochs(CaseBalanced(records, tumour_fraction=0.25, length=80), 2)
    for case in "abcdefgh":
        own = [records[i].tumour_voxels > 0 for i in drawn if records[i].case == case]
        assert (len(own), sum(own)) == (20, 5)
    rounds = [sum(records[i].tumour_voxels > 0 for i in eight) for eight in drawn.reshape(-1, 8)]
    assert set(rounds) == {2}


def test_cases_with_one_kind_give_what_they_have():
    records = many("a", 0, 4) + many("b", 4, 0)
    drawn = epochs(CaseBalanced(records, tumour_fraction=0.5, length=8), 2)
    assert Counter(drawn.tolist()) == dict.fromkeys(range(8), 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LesionBalanced(RECORDS, lesion_fraction=-0.1), "lesion_fraction must be from 0 to 1, got -0.1"),
        (lambda: LesionBalanced(RECORDS, bins=()), "bins must be positive and rising, in mm, got []"),
        (
            lambda: LesionBalanced(RECORDS, bins=(9.0, 9.0)),
            "bins must be positive and rising, in mm, got [9.0, 9.0]",
        ),
        (lambda: LesionBalanced(RECORDS, length=0), "length must be at least 1, got 0"),
        (
            lambda: LesionBalanced(RECORDS[TUMOUR:]),
            "none of the 30 training samples shows a lesion; use the sampler 'uniform', or a split with tumour-bearing "
            "cases in training",
        ),
        (
            lambda: LesionBalanced(RECORDS[:TUMOUR]),
            "all 23 training samples have tumour; set lesion_fraction: 1, or keep samples without tumour in `dataset`",
        ),
        (lambda: LesionBalanced([]), "there are no training samples to draw from; check `dataset` (keep) and `split`"),
        (lambda: CaseBalanced([]), "there are no training samples to draw from; check `dataset` (keep) and `split`"),
        (lambda: CaseBalanced(RECORDS, tumour_fraction=1.5), "tumour_fraction must be from 0 to 1, got 1.5"),
    ],
)
def test_bad_values_are_refused(make, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()
