"""The trial step before a training begins."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from core.errors import UserError
from core.train.compiling import fall_back, reason
from core.train.failure import out_of_memory

if TYPE_CHECKING:
    from core.train.trainer import Trainer


def settle(trainer: Trainer) -> None:
    """One discarded training step, then everything restored.

    DDP reorders its gradient buckets after the first backward: without this a resumed run at three or more ranks would
    sum in another order than the uninterrupted one. It also finds out-of-memory at once, the optimizer's state
    included, and whether torch.compile can do what this model asks.
    """
    step = trainer.train_step
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    ema = None if trainer.ema is None else {k: v.clone() for k, v in trainer.ema.state_dict().items()}
    objective = copy.deepcopy(trainer.objective.state_dict())
    states = copy.deepcopy((step.optimizer.state_dict(), step.scaler.state_dict()))
    _try(trainer)
    trainer.network.load_state_dict(before)
    trainer.objective.load_state_dict(objective)
    step.optimizer.load_state_dict(states[0])
    step.scaler.load_state_dict(states[1])
    if trainer.ema is not None and ema is not None:
        trainer.ema.load_state_dict(ema)
    step.optimizer.zero_grad(set_to_none=True)


def _try(trainer: Trainer) -> None:
    step, batch = trainer.train_step, trainer.first
    trainer.at = (0, batch)
    try:
        outcome = step(batch, 0, 0)
    except torch.cuda.OutOfMemoryError as error:
        raise out_of_memory(error, trainer.device, trainer.data) from error
    except Exception as error:
        if not step.compiled or isinstance(error, UserError):
            raise
        # Only if the same step works without it was it torch.compile that failed.
        fall_back(trainer.network)
        step.compiled = False
        outcome = step(batch, 0, 0)
        trainer.say(f"note: train.compile: torch.compile failed, going on without it ({reason(error)})")
    trainer.flags.put(0, batch, outcome.norm, outcome.losses, 0)
    trainer.read_flags(all_of_them=True)
    trainer.skipped = 0
    trainer.first = []  # its memory is wanted
    trainer.at = (0, [])
