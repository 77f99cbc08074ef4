"""One case measured: in this process, or in worker processes while this one infers; they need neither torch nor run."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

import registry
from core.build import Plan, build
from core.contracts import Metric, Rows
from core.evaluate.missing import as_missing
from core.infer.evaluate import measure
from core.measure.pair import CasePair
from core.parallel import WorkerDied, cpus, end_pool, pool_of
from core.report.views import make_view, write_view

_ENOUGH_CASES = 4
"""Fewer are measured before a worker has started."""
_PREFIX = "hepar-evaluate-"
_MEMORY = Path("/dev/shm")
_SETTLED_S = 60
"""A younger folder may be without its lock yet."""
_KILLED = (
    "case '{}': the process that measured it was killed, most likely for lack of memory\n"
    "  the other cases measured so far are kept, and the same command goes on from there; try --workers 0"
)
_ARRAYS = ("pred", "reference", "image", "probabilities")


@dataclass(frozen=True)
class Recipe:
    """What a fresh process needs to build the same metrics.

    Attributes:
        plans: of kind ``metric``.
        sources: packages and files that components come from (`registry.sources`).
    """

    plans: tuple[Plan, ...]
    sources: tuple[list[str], list[str]]

    @staticmethod
    def of(plans: Sequence[Plan]) -> Recipe:
        """The recipe of these metrics in this process."""
        return Recipe(tuple(plans), registry.sources())

    def build(self) -> list[Metric]:
        """The metrics, also where nothing is registered yet."""
        registry.restore(self.sources)
        return [build(plan) for plan in self.plans]


def measure_case(pair: CasePair, metrics: Sequence[Metric], view: Path, *, missing: bool = False) -> dict[str, Rows]:
    """The tables of one case; what the report shows of it is written to `view`.

    Args:
        pair: both label volumes.
        metrics: components of kind ``metric``.
        view: the file to write.
        missing: there is no prediction, and the pair's is a blank one.
    """
    tables = measure(metrics, pair)
    write_view(view, make_view(pair))
    return as_missing(tables, trusted=pair.spacing_trusted) if missing else tables


def choose_workers(wanted: int | None, cases: int, ranks: int = 1, *, all_cores: bool = False) -> int:
    """How many processes measure; 0 measures in place.

    Args:
        wanted: as the user said; None chooses.
        cases: that are still to be measured.
        ranks: processes on this computer that infer.
        all_cores: nothing is inferred beside.
    """
    if wanted is not None:
        return min(wanted, cases)
    # Half of the cores: inference needs the others, and measuring a case takes less than inferring it.
    share = cpus() if all_cores else cpus() // ranks // 2
    return min(share, 8, cases // 2) if cases >= _ENOUGH_CASES else 0


class Measurers:
    """Measures the cases that are put in, a bounded number at a time, and hands the tables to `keep`.

    Arrays travel as files in memory, or on disk where that is too small; the folder goes with this object, or when the
    next evaluation begins if this process was killed.

    Args:
        recipe: the metrics.
        workers: processes; 0 measures in place.
        keep: called in this process with the case and its tables, or what went wrong in its worker, in the order in
            which cases were put in. `WorkerDied`: its worker was killed, and was again in a process of its own.
    """

    def __init__(self, recipe: Recipe, workers: int, keep: Callable[[str, dict[str, Rows] | Exception], None]) -> None:
        self.recipe, self.workers, self.keep = recipe, workers, keep
        self._metrics = recipe.build()
        self._flying: deque[tuple[_Job, Future[dict[str, Rows]]]] = deque()
        self._pool: ProcessPoolExecutor | None = pool_of(workers) if workers else None
        self._room = _Room() if workers else None

    def put(self, pair: CasePair, view: Path) -> None:
        """Measure a case, now or beside; waits while enough are under way."""
        while len(self._flying) > self.workers:
            self._collect()
        job = None if self._room is None else self._room.store(pair, view, self.recipe)
        if job is None:
            self.finish()
            self.keep(pair.case, measure_case(pair, self._metrics, view))
            return
        try:
            self._submit(job)
        except BrokenProcessPool:
            self._recover([*(flying for flying, _ in self._flying), job])

    def finish(self) -> None:
        """Wait for the cases under way."""
        while self._flying:
            self._collect()

    def close(self) -> None:
        """End the workers, whatever they are at."""
        if self._pool is not None:
            end_pool(self._pool)
        if self._room is not None:
            self._room.close()
        self._pool = self._room = None

    def __enter__(self) -> Measurers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _submit(self, job: _Job) -> None:
        assert self._pool is not None
        self._flying.append((job, self._pool.submit(_measure_job, job)))

    def _collect(self) -> None:
        job, future = self._flying[0]
        try:
            result: dict[str, Rows] | Exception = future.result()
        except BrokenProcessPool:
            self._recover([flying for flying, _ in self._flying])
            return
        except Exception as error:
            result = error
        self._flying.popleft()
        job.remove()
        self.keep(job.case, result)

    def _recover(self, jobs: Sequence[_Job]) -> None:
        """One at a time in a fresh process: what was under way died together, and one of it is the cause."""
        assert self._pool is not None
        self._flying.clear()
        broken = True
        for job in jobs:
            if broken:
                end_pool(self._pool)
                self._pool, broken = pool_of(1), False
            try:
                result: dict[str, Rows] | Exception = self._pool.submit(_measure_job, job).result()
            except BrokenProcessPool:
                broken, result = True, WorkerDied(_KILLED.format(job.case))
            except Exception as error:
                result = error
            job.remove()
            self.keep(job.case, result)
        if broken:
            end_pool(self._pool)
            self._pool = pool_of(1)
        self.workers = 1


@dataclass(frozen=True)
class _Job:
    recipe: Recipe
    case: str
    patient: str
    spacing_mm: tuple[float, float, float]
    spacing_trusted: bool
    folder: Path
    view: Path

    def pair(self) -> CasePair:
        # "c": metrics may be handed to code that wants writable memory; what it writes stays its own.
        held = {
            name: np.asarray(np.load(file, mmap_mode="c")) if (file := self.folder / f"{name}.npy").exists() else None
            for name in _ARRAYS
        }
        pred, reference = held["pred"], held["reference"]
        assert pred is not None
        assert reference is not None
        return CasePair(
            self.case,
            pred,
            reference,
            self.spacing_mm,
            patient=self.patient,
            spacing_trusted=self.spacing_trusted,
            image=held["image"],
            probabilities=held["probabilities"],
        )

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _measure_job(job: _Job) -> dict[str, Rows]:
    return measure_case(job.pair(), job.recipe.build(), job.view)


class _Room:
    """A folder for arrays on their way; its lock says that its owner lives."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._lock: IO[bytes] | None = None
        for base in _bases():
            for old in base.glob(f"{_PREFIX}*"):
                _remove_if_left(old)

    def store(self, pair: CasePair, view: Path, recipe: Recipe) -> _Job | None:
        """The pair as files; None if there is no room for them."""
        arrays = {name: array for name in _ARRAYS if (array := getattr(pair, name)) is not None}
        if self._folder is None:
            self._open(4 * sum(array.nbytes for array in arrays.values()))
        assert self._folder is not None
        job = _Job(
            recipe, pair.case, pair.patient, pair.spacing_mm, pair.spacing_trusted, self._folder / pair.case, view
        )
        try:
            job.folder.mkdir()
            for name, array in arrays.items():
                np.save(job.folder / f"{name}.npy", array, allow_pickle=False)
        except OSError:
            job.remove()
            return None
        return job

    def close(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()

    def _open(self, wanted: int) -> None:
        base = next((b for b in _bases() if shutil.disk_usage(b).free > wanted), _bases()[-1])
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        self._lock = open(self._folder / "lock", "wb")  # noqa: SIM115  (it is held as long as the folder is)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _bases() -> list[Path]:
    return [*([_MEMORY] if _MEMORY.is_dir() else []), Path(tempfile.gettempdir())]


def _remove_if_left(folder: Path) -> None:
    try:
        if time.time() - folder.stat().st_mtime < _SETTLED_S:
            return
        with open(folder / "lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # in use, another user's, or just being made
        return
