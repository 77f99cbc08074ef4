"""What a setting is judged by: the score, or any figure of the experiment's metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import registry
from core.contracts import Metric, Rows
from core.errors import UserError
from core.infer.evaluate import measure as measure_case
from core.infer.evaluate import merge_tables, summarise
from core.measure.pair import CasePair
from core.measure.score import SCORE, CaseScore, halves, score
from core.measure.score import measure as measure_score
from core.train.early import GREATER, direction, listed
from core.train.validate import flatten, tiny_pair

Mode = Literal["min", "max"]


class Objective(Protocol):
    """Keeps of each case and setting no more than it needs.

    Attributes:
        name: as in the summary, e.g. ``tumour.dice``.
        mode: whether it is to be great or small.
    """

    name: str
    mode: Mode

    def measure(self, pair: CasePair) -> Any:
        """What is kept of one case under one setting."""
        ...

    def figures(self, kept: Sequence[Any]) -> dict[str, float | None]:
        """The columns of the table, the objective under its own name first; None is not a number."""
        ...


class Score:
    """Half tumour Dice per case, half lesion F1 (`core.measure.score`)."""

    name = SCORE
    mode: Mode = "max"

    def measure(self, pair: CasePair) -> CaseScore:
        """Dice and lesion counts."""
        return measure_score(pair)

    def figures(self, kept: Sequence[CaseScore]) -> dict[str, float | None]:
        """The score and its two halves."""
        dice, f1 = halves(kept) or (None, None)
        counts = {name: sum(getattr(case, name) for case in kept) for name in ("matched", "pred", "ref")}
        return {self.name: score(kept), "tumour_dice": dice, "lesion_f1": f1, **counts}


class Figure:
    """A figure of the summary of the experiment's metrics.

    Args:
        name: dotted, e.g. ``lesions.iou_0.1.f1``; as training logs it (``val/tumour/dice``) will do too.
        mode: needed where the name does not tell.
        metrics: the experiment's.

    Raises:
        UserError: if no metric gives it, or what is better is not known.
    """

    def __init__(self, name: str, mode: Mode | None, metrics: Sequence[Metric]) -> None:
        self.name = _dotted(name)
        given = [(metric, _given(metric)) for metric in metrics]
        self.metrics = [metric for metric, names in given if self.name in names]
        if not self.metrics:
            known = {SCORE, *(n for _, names in given for n in names)}
            near = registry.suggest(self.name, known)
            raise UserError(f"--objective {name}: no such figure{near}\n  there are {listed(known, '.')}")
        wanted = direction(self.name.replace(".", "/"))
        if wanted is not None and mode is not None and mode != wanted:
            raise UserError(f"--mode {mode}: {self.name} is better the {GREATER[wanted]} it is")
        if (chosen := wanted or mode) is None:
            raise UserError(f"--objective {name}: say whether it is to be great or small with --mode max or --mode min")
        self.mode: Mode = chosen

    def measure(self, pair: CasePair) -> dict[str, Rows]:
        """The tables of the metrics that give the figure."""
        tables = measure_case(self.metrics, pair)
        for rows in tables.values():
            for row in rows:
                if "patient" in row:
                    row["patient"] = "one"  # too few for intervals, which nobody reads here
        return tables

    def figures(self, kept: Sequence[dict[str, Rows]]) -> dict[str, float | None]:
        """The figure."""
        found = _flat(summarise(self.metrics, merge_tables(kept)))
        return {self.name: found.get(self.name)}


def make_objective(name: str, mode: Mode | None, metrics: Callable[[], Sequence[Metric]]) -> Objective:
    """The objective of a name.

    Args:
        name: ``score`` or a figure of the summary.
        mode: "max" or "min"; None where the name tells.
        metrics: gives the experiment's metrics.

    Raises:
        UserError: as `Figure`.
    """
    if _dotted(name) == SCORE:
        if mode == "min":
            raise UserError(f"--mode min: {SCORE} is better the greater it is")
        return Score()
    return Figure(name, mode, metrics())


def _dotted(name: str) -> str:
    return name.removeprefix("val/").replace("/", ".")


def _flat(summary: dict[str, Any]) -> dict[str, float]:
    return {_dotted(name): value for name, value in flatten(summary, "val").items()}


def _given(metric: Metric) -> set[str]:
    """What a metric gives of volumes of a few voxels, with lesions of several sizes and none."""
    try:
        pairs = [tiny_pair(f"{size} mm", diameter_mm=size) for size in (None, 5, 15, 25)]
        tables = merge_tables(map(metric.measure, pairs))
        return set(_flat(metric.summarise(tables)))
    except Exception:  # one that cannot measure so small a volume cannot be asked beforehand
        return set()
