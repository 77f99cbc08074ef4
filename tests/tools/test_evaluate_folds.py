import json
import shutil

import pytest
import yaml
from tiny_run import call, forgotten, make_run, write_split

from core.data.store import Store
from core.errors import UserError

METRIC = "metric=[dice, lesions]"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two evaluated folds of one cross-validation, of two test cases each."""
    with forgotten():
        root = tmp_path_factory.mktemp("folds")
        first = make_run(root, test=3)
        store = Store(root / "store")
        second = root / "run1"
        shutil.copytree(first, second)
        config = yaml.safe_load((first / "config.yaml").read_text())
        config |= {"run": str(second), "train": {**config["train"], "seed": 5}}
        (second / "config.yaml").write_text(yaml.safe_dump(config))
        parts = {"train": ["volume-11"], "val": ["volume-12"]}
        write_split(first, {**parts, "test": ["volume-13", "volume-15"]}, store)
        write_split(second, {**parts, "test": ["volume-14"]}, store)
        for run in (first, second):
            assert call("evaluate", run, METRIC, "--workers", "0") == 0
        yield first, second


@pytest.fixture
def folds(made, tmp_path):
    for place, run in enumerate(made):
        shutil.copytree(run, tmp_path / f"run{place}")
    return tmp_path / "run0", tmp_path / "run1"


def change(path, edit):
    found = json.loads(path.read_text())
    edit(found)
    path.write_text(json.dumps(found))


def refused(*folds):
    with pytest.raises(UserError) as error:
        call("evaluate", "--folds", *folds)
    return str(error.value)


def test_folds_are_pooled_once_and_their_spread_stands_beside(folds, capsys):
    assert call("evaluate", "--folds", *folds) == 0
    out, folder = capsys.readouterr().out, folds[0].with_name("run0_folds")
    found = json.loads((folder / "summary.json").read_text())
    own = [json.loads((run / "evaluation" / "summary.json").read_text()) for run in folds]
    assert found["tumour"]["dice"]["n"] == 3
    assert found.keys() - {"folds"} == own[0].keys()  # those metrics that the folds were evaluated with
    assert found["lesions"]["any"]["tp"] == sum(one["lesions"]["any"]["tp"] for one in own)
    spread = found["folds"]["spread"]["liver.dice.mean"]
    assert spread["values"] == pytest.approx([one["liver"]["dice"]["mean"] for one in own], abs=1e-7)
    assert spread["mean"] == pytest.approx(sum(spread["values"]) / 2)
    assert spread["sd"] == pytest.approx(abs(spread["values"][0] - spread["values"][1]) / 2**0.5)
    assert [one["checkpoint_hash"] for one in found["provenance"]["folds"]] == [
        one["provenance"]["checkpoint_hash"] for one in own
    ]
    assert found["phantom"] is True
    assert found["notes"] == [note for one in own for note in one["notes"]] != []
    assert {path.name for path in (folder / "views").iterdir()} == {f"volume-{n}.npz" for n in (13, 14, 15)}
    assert "2 folds, 3 test cases, each once\n" in out
    assert f"liver Dice {spread['mean']:.3f} (SD {spread['sd']:.3f})" in out
    assert call("evaluate", "--folds", *folds) == 0  # its own folder may be written over


def test_what_is_not_one_cross_validation_is_refused_with_all_differences(folds):
    config = yaml.safe_load((folds[1] / "config.yaml").read_text())
    config["window"]["high"] = 300
    (folds[1] / "config.yaml").write_text(yaml.safe_dump(config))
    cases = folds[1] / "evaluation" / "cases.csv"
    cases.write_text(cases.read_text().replace("volume-14", "volume-13"))
    change(folds[1] / "evaluation" / "summary.json", lambda s: s["provenance"].update(overrides=[]))
    assert refused(*folds) == (
        "these are not the folds of one cross-validation\n"
        f"  window.high: 200.0 in {folds[0]}, 300 in {folds[1]}\n"
        f"  evaluated with overrides ['{METRIC}'] in {folds[0]}, [] in {folds[1]}\n"
        f"  case 'volume-13' is tested by {folds[0]} and by {folds[1]}"
    )


def test_a_fold_that_is_not_evaluated_or_was_trained_on_is_refused(folds, tmp_path):
    first, second = folds
    assert refused(first) == "--folds: want the runs of two folds or more"
    assert refused(first, tmp_path) == f"{tmp_path}: not a run directory (it has no config.yaml)"
    change(second / "evaluation" / "summary.json", lambda s: s["provenance"].update(checkpoint_hash="other"))
    assert refused(first, second) == f"{second}: best.pt has changed since it was evaluated; evaluate it again"
    (second / "evaluation" / "summary.json").unlink()
    assert refused(first, second) == f"{second}: not evaluated yet; run python tools/evaluate.py {second} first"
    (tmp_path / "run0_folds").mkdir()
    (tmp_path / "run0_folds" / "notes.txt").write_text("")
