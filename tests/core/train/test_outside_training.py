"""Components from outside the repository, trained with: one in a single file, one in an installed package."""

import pytest
from harness import ROOT, experiment, metric_rows, train

OUTSIDE = ROOT / "tests" / "outside"


@pytest.mark.slow
@pytest.mark.parametrize("start", ["spawn", "forkserver", "fork"])
def test_outside_components_train_under_workers(tmp_path, installed, start):
    path = experiment(
        tmp_path,
        plugins=["small.py", str(OUTSIDE / "one_file.py")],
        loss=["cross_entropy", {"name": "soft_iou", "weight": 0.5}, "mean_absolute"],
        sampler={"name": "patient_balanced"},
        postprocess=["fill_holes"],
        metric=["dice", "voxel_excess"],
    )
    options = ("train.workers=1", f"train.worker_start={start}", "train.epochs=1", "train.log_every=1")
    done = train(path, *options, packages=installed)
    assert done.returncode == 0, done.stderr
    rows = metric_rows(tmp_path / "run")
    assert {"train/soft_iou", "train/mean_absolute"} <= rows[0].keys()
    assert any("excess" in key for row in rows for key in row)
    assert "patient_balanced" in done.stdout
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert str(OUTSIDE / "one_file.py") in config
