from collections import Counter

import numpy as np
import pytest
from fake_store import FakeStore, info, lits_like, prints

import registry
from core.data.splits import (
    Group,
    SplitError,
    check,
    draw_evenly,
    externals,
    groups,
    imbalance,
    most_even,
    strata,
    validating,
)

Stratified = registry.get("split", "stratified").target


def patients(store, cases):
    return {store.info(c).patient for c in cases}


@pytest.mark.parametrize("seed", range(5))
def test_no_patient_and_no_content_is_on_two_sides_and_every_labelled_case_is_used(seed):
    store = lits_like()
    # One scan filed under two names and patients: they must stay together too.
    store._infos["c-1"].content_hash = store._infos["c-2"].content_hash
    parts = Stratified(store, seed=seed).parts()
    check(parts, store)
    sides = [patients(store, parts[p]) for p in ("train", "val", "test")]
    assert len(set().union(*sides)) == sum(map(len, sides))
    assert sorted(c for p in parts.values() for c in p) == sorted(c for c in store.cases if store.info(c).labelled)
    where = {c: p for p, cases in parts.items() for c in cases}
    assert where["c-1"] == where["c-2"]


@pytest.mark.parametrize("seed", range(5))
def test_parts_have_the_asked_size_and_the_same_mix(seed):
    store = lits_like()
    parts = Stratified(store, test=0.2, val=0.15, seed=seed).parts()
    assert len(patients(store, parts["test"])) == 26
    assert len(patients(store, parts["val"])) == 20
    for name, share in (("test", 26 / 131), ("val", 20 / 131)):
        free = sum(store.info(c).tumour_voxels == 0 for c in parts[name])
        assert abs(free - 13 * share) <= 1.5  # 2.6 and 2 of the 13 tumour-free
        burdens = [store.info(c).tumour_voxels for c in parts[name]]
        upper = sum(b > 177 for b in burdens) / len(burdens)  # the median of those with tumour
        assert 0.3 < upper < 0.6


def test_same_seed_gives_the_same_split_and_another_seed_another():
    store = lits_like()
    assert Stratified(store, seed=3).parts() == Stratified(lits_like(), seed=3).parts()
    assert Stratified(store, seed=3).parts() != Stratified(store, seed=4).parts()


@pytest.mark.parametrize("folds", [2, 5])
def test_over_all_folds_each_case_tests_once(folds):
    store = lits_like()
    tested = Counter()
    for fold in range(folds):
        parts = Stratified(store, folds=folds, fold=fold, val=0.1).parts()
        check(parts, store)
        tested.update(parts["test"])
        assert len(patients(store, parts["test"])) in (131 // folds, 131 // folds + 1)
        assert len(patients(store, parts["val"])) == int(0.1 * (131 - len(patients(store, parts["test"]))) + 0.5)
        free = len({store.info(c).patient for c in parts["test"] if store.info(c).tumour_voxels == 0})
        assert abs(free - 13 / folds) <= 1.5
    assert tested == Counter({c: 1 for c in store.cases if store.info(c).labelled})


def test_no_validation_and_no_test_can_be_asked_for():
    store = lits_like(10, 2)
    parts = Stratified(store, test=0, val=0).parts()
    assert (parts["val"], parts["test"]) == ([], [])
    assert len(parts["train"]) == 11
    assert Stratified(store, folds=5, fold=0, val=0).parts()["val"] == []


def test_groups_are_ordered_by_burden_of_the_whole_patient():
    store = FakeStore(
        {
            "a": info("p", 500, "1"),
            "b": info("q", 0, "2"),
            "c": info("p", 0, "3", liver=9000),
            "d": info("r", 100, "4"),
            "e": info("s", 0, "1", labelled=False),
        }
    )
    assert [(g.cases, g.burden) for g in groups(store)] == [(("b",), 0), (("a", "c"), 0.05), (("d",), 0.1)]
    assert [g.cases for g in groups(store, ["c", "d"])] == [("c",), ("d",)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test": 1.0}, "test is a share of the patients: want 0 <= test < 1, got 1"),
        ({"val": -0.1}, "val is a share of the patients: want 0 <= val < 1, got -0.1"),
        ({"test": 0.5, "val": 0.5}, "test and val leave nothing to train on: 0.5 + 0.5"),
        ({"fold": 1}, "fold needs folds, e.g. folds: 5"),
        ({"folds": 1, "fold": 0}, "want at least 2 folds, got 1"),
        ({"folds": 5}, "with folds: 5, fold says which one tests: 0 to 4, got None"),
        ({"folds": 5, "fold": 5}, "with folds: 5, fold says which one tests: 0 to 4, got 5"),
    ],
)
def test_impossible_shares_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Stratified(lits_like(), **arguments)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("count", "arguments", "need"), [(2, {}, 3), (0, {}, 3), (1, {"test": 0}, 2), (4, {"folds": 5, "fold": 0}, 5)]
)
def test_too_few_patients_are_named_with_what_to_do(count, arguments, need):
    store = FakeStore({f"c-{i}": info(f"p-{i}") for i in range(count)})
    with pytest.raises(SplitError) as error:
        Stratified(store, **arguments).parts()
    assert str(error.value) == (
        f"data/x has {count} labelled patient{'' if count == 1 else 's'}, and this split needs at least {need}; "
        f"set split.test=0 or split.val=0, use fewer folds, or list the cases (split: file)"
    )


