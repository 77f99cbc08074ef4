"""The training loop. Progress is one integer, `step`; everything else derives from it or is in the checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from core import dist
from core.contracts import Batch, Example, RunState
from core.data.loader import TrainLoader
from core.errors import UserError
from core.settings import TrainSettings
from core.train import ddp, flags, state, trial
from core.train.compiling import compile_network
from core.train.early import Judge
from core.train.ema import EMA
from core.train.evaluating import evaluating
from core.train.failure import MAX_SKIPPED, NonFiniteError, failed_step, forget_failures
from core.train.feedback import Feedback
from core.train.flags import Flags
from core.train.hooks import Hooks
from core.train.meter import Meter
from core.train.objective import Objective
from core.train.step import TrainStep
from core.train.stop import StopRequest
from core.train.watch import Watch
from core.train.writer import Writer


@dataclass(frozen=True)
class Evaluation:
    """What a validation returns: metrics for logs and early stopping, one row a case and structure, slices to see."""

    metrics: dict[str, float]
    rows: list[dict[str, Any]]
    examples: Sequence[Example] = ()


class Evaluate(Protocol):
    """Evaluates whole validation volumes; called on all ranks."""

    def __call__(self, network: nn.Module, stop: Callable[[], bool]) -> Evaluation | None:
        """Metrics and rows; None, on all ranks, if `stop` says so on any."""
        ...


class Trainer:
    """Trains a network, resumes exactly, stops early, keeps the best checkpoint.

    Args:
        evaluate: the validation; None without validation cases.
        judge: says which validation is the best, and when to stop.
        record: what a checkpoint says of the run besides the training state (config, split, versions).

    Attributes:
        first: the first step's micro-batches, for the trial step.
        at: the step and the micro-batches that a failure would be about.
    """

    def __init__(
        self,
        *,
        run: Path,
        config: str,
        settings: TrainSettings,
        network: nn.Module,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        schedule: Any,
        data: TrainLoader,
        augments: Sequence[Any] = (),
        evaluate: Evaluate | None,
        judge: Judge,
        hooks: Hooks,
        device: torch.device,
        total_steps: int,
        resume: bool = False,
        record: dict[str, Any] | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.run, self.config, self.settings, self.device, self.say = run, config, settings, device, say
        self.network, self.objective, self.data, self.evaluate = network, objective, data, evaluate
        self.hooks, self.record = hooks, record or {}
        self.total_steps, self.steps_per_epoch = total_steps, data.steps_per_epoch
        self.ema = EMA(network, settings.ema) if settings.ema is not None else None
        first = data.first()
        module: nn.Module = network
        if dist.world() > 1:
            module = ddp.wrap(network, objective, first[0], device, settings.precision)
        if settings.compile:
            compile_network(network)  # last: what it cannot do comes up in the trial step, which goes on without it
        # Overfitting draws the same few batches again and again: there is nothing to choose.
        self.feedback = Feedback(data.sampler if settings.overfit is None else None)
        self.train_step = TrainStep(
            network=network,
            module=module,
            objective=objective,
            optimizer=optimizer,
            schedule=schedule,
            augments=augments,
            ema=self.ema,
            settings=settings,
            device=device,
            sample_losses=self.feedback.wanted,
        )
        self.judge, self.flags, self.watch = judge, Flags(device), Watch(settings.timeout_s)
        self.meter = Meter(["loss", *objective.names, "gradient_norm"], device)
        self.writer = Writer(run, settings.keep_last, lambda path: self.hooks.emit("saved", self.state(), path))
        self.step, self.evaluated_step, self.skipped = 0, 0, 0
        self.stop_reason: str | None = None
        self.resumed_from: int | None = None
        self.stop = StopRequest()
        self.first = first
        self._resume_wanted, self._request, self._saved = resume, 0, (-1, -1)
        self._started = self._saved_at = time.monotonic()
        self.at: tuple[int, Sequence[Batch]] = (0, [])
        self._examples: Sequence[Example] = ()
        self._drawn: dict[str, float] = {}

    def fit(self) -> str:
        """Train to the end; returns why it ended. Safe to interrupt: SIGTERM and Ctrl-C save and return."""
        with self.stop, self.watch:
            try:
                self.watch.at(self.step, "the trial step")
                trial.settle(self)
                if self._resume_wanted:
                    self.resumed_from = state.resume(self)
                self._saved, self._saved_at = (self.step, self.evaluated_step), time.monotonic()
                self.meter.reset_clock()
                self.hooks.emit("fit_start", self.state())
                reason = self._loop()
                self.writer.wait()
                forget_failures(self.run)
                self.hooks.emit("fit_end", self.state(), reason)
                return reason
            except Exception as error:
                # No collectives here: the other ranks may be anywhere.
                hung = self.watch.blame(error)
                failed_step(self.run, *self.at, self.data.records, error)
                self.hooks.emit_failed(self.state(), error)
                if hung is not None:
                    raise UserError(hung) from error
                raise
            finally:
                self.data.close()

    def state(self) -> RunState:
        """What hooks see."""
        return RunState(
            self.run,
            self.step,
            self.step // self.steps_per_epoch,
            self.total_steps,
            self.steps_per_epoch,
            self.config,
            self.resumed_from,
            self.meter.cost,
            self.evaluated_step,
            self._examples,
            self._drawn,
        )

    def _loop(self) -> str:
        while self.stop_reason is None:
            if self._due() and self.evaluated_step != self.step:
                with self.meter.paused():
                    self._end_epoch()
            elif self.step >= self.total_steps:
                return "all steps done"
            else:
                self._train_epoch()
            if self._request > flags.SAVE:
                self._save(best=False)
                return "stopped by a signal" if self._request == flags.SIGNAL else "time is up (train.max_minutes)"
        return self.stop_reason

    def _due(self) -> bool:
        return self.step > 0 and (self.step % self.steps_per_epoch == 0 or self.step >= self.total_steps)

    def _train_epoch(self) -> None:
        epoch, start = divmod(self.step, self.steps_per_epoch)
        if start == 0:
            self.feedback.begin_epoch()
        for micro in self._watched(self.meter.timed(self.data.epoch(epoch, start))):
            self.at = (self.step, micro)
            outcome = self.train_step(micro, self.step, epoch)
            self.meter.add(torch.cat([outcome.losses, outcome.norm[None]]), outcome.finite)
            self.feedback.add(micro, outcome.samples)
            self.step += 1
            self._log(sum(len(b.indices) for b in micro) * dist.world())
            self.flags.put(self.step - 1, micro, outcome.norm, outcome.losses, self._wish())
            self.read_flags()
            self.writer.poll()
            if self.step >= self.total_steps or self._request > flags.SAVE:
                break
            if self._request == flags.SAVE:
                with self.meter.paused():
                    self._save(best=False)
        self.read_flags(all_of_them=True)
        self.at = (self.step, [])

    def _watched(self, steps: Iterable[list[Batch]]) -> Iterator[list[Batch]]:
        self.watch.at(self.step, "loading data")
        for micro in steps:
            self.watch.at(self.step, "training")
            yield micro
            self.watch.at(self.step, "loading data")

    def _wish(self) -> int:
        if self.stop.asked:
            return flags.SIGNAL
        if dist.rank() != 0:
            return 0  # one clock for all
        now, limits = time.monotonic(), self.settings
        if limits.max_minutes is not None and now - self._started > 60 * limits.max_minutes:
            return flags.TIME_UP
        return flags.SAVE if limits.save_minutes and now - self._saved_at > 60 * limits.save_minutes else 0

    def read_flags(self, *, all_of_them: bool = False) -> None:
        """Take note of what the ranks request, and raise NonFiniteError for a step that is to end training."""
        for flag in self.flags.read(all_of_them=all_of_them):
            self._request = max(self._request, flag.request)
            if math.isfinite(flag.norm):
                self.skipped = 0
                continue
            self.skipped += 1
            if not self.train_step.scaler.is_enabled() or self.skipped >= MAX_SKIPPED:
                self.at = (flag.step, flag.batch)
                names = ["loss", *self.objective.names]
                raise NonFiniteError.at(
                    flag.step, flag.norm, dict(zip(names, flag.losses, strict=True)), state.last_saved(self.run)
                )

    def _log(self, images: int) -> None:
        self.meter.count(images)
        metrics: dict[str, float] = {}
        if self.step % self.settings.log_every == 0 or self.step >= self.total_steps:
            metrics = {f"train/{name}": value for name, value in self.meter.read().items()}
            metrics["train/lr"] = self.train_step.optimizer.param_groups[0]["lr"]
        self.hooks.emit("step_end", self.state(), metrics)

    def _end_epoch(self) -> None:
        epochs, last = self.step // self.steps_per_epoch, self.step >= self.total_steps
        self._drawn = self.data.drawn(self.step)
        self.hooks.emit("epoch_end", self.state())
        self._drawn = {}
        better = self.evaluate is None
        if self.evaluate is not None and (last or epochs % self.settings.validate_every == 0):
            self._save(best=False)  # first: a kill or a failing metric then costs this validation and no step
            result = self._evaluate()
            if result is None:
                self._request = flags.SIGNAL
                return
            better = self.judge.better(result.metrics, self.step)
            if hasattr(self.train_step.schedule, "observe"):
                self.train_step.schedule.observe(self.judge.lower_is_better(result.metrics))
            if self.judge.patience_is_over():
                self.stop_reason = self.judge.reason()
            self._examples = result.examples
            self.hooks.emit("eval_end", self.state(), result.metrics, result.rows)
            self._examples = ()
        self.evaluated_step = self.step
        self._save(best=better)

    def _evaluate(self) -> Evaluation | None:
        assert self.evaluate is not None
        self.watch.at(self.step, "validating")
        self.hooks.emit("eval_start", self.state())
        network = self.ema.network if self.ema is not None else self.network
        dist.broadcast_buffers(network)

        def stop() -> bool:  # asked case by case
            self.watch.at(self.step, "validating")
            return self.stop.asked

        with evaluating(network, self.objective):
            return self.evaluate(network, stop)

    def _save(self, *, best: bool) -> None:
        """Begin to write a checkpoint of this step; a collective. Nothing is saved before its step's flag is read."""
        self.read_flags(all_of_them=True)
        self.watch.at(self.step, "saving")
        if self._request == flags.SAVE:
            self._request = 0
        now = (self.step, self.evaluated_step)
        if best or now != self._saved:
            content = state.collect(self)
            if dist.rank() == 0:
                self.writer.put(content, best=best)
        self._saved, self._saved_at = now, time.monotonic()
