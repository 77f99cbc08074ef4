import sys
from pathlib import Path

import pytest

import registry
from core.data.splits import SplitError

sys.path.insert(0, str(Path(__file__).parents[1] / "core" / "data"))
from fake_store import FakeStore, info

Official = registry.get("split", "official").target


def test_takes_the_parts_of_the_layout_and_leaves_out_what_has_no_label_or_is_external():
    store = FakeStore(
        {
            "a": info("p", part="train"),
            "b": info("q", part="val"),
            "c": info("r", part="test"),
            "d": info("s", part="test", labelled=False),
            "e": info("t", external=True),
        }
    )
    assert Official(store).parts() == {"train": ["a"], "val": ["b"], "test": ["c"]}


def test_a_share_of_the_training_patients_validates_where_the_layout_names_none():
    store = FakeStore({f"c-{i}": info(f"p-{i // 2}", i, str(i), part="train") for i in range(20)})
    parts = Official(store, val=0.2, seed=1).parts()
    assert (len(parts["train"]), len(parts["val"]), parts["test"]) == (16, 4, [])
    assert not {store.info(c).patient for c in parts["train"]} & {store.info(c).patient for c in parts["val"]}
    assert parts == Official(store, val=0.2, seed=1).parts()
    assert Official(store, val=0).parts()["train"] == list(store.cases)


def test_a_layout_without_a_split_and_one_that_forgets_cases_are_refused():
    with pytest.raises(SplitError) as error:
        Official(FakeStore({"a": info("p"), "b": info("q", external=True, part="test")})).parts()
    assert str(error.value) == "data/x: the source's layout gives no split; use split: stratified, or file"
    store = FakeStore({f"c-{i}": info(f"p-{i}", part="" if i else "train") for i in range(8)})
    with pytest.raises(SplitError) as error:
        Official(store).parts()
    assert str(error.value) == (
        "data/x: the layout says of 7 of 8 cases neither train, val nor test: c-1, c-2, c-3, c-4, c-5 ...; "
        "name their part, leave them out (source.exclude), or use split: file"
    )
    with pytest.raises(ValueError, match=r"^val is a share of the patients: want 0 <= val < 1, got 2$"):
        Official(store, val=2)
