import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from core.data.store import Store

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = ROOT / "experiments" / "unet_r34_cedice.yaml"


def run(folder, *arguments):
    """The tool, called from another folder, as a user may."""
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "tools" / "prepare.py"),
            str(EXPERIMENT),
            "prepare.workers=2",
            *map(str, arguments),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "LiTS"
    folder.mkdir()
    for n in range(4):
        image = np.random.default_rng(n).integers(-1000, 1000, (30, 28, 6)).astype(np.int16)
        label = np.zeros(image.shape, np.uint8)
        label[5:20, 5:20, 1:5] = 1
        label[8:11, 8:11, 2:4] = 2
        nib.save(nib.Nifti1Image(image, np.diag([-0.8, -0.8, 2.5, 1])), folder / f"volume-{n}.nii.gz")
        nib.save(nib.Nifti1Image(label, np.diag([-0.8, -0.8, 2.5, 1])), folder / f"segmentation-{n}.nii.gz")
    return folder


def test_good_scans_are_stored_and_a_second_run_has_nothing_to_do(tmp_path, raw):
    first = run(tmp_path, f"source.root={raw}", "store=store")
    assert (first.returncode, first.stdout) == (0, "store store: 4 cases (4 new, 0 unchanged)\n")
    assert "prepare: 4/4" in first.stderr
    second = run(tmp_path, f"source.root={raw}", "store=store")
    assert (second.returncode, second.stdout) == (0, "store store: 4 cases (0 new, 4 unchanged)\n")
    assert Store(tmp_path / "store").cases == ("volume-0", "volume-1", "volume-2", "volume-3")


def test_bad_scan_is_listed_with_its_path_and_the_exit_code_is_1(tmp_path, raw):
    path = raw / "volume-2.nii.gz"
    path.write_bytes(path.read_bytes()[:3000])
    (raw / "segmentation-3.nii.gz").rename(raw / "segmentation-7.nii.gz")
    done = run(tmp_path, f"source.root={raw}", "store=store", "prepare.compression=none")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[:2] == ["store store: 3 cases (3 new, 0 unchanged)", "2 bad cases, not in the store:"]
    assert lines[2].startswith(f"  volume-2  {path}: unreadable or cut short (")
    assert lines[3] == (
        f"  volume-7  {raw}/volume-7.nii.gz: the scan is missing; its label is there: {raw}/segmentation-7.nii.gz"
    )
    store = Store(tmp_path / "store")
    assert store.cases == ("volume-0", "volume-1", "volume-3")
    assert not store.info("volume-3").labelled


def test_missing_folder_says_where_lits_goes_without_a_traceback(tmp_path):
    done = run(tmp_path, "store=store")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "source 'lits': data/raw/lits: no such folder\n"
        "  LiTS goes into one folder with volume-N.nii and segmentation-N.nii (subfolders and .nii.gz are fine);\n"
        "  give it with source.root=/path/to/LiTS, to tools/prepare.py or tools/train.py, which prepares first\n"
        "  without LiTS, the synthetic phantom needs no download: experiments/quickstart.yaml\n"
    )


def test_misspelt_override_is_named(tmp_path):
    done = run(tmp_path, "source.rot=x")
    assert done.returncode == 2
    assert "did you mean" in done.stderr
