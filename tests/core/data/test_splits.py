import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import registry
from core.data.splits import Group, SplitError, check, draw_evenly, groups

Stratified = registry.get("split", "stratified").target
File = registry.get("split", "file").target


class FakeStore:
    """Case descriptions without files."""

    root = Path("data/x")

    def __init__(self, infos):
        self._infos = infos
        self.cases = tuple(infos)

    def info(self, case):
        return self._infos[case]


def info(patient, tumour=0, content=None, labelled=True, liver=1000):
    return SimpleNamespace(
        patient=patient, tumour_voxels=tumour, liver_voxels=liver, content_hash=content or patient, labelled=labelled
    )


def lits_like(patients=131, free=13, seed=0):
    """Cases of as many patients; some have two scans, some no label."""
    infos = {}
    for i in range(patients):
        tumour = 0 if i < free else 3 * (i - free) + 1
        infos[f"c-{i * 7 % patients}"] = info(f"p-{i}", tumour, content=f"h-{i}")
        if i % 10 == 3:
            infos[f"c-{i * 7 % patients}-again"] = info(f"p-{i}", tumour + 50, content=f"h2-{i}")
    for i in range(20):
        infos[f"test-{i}"] = info(f"t-{i}", labelled=False)
    infos = dict(sorted(infos.items()))
    return FakeStore(infos)


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
            "case-4": info("r", content="3"),
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
        "7 problems in the split",
        "  no such part 'tset', did you mean 'test'? Parts: train, val, test",
        "  val: no case 'case-9' in data/x, did you mean 'case-5'?",
        "  val: case 'case-3' is listed twice (also in val)",
        "  patient 'p' is on two sides: case-1 in val, case-2 in test",
        "  the same scan is on two sides: case-3 in val, case-4 in test",
        "  test: case 'case-5' has no label",
        "  no case trains",
    ]
    check({"train": ["case-1", "case-2"], "test": ["case-3", "case-4"]}, store)


def test_file_gives_what_is_listed(tmp_path):
    want = {"train": ["a", "b"], "val": [], "test": ["c"]}
    assert File(train=["a", "b"], test=["c"]).parts() == want
    (tmp_path / "s.yaml").write_text("train: [a, b]\nval:\ntest: [c]\n")
    (tmp_path / "s.json").write_text(json.dumps({"train": ["a", "b"], "test": ["c"]}))
    (tmp_path / "run.json").write_text(json.dumps({"parts": want, "hashes": {"a": "1"}}))
    for name in ("s.yaml", "s.json", "run.json"):
        assert File(path=tmp_path / name).parts() == want


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("- a\n- b\n", "want lists of case ids under train, val and test"),
        ("train: a\n", "train: want a list of case ids"),
        ("trian: [a]\n", "no such part 'trian', did you mean 'train'? Parts: train, val, test"),
        ("train: [{a: 1}]\n", "train: want a list of case ids"),
    ],
)
def test_file_that_does_not_say_what_it_should_is_refused(tmp_path, text, message):
    path = tmp_path / "s.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SplitError) as error:
        File(path=path).parts()
    assert str(error.value) == f"{path}: {message}"


def test_file_wants_a_path_or_lists(tmp_path):
    with pytest.raises(ValueError, match=r"^give either path or lists, not both \(train\)$"):
        File(path=tmp_path, train=["a"])
    with pytest.raises(ValueError, match=r"^give path, a file with the lists train, val and test, or the lists"):
        File()


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
