import json
import shutil

import h5py
import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_run import call, forgotten, make_run, scan

from core.data.store import Store
from core.data.volume import read_image, to_native
from core.document import ConfigError
from core.errors import UserError
from core.infer.run import load_run
from core.report.tables import read_csv
from core.train import checkpoint
from core.tune import search

GRID = ("--grid", "tumour_threshold.threshold=off,0.5,0.3,0.1", "--grid", "drop_small.min_ml=off,0.02,0.5")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A network that calls no voxel tumour: its tumours have a probability of 0.33 in one case and 0.11 in the other.

    Around them lie false ones of a voxel or two; a voxel is 0.002 ml, the tumours 0.2 ml.
    """
    with forgotten():
        run = make_run(tmp_path_factory.mktemp("tune"), val=2)
        state = checkpoint.load(run / "checkpoints" / "best.pt")
        state["network"]["model.gain"] = torch.tensor([1.37])
        checkpoint.save(run, {**state, "step": 9}, keep=2, best=True)
        yield run


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def tuned(made, tmp_path_factory):
    """The run after tuning."""
    folder = tmp_path_factory.mktemp("tuned") / "run"
    shutil.copytree(made, folder)
    assert call("tune", folder, *GRID) == 0
    return folder


def test_the_known_best_is_found_and_said(run, capsys):
    assert call("tune", run, *GRID) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[:3] == [
        "PHANTOM: synthetic scans; a choice made on them says nothing about patients",
        f"{run}: val split, 2 cases (2 with tumour), checkpoint best.pt at step 9, on cpu",
        "12 settings of tumour_threshold.threshold -> drop_small.min_ml, judged by score (max)",
    ]
    assert lines[5].split() == ["0.1", "0.02", "0.993", "0.987", "1.000", "2", "2", "2", "<-", "chosen"]
    assert (
        "score on these cases: 0.000 with the run's own post-processing, 0.993 with the choice.\n"
        "Each patient under what the others choose: 0.577 (1 of 2 times they choose the same). New patients are "
        "nearer to that.\n2 patients choose among 12 settings. Below 10 a choice is mostly chance: try fewer settings "
        "(--grid), or validate on more patients.\n"
    ) in printed
    rows = read_csv(run / "tune.csv")
    assert len(rows) == 12
    assert [(row["drop_small.min_ml"], row["chosen"]) for row in rows if row["chosen"] or row["own"]] == [
        ("off", 0),
        (0.02, 1),
    ]
    assert f"written to {run}: tune.csv, tuned.yaml" in printed


def test_the_run_is_then_loaded_with_it_and_says_so(tuned, made):
    loaded = load_run(tuned, device="cpu")
    assert [(p.name, p.args.get("threshold"), p.args.get("min_ml")) for p in loaded.experiment.postprocess] == [
        ("tumour_threshold", 0.1, None),
        ("drop_small", None, 0.02),
    ]
    assert "threshold: 0.1" in loaded.experiment.resolved()
    assert loaded.tuned.cases == ["volume-12", "volume-13"]
    assert loaded.tuned.settings == {"tumour_threshold.threshold": "0.1", "drop_small.min_ml": "0.02"}
    assert loaded.tuned.text == (
        "post-processing from tuned.yaml: tumour_threshold.threshold 0.1, drop_small.min_ml 0.02; chosen among 12 on 2 "
        "validation cases (score 0.000 -> 0.993 there, 0.577 held out)"
    )
    volume = read_image(made.parent / "scans" / "volume-12.nii.gz")
    hu, label = scan(12)
    found = to_native(loaded.predict(volume).labels, volume.native) == 2
    assert found[(label == 2) & (hu == 62)].all()
    assert (hu[found] == 62).all()
    assert found.sum() == 95  # with two voxels of noise that touch it
    plain = load_run(tuned, device="cpu", tuned=False)
    assert (plain.tuned, plain.experiment.postprocess, plain.note) == (None, [], "")
    assert not (plain.predict(volume).labels == 2).any()


def test_predict_takes_it_and_says_so_unless_told(tuned, made, tmp_path, capsys):
    file = made.parent / "scans" / "volume-12.nii.gz"
    for words, found in (((), True), (("--untuned",), False), (("postprocess=[]",), False)):
        out = tmp_path / "_".join(("out", *words))
        assert call("predict", tuned, file, "-o", out, *words) == 0
        labels = np.asanyarray(nib.load(out / file.name).dataobj)
        assert (labels == 2).any() == found
        assert ("note: post-processing from tuned.yaml: " in capsys.readouterr().out) == found


def test_post_processing_on_the_command_line_wins(tuned):
    loaded = load_run(tuned, device="cpu", overrides=["postprocess=[{name: largest_component}]"])
    assert (loaded.tuned, [p.name for p in loaded.experiment.postprocess]) == (None, ["largest_component"])
    assert loaded.note == f"postprocess is given, so {tuned / 'tuned.yaml'} is not used"
    assert load_run(tuned, device="cpu", overrides=["inferer.batch=2"]).tuned is not None


def test_a_choice_made_with_another_checkpoint_is_refused(tuned, made, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tuned, run)
    state = checkpoint.load(run / "checkpoints" / "best.pt")
    checkpoint.save(run, {**state, "step": 11}, keep=3, best=True)
    with pytest.raises(UserError) as error:
        load_run(run, device="cpu")
    assert str(error.value) == (
        f"{run / 'tuned.yaml'}: this post-processing was chosen with checkpoint best.pt of step 9, and best.pt of step "
        "11 is another\n"
        f"  choose again:   python tools/tune.py {run} --overwrite\n"
        f"  leave it aside: --untuned (in Python: tuned=False), or delete the file"
    )
    assert load_run(run, device="cpu", tuned=False).step == 11
    assert load_run(run, "step_00000009.pt", "cpu").tuned is not None  # the same file under its other name
    with pytest.raises(UserError, match=rf"tools/tune\.py {run} --checkpoint last --overwrite"):
        load_run(run, "last", "cpu")


def test_a_spoilt_file_is_named_with_the_line(tuned, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tuned, run)
    path = run / "tuned.yaml"
    path.write_text(path.read_text().replace("threshold: 0.1", "treshold: 0.1"))
    with pytest.raises(ConfigError) as error:
        load_run(run, device="cpu")
    text = str(error.value)
    assert text.startswith(f"2 problems in {path}; mend it, or delete it to go on with the run's own post-processing\n")
    assert (
        f"{path}:4  postprocess[0].treshold: postprocess 'tumour_threshold' has no such argument, did you mean" in text
    )


def test_no_other_split_is_opened(run, made, tmp_path, monkeypatch):
    shutil.copytree(made.parent / "store", tmp_path / "store")
    parts = json.loads((run / "split.json").read_text())["parts"]
    for case in (*parts["train"], *parts["test"]):
        with h5py.File(tmp_path / "store" / f"{case}.h5", "a") as file:
            del file["label"]
    asked = []
    opened = Store.volume
    monkeypatch.setattr(Store, "volume", lambda self, case: asked.append(case) or opened(self, case))
    assert call("tune", run, f"store={tmp_path / 'store'}", "--grid", "drop_small.min_ml=off,0.02") == 0
    assert asked == parts["val"] == ["volume-12", "volume-13"]


def test_an_empty_validation_split_is_an_error(run):
    split = json.loads((run / "split.json").read_text())
    split["parts"]["val"] = []
    (run / "split.json").write_text(json.dumps(split))
    with pytest.raises(UserError) as error:
        call("tune", run)
    assert str(error.value) == (
        f"the val split of {run} is empty (cases: train 1, val 0, test 3), so there is nothing to choose on: cases "
        "that choose cannot test.\n  Train with a split that has val cases, or write postprocess: yourself"
    )


def test_what_is_there_is_left_unless_told_and_an_interruption_changes_nothing(tuned, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    shutil.copytree(tuned, run)
    before = {path: path.read_bytes() for path in (run / "tuned.yaml", run / "tune.csv")}
    with pytest.raises(UserError) as error:
        call("tune", run)
    assert str(error.value) == f"{run / 'tuned.yaml'} exists and is left as it is; --overwrite chooses again"
    infer, calls = search.infer, []

    def second_is_interrupted(*args, **options):
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return infer(*args, **options)

    monkeypatch.setattr(search, "infer", second_is_interrupted)
    with pytest.raises(KeyboardInterrupt):
        call("tune", run, "--overwrite")
    assert {path: path.read_bytes() for path in before} == before
    assert not list(run.glob("*.partial")) + list(run.glob(".*.partial"))
    monkeypatch.undo()
    assert call("tune", run, "--overwrite", "--objective", "tumour.dice", "--grid", "drop_small.min_ml=off,0.5") == 0
    assert load_run(run, device="cpu").tuned.objective == "tumour.dice"
    # Nothing is called tumour without the threshold, so both settings are equal and none is the simpler one.
    assert load_run(run, device="cpu").tuned.settings == {"drop_small.min_ml": "off"}
    assert "Nothing that was tried is better than the run's own." in capsys.readouterr().out


def test_under_torchrun_it_does_not_start(run, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError) as error:
        call("tune", run)
    assert str(error.value) == "tools/tune.py runs in one process; start it without torchrun"
