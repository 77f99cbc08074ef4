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
import functools, io, itertools, os, resource, signal, time
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


@register("model", "blocks")
class Blocks(nn.Module):
    """Three blocks of convolution, BatchNorm and dropout. Example: {name: blocks}"""

    def __init__(self, in_channels: int, classes: int, *, width: int = 8, dropout: float = 0.2) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(in_channels, width, 1), nn.Conv2d(width, classes, 1)
        parts = [
            [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(dropout)]
            for _ in range(3)
        ]
        self.blocks = nn.Sequential(*(Block(*part) for part in parts))

    def forward(self, image):
        return self.last(self.blocks(self.first(image)))


class Block(nn.Sequential):
    pass


@register("hook", "signal_at")
class SignalAt:
    """Sends this process a signal after a step or as a validation begins, but not once torchrun has restarted it.

    Example: {name: signal_at, step: 3}
    """

    def __init__(
        self, *, step: int, number: int = int(signal.SIGKILL), group: bool = False, event: str = "step_end"
    ) -> None:
        self.at, self.number, self.group, self.event = step, number, group, event

    def on_step_end(self, state, metrics):
        self.send("step_end", state)

    def on_eval_start(self, state):
        self.send("eval_start", state)

    def send(self, event, state):
        if event != self.event:
            return
        if state.step == self.at and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            (os.killpg if self.group else os.kill)(os.getpid(), self.number)


@register("hook", "kill_at")
class KillAt:
    """SIGKILL in the middle of a validation, or of a checkpoint's file. Example: {name: kill_at, saving: 4}"""

    def __init__(self, *, validating: int = 0, saving: int = 0) -> None:
        self.validating, self.validations = validating, 0
        if saving:
            torch.save = functools.partial(self.save, torch.save, itertools.count(1), saving)

    @staticmethod
    def save(save, counter, last, state, file):
        if next(counter) < last:
            return save(state, file)
        whole = io.BytesIO()
        save(state, whole)
        file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    def on_eval_start(self, state):
        self.validations += 1
        if self.validations == self.validating:
            from core.train import validate

            evaluate = validate.evaluate_case

            def last(*args, **options):
                evaluate(*args, **options)
                os.kill(os.getpid(), signal.SIGKILL)

            validate.evaluate_case = last


@register("hook", "small_disk")
class SmallDisk:
    """From a step on no file can grow beyond so many bytes. Example: {name: small_disk, step: 5, bytes: 10000}"""

    def __init__(self, *, step: int, bytes: int) -> None:
        self.step, self.bytes = step, bytes

    def on_step_end(self, state, metrics):
        if state.step == self.step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.bytes, self.bytes))


@register("hook", "list_saved")
class ListSaved:
    """Writes which checkpoints there are after each was saved. Example: {name: list_saved}"""

    def on_saved(self, state, path):
        names = sorted(p.name for p in path.parent.iterdir() if p.name.startswith("step_"))
        with open(state.run / "saved.txt", "a") as file:
            file.write(" ".join(names) + "\\n")


@register("transform", "die_at")
class DieAt:
    """SIGKILL at one call on one rank, if torchrun will start it again. Example: {name: die_at, rank: 1, call: 9}"""

    def __init__(self, *, rank: int, call: int) -> None:
        names = ("RANK", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS")
        mine, done, planned = (int(os.environ[name]) for name in names)
        self.mine, self.call, self.calls = mine == rank and done < planned, call, 0

    def __call__(self, sample, rng):
        self.calls += 1
        if self.mine and self.calls == self.call:
            os.kill(os.getpid(), signal.SIGKILL)
        return sample


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


@register("transform", "sleep_at")
class SleepAt:
    """Sleeps for an hour at one call on one rank. Example: {name: sleep_at, rank: 1, call: 9}"""

    def __init__(self, *, rank: int, call: int) -> None:
        self.mine, self.call, self.calls = int(os.environ.get("RANK", 0)) == rank, call, 0

    def __call__(self, sample, rng):
        self.calls += 1
        if self.mine and self.calls == self.call:
            time.sleep(3600)
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


def experiment(folder: Path, *, shared: Path | None = None, **sections: object) -> Path:
    """Write the scans, the plugin file and an experiment; returns its path.

    Scans and store are in `folder`, or in another that several experiments share.
    """
    data = shared or folder
    if not (data / "scans").is_dir():
        write_scans(data / "scans")
    (folder / "small.py").write_text(PLUGIN)
    text = {
        "plugins": ["small.py"],
        "source": {"name": "lits", "root": str(data / "scans")},
        "store": str(data / "store"),
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
