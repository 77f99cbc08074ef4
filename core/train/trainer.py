"""The training loop. Progress is one integer, `step`; everything else derives from it or is in the checkpoint."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from core import dist, seed
from core.contracts import Batch, RunState
from core.data.loader import TrainLoader
from core.errors import UserError
from core.settings import TrainSettings
from core.train import checkpoint, ddp, precision
from core.train.ema import EMA
from core.train.failure import NonFiniteError, failed_step, out_of_memory
from core.train.hooks import Hooks
from core.train.meter import Meter
from core.train.objective import Objective
from core.train.stop import StopRequest

MAX_SKIPPED = 20
"""fp16 steps in a row that the gradient scaler may skip before training stops."""


@dataclass(frozen=True)
class Evaluation:
    """What a validation returns: metrics for logs and early stopping, and one row a case and structure."""

    metrics: dict[str, float]
    rows: list[dict[str, Any]]


class Trainer:
    """Trains a network, resumes exactly, stops early, keeps the best checkpoint.

    Args:
        evaluate: whole validation volumes -> metrics, called on all ranks; None without validation cases.
        record: what a checkpoint says of the run besides the training state (config, split, versions).
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
        evaluate: Callable[[nn.Module], Evaluation] | None,
        hooks: Hooks,
        device: torch.device,
        total_steps: int,
        resume: bool = False,
        record: dict[str, Any] | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.run, self.config, self.settings, self.device, self.say = run, config, settings, device, say
        self.network, self.objective, self.optimizer, self.schedule = network, objective, optimizer, schedule
        self.data, self.evaluate, self.hooks, self.record = data, evaluate, hooks, record or {}
        self.augments = augments
        self.total_steps, self.steps_per_epoch = total_steps, data.steps_per_epoch
        self.scaler = precision.scaler(device, settings.precision)
        self.ema = EMA(network, settings.ema) if settings.ema is not None else None
        if settings.compile:
            network.compile()
        self._trial = data.first()
        self.module: nn.Module = network
        if dist.world() > 1:
            self.module = ddp.wrap(network, objective, self._trial[0], device, settings.precision)
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.meter = Meter(["loss", *objective.names, "gradient_norm"], device)
        self.step, self.evaluated_step, self.skipped = 0, 0, 0
        self.best: dict[str, Any] = {"value": None, "step": None, "metrics": {}, "waited": 0}
        self.stop_reason: str | None = None
        self.resumed_from: int | None = None
        self._resume_wanted, self._stop, self._started = resume, StopRequest(), time.monotonic()
        self._batch: list[Batch] = []

    def fit(self) -> str:
        """Train to the end; returns why it ended. Safe to interrupt: SIGTERM and Ctrl-C save and return."""
        with self._stop:
            try:
                self._settle()
                self._resume()
                self.hooks.emit("fit_start", self.state())
                reason = self._loop()
                self.hooks.emit("fit_end", self.state(), reason)
                return reason
            except Exception as error:
                # No collectives here: the other ranks may be anywhere.
                failed_step(self.run, self.step, self._batch, self.data.records, error)
                self.hooks.emit_failed(self.state(), error)
                raise

    def state(self) -> RunState:
        """What hooks see."""
        epoch = self.step // self.steps_per_epoch
        sizes = (self.total_steps, self.steps_per_epoch)
        return RunState(self.run, self.step, epoch, *sizes, self.config, self.resumed_from, self.meter.cost)

    def _loop(self) -> str:
        while True:
            if self._due() and self.evaluated_step != self.step:
                with self.meter.paused():
                    self._evaluate_and_save()
            if self.stop_reason is not None:
                return self.stop_reason
            if self.step >= self.total_steps:
                return "all steps done"
            epoch, start = divmod(self.step, self.steps_per_epoch)
            for micro in self.meter.timed(self.data.epoch(epoch, start)):
                self._train_step(micro)
                self._batch = []
                self.step += 1
                self._log(sum(len(b.indices) for b in micro) * dist.world())
                if self.step >= self.total_steps:
                    break
                if dist.any_rank(self._stop.asked or self._out_of_time(), self.device):
                    if not self._due():
                        self._save(best=False)
                        return self._interruption()
                    self._evaluate_and_save()
                    return self.stop_reason or self._interruption()

    def _due(self) -> bool:
        return self.step > 0 and (self.step % self.steps_per_epoch == 0 or self.step >= self.total_steps)

    def _out_of_time(self) -> bool:
        limit = self.settings.max_minutes
        return limit is not None and time.monotonic() - self._started > 60 * limit

    def _interruption(self) -> str:
        return (
            "time is up (train.max_minutes)" if self._out_of_time() and not self._stop.asked else "stopped by a signal"
        )

    def _train_step(self, micro: list[Batch]) -> None:
        self._batch = micro
        seed.seed_step(self.settings.seed, self.step, dist.rank())
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        values = torch.zeros(1 + len(self.objective.names), dtype=torch.float64, device=self.device)
        for i, batch in enumerate(micro):
            values += self._forward_backward(batch, len(micro), last=i == len(micro) - 1)
        self.scaler.unscale_(self.optimizer)
        limit = self.settings.clip_norm or math.inf
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), limit)
        # DDP has summed the gradients, so a non-finite one is non-finite on every rank: all stop at the same step.
        finite = self._finite(float(norm), values)
        factor = float(self.schedule(self.step))
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if finite:
            if self.ema is not None:
                self.ema.update(self.network, self.step)
            self.meter.add(torch.cat([values, norm.detach().double().reshape(1)]))

    def _forward_backward(self, batch: Batch, parts: int, *, last: bool) -> torch.Tensor:
        batch = batch.to(self.device)
        if self.augments:
            epoch = self.step // self.steps_per_epoch
            drawn = [seed.sample_seed(self.settings.seed, epoch, p) for p in batch.positions]
            seeds = torch.tensor(drawn, dtype=torch.int64, device=self.device)
            for augment in self.augments:
                batch = augment(batch, seeds)
        # Gradients travel between ranks once, with the last micro-batch.
        quiet = self.module.no_sync() if not last and isinstance(self.module, DistributedDataParallel) else None
        with quiet or contextlib.nullcontext(), dist.training_sums():
            with precision.autocast(self.device, self.settings.precision):
                logits = self.module(batch.image)
            loss, terms = self.objective(logits, batch.label, {"lesion": batch.lesion})
            self.scaler.scale(loss / parts).backward()
        return torch.cat([loss.detach().reshape(1), terms]).double() / parts

    def _finite(self, norm: float, values: torch.Tensor) -> bool:
        if math.isfinite(norm):
            self.skipped = 0
            return True
        self.skipped += 1
        if self.scaler.is_enabled() and self.skipped < MAX_SKIPPED:
            return False
        raise NonFiniteError.at(
            self.step, norm, dict(zip(["loss", *self.objective.names], values.tolist(), strict=True))
        )

    def _log(self, images: int) -> None:
        self.meter.count(images)
        metrics: dict[str, float] = {}
        if self.step % self.settings.log_every == 0 or self.step >= self.total_steps:
            metrics = {f"train/{name}": value for name, value in self.meter.read().items()}
            metrics["train/lr"] = self.optimizer.param_groups[0]["lr"]
        self.hooks.emit("step_end", self.state(), metrics)

    def _evaluate_and_save(self) -> None:
        epochs, last = self.step // self.steps_per_epoch, self.step >= self.total_steps
        self.hooks.emit("epoch_end", self.state())
        better = self.evaluate is None
        if self.evaluate is not None and (last or epochs % self.settings.validate_every == 0):
            self.hooks.emit("eval_start", self.state())
            network = self.ema.network if self.ema is not None else self.network
            dist.broadcast_buffers(network)
            result = self.evaluate(network)
            better = self._judge(result.metrics)
            self.hooks.emit("eval_end", self.state(), result.metrics, result.rows)
        self.evaluated_step = self.step
        self._save(best=better)

    def _judge(self, metrics: dict[str, float]) -> bool:
        early = self.settings.early_stop
        if early.metric not in metrics:
            raise UserError(
                f"train.early_stop.metric: no metric '{early.metric}'; there are {', '.join(sorted(metrics))}"
            )
        value = metrics[early.metric]
        lower = value if early.mode == "min" else -value
        if hasattr(self.schedule, "observe"):
            self.schedule.observe(lower)
        known = self.best["value"]
        old = None if known is None else known if early.mode == "min" else -known
        if math.isfinite(value) and (old is None or lower < old - early.min_delta):
            self.best = {"value": value, "step": self.step, "metrics": dict(metrics), "waited": 0}
            return True
        self.best["waited"] += 1
        if early.patience is not None and self.best["waited"] >= early.patience:
            self.stop_reason = f"early stopping: {early.metric} has not improved in {self.best['waited']} validations"
        return False

    def _save(self, *, best: bool) -> None:
        meters = self.meter.state_dict()
        if dist.rank() == 0:
            state = {
                **self.record,
                "step": self.step,
                "evaluated_step": self.evaluated_step,
                "network": self.network.state_dict(),
                "ema": None if self.ema is None else self.ema.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "schedule": self.schedule.state_dict() if hasattr(self.schedule, "state_dict") else None,
                "hooks": self.hooks.state_dict(),
                "meters": meters,
                "best": self.best,
                "skipped": self.skipped,
                "stop_reason": self.stop_reason,
                "world": dist.world(),
            }
            path = checkpoint.save(self.run, state, keep=self.settings.keep_last, best=best)
            self.hooks.emit("saved", self.state(), path)

    def _settle(self) -> None:
        """One discarded training step, then everything restored.

        DDP reorders its gradient buckets after the first backward: without this a resumed run at three or more ranks
        would sum in another order than the uninterrupted one. It also finds out-of-memory at once, the optimizer's
        state included.
        """
        before = {k: v.clone() for k, v in self.network.state_dict().items()}
        states = self.optimizer.state_dict(), self.scaler.state_dict()
        ema = None if self.ema is None else {k: v.clone() for k, v in self.ema.state_dict().items()}
        self._trial_step()
        self.network.load_state_dict(before)
        self.optimizer.load_state_dict(states[0])
        self.scaler.load_state_dict(states[1])
        if self.ema is not None and ema is not None:
            self.ema.load_state_dict(ema)
        self.optimizer.zero_grad(set_to_none=True)
        self.meter.reset()
        self.skipped, self._batch = 0, []

    def _trial_step(self) -> None:
        batch, self._trial = self._trial, []
        try:
            self._train_step(batch)
        except torch.cuda.OutOfMemoryError as error:
            raise out_of_memory(error, self.device, self.data) from error
        except Exception as error:
            if not self.settings.compile or isinstance(error, UserError):
                raise
            self.say(f"train.compile: torch.compile failed, going on without it ({str(error).splitlines()[0]})")
            self.network._compiled_call_impl = None
            self._train_step(batch)

    def _resume(self) -> None:
        state = checkpoint.newest(self.run, self.say) if self._resume_wanted else None
        if state is None:
            return
        where = f"{self.run / checkpoint.FOLDER} (step {state['step']})"
        checkpoint.fit(self.network, state["network"], where)
        if self.ema is not None and state["ema"] is not None:
            checkpoint.fit(self.ema.network, state["ema"], where)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if state["schedule"] is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.hooks.load_state_dict(state["hooks"])
        self.meter.load_state_dict(state["meters"])
        self.step, self.evaluated_step, self.skipped = state["step"], state["evaluated_step"], state["skipped"]
        self.best, self.resumed_from = state["best"], state["step"]
        patience = self.settings.early_stop.patience
        if state["stop_reason"] and patience is not None and self.best["waited"] >= patience:
            self.stop_reason = state["stop_reason"]
