"""Which validation was the best, and whether to go on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import UserError
from core.settings import EarlyStop


class Judge:
    """Keeps the best validation and counts those without improvement.

    Attributes:
        best: ``value``, ``step``, ``metrics`` of the best validation, and ``waited``: validations since; plain values,
            as they go into the checkpoint.
    """

    def __init__(self, settings: EarlyStop) -> None:
        self.settings = settings
        self.best: dict[str, Any] = {"value": None, "step": None, "metrics": {}, "waited": 0}

    def check(self, names: Sequence[str]) -> None:
        """Raises UserError if `train.early_stop.metric` is none of the names that a validation will give."""
        if names and self.settings.metric not in names:
            raise UserError(
                f"train.early_stop.metric: no metric '{self.settings.metric}'; there are {', '.join(sorted(names))}"
            )

    def lower_is_better(self, metrics: Mapping[str, float]) -> float:
        """The value that is judged, turned so that lower is better; a collective decision, so equal on all ranks.

        Raises:
            UserError: if the validation does not have it (e.g. no validation case has a tumour).
        """
        self.check(list(metrics))
        value = metrics[self.settings.metric]
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
