"""A run whose store is cropped and resampled: evaluated and predicted on the scans' own voxels."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import yaml
from tiny_run import call, forgotten, make_run, scan, write_split

from core import experiment as experiments
from core.data.prepare import prepare_experiment
from core.data.store import Store, StoreError
from core.data.volume import read_image
from core.infer.run import CROPPED, load_run

GRIDS = {
    "body": {"spacing": [None, 0.9, 1.1], "crop": "body", "margin_mm": 3.0},
    "liver": {"crop": "liver", "margin_mm": 4.0},
}


@pytest.fixture(scope="module", params=GRIDS)
def run(request, tmp_path_factory):
    """The run directory, its store prepared anew as ``prepare:`` says."""
    root = tmp_path_factory.mktemp("grid")
    with forgotten():
        run = make_run(root, test=2)
        shutil.rmtree(root / "store")
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["prepare"].update(GRIDS[request.param])
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        assert not prepare_experiment(experiments.load(run)).bad
        store = Store(root / "store")
        write_split(run, json.loads((run / "split.json").read_text())["parts"], store)
        yield run


def labels(path):
    return np.asanyarray(nib.load(path).dataobj)


def test_evaluation_is_on_the_scans_own_voxels(run, capsys):
    assert call("evaluate", run, "--save-predictions") == 0
    store = Store(run.parent / "store")
    wanted = scan(13)[1]
    assert store.info("volume-13").shape != store.info("volume-13").native_shape
    with open(run / "evaluation" / "cases.csv", newline="") as file:
        rows = {(row["case"], row["structure"]): row for row in csv.DictReader(file)}
    for structure, mask in (("liver", wanted > 0), ("tumour", wanted == 2)):
        row = rows["volume-13", structure]
        assert int(row["voxels_ref"]) == mask.sum()
        assert float(row["volume_ml_ref"]) == pytest.approx(mask.sum() * 0.8 * 0.9 * 3 / 1000, rel=1e-5)
    assert float(rows["volume-13", "liver"]["dice"]) > 0.9
    assert float(rows["volume-13", "tumour"]["dice"]) > 0.7
    image = nib.load(run.parent / "scans" / "volume-13.nii.gz")
    found = nib.load(run / "evaluation" / "predictions" / "volume-13.nii.gz")
    assert (found.shape, found.affine.tolist()) == (image.shape, image.affine.tolist())
    summary = json.loads((run / "evaluation" / "summary.json").read_text())
    optimistic = "cropped to the reference's liver: optimistic"
    crop = experiments.load(run).prepare.crop
    assert summary.get("cropped") == (optimistic if crop == "liver" else None)
    assert (f"note: {optimistic}" in capsys.readouterr().out) == (crop == "liver")


def test_a_new_scan_goes_the_way_of_a_stored_one(run, tmp_path, capsys):
    call("evaluate", run, "--save-predictions")
    capsys.readouterr()
    assert call("predict", run, run.parent / "scans" / "volume-13.nii.gz", "-o", tmp_path) == 0
    predicted, out = labels(tmp_path / "volume-13.nii.gz"), capsys.readouterr().out
    assert predicted.shape == scan(13)[1].shape
    evaluated = labels(run / "evaluation" / "predictions" / "volume-13.nii.gz")
    if experiments.load(run).prepare.crop == "body":
        assert np.array_equal(predicted, evaluated)
        return
    assert f"note: {CROPPED}" in out
    grid = Store(run.parent / "store").grid("volume-13")
    inside = np.zeros(grid.scan, bool)
    inside[grid.inside] = True
    volume = read_image(run.parent / "scans" / "volume-13.nii.gz")
    whole = load_run(run, device="cpu").predict(volume).labels
    assert (whole[~inside] > 0).any()  # noise that the reference's box had left out


def test_a_store_of_another_grid_is_refused(run):
    with pytest.raises(
        StoreError, match=r"this store was prepared with .* the experiment's prepare: says spacing null, "
    ):
        call("evaluate", run, "prepare.spacing=null", "prepare.crop=none")


def test_a_run_is_not_resumed_on_another_grid(run):
    before = experiments.load(run)
    assert experiments.changes(before, experiments.load(run, ["prepare.workers=1", "prepare.compression=none"])) == []
    crop = before.prepare.crop
    assert experiments.changes(before, experiments.load(run, ["prepare.crop=none"])) == [
        f"prepare.crop: {crop} in the run, none now"
    ]
