"""The split that a run begins with: external cases, and what leaks."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from harness import experiment, write_scans

from core.data.prepare import prepare_experiment
from core.data.splits import SplitError
from core.data.store import Store
from core.experiment import load
from core.rundir import read_split
from core.train.assemble import assemble, split_parts

OVERRIDES = ["plugins=[]", "model={name: unet, encoder: resnet18, weights: null}", "prepare.workers=1"]


@pytest.fixture
def wanted(tmp_path):
    """An experiment on six patients, a seventh who is the first one upside down, and two external ones."""
    write_scans(tmp_path / "scans", 6)
    write_scans(tmp_path / "all", 8)
    (tmp_path / "outside").mkdir()
    for number in (106, 107):
        for kind in ("volume", "segmentation"):
            shutil.move(tmp_path / "all" / f"{kind}-{number}.nii", tmp_path / "outside")
    for kind in ("volume", "segmentation"):
        image = nib.load(tmp_path / "scans" / f"{kind}-101.nii")
        copy = np.asarray(image.dataobj)[:, :, 5:0:-1]
        nib.save(nib.Nifti1Image(copy, image.affine), tmp_path / "scans" / f"{kind}-120.nii")
    sources = {
        "lits": {"name": "lits", "root": str(tmp_path / "scans")},
        "out": {
            "name": "folder",
            "root": str(tmp_path / "outside"),
            "images": "volume-*.nii",
            "labels": "segmentation-*.nii",
        },
    }

    def make(*overrides):
        path = experiment(tmp_path, source={"name": "several", "sources": sources, "external": ["out"]})
        made = load(path, [*OVERRIDES, *overrides])
        prepare_experiment(made)
        return made

    return make


def test_the_external_cases_are_the_recorded_splits_fourth_part(wanted):
    found = wanted("source.sources.lits.exclude=[volume-120]")
    parts, hashes = split_parts(found, Store(found.store))
    assert list(parts) == ["train", "val", "test", "external"]
    assert parts["external"] == ["out.106", "out.107"]
    assert set(hashes) == {case for cases in parts.values() for case in cases}
    assert len(hashes) == 8
    found = wanted("source.external=[]", "source.sources.lits.exclude=[volume-120]")
    assert "external" not in split_parts(found, Store(found.store))[0]


def test_a_stratified_split_keeps_a_copy_with_its_scan(wanted):
    found = wanted()
    for seed in range(4):
        parts, _ = split_parts(load(found.file, [*OVERRIDES, f"split.seed={seed}"]), Store(found.store))
        where = {case: name for name, cases in parts.items() for case in cases}
        assert where["lits.volume-101"] == where["lits.volume-120"]


def test_a_split_that_leaks_stops_before_the_run_directory_is_begun_or_is_recorded(wanted, capsys):
    train = "lits.volume-101, lits.volume-102, lits.volume-103"
    leaking = f"split={{name: file, train: [{train}], val: [lits.volume-104], test: [lits.volume-120]}}"
    found = wanted(leaking)
    with pytest.raises(SplitError) as error:
        assemble(found, torch.device("cpu"))
    text = (
        "the split leaks: 1 pair on two sides\n"
        "  lits.volume-101 (train) and lits.volume-120 (test): near duplicates, 4 slices or 100 % of the shorter one"
    )
    assert str(error.value) == text + (
        "\n  keep them on one side (split: stratified does), leave cases out (source.exclude), or go on all the same "
        "with split.leakage=warn, which is recorded in the run"
    )
    assert not found.run.exists()
    warned = wanted(leaking, "split.leakage=warn")
    warned.run.mkdir()  # train.py takes its lock there
    assemble(warned, torch.device("cpu"))
    assert text in capsys.readouterr().out
    record = json.loads((warned.run / "leakage.json").read_text())
    assert (record["leaks"], record["cases"], len(record["pairs"])) == (True, 7, 1)
    assert "leakage: warn" in (warned.run / "config.yaml").read_text()
    parts, _ = read_split(warned.run)
    # A run that has begun goes on with its recorded split.
    assert split_parts(load(warned.run), Store(warned.store))[0] == parts
