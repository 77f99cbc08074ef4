"""Who makes the micro-batches: this thread, threads of this process, or processes."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader

from core.contracts import Batch
from core.data.samples import Empty, Key, Samples, pinned_memory, plain_memory
from core.errors import UserError
from core.parallel import cpus

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Workers(Protocol):
    """Turns lists of keys into micro-batches, in the same order."""

    ahead: int
    """Micro-batches that may be ready before they are asked for."""

    def run(self, keys: Iterable[list[Key]]) -> Generator[Batch, None, None]:
        """The micro-batches; closing it stops what is under way."""
        ...

    def close(self) -> None:
        """End threads or processes."""
        ...


def choose(workers: int | str, start: str, *, transforms: bool, quick: bool) -> tuple[int, str]:
    """How many data workers of which kind: the measured default behind "auto".

    Args:
        workers: as set: a number or "auto".
        start: as set: a way to start them or "auto".
        transforms: whether every sample is transformed on the CPU.
        quick: whether samples are read as they lie: kept in memory, or from an uncompressed store.

    Returns:
        A number (0 loads in place) and "thread", "fork", "spawn" or "forkserver".
    """
    share = max(0, min(8, _cores() - 1))
    if start == "auto":
        # Reading and unpacking a slice leaves Python's lock alone and costs less than a copy between processes, which
        # transforms are worth: they are Python for the most part, and threads would take turns.
        process = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
        start = process if transforms else "thread"
    if isinstance(workers, int):
        return workers, start
    return (share if transforms else min(2 if quick else 4, share)), start


def fill_threads() -> int:
    """How many threads fill a cache."""
    return max(1, min(16, _cores()))


def _cores() -> int:
    """This rank's share of the cores that its computer's ranks may use."""
    return cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def start_workers(samples: Samples, workers: int, start: str, prefetch: int, *, pin: bool) -> Workers:
    """Workers as chosen; each keeps `prefetch` micro-batches ready, in page-locked memory if `pin`."""
    if workers == 0:
        return Here(samples, pin=pin)
    if start == "thread":
        return Threads(samples, workers, prefetch, pin=pin)
    return Processes(samples, workers, start, prefetch, pin=pin)


class Here:
    """Micro-batches are made when they are asked for."""

    ahead = 0

    def __init__(self, samples: Samples, *, pin: bool) -> None:
        self.samples, self.memory = samples, pinned_memory if pin else plain_memory

    def run(self, keys: Iterable[list[Key]]) -> Generator[Batch, None, None]:
        """The micro-batches, one by one."""
        for micro in keys:
            yield self.samples.batch(micro, self.memory)

    def close(self) -> None:
        """Nothing runs."""


class Threads:
    """Threads of this process; they end with each epoch."""

    def __init__(self, samples: Samples, workers: int, prefetch: int, *, pin: bool) -> None:
        self.ahead, self.workers = workers * prefetch, workers
        self.memory: Empty = pinned_memory if pin else plain_memory
        self._twins = [samples.twin() for _ in range(workers)]

    def run(self, keys: Iterable[list[Key]]) -> Generator[Batch, None, None]:
        """The micro-batches; an error is raised here, when its turn comes, with the thread's traceback."""
        return in_threads(self._twins, lambda samples, micro: samples.batch(micro, self.memory), keys, self.ahead)

    def close(self) -> None:
        """Nothing runs between epochs."""


