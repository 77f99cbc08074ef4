import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import nibabel as nib
import numpy as np
import pytest
from tiny_run import call

from core.data.store import Store
from core.errors import UserError

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


def here(capsys, folder, *words):
    """The tool in this process: its exit code and what it printed."""
    code = call("prepare", EXPERIMENT, f"source.root={folder / 'LiTS'}", f"store={folder / 'store'}", *words)
    return code, capsys.readouterr().out


def test_cases_are_added_taken_out_and_brought_back(tmp_path, raw, capsys, monkeypatch):
    monkeypatch.setattr("core.data.prepare.cpus", lambda: 1)
    store = tmp_path / "store"
    # What follows the ids may be an override: ids have no "=".
    code, out = here(capsys, tmp_path, "--only", "volume-1", "volume-3", "prepare.compression=none")
    assert (code, out) == (0, f"store {store}: 2 cases (2 new, 0 unchanged)\n")
    code, out = here(capsys, tmp_path, "prepare.compression=none")
    assert (code, out) == (0, f"store {store}: 4 cases (2 new, 2 unchanged)\n")
    code, out = here(capsys, tmp_path, "--remove", "volume-1")
    assert out.startswith(f"store {store}: 3 cases; out of it: volume-1\n")
    assert Store(store).cases == ("volume-0", "volume-2", "volume-3")
    code, out = here(capsys, tmp_path, "--restore", "volume-1")
    assert (code, out.splitlines()[0]) == (0, f"store {store}: 4 cases")
    code, out = here(capsys, tmp_path, "prepare.compression=none")
    assert (code, out) == (0, f"store {store}: 4 cases (0 new, 4 unchanged)\n")


def test_verify_exits_with_1_and_names_the_case(tmp_path, raw, capsys, monkeypatch):
    monkeypatch.setattr("core.parallel.cpus", lambda: 1)
    monkeypatch.setattr("core.data.prepare.cpus", lambda: 1)
    store = tmp_path / "store"
    here(capsys, tmp_path)
    assert here(capsys, tmp_path, "--verify") == (
        0,
        f"store {store}: 4 cases verified, all as they were written\n",
    )
    with h5py.File(store / "volume-2.h5", "r+") as file:
        file["image"][3] = 0
    code, out = here(capsys, tmp_path, "--verify")
    assert code == 1
    assert out.splitlines()[1].startswith("  volume-2  image: another content, its hash is ")
    assert here(capsys, tmp_path, "--verify", "volume-1")[0] == 0
    (store / "volume-2.h5").unlink()
    assert here(capsys, tmp_path)[1] == f"store {store}: 4 cases (1 new, 3 unchanged)\n"
    assert here(capsys, tmp_path, "--verify")[0] == 0


def test_migrate_export_and_check(tmp_path, raw, capsys, monkeypatch):
    monkeypatch.setattr("core.parallel.cpus", lambda: 1)
    monkeypatch.setattr("core.data.prepare.cpus", lambda: 1)
    store = tmp_path / "store"
    here(capsys, tmp_path)
    assert here(capsys, tmp_path, "--migrate") == (
        0,
        f"store {store}: nothing to bring over, all cases have schema 2\n",
    )
    code, out = here(capsys, tmp_path, "--export", "npy", "--out", tmp_path / "npy", "--lesions")
    assert (code, out) == (
        0,
        f"{tmp_path}/npy: 4 cases, 24 slices (4 cases new, 0 unchanged); index.csv lists them\n",
    )
    assert np.load(tmp_path / "npy" / "volume-0" / "lesion_0002.npy").max() == 1
    asked = []
    audit = SimpleNamespace(check=lambda experiment, out, workers: asked.append((experiment.store, out, workers)) or 3)
    monkeypatch.setitem(sys.modules, "core.audit.run", audit)
    assert here(capsys, tmp_path, "--check", "prepare.workers=5")[0] == 3
    assert here(capsys, tmp_path, "--check", "--out", tmp_path / "seen")[0] == 3
    assert asked == [(store, None, 5), (store, tmp_path / "seen", None)]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--export", "npy"], "--export wants a folder: --out FOLDER"),
        (["--lesions"], "--lesions belongs to --export npy"),
        (["--window", "-200", "250"], "--window belongs to --export npy"),
        (["--out", "x"], "--out belongs to --export and --check; the store's folder is store=..."),
        (["--verify"], "{store}: there is no store here; write one with tools/prepare.py EXPERIMENT"),
        (["--migrate"], "{store}: there is no store here; write one with tools/prepare.py EXPERIMENT"),
        (["--remove", "a"], "{store}: there is no store here; write one with tools/prepare.py EXPERIMENT"),
        (["--only", "volume-9"], "source 'lits': no case 'volume-9', did you mean 'volume-3'?"),
    ],
)
def test_words_that_make_no_sense_are_named(tmp_path, raw, capsys, words, text):
    with pytest.raises(UserError) as error:
        here(capsys, tmp_path, *words)
    assert str(error.value).startswith(text.format(store=tmp_path / "store"))
