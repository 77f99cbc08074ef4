import json
import sys
from pathlib import Path

import pytest

import registry
from core.data.splits import SplitError

sys.path.insert(0, str(Path(__file__).parents[1] / "core" / "data"))
from fake_store import FakeStore, info

File = registry.get("split", "file").target


def stored(count=10):
    return FakeStore({f"liver_{i}": info(f"p-{i}", i) for i in range(count)})


def nnunet(path):
    folds = [
        {"train": [f"liver_{i}" for i in range(10) if i % 5 != k], "val": [f"liver_{k}", f"liver_{k + 5}"]}
        for k in range(5)
    ]
    path.write_text(json.dumps(folds))
    return path


def test_gives_what_is_listed(tmp_path):
    want = {"train": ["a", "b"], "val": [], "test": ["c"]}
    assert File(None, train=["a", "b"], test=["c"]).parts() == want
    (tmp_path / "s.yaml").write_text("train: [a, b]\nval:\ntest: [c]\n")
    (tmp_path / "s.json").write_text(json.dumps({"train": ["a", "b"], "test": ["c"]}))
    (tmp_path / "run.json").write_text(json.dumps({"parts": {**want, "external": ["x"]}, "hashes": {"a": "1"}}))
    (tmp_path / "s.csv").write_text("\ufeffid;part\na;train\nb;train\n\nc;test\n")
    for name in ("s.yaml", "s.json", "run.json", "s.csv"):
        assert File(None, path=tmp_path / name).parts() == want, name


def test_a_fold_of_nnunet_tests_on_its_val_and_a_share_of_its_train_validates(tmp_path):
    store, path = stored(), nnunet(tmp_path / "splits_final.json")
    parts = File(store, path=path, fold=2).parts()
    assert parts["test"] == ["liver_2", "liver_7"]
    assert len(parts["val"]) == 1  # 0.15 of 8 patients
    assert sorted([*parts["train"], *parts["val"]]) == [f"liver_{i}" for i in range(10) if i % 5 != 2]
    assert parts == File(stored(), path=path, fold=2).parts()
    assert len(File(store, path=path, fold=2, val=0.5).parts()["val"]) == 4
    assert File(store, path=path, fold=2, val=0.0).parts()["val"] == []
    tested = [case for fold in range(5) for case in File(store, path=path, fold=fold).parts()["test"]]
    assert sorted(tested) == sorted(store.cases)


def test_a_share_of_the_listed_train_validates_if_asked_for(tmp_path):
    store = stored()
    train = [f"liver_{i}" for i in range(8)]
    parts = File(store, train=train, test=["liver_9"], val=0.25).parts()
    assert (len(parts["train"]), len(parts["val"]), parts["test"]) == (6, 2, ["liver_9"])
    unknown = File(store, train=[*train, "liver_99"], val=0.25).parts()
    assert unknown == {"train": [*train, "liver_99"], "val": [], "test": []}  # the check of every split names it
    (tmp_path / "s.yaml").write_text("train: [a]\nval: [b]\n")
    with pytest.raises(SplitError) as error:
        File(store, path=tmp_path / "s.yaml", val=0.2).parts()
    assert str(error.value) == f"{tmp_path}/s.yaml: lists cases under val, so val cannot be a share of train as well"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.yaml", None, "s.yaml: no such file"),
        (
            "s.yaml",
            "- a\n- b\n",
            "s.yaml: want lists of case ids under train, val and test, or nnU-Net's list of folds",
        ),
        ("s.yaml", "a", "s.yaml: want lists of case ids under train, val and test"),
        ("s.yaml", "train: a\n", "s.yaml: train: want a list of case ids"),
        ("s.yaml", "trian: [a]\n", "s.yaml: no such part 'trian', did you mean 'train'? Parts: train, val, test"),
        ("s.yaml", "train: [{a: 1}]\n", "s.yaml: train: want a list of case ids"),
        (
            "s.json",
            '[{"train": ["a"]}]',
            "s.json: want lists of case ids under train, val and test, or nnU-Net's list of folds",
        ),
        (
            "s.json",
            '[{"train": ["a"], "val": ["b"]}]',
            "s.json: nnU-Net's file has 1 folds; say with fold which one tests: 0 to 0, got None",
        ),
        ("s.csv", None, "s.csv: no such file"),
        ("s.csv", "id,pat\na,train\n", "s.csv:1: no such column 'pat', did you mean 'part'?"),
        ("s.csv", "case,split\na,train\n", "s.csv:1: want a column 'id' (it has: case, split)"),
        (
            "s.csv",
            "id,part\na,train\nb,tset\n",
            "s.csv:3: no such part 'tset', did you mean 'test'? Parts: train, val, test",
        ),
        ("s.csv", "id,part\na,train\nb\n", "s.csv:3: 1 values, but the header has 2"),
        ("s.csv", "id,part\n,train\n", "s.csv:2: id is empty"),
        ("s.csv", "", "s.csv:1: want a column 'id' (it has: none)"),
    ],
)
def test_a_file_that_does_not_say_what_it_should_is_refused(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(SplitError) as error:
        File(stored(), path=tmp_path / name).parts()
    assert str(error.value) == f"{tmp_path}/{message}"


def test_a_fold_that_is_not_there_and_one_of_a_file_without_folds_are_refused(tmp_path):
    path = nnunet(tmp_path / "splits_final.json")
    with pytest.raises(SplitError) as error:
        File(stored(), path=path, fold=5).parts()
    assert str(error.value) == f"{path}: nnU-Net's file has 5 folds; say with fold which one tests: 0 to 4, got 5"
    (tmp_path / "s.yaml").write_text("train: [a]\n")
    with pytest.raises(SplitError) as error:
        File(stored(), path=tmp_path / "s.yaml", fold=0).parts()
    assert str(error.value) == f"{tmp_path}/s.yaml: fold is for nnU-Net's splits_final.json; this file has no folds"


def test_wants_a_path_or_lists(tmp_path):
    with pytest.raises(ValueError, match=r"^give either path or lists, not both \(train\)$"):
        File(None, path=tmp_path, train=["a"])
    with pytest.raises(ValueError, match=r"^give path, a file with the lists train, val and test, or the lists"):
        File(None)
    with pytest.raises(ValueError, match=r"^give path, a file"):
        File(None, val=0.2)
    with pytest.raises(ValueError, match=r"^fold is for nnU-Net's splits_final.json, given as path$"):
        File(None, train=["a"], fold=0)
    with pytest.raises(ValueError, match=r"^val is a share of the patients: want 0 <= val < 1, got 1$"):
        File(None, train=["a"], val=1.0)
