"""tools/find_lr.py: a real range test that leaves no run behind."""

import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny_run import ROOT, forgotten, make_run, start

from core import experiment as experiments
from core import rundir


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A finished run, its experiment file and its store."""
    root = tmp_path_factory.mktemp("find_lr")
    with forgotten():
        make_run(root)
    return root


def find(root, *words):
    return start("find_lr", root / "tiny.yaml", "model.weights=null", "train.batch=2", "train.workers=0", *words)


def table(folder):
    with open(folder / "lr_range.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_it_draws_tabulates_suggests_and_leaves_no_run(root, tmp_path):
    run = tmp_path / "runs" / "mine"
    done = find(root, f"run={run}", "--steps", "30", "--low", "1e-4", "--high", "100")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path) == [
        "runs",
        "runs/mine_lr_range",
        "runs/mine_lr_range/lr_range.csv",
        "runs/mine_lr_range/lr_range.png",
    ]
    rows = table(tmp_path / "runs" / "mine_lr_range")
    assert list(rows[0]) == ["step", "lr", "loss", "smoothed", "gradient_norm"]
    assert [int(row["step"]) for row in rows] == list(range(len(rows)))
    rates = np.array([float(row["lr"]) for row in rows])
    assert rates == pytest.approx(np.geomspace(1e-4, 100, 30)[: len(rows)], rel=1e-5)
    losses = np.array([float(row["loss"]) for row in rows])
    assert len(np.unique(losses)) > 5
    assert Image.open(tmp_path / "runs" / "mine_lr_range" / "lr_range.png").size == (1280, 760)
    assert f"written to {run}_lr_range: lr_range.png, lr_range.csv" in done.stdout
    assert re.search(r"^(suggestion: optimizer\.lr=[\d.e-]+|no suggestion: .*)$", done.stdout, re.MULTILINE)
    # Training can begin there.
    with forgotten():
        rundir.check(experiments.load(root / "tiny.yaml", [f"run={run}"]), resume=False)


def test_a_run_directory_is_tested_on_its_own_split_and_stays_as_it_is(root, tmp_path):
    run = root / "run"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    # Of what this run recorded, only its training case is there; a new split would want the others too.
    split = json.loads(before[run / "split.json"])
    moved = {**split, "parts": {"train": split["parts"]["test"][:1], "val": [], "test": split["parts"]["train"]}}
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.yaml", "split.json"):
        (copy / name).write_bytes(before[run / name])
    (copy / "split.json").write_text(json.dumps(moved))
    words = ("model.weights=null", "train.batch=2", "train.workers=0", "--steps", "10")
    for folder, output in ((run, tmp_path / "first"), (copy, tmp_path / "second")):
        done = start("find_lr", folder, *words, "-o", output)
        assert done.returncode == 0, done.stderr
        assert files(output) == ["lr_range.csv", "lr_range.png"]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert files(copy) == ["config.yaml", "split.json"]
    assert table(tmp_path / "first")[0]["loss"] != table(tmp_path / "second")[0]["loss"]


def test_a_wrong_range_and_torchrun_are_refused(root):
    done = find(root, "--low", "1", "--high", "0.1")
    assert (done.returncode, done.stderr) == (2, "--low and --high: want 0 < low < high, got 1 and 0.1\n")
    command = [sys.executable, str(ROOT / "tools" / "find_lr.py"), str(root / "tiny.yaml")]
    env = {**os.environ, "RANK": "0", "WORLD_SIZE": "2"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    message = "find_lr.py runs in one process: start it without torchrun (train.micro_batch saves memory)\n"
    assert (done.returncode, done.stderr) == (2, message)
