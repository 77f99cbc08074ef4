"""Every setting on every validation case; the network runs once a case."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from core import rundir
from core.build import build
from core.contracts import Postprocess
from core.data.store import Store
from core.errors import UserError
from core.infer.evaluate import apply_postprocess, infer, wants_probabilities
from core.infer.run import Run, read_split
from core.measure.pair import CasePair
from core.parallel import map_cases
from core.tune.grid import Grid, Step
from core.tune.objective import Objective

Setting = tuple[int, ...]
_Slots = Sequence[tuple[bool, list[Postprocess | None]]]
"""Whether a slot is tried, and its options."""
_Apply = Callable[[Postprocess, np.ndarray], np.ndarray]


def validation_cases(run: Run, store: Store) -> list[str]:
    """The cases of the run's validation split; under cross-validation the inner part, which no fold's test has.

    Raises:
        UserError: if there are none, or they no longer match the store.
    """
    recorded = rundir.read_split(run.folder)
    if recorded is not None and not recorded[0].get("val"):
        sizes = ", ".join(f"{name} {len(cases)}" for name, cases in recorded[0].items())
        raise UserError(
            f"the val split of {run.folder} is empty (cases: {sizes}), so there is nothing to choose on: cases that "
            f"choose cannot test.\n  Train with a split that has val cases, or write postprocess: yourself"
        )
    return read_split(run.folder, "val", store)


def try_all(run: Run, store: Store, cases: Sequence[str], grid: Grid, objective: Objective) -> list[list[Any]]:
    """What the objective keeps, by setting (in the order of ``grid.settings()``) and case.

    Raises:
        UserError: if a case cannot be used; it is named.
    """
    settings = grid.settings()
    slots = _built(grid)
    kept: list[list[Any]] = [[] for _ in settings]

    def one(case: str) -> dict[Setting, Any]:
        return _case(run, store, case, slots, objective)

    for case, found in map_cases(one, cases, workers=0, description="tuning"):
        if isinstance(found, UserError):
            raise UserError(str(found) if f"'{case}'" in str(found) else f"case '{case}': {found}") from found
        if isinstance(found, Exception):
            raise found
        for row, setting in zip(kept, settings, strict=True):
            row.append(found[setting])
    return kept


def _case(run: Run, store: Store, case: str, slots: _Slots, objective: Objective) -> dict[Setting, Any]:
    info = store.info(case)
    run.experiment.geometry.check_spacing(f"case '{case}'", trusted=info.spacing_trusted)
    volume, reference, place = store.volume(case), store.reference(case), store.grid(case)
    wanted = wants_probabilities([step for _, options in slots for step in options if step is not None])
    with run.autocast():
        found, image = infer(volume, inferer=run.inferer, probabilities=wanted, grid=place)

    def apply(step: Postprocess, labels: np.ndarray) -> np.ndarray:
        return apply_postprocess([step], labels, place.scan_spacing_mm, found.probabilities, image)

    out = {}
    for setting, labels in _every(found.labels, slots, apply):
        pair = CasePair(
            case,
            labels,
            reference,
            place.scan_spacing_mm,
            patient=info.patient,
            spacing_trusted=info.spacing_trusted,
            image=image,
            probabilities=found.probabilities,
        )
        out[setting] = objective.measure(pair)
    return out


def _every(
    labels: np.ndarray, slots: _Slots, apply: _Apply, chosen: Setting = ()
) -> Iterator[tuple[Setting, np.ndarray]]:
    """Every setting with its labels; what settings have in common at the front is computed once."""
    if not slots:
        yield chosen, labels
        return
    (tried, options), rest = slots[0], slots[1:]
    for position, step in enumerate(options):
        now = (*chosen, position) if tried else chosen
        yield from _every(labels if step is None else apply(step, labels), rest, apply, now)


def _built(grid: Grid) -> _Slots:
    return [
        (True, [None if plan is None else build(plan) for plan in slot.options])
        if isinstance(slot, Step)
        else (False, [build(slot)])
        for slot in grid.slots
    ]
