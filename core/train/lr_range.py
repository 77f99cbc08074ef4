"""The learning-rate range test (Smith 2017, arXiv:1506.01186)."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from core.contracts import Batch
from core.errors import UserError
from core.experiment import Experiment
from core.rundir import read_split
from core.train import trial
from core.train.assemble import assemble
from core.train.trainer import Trainer

HOPELESS = 1.5
"""The test ends when the loss is this much greater than at first."""


@dataclass(frozen=True)
class Curve:
    """What the test measured, step by step; the loss of a step is that before its update.

    Attributes:
        smoothed: the loss without most of its noise; rises no higher than `HOPELESS` times its beginning.
        exploded: whether the last step's loss or gradient was not a number.
    """

    rates: np.ndarray
    losses: np.ndarray
    norms: np.ndarray
    smoothed: np.ndarray
    exploded: bool


@dataclass(frozen=True)
class Suggestion:
    """Learning rates of note.

    Attributes:
        rate: the suggested one, two digits: where the loss falls fastest, or less.
        steepest: where the loss falls fastest; None if it never fell.
        diverged: from where on the loss is greater than at first; None if it never is.
    """

    rate: float | None
    steepest: float | None
    diverged: float | None


def trainer_for(experiment: Experiment, folder: Path, device: torch.device, say: Callable[[str], None]) -> Trainer:
    """The experiment's trainer with `folder` as its run directory, without hooks and averaged weights.

    If the experiment is a run already, with the run's own split.
    """
    if read_split(experiment.run) is not None:
        for name in ("split.json", "config.yaml"):
            shutil.copy(experiment.run / name, folder / name)
    settings = dataclasses.replace(experiment.train, ema=None)
    return assemble(dataclasses.replace(experiment, run=folder, hook=[], train=settings), device, say=say)


def measure(
    trainer: Trainer, low: float, high: float, steps: int, tell: Callable[[float, float], None] = lambda *_: None
) -> Curve:
    """Train for up to `steps` steps while the rate of the first parameter group grows evenly in its logarithm.

    All of the experiment's training takes part: loader, precision, clipping, accumulation. Other parameter groups keep
    their rates' ratios to the first.

    Args:
        trainer: fresh; it is of no use afterwards.
        low: rate of the first step.
        high: rate of the last.
        steps: how many there are at most.
        tell: called with rate and loss after each step.
    """
    trial.settle(trainer)
    step, rates = trainer.train_step, np.geomspace(low, high, steps)
    base = step.optimizer.param_groups[0]["initial_lr"]
    step.schedule = lambda number: rates[number] / base
    losses: list[float] = []
    norms: list[float] = []
    exploded = False
    for number, (epoch, micro) in enumerate(itertools.islice(_batches(trainer), steps)):
        outcome = step(micro, number, epoch)
        losses.append(float(outcome.losses[0]))
        norms.append(float(outcome.norm))
        tell(float(rates[number]), losses[-1])
        exploded = not np.isfinite([losses[-1], norms[-1]]).all()
        recent = losses[-5:]
        if exploded or (len(losses) > 10 and min(recent) > HOPELESS * np.mean(losses[:5])):
            break
    done = len(losses)
    smoothed = smooth(np.array(losses), width=max(1.0, steps / 33))
    return Curve(rates[:done], np.array(losses), np.array(norms), smoothed, exploded)


def smooth(losses: np.ndarray, width: float) -> np.ndarray:
    """A centred Gaussian mean of `width` steps: unlike a running mean it does not lag behind the rate."""
    kept = losses[np.isfinite(losses)]
    if not len(kept):
        return losses
    kept = np.minimum(kept, HOPELESS * kept[:5].mean())  # else an explosion would blur into the steps before it
    reach = int(np.ceil(3 * width))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    total, weight = (np.convolve(v, weights)[reach : reach + len(kept)] for v in (kept, np.ones_like(kept)))
    out = total / weight
    return np.concatenate([out, np.full(len(losses) - len(kept), np.nan)])


def suggest(curve: Curve) -> Suggestion:
    """Where the smoothed loss falls fastest, but at most a tenth of where it diverges."""
    smoothed = curve.smoothed[np.isfinite(curve.smoothed)]
    if len(smoothed) < 3:
        return Suggestion(None, None, float(curve.rates[-1]) if curve.exploded else None)
    best = int(smoothed.argmin())
    above = np.flatnonzero(smoothed[best:] > smoothed[0])
    diverged = float(curve.rates[best + above[0]]) if len(above) else None
    if diverged is None and curve.exploded:
        diverged = float(curve.rates[-1])
    slope = np.gradient(smoothed, np.log(curve.rates[: len(smoothed)]))
    # Only up to the least loss or the first rise worth the name: a fall behind it only makes up for that.
    risen = np.flatnonzero(smoothed - np.minimum.accumulate(smoothed) > 0.1 * (smoothed[0] - smoothed[best]))
    place = int(slope[: min([best, *risen]) + 1].argmin())
    if slope[place] >= 0 or best == 0:
        return Suggestion(None, None, diverged)
    steepest = float(curve.rates[place])
    rate = steepest if diverged is None else min(steepest, diverged / 10)
    return Suggestion(float(f"{rate:.1e}"), steepest, diverged)


def check(low: float, high: float, steps: int) -> None:
    """Raises UserError for a range that cannot be tested."""
    if not 0 < low < high < float("inf"):
        raise UserError(f"--low and --high: want 0 < low < high, got {low:g} and {high:g}")
    if steps < 10:
        raise UserError(f"--steps: want at least 10, got {steps}")


def _batches(trainer: Trainer) -> Iterator[tuple[int, list[Batch]]]:
    for epoch in itertools.count():
        for micro in trainer.data.epoch(epoch, 0):
            yield epoch, micro
