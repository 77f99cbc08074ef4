"""Data workers that are processes, kept from epoch to epoch."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from core.contracts import Batch
from core.data.memory import Shared
from core.data.samples import Empty, Key, Samples, UsedAgain, pinned_memory, plain_memory
from core.errors import UserError

_ALIGNED = 64
"""Bytes: each array of a slot begins at a multiple."""


@dataclass(frozen=True)
class _Task:
    slot: int
    keys: list[Key]


@dataclass(frozen=True)
class _Ready:
    """A micro-batch whose arrays lie in its slot; or the arrays themselves, if it is larger than a slot."""

    shapes: list[tuple[tuple[int, ...], str]]
    arrays: list[np.ndarray] | None


@dataclass(frozen=True)
class _Refused:
    text: str


@dataclass(frozen=True)
class _Failed:
    error: Exception
    shown: str


class WorkerTraceback(Exception):  # noqa: N818  (the cause that is shown of another process's error)
    """Where in a data process an error happened."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class Processes:
    """Processes that write micro-batches into memory they share with this one.

    Each has a pipe of its own and they share no lock, so one that is killed is noticed at once and blocks nobody, where
    torch's loader hangs if the lock of its queue dies with one. Memory that is used again costs no page faults.

    Args:
        prefetch: micro-batches that each process keeps ready.
        pin: whether batches come out in page-locked memory.
    """

    def __init__(self, samples: Samples, workers: int, start: str, prefetch: int, *, pin: bool) -> None:
        self.samples, self.workers, self.prefetch = samples, workers, prefetch
        self.ahead = workers * prefetch
        self.memory: Empty = pinned_memory if pin else UsedAgain()
        self._context: Any = multiprocessing.get_context(start)
        self._team: list[_Worker] = []
        weakref.finalize(self, _end_all, self._team)

    def run(self, keys: Iterable[list[Key]]) -> Generator[Batch, None, None]:
        """The micro-batches; a worker's UserError is raised as itself, any other error with the worker's traceback."""
        flying: deque[tuple[_Worker, _Task]] = deque()
        for number, micro in enumerate(keys):
            if not self._team:
                self._start(micro)
            turn, place = divmod(number, self.workers)
            worker, task = self._team[place], _Task(turn % self.prefetch, micro)
            if turn == 0:
                worker.forget()
            if len(flying) == self.ahead:  # the oldest lies in this task's slot
                yield self._take(*flying.popleft())
            worker.give(task)
            flying.append((worker, task))
        while flying:
            yield self._take(*flying.popleft())

    def close(self) -> None:
        """End the processes."""
        _end_all(self._team)

    def _start(self, micro: list[Key]) -> None:
        room = _end([((len(micro), *shape), _name(dtype)) for shape, dtype in self.samples.layout()])
        for _ in range(self.workers):
            self._team.append(_Worker(self.samples, self._context, Shared(room * self.prefetch), room))

    def _take(self, worker: _Worker, task: _Task) -> Batch:
        found = worker.take()
        if isinstance(found, _Refused):
            raise UserError(found.text)
        if isinstance(found, _Failed):
            raise found.error from WorkerTraceback(found.shown)
        tensors: list[torch.Tensor] = []
        for array in found.arrays or _arrays(worker.memory, task.slot * worker.room, found.shapes):
            source = torch.from_numpy(array)
            tensors.append(self.memory(tuple(source.shape), source.dtype).copy_(source))
        lesion = tensors[2] if tensors[2:] else None
        return Batch(tensors[0], tensors[1], lesion, [k[2] for k in task.keys], [k[1] for k in task.keys])


class _Worker:
    """One process, as seen from here."""

    def __init__(self, samples: Samples, context: Any, memory: Shared, room: int) -> None:
        self.memory, self.room, self.owed = memory, room, 0
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(samples, memory, room, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe ends with the process

    def give(self, task: _Task) -> None:
        try:
            self.pipe.send(task)
        except OSError as error:
            raise self._died() from error
        self.owed += 1

    def take(self) -> _Ready | _Refused | _Failed:
        try:
            found: _Ready | _Refused | _Failed = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        self.owed -= 1
        return found

    def forget(self) -> None:
        """Let what an epoch left behind that was abandoned pass by."""
        while self.owed:
            self.take()

    def _died(self) -> UserError:
        self.process.join(10)
        code = self.process.exitcode
        how = f"was killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with exit code {code}"
        return UserError(
            f"data process {self.process.pid} {how}; if memory ran out, try a smaller train.prefetch, fewer "
            f"train.workers, or train.worker_start=thread"
        )


def _end_all(team: list[_Worker]) -> None:
    for worker in team:
        worker.process.kill()  # there is nothing to tidy up, and it may be far from listening
    for worker in team:
        worker.process.join()
        worker.pipe.close()
    team.clear()


def _work(samples: Samples, memory: Shared, room: int, pipe: Connection) -> None:
    """A data process's life."""
    _settle()
    with contextlib.suppress(EOFError, OSError):
        while True:
            task: _Task = pipe.recv()
            pipe.send(_done(samples, task, memory, room))


def _done(samples: Samples, task: _Task, memory: Shared, room: int) -> _Ready | _Refused | _Failed:
    try:
        batch = samples.batch(task.keys, _Slot(memory, task.slot * room, room))
    except UserError as error:
        return _Refused(str(error))
    except Exception as error:
        shown = traceback.format_exc()
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return _Failed(error, shown)
    arrays = [t.numpy() for t in (batch.image, batch.label, batch.lesion) if t is not None]
    shapes = [(a.shape, str(a.dtype)) for a in arrays]
    fits = memory.path is not None and _end(shapes) <= room
    return _Ready(shapes, None if fits else arrays)


class _Slot:
    """A slot's memory, given out array by array; ordinary memory past its end."""

    def __init__(self, memory: Shared, at: int, room: int) -> None:
        self.memory, self.at, self.end = memory, at, at + room

    def __call__(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        name = _name(dtype)
        end = self.at + _step(shape, name)
        if end > self.end or self.memory.path is None:
            self.at = self.end + 1
            return plain_memory(shape, dtype)
        array = self.memory.array(shape, name, self.at)
        self.at = end
        return torch.from_numpy(array)


def _step(shape: tuple[int, ...], dtype: str) -> int:
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return -(-count // _ALIGNED) * _ALIGNED


def _end(shapes: Sequence[tuple[tuple[int, ...], str]]) -> int:
    return sum(_step(*each) for each in shapes)


def _arrays(memory: Shared, at: int, shapes: Sequence[tuple[tuple[int, ...], str]]) -> list[np.ndarray]:
    out = []
    for shape, dtype in shapes:
        out.append(memory.array(shape, dtype, at))
        at += _step(shape, dtype)
    return out


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _settle() -> None:
    import cv2

    # One thread a data process: pools in each of them would fight the training for the cores.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    # A group of its own: Ctrl-C and torchrun's SIGTERM reach the whole group of the training, which finishes its step
    # and then ends its workers.
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a forked process inherits the training's handler
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A killed training cannot end its workers, and pipes that other workers inherited stay open.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
