"""Validation: whole volumes through the same inferer as evaluation; metrics on the scan's own grid, and loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from core import dist
from core.build import Plan, build
from core.contracts import Example, Metric, Rows
from core.data.store import Store
from core.infer.evaluate import evaluate_case, merge_tables, summarise, wants_probabilities
from core.infer.geometry import Geometry
from core.measure.pair import CasePair
from core.measure.score import ScoreMetric
from core.train.objective import Objective
from core.train.precision import autocast
from core.train.trainer import Evaluation
from core.values import CLASSES, LIVER, TUMOUR

EXAMPLES = 4
"""Cases of which a slice is kept to look at."""


@dataclass(frozen=True)
class _Part:
    """What one case gives."""

    case: str
    loss: float
    tables: dict[str, Rows]
    example: Example | None


class Validation:
    """Evaluates validation cases, whole cases shared out over the ranks; the same rows at any number of ranks.

    The loss of a case is the mean over its blocks of slices (``inferer.batch``), weighted by their slices; ``val/loss``
    is the mean over cases, on all slices. ``val/score`` (`core.measure.score`) is measured whatever the metrics are; it
    is not given if no case has a tumour.

    Args:
        cases: validation cases.
        inferer: plan of the inferer.
        metrics: plans of the metrics to measure.
        postprocess: built post-processors.
    """

    def __init__(
        self,
        *,
        store: Store,
        cases: Sequence[str],
        geometry: Geometry,
        inferer: Plan,
        metrics: Sequence[Plan],
        postprocess: Sequence[Any],
        objective: Objective,
        device: torch.device,
        precision: str,
    ) -> None:
        self.store, self.cases, self.geometry, self.inferer = store, list(cases), geometry, inferer
        self.metrics: list[Metric] = [ScoreMetric(), *(build(plan) for plan in metrics)]
        self.postprocess, self.objective = postprocess, objective
        self.device, self.precision = device, precision
        self.shown = choose_slices(store, self.cases)
        for case in self.cases:
            geometry.check_spacing(f"case '{case}'", trusted=store.info(case).spacing_trusted)

    def __call__(self, network: nn.Module, stop: Callable[[], bool] | None = None) -> Evaluation | None:
        """Metrics ``val/...``, one row a case and structure and, on rank 0, slices to look at. A collective.

        Args:
            network: HU -> logits, in evaluation mode.
            stop: asked before each case; where it says yes on any rank, there is no result (None on all ranks).
        """
        inferer = build(self.inferer, network=network, geometry=self.geometry)
        mine, stopped = [], False
        for case in share_out(self.cases, [self.store.info(c).shape[0] for c in self.cases]):
            stopped = stop is not None and stop()
            if stopped:
                break
            mine.append(self._case(case, inferer))
        # No collective before this one: ranks have different numbers of cases.
        everyones = dist.gather((stopped, mine))
        if any(stopped for stopped, _ in everyones):
            return None
        gathered: dict[str, _Part] = {part.case: part for _, parts in everyones for part in parts}
        losses = {case: part.loss for case, part in gathered.items()}
        tables = merge_tables((part.tables for part in gathered.values()), order=self.cases)
        # In the order of the cases, so that the sum does not depend on the number of ranks.
        metrics = {"val/loss": float(np.mean([losses[c] for c in self.cases]))}
        metrics.update(flatten(summarise(self.metrics, tables), "val"))
        rows = [{**row, "loss": losses[row["case"]]} for row in tables.get("cases", [])]
        examples = [gathered[case].example for case in self.shown] if dist.rank() == 0 else []
        return Evaluation(metrics, rows, [example for example in examples if example is not None])

    def names(self) -> list[str]:
        """Every metric that a validation of these cases can give; empty if a metric cannot measure a tiny volume.

        A figure that a case gives depends on whether it has a liver and a trusted spacing and on the size of its
        lesions (to a millimetre), so each such sort is measured once, on a volume of a few voxels.
        """
        soft = wants_probabilities(self.postprocess)
        sorts: dict[tuple[float | None, bool, bool], None] = {}
        for info in map(self.store.info, self.cases):
            trusted, sizes = info.spacing_trusted, self.store.lesions(info.case)["diameter_mm"]
            for size in sizes if trusted else np.ones(len(sizes)):
                sorts[max(round(float(size)), 1), True, trusted] = None
            if not len(sizes):
                sorts[None, info.liver_voxels > 0, trusted] = None
        try:
            pairs = [
                tiny_pair(str(i), diameter_mm=size, liver=liver, spacing_trusted=trusted, probabilities=soft)
                for i, (size, liver, trusted) in enumerate(sorts)
            ]
            tables = merge_tables(metric.measure(pair) for pair in pairs for metric in self.metrics)
            return ["val/loss", *flatten(summarise(self.metrics, tables), "val")]
        except Exception:  # whatever a plugin's metric does with so small a volume: real ones will show
            return []

    def _case(self, case: str, inferer: Any) -> _Part:
        volume, grid, total, slices = self.store.volume(case), self.store.grid(case), 0.0, 0
        stored = self.store.label(case)
        reference = stored if grid.identity else self.store.reference(case)

        def on_logits(logits: torch.Tensor, block: tuple[slice, ...]) -> None:
            nonlocal total, slices
            target = self.geometry.label(stored[block[0]])[:, block[1], block[2]]
            extras = {}
            if "lesion" in self.objective.asks:
                ids = range(*block[0].indices(len(stored)))
                lesion = self.geometry.lesion(self.store.lesion(case, ids))[:, block[1], block[2]]
                extras["lesion"] = torch.from_numpy(lesion).to(self.device)
            labels = torch.from_numpy(target).to(self.device)
            if logits.ndim == 5:  # the block is one volume, not a batch of slices
                labels, extras = labels[None], {name: values[None] for name, values in extras.items()}
            with torch.autocast(self.device.type, enabled=False):
                loss, _ = self.objective(logits, labels, extras)
            total += float(loss) * len(target)
            slices += len(target)

        with autocast(self.device, self.precision):
            result = evaluate_case(
                case,
                volume,
                reference,
                inferer=inferer,
                postprocess=self.postprocess,
                metrics=self.metrics,
                info=self.store.info(case),
                on_logits=on_logits,
                grid=grid,
            )
        example = None
        if case in self.shown:
            z = grid.scan_z(self.shown[case])
            example = Example(case, z, result.image[z].copy(), reference[z].copy(), result.labels[z].copy())
        return _Part(case, total / max(slices, 1), result.tables, example)


def choose_slices(store: Store, cases: Sequence[str], count: int = EXAMPLES) -> dict[str, int]:
    """Up to `count` cases, those with a tumour first, and of each the slice with the most of it, else of the liver."""
    bearing = [case for case in cases if store.info(case).tumour_voxels > 0]
    chosen = [*bearing, *(case for case in cases if case not in bearing)][:count]
    shown = {}
    for case in chosen:
        slices = store.slices(case)
        size = slices["tumour_voxels"] if case in bearing else slices["liver_voxels"]
        shown[case] = int(size.argmax())
    return shown


def tiny_pair(
    case: str,
    *,
    diameter_mm: float | None,
    liver: bool = True,
    spacing_trusted: bool = True,
    probabilities: bool = False,
) -> CasePair:
    """A pair of 12 x 16 x 16 voxels with what a case has, and a prediction that is partly right.

    Args:
        case: its id.
        diameter_mm: of its lesion; None for no lesion.
        liver: whether there is one.
        spacing_trusted: as for a pair.
        probabilities: whether there are any.
    """
    reference = np.zeros((12, 16, 16), np.uint8)
    if liver:
        reference[2:10, 2:14, 2:14] = LIVER
    if diameter_mm is not None:
        reference[4:8, 4:9, 4:9] = TUMOUR
    # So that the lesion's 100 voxels have the volume of a sphere of that diameter.
    step_mm = 1.0 if diameter_mm is None else diameter_mm * (np.pi / 600) ** (1 / 3)
    pred = np.roll(reference, 1, axis=-1)
    pred[3:5, 11:13, 10:12] = TUMOUR
    return CasePair(
        case,
        pred,
        reference,
        (step_mm,) * 3,
        spacing_trusted=spacing_trusted,
        image=np.where(reference > 0, 100, 0).astype(np.int16),
        probabilities=np.stack([pred == k for k in range(CLASSES)]).astype(np.float16) if probabilities else None,
    )


def share_out(cases: Sequence[str], sizes: Sequence[int]) -> list[str]:
    """This rank's cases: the largest first, each to the rank with the least so far."""
    loads = [0] * dist.world()
    mine = []
    for case, size in sorted(zip(cases, sizes, strict=True), key=lambda pair: (-pair[1], pair[0])):
        rank = loads.index(min(loads))
        loads[rank] += size
        if rank == dist.rank():
            mine.append(case)
    return mine


def flatten(summary: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """A summary as log metrics: the mean where there is one (``val/tumour/dice``), else every number by its path."""
    out: dict[str, float] = {}
    for key, value in summary.items():
        path = f"{prefix}/{key}"
        if isinstance(value, Mapping) and "mean" in value:
            value = value["mean"]
        if isinstance(value, Mapping):
            out.update(flatten(value, path))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            out[path] = float(value)
    return out
