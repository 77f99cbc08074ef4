"""Which validation was the best, and whether to go on."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import registry
from core.errors import UserError
from core.measure.score import NEEDS, SCORE
from core.settings import EarlyStop

_UP = re.compile(r"(score|dice|iou|f1|recall|precision|specificity|pq|sq|rq|nsd_\d+mm)|(dice|iou)_\w+")
_DOWN = re.compile(r"(loss|voe|rvd_abs|rmse|max_abs|\w*(assd|masd|rmsd|hd|hd95)_mm|ece|brier|false_positive\w*)")

GREATER = {"max": "greater", "min": "smaller"}
"""A direction in words: a figure is better the ... it is."""


def direction(name: str) -> Literal["min", "max"] | None:
    """Whether a figure (``val/tumour/dice``) is to be small or great; None where its name does not tell."""
    last = name.rpartition("/")[2]
    return "max" if _UP.fullmatch(last) else "min" if _DOWN.fullmatch(last) else None


def listed(names: Iterable[str], between: str = "/") -> str:
    """Names of figures for a message: those of two levels, and how many more there are."""
    every = sorted(names)
    deep = [name for name in every if name.removeprefix("val/").count(between) > 1]
    more = [f"{len(deep)} more, such as {deep[0]}"] if deep else []
    return ", ".join([*(name for name in every if name not in deep), *more])


class Judge:
    """Keeps the best validation and counts those without improvement.

    Attributes:
        best: ``value``, ``step``, ``metrics`` of the best validation, and ``waited``: validations since; plain values,
            as they go into the checkpoint.
    """

    def __init__(self, settings: EarlyStop) -> None:
        self.settings = settings
        self.best: dict[str, Any] = {"value": None, "step": None, "metrics": {}, "waited": 0}
        self._possible: frozenset[str] = frozenset()

    def check(self, names: Sequence[str]) -> None:
        """Remember what validations can give.

        Raises:
            UserError: if `train.early_stop.metric` is not among `names`, or `mode` would choose the worst checkpoint.
        """
        metric, mode = self.settings.metric, self.settings.mode
        if names and metric not in names:
            if metric == f"val/{SCORE}":
                raise UserError(f"train.early_stop.metric: there is no val/{SCORE}: {NEEDS}, or judge by val/loss")
            near = registry.suggest(metric, names)
            raise UserError(f"train.early_stop.metric: no metric '{metric}'{near}\n  there are {listed(names)}")
        wanted = direction(metric)
        if wanted is not None and wanted != mode:
            raise UserError(
                f"train.early_stop.mode: {metric} is better the {GREATER[wanted]} it is, so "
                f"mode: {mode} would keep the worst checkpoint; set train.early_stop.mode={wanted}"
            )
        self._possible = frozenset(names)

    def lower_is_better(self, metrics: Mapping[str, float]) -> float:
        """The value that is judged, turned so that lower is better; a collective decision, so equal on all ranks.

        Not a number where this validation has none, though others can: precision before anything is predicted.

        Raises:
            UserError: if no validation of these cases gives it.
        """
        metric = self.settings.metric
        if metric not in metrics and metric not in self._possible:
            self.check(list(metrics))
        value = metrics.get(metric, math.nan)
        return value if self.settings.mode == "min" else -value

    def better(self, metrics: Mapping[str, float], step: int) -> bool:
        """Whether this validation is the best so far."""
        lower, known = self.lower_is_better(metrics), self.best["value"]
        old = None if known is None else known if self.settings.mode == "min" else -known
        if math.isfinite(lower) and (old is None or lower < old - self.settings.min_delta):
            value = metrics[self.settings.metric]
            self.best = {"value": value, "step": step, "metrics": dict(metrics), "waited": 0}
            return True
        self.best["waited"] += 1
        return False

    def patience_is_over(self) -> bool:
        """Whether as many validations as `patience` brought nothing."""
        return self.settings.patience is not None and self.best["waited"] >= self.settings.patience

    def reason(self) -> str:
        """Why training stops."""
        return f"early stopping: {self.settings.metric} has not improved in {self.best['waited']} validations"
