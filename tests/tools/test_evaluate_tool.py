import csv
import json
import shutil

import h5py
import nibabel as nib
import numpy as np
import pytest
from tiny_run import call, forgotten, make_run, scan, start, write_split

from core.config import ConfigError
from core.data.store import Store
from core.errors import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with forgotten():
        yield make_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def rows(run, table="cases", folder="evaluation"):
    with open(run / folder / f"{table}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_test_split_is_measured_on_the_scans_own_grid(run, capsys):
    assert call("evaluate", run) == 0
    out = capsys.readouterr().out
    found = rows(run)
    assert list(dict.fromkeys(row["case"] for row in found)) == ["volume-13", "volume-14", "volume-15"]
    assert list(found[0])[:4] == ["case", "structure", "dice", "iou"]
    label = scan(13)[1]
    tumour = next(row for row in found if (row["case"], row["structure"]) == ("volume-13", "tumour"))
    assert int(tumour["voxels_ref"]) == (label == 2).sum()
    assert float(tumour["volume_ml_ref"]) == pytest.approx((label == 2).sum() * 0.8 * 0.9 * 3 / 1000, rel=1e-5)
    counts = [int(tumour[f"voxels_{side}"]) for side in ("pred", "ref", "both")]
    assert float(tumour["dice"]) == pytest.approx(2 * counts[2] / (counts[0] + counts[1]))
    assert 0.5 < float(tumour["dice"]) < 1
    summary = json.loads((run / "evaluation" / "summary.json").read_text())
    assert summary["liver"]["dice"]["mean"] > 0.9
    assert summary["liver"]["iou"]["n"] == 3
    assert summary["tumour"]["dice"]["n_tumour_bearing"] == 2
    assert summary["tumour_free"]["n"] == 1
    assert f"  liver                          {summary['liver']['dice']['mean']:.3f}" in out
    assert "tumour, cases that have one" in out
    assert "Tumour-free cases: 1, 0 without false tumour (specificity 0.000)" in out
    assert f"next: python tools/predict.py {run} scan.nii.gz -o out/" in out
    names = {
        "cases.csv",
        "slices.csv",
        "summary.json",
        "dice.png",
        "overlays.png",
        "looks.jsonl",
        "views",
        "report.html",
    }
    assert {path.name for path in (run / "evaluation").iterdir()} >= names
    assert {row["patient"] for row in found} == {"patient-13", "patient-14", "patient-15"}
    assert {path.name for path in (run / "evaluation" / "views").iterdir()} == {f"volume-{n}.npz" for n in (13, 14, 15)}
    assert not (run / "evaluation" / ".parts").exists()
    assert {row["structure"] for row in rows(run, "slices")} == {"liver", "parenchyma", "tumour"}


def test_provenance_says_what_was_measured_and_phantoms_are_marked(run, capsys):
    call("evaluate", run, "inferer.batch=2")
    summary = json.loads((run / "evaluation" / "summary.json").read_text())
    source = summary["provenance"]
    assert summary["phantom"] is True
    assert "PHANTOM: synthetic scans; these figures say nothing about patients" in capsys.readouterr().out
    assert source["origin"] == ["PHANTOM test 1"]
    assert (source["step"], source["checkpoint"], source["overrides"]) == (7, "best.pt", ["inferer.batch=2"])
    assert len({source[f"{of}_hash"] for of in ("config", "split", "checkpoint")}) == 3
    first = source["config_hash"]
    call("evaluate", run)
    assert json.loads((run / "evaluation" / "summary.json").read_text())["provenance"]["config_hash"] != first


def test_every_look_at_the_test_split_is_written_down(run, capsys):
    call("evaluate", run)
    call("evaluate", run, "postprocess=[{name: largest_component}]")
    looks = [json.loads(line) for line in (run / "evaluation" / "looks.jsonl").read_text().splitlines()]
    assert [look["overrides"] for look in looks] == [[], ["postprocess=[{name: largest_component}]"]]
    assert looks[1]["dice"]["liver"] > looks[0]["dice"]["liver"]  # the stray voxels are gone
    assert "look 2 at this test split (looks.jsonl)" in capsys.readouterr().out
    call("evaluate", run, "--split", "val")
    assert len((run / "evaluation" / "looks.jsonl").read_text().splitlines()) == 2


def test_the_validation_split_goes_to_a_folder_of_its_own(run):
    call("evaluate", run, "--split", "val")
    assert {row["case"] for row in rows(run, folder="evaluation_val")} == {"volume-12"}
    assert not (run / "evaluation").exists()


def test_predictions_are_saved_on_the_scans_own_grid_if_asked(run, made):
    call("evaluate", run, "--save-predictions")
    saved = nib.load(run / "evaluation" / "predictions" / "volume-14.nii.gz")
    image = nib.load(made.parent / "scans" / "volume-14.nii.gz")
    assert np.array_equal(saved.affine, image.affine)
    labels = np.asanyarray(saved.dataobj)
    reference = scan(14)[1]
    assert labels.shape == reference.shape
    assert (labels == reference).mean() > 0.95
    counted = next(r for r in rows(run) if (r["case"], r["structure"]) == ("volume-14", "tumour"))
    assert int(counted["voxels_pred"]) == (labels == 2).sum()


@pytest.mark.slow
def test_one_checkpoint_gives_the_same_rows_at_1_2_and_3_ranks(run):
    files = {}
    for ranks in (1, 2, 3):
        done = start("evaluate", run, ranks=ranks)
        assert done.returncode == 0, done.stderr
        files[ranks] = [(run / "evaluation" / f"{name}.csv").read_bytes() for name in ("cases", "slices")]
        files[ranks].append((run / "evaluation" / "overlays.png").read_bytes())
    assert files[1] == files[2] == files[3]


def test_more_ranks_than_cases_work(run):
    done = start("evaluate", run, "--split", "val", ranks=2)
    assert done.returncode == 0, done.stderr
    assert {row["case"] for row in rows(run, folder="evaluation_val")} == {"volume-12"}


def test_an_empty_split_is_an_error(run, made):
    write_split(run, {"train": ["volume-11"], "val": [], "test": []}, Store(made.parent / "store"))
    with pytest.raises(UserError) as error:
        call("evaluate", run)
    assert str(error.value) == (
        f"the test split of {run} is empty (cases: train 1, val 0, test 0); nothing to evaluate.\n"
        "  Train with a split that has test cases, or evaluate another one with --split"
    )


def test_a_store_that_no_longer_matches_is_refused_with_the_cases(run, made):
    split = json.loads((run / "split.json").read_text())
    split["hashes"]["volume-13"] = "another"
    split["parts"]["test"].append("volume-99")
    (run / "split.json").write_text(json.dumps(split))
    with pytest.raises(UserError) as error:
        call("evaluate", run)
    scans, store = made.parent / "scans", made.parent / "store"
    assert str(error.value) == (
        f"{run / 'split.json'}: 2 of 4 test cases no longer match the store {store}\n"
        f"  case 'volume-13': its image has changed since the run began ({scans / 'volume-13.nii.gz'})\n"
        "  case 'volume-99' is not in the store\n"
        "  Point store= at the store that the run was trained on, or train anew."
    )
    assert not (run / "evaluation").exists()


def test_a_case_that_cannot_be_read_is_named_and_nothing_is_written(run, made, tmp_path):
    shutil.copytree(made.parent / "store", tmp_path / "store")
    with h5py.File(tmp_path / "store" / "volume-14.h5", "a") as file:
        del file["label"]
    done = start("evaluate", run, f"store={tmp_path / 'store'}", ranks=2)
    assert done.returncode != 0
    assert (
        f"{tmp_path / 'store' / 'volume-14.h5'}: case 'volume-14' has no label (it came without a label file)\n"
    ) in done.stderr
    assert 'evaluate.py", line' not in done.stderr  # no traceback of ours, torchrun's own aside
    assert {path.name for path in (run / "evaluation").iterdir()} == {".parts"}  # the other cases, for the next try


def test_a_run_without_its_split_is_an_error(run):
    (run / "split.json").unlink()
    with pytest.raises(UserError, match=r"split\.json is missing: the run has no recorded split; was it trained\?"):
        call("evaluate", run)


def test_a_run_without_dice_has_rows_and_no_pictures(run, capsys):
    call("evaluate", run, "metric=[{name: iou}]")
    assert rows(run)[0]["iou"]
    assert not (run / "evaluation" / "dice.png").exists()
    assert "no metric gives 'dice', so there is no dice.png and no overlays.png" in capsys.readouterr().out


def test_a_user_sees_the_message_and_exit_code_2(tmp_path):
    done = start("evaluate", "runs/absent", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "no such run directory: runs/absent\n"


def test_a_misspelt_override_is_an_error(run):
    with pytest.raises(ConfigError, match="bach"):
        call("evaluate", run, "inferer.bach=2")
