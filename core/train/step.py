"""One optimizer step, without waiting for the device."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from core import dist, draws, seed
from core.contracts import Batch
from core.infer.network import finest
from core.settings import TrainSettings
from core.train import precision
from core.train.ema import EMA
from core.train.feedback import sample_losses
from core.train.objective import Objective


@dataclass(frozen=True)
class Outcome:
    """What one step gave, on the device.

    Attributes:
        losses: float64 ``[1 + T]``, the objective and its unweighted terms, on this rank.
        norm: float64 scalar, the gradient's norm before clipping; DDP has summed the gradients, so it is equal on all
            ranks, and if one rank's is not finite, no rank's is.
        finite: bool scalar, whether the step updated anything.
        samples: float32 ``[B]`` of each micro-batch, its samples' losses, if `sample_losses` was asked for.
    """

    losses: torch.Tensor
    norm: torch.Tensor
    finite: torch.Tensor
    samples: Sequence[torch.Tensor] = ()


class TrainStep:
    """Seeds, micro-batches, clipping, update, learning rate, averaged weights.

    An update with a gradient that is not finite is left out on the device itself, by optimizers that can (fused ones);
    for others this process has to look first.

    Args:
        network: what is trained.
        module: what is called: the network, or DDP around it.
        schedule: update number -> factor of the learning rate.
        sample_losses: whether to give the loss of each sample too.

    Attributes:
        masks: whether the optimizer leaves out an update on the device.
        compiled: whether the network runs under torch.compile.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        module: nn.Module,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        schedule: Any,
        augments: Sequence[Any],
        ema: EMA | None,
        settings: TrainSettings,
        device: torch.device,
        sample_losses: bool = False,
    ) -> None:
        self.sample_losses = sample_losses
        self.network, self.module, self.objective = network, module, objective
        self.optimizer, self.schedule, self.augments, self.ema = optimizer, schedule, augments, ema
        self.settings, self.device, self.compiled = settings, device, settings.compile
        self.scaler = precision.scaler(device, settings.precision)
        self.masks = bool(getattr(optimizer, "_step_supports_amp_scaling", False))
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def __call__(self, micro: Sequence[Batch], step: int, epoch: int) -> Outcome:
        """Update number `step` (from 0)."""
        seed.seed_step(self.settings.seed, step, dist.rank())
        self.optimizer.zero_grad(set_to_none=True)
        losses = torch.zeros(1 + len(self.objective.names), dtype=torch.float64, device=self.device)
        samples: list[torch.Tensor] = []
        for i, batch in enumerate(micro):
            losses += self._forward_backward(batch, len(micro), epoch, samples, last=i == len(micro) - 1)
        self.scaler.unscale_(self.optimizer)
        norm = self._clip()
        finite = torch.isfinite(norm)
        factor = float(self.schedule(step))
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self._update(finite)
        if self.ema is not None:
            self.ema.update(self.network, step, finite if self.scaler.is_enabled() else None)
        return Outcome(losses, norm.double(), finite, samples)

    def _forward_backward(
        self, batch: Batch, parts: int, epoch: int, samples: list[torch.Tensor], *, last: bool
    ) -> torch.Tensor:
        if self.augments:
            drawn = [seed.sample_seed(self.settings.seed, epoch, p) for p in batch.positions]
            seeds = torch.tensor(drawn, dtype=torch.int64)
            if self.device.type == "cuda":
                seeds = seeds.pin_memory().to(self.device, non_blocking=True)
            for place, augment in enumerate(self.augments):
                # Two of one name in the list must not draw the same.
                batch = augment(batch, draws.fork(seeds, f"augment/{place}"))
        # Gradients travel between ranks once, with the last micro-batch.
        quiet = self.module.no_sync() if not last and isinstance(self.module, DistributedDataParallel) else None
        with quiet or contextlib.nullcontext(), dist.training_sums():
            with precision.autocast(self.device, self.settings.precision):
                logits = self.module(batch.image)
            loss, terms = self.objective(logits, batch.label, {"lesion": batch.lesion})
            self.scaler.scale(loss / parts).backward()
        if self.sample_losses:
            samples.append(sample_losses(finest(logits), batch.label))
        return torch.cat([loss.detach().reshape(1), terms]).double() / parts

    def _clip(self) -> torch.Tensor:
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        return nn.utils.clip_grad_norm_(parameters, self.settings.clip_norm or math.inf)

    def _update(self, finite: torch.Tensor) -> None:
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)  # looks for itself
            self.scaler.update()
        elif self.masks:
            self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
            self.optimizer.grad_scale = None  # type: ignore[attr-defined]
            self.optimizer.step()
        elif finite:
            self.optimizer.step()