def in_threads(
    twins: Sequence[Samples], function: Callable[[Samples, _Item], _Result], items: Iterable[_Item], ahead: int
) -> Generator[_Result, None, None]:
    """``function(samples, item)`` of each item, in order, at most `ahead` at a time; a thread for each of `twins`.

    Closing it ends the threads; what they are at is waited for.
    """
    free: queue.SimpleQueue[Samples] = queue.SimpleQueue()
    for samples in twins:
        free.put(samples)

    def call(item: _Item) -> _Result:
        samples = free.get()
        try:
            return function(samples, item)
        finally:
            free.put(samples)

    pool = ThreadPoolExecutor(len(twins), thread_name_prefix="hepar-data", initializer=_one_opencv_thread)
    flying: deque[Future[_Result]] = deque()
    try:
        for item in items:
            flying.append(pool.submit(call, item))
            if len(flying) >= ahead:
                yield flying.popleft().result()
        while flying:
            yield flying.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Processes:
    """Processes of torch's loader, kept from epoch to epoch."""

    def __init__(self, samples: Samples, workers: int, start: str, prefetch: int, *, pin: bool) -> None:
        self.ahead = workers * prefetch
        self._keys = _Keys()
        self._loader: DataLoader[Any] | None = DataLoader(
            _InProcess(samples),  # type: ignore[arg-type]
            batch_sampler=self._keys,
            collate_fn=_as_is,
            num_workers=workers,
            multiprocessing_context=start,
            persistent_workers=True,
            prefetch_factor=prefetch,
            worker_init_fn=_settle_worker,
            pin_memory=pin,
        )

    def run(self, keys: Iterable[list[Key]]) -> Generator[Batch, None, None]:
        """The micro-batches; a worker's UserError is raised as itself, any other error with the worker's traceback."""
        assert self._loader is not None, "these workers were closed"
        self._keys.keys = keys
        try:
            for batch in _begun(self._loader):
                if isinstance(batch, _Refusal):
                    raise UserError(batch.text)
                yield batch
        except Exception as error:
            died = None if isinstance(error, UserError) else self._died(error)
            if died is None:
                raise
            raise UserError(
                f"{died}; most likely memory ran out: try a smaller train.prefetch, fewer train.workers, or "
                f"train.worker_start=thread"
            ) from error

    def _died(self, error: Exception) -> str | None:
        """Which process is gone, if one is; torch says so in one of several ways, depending on who notices first."""
        iterator = None if self._loader is None else self._loader._iterator
        for worker in getattr(iterator, "_workers", ()):
            worker.join(1.0 if isinstance(error, (OSError, EOFError)) else 0.0)  # it may be about to
            if worker.exitcode:
                how = f"ended with exit code {worker.exitcode}"
                if worker.exitcode < 0:
                    how = f"was killed by {signal.Signals(-worker.exitcode).name}"
                return f"data process {worker.pid} {how}"
        return None

    def close(self) -> None:
        """End the processes."""
        iterator = None if self._loader is None else self._loader._iterator
        self._loader = None
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):
            # torch does this with the last reference, which an exception's traceback may hold.
            iterator._shutdown_workers()


def _begun(loader: DataLoader[Any]) -> Iterator[Any]:
    before = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    iterator = iter(loader)
    if before is not None and signal.getsignal(signal.SIGCHLD) is not before:
        # torch's handler raises wherever the signal finds the training, in the middle of a checkpoint, say; without it
        # torch finds a dead process when its batch is due.
        signal.signal(signal.SIGCHLD, before)
    return iterator


class _Keys:
    """What torch's loader walks over, anew each epoch."""

    keys: Iterable[list[Key]] = ()

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.keys)


@dataclass(frozen=True)
class _Refusal:
    text: str


class _InProcess:
    """The samples, as torch's loader asks for them in a worker process."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitems__(self, keys: Sequence[Key]) -> Batch | _Refusal:
        try:
            return self.samples.batch(keys, _shared_memory)
        except UserError as error:
            # Raised here it would reach the user wrapped in a traceback of torch's.
            return _Refusal(str(error))


def _shared_memory(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    # As torch's own collate does: memory that the other process sees, so that the batch is not copied once more.
    count = torch.Size(shape).numel()
    storage = torch.UntypedStorage._new_shared(count * dtype.itemsize, device="cpu")
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape)  # type: ignore[call-overload]


def _as_is(batch: Any) -> Any:
    return batch


def _one_opencv_thread() -> None:
    import cv2

    # OpenCV's pool in each data worker would fight the training for the cores.
    cv2.setNumThreads(0)


def _settle_worker(_: int) -> None:
    _one_opencv_thread()
    # A group of its own: Ctrl-C and torchrun's SIGTERM reach the whole group of the training, which finishes its step
    # and then ends its workers; torch's watchdog ends them if it is killed.
    os.setpgid(0, 0)
