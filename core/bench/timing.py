"""Timing several things in turns, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch
from tqdm import tqdm


@dataclass(frozen=True)
class Spread:
    """What one figure was over the blocks of a run, in the order in which they were timed."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The least of the blocks."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The greatest of the blocks."""
        return max(self.values)


def spread(values: Sequence[float]) -> Spread:
    """The spread of `values`, one a block."""
    return Spread(tuple(float(v) for v in values))


def ratio(over: Spread, under: Spread) -> Spread:
    """Block by block: the two values of a block were timed next to each other, so a slow moment slows both."""
    return spread([a / b for a, b in zip(over.values, under.values, strict=True)])


def rate(amount: float, seconds: Spread) -> Spread:
    """Amount a second."""
    return spread([amount / s for s in seconds.values])


_interrupted = False


@contextmanager
def remembering_interrupts() -> Iterator[None]:
    """In here Ctrl-C is not only raised but remembered, for `in_turns` to look at.

    Raised while Python tidies up a generator it would be printed and forgotten, and the benchmark would go on.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        global _interrupted
        _interrupted = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end of this context; processes that are started in here never hear of it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def in_turns(sides: Mapping[str, Callable[[], float]], blocks: int, bar: tqdm) -> dict[str, Spread]:
    """Time all sides block after block, every other block in the reverse order; each side runs once untimed before.

    Args:
        sides: what each side does in a block; it returns the seconds that it took.
        blocks: how often each is timed.
        bar: moved on by ``len(sides) * (blocks + 1)``.

    Raises:
        KeyboardInterrupt: if Ctrl-C was pressed in `remembering_interrupts`.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for block in range(-1, blocks):
        for name in list(sides)[:: 1 if block % 2 == 0 else -1]:
            bar.set_postfix_str(name)
            taken = sides[name]()
            if _interrupted:
                raise KeyboardInterrupt
            if block >= 0:
                seconds[name].append(taken)
            bar.update()
    return {name: spread(values) for name, values in seconds.items()}


def timed(function: Callable[[], object], device: torch.device | None = None) -> float:
    """Seconds of one call, the device's own work included."""
    wait_for(device)
    before = time.perf_counter()
    function()
    wait_for(device)
    return time.perf_counter() - before


def wait_for(device: torch.device | None) -> None:
    """Wait until a GPU has done what it was given; other devices have it done already."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def progress(description: str, total: int) -> Iterator[tqdm]:
    """A bar on a terminal, nothing elsewhere."""
    # The handle of the process's start: what is measured may have its own output redirected.
    with tqdm(total=total, desc=description, unit="block", disable=None, file=sys.__stderr__, leave=False) as bar:
        yield bar