def test_check_names_every_problem():
    store = FakeStore(
        {
            "case-1": info("p", content="1"),
            "case-2": info("p", content="2"),
            "case-3": info("q", content="3"),
            "case-4": info("r", external=True),
            "case-5": info("s", labelled=False),
        }
    )
    with pytest.raises(SplitError) as error:
        check(
            {
                "train": [],
                "val": ["case-1", "case-3", "case-9", "case-3"],
                "test": ["case-2", "case-4", "case-5"],
                "tset": [],
            },
            store,
        )
    assert str(error.value).splitlines() == [
        "6 problems in the split",
        "  no such part 'tset', did you mean 'test'? Parts: train, val, test",
        "  val: no case 'case-9' in data/x, did you mean 'case-5'?",
        "  val: case 'case-3' is listed twice (also in val)",
        "  test: case 'case-4' is external; it is tested apart, with evaluate.py --split external",
        "  test: case 'case-5' has no label",
        "  no case trains",
    ]
    check({"train": ["case-1", "case-2"], "test": ["case-3"], "external": ["case-4"]}, store)


def test_draw_evenly_takes_tumour_free_groups_by_their_share():
    ordered = [Group((str(i),), 0.0) for i in range(5)] + [Group((str(i),), i / 100) for i in range(5, 42)]
    for seed in range(20):
        drawn, rest = draw_evenly(ordered, 8, np.random.default_rng(seed))
        assert len(drawn) == 8
        assert len(rest) == 34
        assert sum(g.burden == 0 for g in drawn) == 1
    drawn, _ = draw_evenly(ordered[:7], 6, np.random.default_rng(0))
    assert sum(g.burden == 0 for g in drawn) == 4
    assert draw_evenly(ordered, 0, np.random.default_rng(0)) == ([], ordered)


def test_external_cases_are_in_no_group():
    store = FakeStore({"a": info("p"), "b": info("p", external=True), "c": info("q", external=True, labelled=False)})
    assert [g.cases for g in groups(store)] == [("a",)]
    assert externals(store) == ["b"]


def test_near_duplicates_stay_together_also_by_way_of_a_case_that_takes_no_part():
    whole = prints(0, 30)
    store = FakeStore(
        {
            "whole": info("p", 7, prints=whole),
            "upside-down": info("q", 7, prints=whole[::-1]),
            "other": info("r", 7, prints=prints(1)),
            "top": info("s", 7, prints=whole[20:]),
            "half-1": info("t", 7, prints=prints(2, 40)[:20]),
            "half-2": info("u", 7, prints=prints(2, 40)[20:]),
            "both-halves": info("v", labelled=False, prints=prints(2, 40)),
        }
    )
    assert sorted(g.cases for g in groups(store)) == [("half-1", "half-2"), ("other",), ("whole", "upside-down", "top")]


