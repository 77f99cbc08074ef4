"""Validation: whole volumes through the same inferer as evaluation; metrics on the scan's own grid, and loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from core import dist
from core.build import Plan, build
from core.data.store import Store
from core.infer.evaluate import evaluate_case, merge_tables, summarise
from core.infer.geometry import Geometry
from core.train.objective import Objective
from core.train.precision import autocast
from core.train.trainer import Evaluation


class Validation:
    """Evaluates validation cases, whole cases shared out over the ranks; the same rows at any number of ranks.

    The loss of a case is the mean over its blocks of slices (``inferer.batch``), weighted by their slices; ``val/loss``
    is the mean over cases, on all slices.

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
        self.metrics = [build(plan) for plan in metrics]
        self.postprocess, self.objective = postprocess, objective
        self.device, self.precision = device, precision

    def __call__(self, network: nn.Module) -> Evaluation:
        """Metrics ``val/...`` and one row a case and structure. A collective."""
        inferer = build(self.inferer, network=network, geometry=self.geometry)
        mine = []
        for case in share_out(self.cases, [self.store.info(c).shape[0] for c in self.cases]):
            mine.append(self._case(case, inferer))
        gathered = [part for rank in dist.gather(mine) for part in rank]
        losses = {case: loss for case, loss, _ in gathered}
        tables = merge_tables((tables for _, _, tables in gathered), order=self.cases)
        # In the order of the cases, so that the sum does not depend on the number of ranks.
        metrics = {"val/loss": float(np.mean([losses[c] for c in self.cases]))}
        metrics.update(flatten(summarise(self.metrics, tables), "val"))
        rows = [{**row, "loss": losses[row["case"]]} for row in tables.get("cases", [])]
        return Evaluation(metrics, rows)

    def _case(self, case: str, inferer: Any) -> tuple[str, float, dict[str, list]]:
        reference, total, slices = self.store.label(case), 0.0, 0

        def on_logits(logits: torch.Tensor, block: tuple[slice, ...]) -> None:
            nonlocal total, slices
            target = self.geometry.label(reference[block[0]])[:, block[1], block[2]]
            extras = {}
            if "lesion" in self.objective.asks:
                ids = range(*block[0].indices(len(reference)))
                lesion = self.geometry.lesion(self.store.lesion(case, ids))[:, block[1], block[2]]
                extras["lesion"] = torch.from_numpy(lesion).to(self.device)
            with torch.autocast(self.device.type, enabled=False):
                loss, _ = self.objective(logits, torch.from_numpy(target).to(self.device), extras)
            total += float(loss) * len(target)
            slices += len(target)

        with autocast(self.device, self.precision):
            result = evaluate_case(
                case,
                self.store.volume(case),
                reference,
                inferer=inferer,
                postprocess=self.postprocess,
                metrics=self.metrics,
                info=self.store.info(case),
                on_logits=on_logits,
            )
        return case, total / max(slices, 1), result.tables


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
