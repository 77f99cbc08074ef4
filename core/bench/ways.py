"""Ways from scans to slices on the disk, each timed in a fresh process; no torch here, it would be in the peak."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import nibabel as nib
import numpy as np

from core.contracts import Case
from core.data.prepare import prepare
from core.errors import UserError
from core.settings import PrepareSettings


@dataclass(frozen=True)
class Cost:
    """What one way took.

    Attributes:
        seconds: without the start of its process; processes that it starts itself are in.
        peak_mb: greatest resident memory of its process, or of the greatest that it started.
    """

    seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Prepare:
    """`core.data.prepare`: checks, tables, a compressed HDF5 file a case, flushed to the disk."""

    cases: Sequence[Case]
    settings: PrepareSettings
    workers: int

    def __call__(self, folder: Path) -> None:
        """Write the store.

        Raises:
            UserError: if a case is bad: then the two ways would not have done the same.
        """
        wanted = self.settings
        report = prepare(
            _Listed(self.cases),
            folder,
            compression=wanted.compression,
            workers=self.workers,
            spacing=wanted.spacing,
            crop=wanted.crop,
            margin_mm=wanted.margin_mm,
            source_config={},
        )
        if report.bad:
            raise UserError(report.table())


@dataclass(frozen=True)
class Plain:
    """The plain way: nibabel's floats, clipped, one float32 ``.npy`` a slice and one uint8 ``.npy`` for its label."""

    cases: Sequence[Case]
    low: float
    high: float

    def __call__(self, folder: Path) -> None:
        """Write the files."""
        for case in self.cases:
            image = np.clip(nib.load(case.image).get_fdata(), self.low, self.high).astype(np.float32)  # type: ignore[attr-defined]
            for z in range(image.shape[2]):
                np.save(folder / f"{case.id}_{z}_image.npy", image[..., z])
            del image
            if case.label is not None:
                label = nib.load(case.label).get_fdata().astype(np.uint8)  # type: ignore[attr-defined]
                for z in range(label.shape[2]):
                    np.save(folder / f"{case.id}_{z}_label.npy", label[..., z])


def run(way: Callable[[Path], None], folder: Path) -> Cost:
    """Do it in a fresh process, into a folder that exists; its `ready`, if it has one, before the clock starts.

    Raises:
        UserError: with what the process says, or that it was killed.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(way, folder, there))
    process.start()
    there.close()
    try:
        answer = here.recv()
    except EOFError:
        process.join()
        raise UserError(f"the process that prepared was killed (exit {process.exitcode}); was memory short?") from None
    finally:
        if sys.exc_info()[0] is not None:
            process.terminate()
        process.join()
        here.close()
    if isinstance(answer, Exception):
        raise answer
    cost: Cost = answer
    return cost


def _child(way: Callable[[Path], None], folder: Path, there: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the benchmark ends this process
    try:
        # Progress, and what other systems say, belong to nobody here.
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            getattr(way, "ready", lambda: None)()
            before = time.perf_counter()
            way(folder)
            seconds = time.perf_counter() - before
        there.send(Cost(seconds, max(_peak_mb(), _unit_mb(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))))
    except Exception as error:
        there.send(error if isinstance(error, UserError) else RuntimeError(f"{type(error).__name__}: {error}"))


def _peak_mb() -> float:
    # Not getrusage for this process itself: Linux counts what it was before its exec, the benchmark with torch in it.
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):  # not Linux
        return _unit_mb(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _unit_mb(maxrss: int) -> float:
    return maxrss / (2**20 if sys.platform == "darwin" else 1024)


class _Listed:
    """A source that was asked already."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self._cases = cases

    def cases(self) -> Sequence[Case]:
        """The cases."""
        return self._cases
