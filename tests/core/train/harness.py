"""A real training in seconds: small scans in LiTS layout, a small network with BatchNorm and dropout."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import yaml

ROOT = Path(__file__).resolve().parents[3]


def write_scans(folder: Path, count: int = 8) -> None:
    """`count` patients: a box of liver with a box of tumour (two patients without) in fat, with noise."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        hu, label = np.full((40, 32, 6), -100.0), np.zeros((40, 32, 6), np.uint8)
        label[4:34, 4 : 22 + number % 5, 1:5] = 1
        if number % 4:
            label[8 : 14 + number % 3, 8:15, 2:4] = 2
        hu[label == 1], hu[label == 2] = 110, 60
        hu += rng.normal(0, 12, hu.shape)
        affine = np.diag([0.8, 0.8, 2.5, 1.0])
        nib.save(nib.Nifti1Image(np.rint(hu).astype(np.int16), affine), folder / f"volume-{100 + number}.nii")
        nib.save(nib.Nifti1Image(label, affine), folder / f"segmentation-{100 + number}.nii")


def experiment(folder: Path, *, shared: Path | None = None, **sections: object) -> Path:
    """Write the scans, the plugin file and an experiment; returns its path.

    Scans and store are in `folder`, or in another that several experiments share.
    """
    data = shared or folder
    if not (data / "scans").is_dir():
        write_scans(data / "scans")
    shutil.copyfile(Path(__file__).with_name("small.py"), folder / "small.py")
    text = {
        "plugins": ["small.py"],
        "source": {"name": "lits", "root": str(data / "scans")},
        "store": str(data / "store"),
        "prepare": {"workers": 1},
        "run": str(folder / "run"),
        "split": {"name": "stratified", "test": 0.25, "val": 0.25, "seed": 0},
        "dataset": {"name": "slices", "channels": 3},
        "sampler": {"name": "tumour_focused"},
        "transform": [{"name": "flip"}, {"name": "noise"}],
        "model": {"name": "small"},
        "loss": ["cross_entropy", "dice"],
        "optimizer": {"name": "adamw", "lr": 0.01},
        "schedule": {"name": "cosine", "warmup_epochs": 1},
        "hook": ["jsonl"],
        "train": {"epochs": 3, "batch": 6, "log_every": 2, "workers": 0, "precision": "bf16", "ema": 0.9},
    }
    text.update(sections)
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(text))
    return path


def train(
    path: Path, *arguments: str, ranks: int = 0, options: tuple[str, ...] = (), packages: Path | str = ""
) -> subprocess.CompletedProcess:
    """Run tools/train.py for real; `ranks` 0 is plain python, above it torchrun. One thread a process."""
    launcher = [sys.executable]
    if ranks:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(packages)}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        environment.pop(name, None)
    return subprocess.run(
        [*launcher, str(ROOT / "tools" / "train.py"), str(path), *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
        cwd=path.parent,
        check=False,
        start_new_session=True,
    )


def last(run: Path) -> dict:
    """The newest checkpoint."""
    return torch.load(sorted((run / "checkpoints").glob("step_*.pt"))[-1], weights_only=True)


def metric_rows(run: Path) -> list[dict]:
    """The rows of metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(first: Path, second: Path) -> None:
    """All that training ends in is equal to the bit: the last checkpoint, the best one, the metric rows."""
    a, b = last(first), last(second)
    for part in ("step", "evaluated_step", "network", "ema", "objective", "optimizer", "scaler", "schedule", "best"):
        assert_same(a[part], b[part], part)
    best_a, best_b = (torch.load(run / "checkpoints" / "best.pt", weights_only=True) for run in (first, second))
    for part in ("step", "network", "ema"):
        assert_same(best_a[part], best_b[part], f"best.pt: {part}")
    assert metric_rows(first) == metric_rows(second)


def assert_same(a: object, b: object, path: str) -> None:
    """Two nested states are equal to the bit."""
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert list(a) == list(b), path
        for key in a:
            assert_same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, path
        assert torch.equal(a, b), path
    else:
        assert a == b, path
