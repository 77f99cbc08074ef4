"""The whole way on a little real CT, where it lies beside the repository."""

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"


def _tool(name, *arguments, cwd):
    command = [sys.executable, str(ROOT / "tools" / f"{name}.py"), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    return subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=cwd, env=environment, check=False)


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "lits_real").is_dir(), reason=f"no real CT at {DATA} (it is never part of the project)")
def test_real_scans_train_evaluate_and_predict(tmp_path):
    source = f"source.root={DATA / 'lits_real'}"
    options = ("train.max_steps=3", "train.batch=4", "dataset.size=96", "model.encoder=resnet18", source)
    done = _tool("train", ROOT / "experiments" / "real_ct.yaml", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "note: intensities lie within [-160, 240]: windowed before, so HU cannot be trusted" in done.stdout
    assert "next: python" in done.stdout
    done = _tool("evaluate", "runs/real_ct", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "runs" / "real_ct" / "evaluation" / "cases.csv").read_text()
    assert "volume-6,tumour" in table
    scan = DATA / "chaos_ct3" / "ct.nii.gz"
    done = _tool("predict", "runs/real_ct", scan, "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    want, got = nib.load(scan), nib.load(tmp_path / "out" / "ct.nii.gz")
    assert got.shape == want.shape
    assert np.array_equal(got.affine, want.affine)
    assert got.header.get_xyzt_units() == want.header.get_xyzt_units()
