"""Map a function over cases in processes of their own, in order, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from tqdm import tqdm

from core.errors import UserError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class WorkerDied(UserError):  # noqa: N818  (it is what happened, not a programming error)
    """A worker process was killed from outside, most often for lack of memory."""


def cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_cases(
    function: Callable[[_Item], _Result], items: Sequence[_Item], *, workers: int | None = None, description: str = ""
) -> Iterator[tuple[_Item, _Result | Exception]]:
    """Yield ``(item, result)`` in the order of `items`; an exception is yielded in place of the result.

    Args:
        function: importable by name, since processes are spawned.
        items: picklable.
        workers: processes; None: one a CPU; 0 or 1: in this process.
        description: of the progress bar.

    A worker that is killed (out of memory) does not take the others along: what is left then runs one at a time, and
    the item that kills its process again comes back as `WorkerDied`. Ctrl-C ends the workers.
    """
    count = min(cpus() if workers is None else workers, len(items))
    results = _here(function, items) if count <= 1 else _spawned(function, items, count)
    progress = _Progress(description, len(items))
    try:
        for item, result in zip(items, results, strict=True):
            progress.advance()
            yield item, result
    finally:
        results.close()
        progress.close()


def _here(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> Any:
    for item in items:
        try:
            result: _Result | Exception = function(item)
        except Exception as error:
            result = error
        yield result


def _spawned(function: Callable[[_Item], _Result], items: Sequence[_Item], count: int) -> Any:
    waiting = deque(items)
    flying: deque[tuple[_Item, Future[_Result]]] = deque()
    pool, ahead = pool_of(count), 2 * count
    try:
        while waiting or flying:
            try:
                while waiting and len(flying) < ahead:
                    flying.append((waiting[0], pool.submit(function, waiting[0])))
                    waiting.popleft()
                result: _Result | Exception = flying[0][1].result()
            except BrokenProcessPool:
                if ahead == 1 and flying:
                    result = WorkerDied("its worker process was killed, most likely for lack of memory")
                else:
                    waiting.extendleft(item for item, _ in reversed(flying))
                    flying.clear()
                end_pool(pool)
                pool, ahead = pool_of(1), 1
                if not flying:
                    continue
            except Exception as error:
                result = error
            flying.popleft()
            yield result
    finally:
        end_pool(pool)


def pool_of(count: int) -> ProcessPoolExecutor:
    """Spawned workers that leave Ctrl-C to their parent and end with it."""
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"), initializer=_ignore_interrupt)


def _ignore_interrupt() -> None:
    # Ctrl-C reaches the whole group; the parent ends the workers, so that each prints no traceback of its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A killed parent cannot end its workers, and they would wait for work for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def end_pool(pool: ProcessPoolExecutor) -> None:
    """End the workers, also those that are still busy."""
    processes = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:  # idle when all is done; busy only if the caller gave up
        process.terminate()
    for process in processes:
        process.join()


class _Progress:
    """A bar on a terminal, a few plain lines elsewhere."""

    def __init__(self, description: str, total: int) -> None:
        self.description, self.total, self.done = description, total, 0
        self.bar = tqdm(total=total, desc=description, unit="case", disable=None, file=sys.stderr)

    def advance(self) -> None:
        self.done += 1
        self.bar.update()
        if self.bar.disable and self.description and self.done * 10 // self.total > (self.done - 1) * 10 // self.total:
            print(f"{self.description}: {self.done}/{self.total}", file=sys.stderr, flush=True)

    def close(self) -> None:
        self.bar.close()
