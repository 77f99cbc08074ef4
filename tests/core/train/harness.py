"""A real training in seconds: small scans in LiTS layout, a small network with BatchNorm and dropout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import yaml

ROOT = Path(__file__).resolve().parents[3]

PLUGIN = '''
import os, signal
from pathlib import Path
import torch
from torch import nn
from registry import register


@register("model", "small")
class Small(nn.Module):
    """Three convolutions, BatchNorm, dropout. Example: {name: small}"""

    def __init__(self, in_channels: int, classes: int, *, width: int = 8, dropout: float = 0.2) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(dropout),
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, classes, 1),
        )

    def forward(self, image):
        return self.net(image)


@register("hook", "signal_at")
class SignalAt:
    """Sends this process a signal after a step, but not once torchrun has restarted it.

    Example: {name: signal_at, step: 3}
    """

    def __init__(self, *, step: int, number: int = int(signal.SIGKILL), group: bool = False) -> None:
        self.at, self.number, self.group = step, number, group

    def on_step_end(self, state, metrics):
        if state.step == self.at and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            (os.killpg if self.group else os.kill)(os.getpid(), self.number)


@register("transform", "write_draws")
class WriteDraws:
    """Writes which sample was loaded and what its generator draws. Example: {name: write_draws, folder: draws}"""

    def __init__(self, *, folder: Path) -> None:
        self.folder = Path(folder)

    def __call__(self, sample, rng):
        self.folder.mkdir(exist_ok=True)
        with open(self.folder / f"{os.environ.get('RANK', '0')}_{os.getpid()}.txt", "a") as file:
            file.write(f"{sample.index} {rng.integers(1 << 30)}\\n")
        return sample


@register("augment", "write_seeds")
class WriteSeeds:
    """Writes the seeds that it gets. Example: {name: write_seeds, folder: seeds}"""

    def __init__(self, *, folder: Path) -> None:
        self.folder = Path(folder)

    def __call__(self, batch, seeds):
        self.folder.mkdir(exist_ok=True)
        with open(self.folder / f"{os.environ.get('RANK', '0')}.txt", "a") as file:
            file.write("".join(f"{p} {s}\\n" for p, s in zip(batch.positions, seeds.tolist())))
        return batch


@register("model", "half_used")
class HalfUsed(nn.Module):
    """A convolution, and one that is never run. Example: {name: half_used}"""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.used, self.unused = nn.Conv2d(in_channels, classes, 1), nn.Conv2d(1, 1, 1)

    def forward(self, image):
        return self.used(image)


@register("loss", "nan_at")
class NanAt(nn.Module):
    """Cross-entropy that is NaN on one rank from one call on. Example: {name: nan_at, rank: 1, call: 3}"""

    def __init__(self, classes: int, *, rank: int, call: int) -> None:
        super().__init__()
        self.rank, self.call, self.calls = rank, call, 0

    def forward(self, logits, target):
        self.calls += 1
        loss = nn.functional.cross_entropy(logits, target, ignore_index=255)
        mine = int(os.environ.get("RANK", 0)) == self.rank
        return loss * float("nan") if mine and self.training and self.calls >= self.call else loss
'''


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


def experiment(folder: Path, **sections: object) -> Path:
    """Write the scans, the plugin file and an experiment; returns its path. The store is `folder`/store."""
    if not (folder / "scans").is_dir():
        write_scans(folder / "scans")
    (folder / "small.py").write_text(PLUGIN)
    text = {
        "plugins": ["small.py"],
        "source": {"name": "lits", "root": str(folder / "scans")},
        "store": str(folder / "store"),
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
    """Weights, averaged weights, optimizer, best and metric rows are equal to the bit."""
    a, b = last(first), last(second)
    assert a["step"] == b["step"]
    for part in ("network", "ema"):
        assert (a[part] is None) == (b[part] is None)
        for key in a[part] or {}:
            assert torch.equal(a[part][key], b[part][key]), f"{part}.{key}"
    for key, state in a["optimizer"]["state"].items():
        for name, value in state.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(b["optimizer"]["state"][key][name])), (key, name)
    assert a["best"] == b["best"]
    assert metric_rows(first) == metric_rows(second)
