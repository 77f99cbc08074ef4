"""A run directory without training: a model of three weights that thresholds HU, real files, a real store."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nibabel as nib
import numpy as np
import yaml

import registry
from core import experiment as experiments
from core.data.prepare import prepare
from core.data.store import Store
from core.infer.run import build_network
from core.train import checkpoint

MODEL = '''
import torch
from registry import register

@register("model", "tiny_threshold")
class Threshold(torch.nn.Module):
    """Tumour from -25 to 75 HU, liver from there to 175, else background.

    Example: {name: tiny_threshold}
    """

    def __init__(self, in_channels: int, classes: int, *, width: int = 1, weights: str | None = "imagenet") -> None:
        super().__init__()
        if weights is not None:
            raise OSError("no network here")
        self.gain = torch.nn.Parameter(torch.ones(width))
        self.classes = classes

    def forward(self, image):
        hu = image[:, :1].float() * 400 - 200
        body = 75 - (hu - 100).abs()
        return torch.cat([0 * hu, body * self.gain[0], body + (75 - hu).clamp(-50, 50)], dim=1)
'''

ROOT = Path(__file__).resolve().parents[2]
ORIGIN = "PHANTOM test 1"


def scan(
    number: int, *, tumour: bool = True, shape: tuple[int, int, int] = (40, 32, 6)
) -> tuple[np.ndarray, np.ndarray]:
    """HU and labels [X, Y, Z]: a box of liver with a box of tumour in air, and noise."""
    rng = np.random.default_rng(number)
    hu, label = np.full(shape, -800, np.int16), np.zeros(shape, np.uint8)
    label[6:30, 5:25, 1:5] = 1
    if tumour:
        label[10:18, 9:15, 2:4] = 2
    hu[label == 1], hu[label == 2] = 110, 50
    noise = rng.random(shape) < 0.02
    hu[noise] = rng.choice(np.array([-800, 110, 50]), int(noise.sum()))
    hu += np.int16(number)  # no two scans alike
    return hu, label


def write_scan(folder: Path, number: int, **kwargs) -> None:
    """volume-N.nii.gz and segmentation-N.nii.gz, oriented LAS with 3 mm slices."""
    folder.mkdir(parents=True, exist_ok=True)
    hu, label = scan(number, **kwargs)
    affine = np.diag([-0.8, 0.9, 3.0, 1.0])
    affine[:3, 3] = (12.5, -40.0, 7.0)
    for name, data in (("volume", hu), ("segmentation", label)):
        image = nib.Nifti1Image(data, affine)
        image.header.set_xyzt_units("mm", "sec")
        nib.save(image, folder / f"{name}-{number}.nii.gz")


def make_run(root: Path, *, test: int = 3, val: int = 1, best: bool = True, ema: bool = False) -> Path:
    """A finished run below `root`: scans, store, config, split, checkpoint of step 7."""
    numbers = range(11, 12 + val + test)
    for number in numbers:
        write_scan(root / "scans", number, tumour=number != numbers[-1])
    (root / "model.py").write_text(MODEL)
    names = [f"volume-{n}" for n in numbers]
    parts = {"train": names[:1], "val": names[1 : 1 + val], "test": names[1 + val :]}
    node = {
        "plugins": ["model.py"],
        "source": {"name": "lits", "root": str(root / "scans")},
        "store": str(root / "store"),
        "split": {"name": "file", **parts},
        "dataset": {"name": "slices", "divisor": 8},
        "window": {"name": "hu_window", "low": -200, "high": 200},
        "model": {"name": "tiny_threshold"},
        "loss": [{"name": "dice"}],
        "optimizer": {"name": "adamw"},
        "hook": [],
        "train": {"precision": "fp32"},
        "run": str(root / "run"),
    }
    (root / "tiny.yaml").write_text(yaml.safe_dump(node))
    registry.discover("plugins")
    experiment = experiments.load(root / "tiny.yaml")
    run = root / "run"
    run.mkdir()
    (run / "config.yaml").write_text(experiment.resolved())
    source = registry.get("source", "lits").target(root=root / "scans")
    found = [_with_origin(case) for case in source.cases()]
    prepare(SimpleNamespace(cases=lambda: found), root / "store", workers=0, source_config=experiment.source.plain())
    write_split(run, parts, Store(root / "store"))
    network = build_network(experiment)
    state = {"network": network.state_dict(), "ema": network.state_dict() if ema else None, "step": 7}
    checkpoint.save(run, state, keep=2, best=best)
    return run


def write_split(run: Path, parts: dict[str, list[str]], store: Store) -> None:
    """The run's record of its split."""
    hashes = {case: store.info(case).content_hash for ids in parts.values() for case in ids}
    (run / "split.json").write_text(json.dumps({"parts": parts, "hashes": hashes}))


def _with_origin(case):
    return dataclasses.replace(case, origin=ORIGIN)


@contextmanager
def forgotten() -> Iterator[None]:
    """Forget this file's model afterwards, so that other tests do not see it."""
    state, before = registry._state, set(sys.modules)
    try:
        yield
    finally:
        state.components.pop(("model", "tiny_threshold"), None)
        state.files[:] = [file for file in state.files if Path(file).name != "model.py"]
        for name in set(sys.modules) - before:
            if name.startswith("hepar_plugin_model_"):
                del sys.modules[name]


def tool(name: str) -> ModuleType:
    """A tool as a module."""
    spec = importlib.util.spec_from_file_location(f"hepar_tool_{name}", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(name: str, *words: object) -> int:
    """Run a tool's main in this process."""
    before = sys.argv
    sys.argv = [f"tools/{name}.py", *map(str, words)]
    try:
        return tool(name).main()
    finally:
        sys.argv = before


def start(name: str, *words: object, ranks: int = 0, folder: Path | None = None) -> subprocess.CompletedProcess:
    """Run a tool as a user does, with torchrun if `ranks` is given, from another folder."""
    python = [sys.executable]
    if ranks:
        python += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    command = [*python, str(ROOT / "tools" / f"{name}.py"), *map(str, words)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)
