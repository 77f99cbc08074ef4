"""What every benchmark begins with: the experiment, its store, a folder that goes away again."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from core import dist, experiment
from core.data.prepare import is_complete, prepare_experiment
from core.data.store import Store
from core.data.summary import check_grid
from core.errors import UserError
from core.experiment import Experiment

if TYPE_CHECKING:
    import torch


def prepared(wanted: Experiment) -> Store:
    """The experiment's store, prepared first if it is missing, as training does it.

    Raises:
        UserError: if a case could not be prepared.
    """
    if not is_complete(wanted.store):
        report = prepare_experiment(wanted)
        print(report.table(), file=sys.stderr, flush=True)
        if report.bad:
            raise UserError(f"{len(report.bad)} cases could not be prepared (above), so nothing was measured")
    check_grid(wanted.store, wanted.prepare)
    return Store(wanted.store)


@contextmanager
def scratch(needed: int = 0) -> Iterator[Path]:
    """A temporary folder, removed at the end, with room for `needed` bytes.

    Raises:
        UserError: if there is not.
    """
    with tempfile.TemporaryDirectory(prefix="hepar_bench_", ignore_cleanup_errors=True) as name:
        free = shutil.disk_usage(name).free
        if needed > free:
            raise UserError(
                f"{Path(name).parent}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free; ask for less, or "
                f"name another folder in the environment variable TMPDIR"
            )
        yield Path(name)


def variant(path: Path, overrides: Sequence[str], *more: str) -> Experiment:
    """The experiment with further overrides."""
    return experiment.load(path, [*overrides, *more])


def find_device(wanted: str | None) -> torch.device:
    """The device to measure on: `wanted`, else a GPU where there is one.

    Raises:
        UserError: if it does not exist, or torchrun started several processes.
    """
    import torch

    if dist.launched():
        raise UserError("a benchmark measures one process: start it with python, not with torchrun")
    try:
        device = torch.device(wanted) if wanted is not None else dist.start()
    except RuntimeError as error:
        raise UserError(f"--device {wanted}: want cpu, cuda or cuda:1 ({str(error).splitlines()[0]})") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"--device {wanted}: there is no CUDA device here")
        torch.cuda.set_device(device)
    return device


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    return sum((Path(at) / name).stat().st_size for at, _, names in os.walk(folder) for name in names)
