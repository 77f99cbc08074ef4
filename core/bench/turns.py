"""The real training loop and the bare loop, in turns, in one process.

`Trainer.fit` runs as it does for a user: its loader, augmentation, hooks, meter, averaged weights, flags. At the end of
a step it emits ``step_end``, and there `Turns` stands in: it counts the steps, reads the clock, and between two blocks
of the loop it runs blocks of the bare loop in place. So both train the same network, with the same memory layout,
compiled code and CUDA caches, moments apart.

While the bare loop has its turn, data workers fill their queues: the loop would then find batches that cost it nothing,
and the bare loop would have the workers beside it. So each turn begins with steps that are not timed: as many as the
queues hold, unless the loader has been fast enough not to be waited for (then the queues are full in any case).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch

from core.bench.bare import BareLoop
from core.bench.timing import Spread, spread, wait_for
from core.errors import UserError
from core.train.hooks import Hooks
from core.train.trainer import Trainer

LOOP, QUIET, BARE, EAGER = "loop", "loop without hooks and logging", "bare loop", "bare loop, not compiled"
_NOTICEABLE = 0.05
Turn = Generator[None, None, float]
"""Yields for each step that it wants of the training loop; returns seconds."""


class Turns(Hooks):
    """In the place of a trainer's hooks: passes on the events, and takes turns.

    Args:
        steps: of a block.
        sides: of LOOP, QUIET, BARE and EAGER, those to time.
        after: what else is to be measured while the training is up, called with the trainer after the last block.
        tick: called after each block of a side with its name.
    """

    def __init__(
        self,
        trainer: Trainer,
        bare: BareLoop,
        *,
        sides: tuple[str, ...],
        steps: int,
        blocks: int,
        tick: Callable[[str], None],
        after: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(list(trainer.hooks.by_key.items()))
        if steps >= trainer.steps_per_epoch:
            raise UserError(
                f"--steps {steps}: a block has to fit into an epoch, which has {trainer.steps_per_epoch} steps; want "
                f"fewer steps, or a smaller train.batch"
            )
        self.trainer, self.bare, self.steps, self.blocks = trainer, bare, steps, blocks
        self.tick, self.after = tick, after
        self.seconds: dict[str, list[float]] = {name: [] for name in sides}
        self.peak_bytes = {name: 0 for name in sides}
        self.waited, self.looped = 0.0, 0
        self.plain, self.logged, self.reads = Tally(), Tally(), Tally()
        self._filling = math.ceil(trainer.data.workers * trainer.settings.prefetch / trainer.data.accumulate) + 1
        self._quiet, self._wait, self._waits_share = False, 0.0, 1.0
        self._script: Iterator[None] | None = None
        trainer.hooks = self
        trainer.data.epoch = self._waiting(trainer.data.epoch)  # type: ignore[method-assign]
        trainer.meter.read = self._read(trainer.meter.read)  # type: ignore[method-assign]

    @property
    def done(self) -> bool:
        """Whether every block was timed: not, if a signal ended the training."""
        return all(len(values) == self.blocks for values in self.seconds.values()) and self._script is None

    def spreads(self) -> dict[str, Spread]:
        """Seconds of a block, by side."""
        return {name: spread(values) for name, values in self.seconds.items()}

    def emit(self, event: str, *args: Any) -> None:
        """Pass the event on, timed; after a step, go on with the script."""
        if event != "step_end":
            if event == "fit_start":
                self._script = self._run()
            super().emit(event, *args)
            return
        if not self._quiet:
            with (self.logged if args[1] else self.plain).counted():
                super().emit(event, *args)
        if self._script is not None and next(self._script, self) is self:
            self._script = None
            self.trainer.total_steps = self.trainer.step  # enough: the loop ends by itself

    def _run(self) -> Iterator[None]:
        """The script: each `yield` lets the training go one step on."""
        for block in range(-1, self.blocks):
            for name in list(self.seconds)[:: 1 if block % 2 else -1]:
                seconds = yield from self._turn(name)
                if block >= 0:
                    self.seconds[name].append(seconds)
                else:
                    self.waited, self.looped = 0.0, 0
                self.tick(name)
        # A few logs, since the blocks may hold none.
        settings = self.trainer.settings
        self.trainer.settings = dataclasses.replace(settings, log_every=1)
        yield from self._skip(3)
        self.trainer.settings = settings
        self.after()

    def _turn(self, name: str) -> Turn:
        if name in (LOOP, QUIET):
            return (yield from self._loop(name))
        return self._bare(name)

    def _loop(self, name: str) -> Turn:
        trainer, settings = self.trainer, self.trainer.settings
        warm = self._filling if self._waits_share > _NOTICEABLE else 1
        left = -trainer.step % trainer.steps_per_epoch
        if left < warm + self.steps:
            # Not over the end of an epoch, where a checkpoint is written and the workers begin anew.
            yield from self._skip(left + 1)
            trainer.writer.wait()
            warm = min(self._filling, trainer.steps_per_epoch - self.steps - 1)
        self._quiet = name == QUIET
        if self._quiet:
            trainer.settings = dataclasses.replace(settings, log_every=10**12)
        yield from self._skip(warm)
        before = self._start()
        yield from self._skip(self.steps)
        seconds = self._end(name, before)
        self._waits_share = self._wait / seconds
        if name == LOOP:
            self.waited, self.looped = self.waited + self._wait, self.looped + self.steps
        self._quiet, trainer.settings = False, settings
        return seconds

    def _bare(self, name: str) -> float:
        full = self._waits_share <= _NOTICEABLE
        with self._not_compiled() if name == EAGER else contextlib.nullcontext():
            until = time.perf_counter() + (0.0 if full else self._filling * self._step_seconds())
            self.bare.step()
            while time.perf_counter() < until and not self.trainer.stop.asked:
                self.bare.step()
                wait_for(self.trainer.device)
            before = self._start()
            for _ in range(self.steps):
                if self.trainer.stop.asked:
                    break
                self.bare.step()
            return self._end(name, before)

    def _not_compiled(self) -> Any:
        from core.train.compiling import eager

        return eager(self.trainer.network)

    def _step_seconds(self) -> float:
        known = [values[-1] for name, values in self.seconds.items() if values and name in (LOOP, QUIET)]
        return max(known, default=0.0) / self.steps

    def _start(self) -> float:
        device = self.trainer.device
        wait_for(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._wait = 0.0
        return time.perf_counter()

    def _end(self, name: str, before: float) -> float:
        device = self.trainer.device
        wait_for(device)
        seconds = time.perf_counter() - before
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device) - self.bare.state_bytes()
            self.peak_bytes[name] = max(self.peak_bytes[name], peak)
        return seconds

    def _skip(self, count: int) -> Iterator[None]:
        for _ in range(count):
            yield

    def _waiting(self, epoch: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def timed_epoch(*args: int) -> Iterator[Any]:
            batches = epoch(*args)
            while True:
                before = time.perf_counter()
                batch = next(batches, None)
                self._wait += time.perf_counter() - before
                if batch is None:
                    return
                yield batch

        return timed_epoch

    def _read(self, read: Callable[[], dict[str, float]]) -> Callable[[], dict[str, float]]:
        def timed_read() -> dict[str, float]:
            wait_for(self.trainer.device)  # what is left is the reading, not the step that it waits for
            with self.reads.counted():
                return read()

        return timed_read


class Tally:
    """How often something was done, and for how long."""

    def __init__(self) -> None:
        self.seconds, self.count = 0.0, 0

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count what is done in here."""
        before = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - before
        self.count += 1

    @property
    def mean(self) -> float:
        """Seconds of one; 0 if there was none."""
        return self.seconds / max(self.count, 1)
