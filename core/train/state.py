"""What a checkpoint holds of a training, and how a training goes on from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import dist
from core.errors import UserError
from core.train import checkpoint

if TYPE_CHECKING:
    from core.train.trainer import Trainer


def collect(trainer: Trainer) -> dict[str, Any]:
    """The state to save; a collective (each rank's running sums and losses are in it)."""
    step, schedule = trainer.train_step, trainer.train_step.schedule
    meters, feedback = trainer.meter.state_dict(), trainer.feedback.state_dict()
    if dist.rank() != 0:
        return {}
    return {
        **trainer.record,
        "step": trainer.step,
        "evaluated_step": trainer.evaluated_step,
        "network": trainer.network.state_dict(),
        "ema": None if trainer.ema is None else trainer.ema.state_dict(),
        "objective": trainer.objective.state_dict(),
        "optimizer": step.optimizer.state_dict(),
        "scaler": step.scaler.state_dict(),
        "schedule": schedule.state_dict() if hasattr(schedule, "state_dict") else None,
        "hooks": trainer.hooks.state_dict(),
        "meters": meters,
        "sampler": feedback,
        "best": trainer.judge.best,
        "skipped": trainer.skipped,
        "stop_reason": trainer.stop_reason,
        "world": dist.world(),
        "compiled": step.compiled,
    }


def resume(trainer: Trainer) -> int:
    """Go on from the newest readable checkpoint, on all ranks from the same; its step, 0 if there is none yet.

    Raises:
        UserError: if the ranks find different checkpoints.
    """
    state = checkpoint.newest(trainer.run, trainer.say)
    steps = dist.gather(None if state is None else (state["step"], state["evaluated_step"]))
    if len(set(steps)) > 1:
        raise UserError(
            f"{trainer.run / checkpoint.FOLDER}: the ranks see different checkpoints: "
            + ", ".join(f"rank {r}: {'none' if s is None else f'step {s[0]}'}" for r, s in enumerate(steps))
            + "; the run directory must lie on a file system that all nodes share"
        )
    if dist.rank() == 0:
        checkpoint.sweep(trainer.run, 0 if state is None else state["step"])
    if state is None:
        return 0
    if state["world"] != dist.world():
        trainer.say(
            f"note: the checkpoint was written by {state['world']} ranks, now there are {dist.world()}: batches and "
            f"draws stay the same, sums differ in their last digits"
        )
    for package, version in state["versions"].items():
        if trainer.record["versions"].get(package) != version:
            trainer.say(f"note: the run began with {package} {version}, now {trainer.record['versions'].get(package)}")
    restore(trainer, state)
    return trainer.step


def restore(trainer: Trainer, state: dict[str, Any]) -> None:
    """Put a checkpoint's state into a training."""
    step = trainer.train_step
    where = f"{trainer.run / checkpoint.FOLDER} (step {state['step']})"
    checkpoint.fit(trainer.network, state["network"], where)
    if trainer.ema is not None and state["ema"] is not None:
        checkpoint.fit(trainer.ema.network, state["ema"], where)
    trainer.objective.load_state_dict(state["objective"])
    step.optimizer.load_state_dict(state["optimizer"])
    step.scaler.load_state_dict(state["scaler"])
    if state["schedule"] is not None:
        step.schedule.load_state_dict(state["schedule"])
    trainer.hooks.load_state_dict(state["hooks"])
    trainer.meter.load_state_dict(state["meters"])
    trainer.feedback.load_state_dict(state["sampler"])
    trainer.step, trainer.evaluated_step = state["step"], state["evaluated_step"]
    trainer.skipped, trainer.judge.best = state["skipped"], state["best"]
    if state["stop_reason"] and trainer.judge.patience_is_over():
        trainer.stop_reason = state["stop_reason"]


def last_saved(run: Path) -> str:
    """The newest checkpoint, in words, for an error's text."""
    path = checkpoint.find(run, "last")
    return f"the last good checkpoint is {path}" if path.is_file() else "there is no checkpoint yet"
