import json

import numpy as np
import pytest
from fake_store import FakeStore, info, prints

from core.data.leakage import check, find
from core.data.splits import SplitError

WHAT_TO_DO = (
    "  keep them on one side (split: stratified does), leave cases out (source.exclude), or go on all the same with "
    "split.leakage=warn, which is recorded in the run"
)


@pytest.fixture
def leaking():
    """A store and a split of it in which six pairs are on two sides."""
    whole = prints(0, 20)
    store = FakeStore(
        {
            "case-1": info("p", content="1", prints=prints(1)),
            "case-2": info("p", content="2", prints=prints(2)),
            "case-3": info("q", content="3", prints=prints(3)),
            "case-4": info("r", content="3", prints=prints(3)),
            "case-5": info("s", prints=whole),
            "case-6": info("t", prints=whole[:12]),
            "case-7": info("u", prints=np.concatenate([whole[15:], prints(7, 3)])),
            "case-8": info("v", prints=prints(8, 1)),
            "case-9": info("w", prints=prints(8, 1)),
            "case-10": info("p", content="10", prints=prints(2)),
        }
    )
    parts = {
        "train": ["case-1", "case-5", "case-10"],
        "val": ["case-3", "case-8"],
        "test": ["case-2", "case-4", "case-6", "case-9"],
        "external": ["case-7"],
    }
    return parts, store


def test_every_pair_on_two_sides_is_named_with_all_that_it_shares(leaking):
    with pytest.raises(SplitError) as error:
        check(*leaking, "fail")
    assert str(error.value).splitlines() == [
        "the split leaks: 6 pairs on two sides",
        "  case-1 (train) and case-2 (test): patient 'p'",
        "  case-2 (test) and case-10 (train): patient 'p', near duplicates, 12 slices or 100 % of the shorter one",
        "  case-3 (val) and case-4 (test): the same scan",
        "  case-5 (train) and case-6 (test): near duplicates, 12 slices or 100 % of the shorter one",
        "  case-5 (train) and case-7 (external): near duplicates, 5 slices or 62 % of the shorter one",
        "  case-8 (val) and case-9 (test): near duplicates, 1 slice or 100 % of the shorter one",
        WHAT_TO_DO,
    ]


def test_a_warning_is_short_and_the_record_has_all(leaking):
    found = check(*leaking, "warn")
    assert found.leaks
    assert found.text(shown=1).splitlines() == [
        "the split leaks: 6 pairs on two sides",
        "  case-1 (train) and case-2 (test): patient 'p'",
        "  and 5 more, all in the run's leakage.json",
    ]
    record = json.loads(found.document())
    assert record["leaks"] is True
    assert record["cases"] == 10
    assert record["pairs"][1] == {
        "cases": ["case-2", "case-10"],
        "sides": ["test", "train"],
        "patient": "p",
        "same_scan": False,
        "share": 1.0,
        "slices": 12,
    }
    assert len(record["pairs"]) == 6


def test_a_clean_split_says_nothing_and_may_keep_duplicates_on_one_side(leaking):
    _, store = leaking
    parts = {"train": ["case-1", "case-2", "case-10"], "val": ["case-3", "case-4"], "test": ["case-5", "case-6"]}
    found = check(parts, store, "fail")
    assert (found.leaks, found.text()) == (False, "")
    assert json.loads(found.document()) == {
        "leaks": False,
        "cases": 7,
        "pairs": [],
        "external": [],
        "notes": [],
    }


def test_an_external_set_that_is_known_to_share_patients_is_a_leak():
    store = FakeStore(
        {
            "lits.volume-1": info("a", origin="LiTS"),
            "ircad.1": info("b", origin="3D-IRCADb-01"),
            "hv.1": info("c", origin="MSD Task08"),
        }
    )
    clean = {"train": ["lits.volume-1"], "external": ["hv.1"]}
    assert not check(clean, store, "fail").leaks
    with pytest.raises(SplitError) as error:
        check({**clean, "external": ["hv.1", "ircad.1"]}, store, "fail")
    assert str(error.value).splitlines() == [
        "the external test set holds patients of the training data",
        "  3D-IRCADb-01 is no external test set beside LiTS: LiTS volumes 28 to 47 are copies of 3D-IRCADb",
        "  sets with liver tumours that would do beside LiTS: MSD Task08, HCC-TACE-Seg, TCIA CRLM",
        WHAT_TO_DO,
    ]


def test_public_sets_that_overlap_within_the_training_data_are_remarked_on():
    rows = prints(0)
    store = FakeStore(
        {
            "lits.volume-28": info("a", origin="LiTS", prints=rows),
            "ircad.1": info("b", origin="3D-IRCADb", prints=rows),
            "ircad.2": info("c", origin="3D-IRCADb", prints=prints(2)),
        }
    )
    found = find({"train": ["lits.volume-28", "ircad.1"], "test": ["ircad.2"]}, store)
    assert not found.leaks
    assert found.text() == (
        "note: 3D-IRCADb and LiTS share patients (LiTS volumes 28 to 47 are copies of 3D-IRCADb); "
        "near duplicates found between them: 1"
    )
