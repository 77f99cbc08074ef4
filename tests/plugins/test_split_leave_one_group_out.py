import sys
from pathlib import Path

import pytest

import registry
from core.data.splits import SplitError

sys.path.insert(0, str(Path(__file__).parents[1] / "core" / "data"))
from fake_store import FakeStore, info, prints

Leave = registry.get("split", "leave_one_group_out").target


def stored():
    copy = prints(5)
    cases = {f"l-{i}": info(f"l-{i}", i, origin="LiTS") for i in range(8)}
    cases |= {f"h-{i}": info(f"h-{i}", i, origin="Hospital 10") for i in range(4)}
    cases |= {f"k-{i}": info(f"k-{i}", i, origin="Hospital 9") for i in range(3)}
    cases["l-5"].prints = cases["h-0"].prints = copy  # one scan in two data sets
    return FakeStore({**cases, "x": info("x", origin="Other", external=True)})


def test_one_origin_tests_and_whatever_else_shows_its_patients_takes_no_part():
    store = stored()
    parts = Leave(store, group="Hospital 10", val=0.2).parts()
    assert parts["test"] == [f"h-{i}" for i in range(4)]
    assert len(parts["val"]) == 2
    rest = {*(f"l-{i}" for i in range(8)), *(f"k-{i}" for i in range(3))} - {"l-5"}
    assert {*parts["train"], *parts["val"]} == rest


def test_folds_go_through_the_groups_by_name():
    store = stored()
    assert [Leave(store, fold=k).parts()["test"][0] for k in range(3)] == ["k-0", "h-0", "l-0"]
    tested = [case for k in range(15) for case in Leave(store, by="patient", fold=k, val=0).parts()["test"]]
    assert sorted(tested) == sorted(set(store.cases) - {"x"})
    assert Leave(store, by="patient", group="k-2").parts()["test"] == ["k-2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"group": "LiTs"},
            "data/x: no origin 'LiTs', did you mean 'LiTS'?\n  there are: Hospital 9, Hospital 10, LiTS",
        ),
        ({"fold": 3}, "data/x: fold says which origin tests: 0 to 2, got 3"),
        ({"fold": -1}, "data/x: fold says which origin tests: 0 to 2, got -1"),
    ],
)
def test_groups_that_are_not_there_are_refused(arguments, message):
    with pytest.raises(SplitError) as error:
        Leave(stored(), **arguments).parts()
    assert str(error.value) == message


def test_one_group_alone_or_without_a_name_is_refused():
    with pytest.raises(SplitError) as error:
        Leave(FakeStore({"a": info("p", origin="LiTS"), "b": info("q", origin="LiTS")}), fold=0).parts()
    assert str(error.value) == (
        "data/x: all labelled cases have one origin, 'LiTS'; leaving it out leaves nothing to train on"
    )
    with pytest.raises(SplitError) as error:
        Leave(FakeStore({"a": info("p", origin="LiTS"), "b": info("q")}), fold=0).parts()
    assert str(error.value) == "data/x: case 'b' has no origin; its source should name one"
    for arguments in ({}, {"group": "a", "fold": 1}):
        with pytest.raises(ValueError, match=r"^give either group, the name of the one that tests, or fold, its"):
            Leave(stored(), **arguments)
