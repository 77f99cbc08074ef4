"""Who makes the micro-batches: this thread, threads of this process, or processes."""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

from core.contracts import Batch
from core.data.processes import Processes
from core.data.samples import Empty, Key, Samples, UsedAgain, pinned_memory
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
        self.samples = samples
        self.memory: Empty = pinned_memory if pin else UsedAgain()

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
        self.memory: Empty = pinned_memory if pin else UsedAgain()
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

    pool = ThreadPoolExecutor(len(twins), thread_name_prefix="hepar-data", initializer=one_opencv_thread)
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


def one_opencv_thread() -> None:
    """Keep OpenCV from threads of its own."""
    import cv2

    # OpenCV's pool in each data worker would fight the training for the cores.
    cv2.setNumThreads(0)