def test_a_group_knows_its_most_lesions_and_thickest_slices_of_trusted_spacing():
    store = FakeStore(
        {
            "a": info("p", 5, "1", count=3, native_spacing_mm=(1.0, 1, 1)),
            "b": info("p", 5, "2", count=8, native_spacing_mm=(4.0, 1, 1)),
            "c": info("p", 5, "3", count=2, native_spacing_mm=(9.0, 1, 1), spacing_trusted=False),
            "d": info("q", 9, "4", spacing_trusted=False),
        }
    )
    assert [(g.lesions, g.thickness_mm) for g in groups(store)] == [(8, 4.0), (1, None)]


def test_strata_and_imbalance_by_hand():
    def group(name, burden, lesions, thickness):
        return Group((name,), burden, lesions, thickness)

    everyone = [
        group("a", 0.0, 0, None),
        group("b", 0.1, 1, 1.5),
        group("c", 0.2, 2, 1.6),
        group("d", 0.3, 4, 3.0),
        group("e", 0.4, 5, 5.0),
        group("f", 0.5, 10, 0.7),
    ]
    kinds = strata(everyone)
    assert list(kinds.values()) == [(0, 0, 0), (1, 1, 1), (1, 2, 2), (2, 2, 2), (3, 3, 3), (4, 4, 1)]
    assert imbalance(everyone, kinds) == 0
    assert imbalance([], kinds) == 0
    # Of burden 1/6 is there, of lesions 1/6, of thickness 1/6 of the whole's mass.
    assert imbalance([everyone[0]], kinds) == pytest.approx(5 / 6)
    # Burden: 1/6 and 1/6 of the whole against 1/2 each; lesions 1/6, 2/6; thickness 1/6, 2/6.
    assert imbalance([everyone[0], everyone[3]], kinds) == pytest.approx((4 / 6 + 3 / 6 + 3 / 6) / 3)


def test_the_most_even_draw_is_taken_and_the_first_of_equals():
    everyone = [Group((str(i),), (i + 1) / 10, i, 1.0 + i % 2 * 4) for i in range(8)]
    seen = []

    def draw(rng):
        part = [everyone[i] for i in sorted(rng.choice(8, 4, replace=False))]
        seen.append(part)
        return [part]

    kinds = strata(everyone)
    (best,) = most_even(draw, kinds, 3)
    scores = [imbalance(part, kinds) for part in seen]
    assert len(seen) == 100
    assert len(set(scores)) > 5
    assert best == seen[int(np.argmin(scores))]


@pytest.mark.parametrize("seed", range(3))
def test_parts_are_more_even_than_single_draws_over_lesion_counts_and_slice_thickness(seed):
    store = lits_like()
    everyone = groups(store)
    kinds = strata(everyone)
    owner = {case: group for group in everyone for case in group.cases}
    parts = Stratified(store, seed=seed).parts()
    drawn = [imbalance(list({owner[c] for c in parts[name]}), kinds) for name in ("test", "val")]
    single = [imbalance(draw_evenly(everyone, 26, np.random.default_rng(i))[0], kinds) for i in range(100)]
    assert drawn[0] < np.quantile(single, 0.25)
    assert max(drawn) < 0.15


def test_folds_are_even_too():
    store = lits_like()
    everyone = groups(store)
    kinds = strata(everyone)
    owner = {case: group for group in everyone for case in group.cases}
    for fold in range(5):
        tested = {owner[c] for c in Stratified(store, folds=5, fold=fold).parts()["test"]}
        assert imbalance(list(tested), kinds) < 0.13


def test_a_share_validates_and_none_is_left_if_there_is_but_one_patient():
    store = lits_like(10, 2)
    train = [c for c in store.cases if store.info(c).labelled][:6]
    val, rest = validating(store, train, 0.2, seed=0)
    assert sorted([*val, *rest]) == sorted(train)
    assert len(patients(store, val)) == 1
    assert validating(store, train, 0.0, 0) == ([], train)
    with pytest.raises(SplitError) as error:
        validating(store, train[:1], 0.2, 0)
    assert str(error.value) == ("data/x: 1 patient to train and to validate on; set split.val=0 to train on all")
