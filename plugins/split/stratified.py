"""Split by patient, even in tumour burden."""

from __future__ import annotations

import math

import numpy as np

from core.data.splits import Group, SplitError, draw_evenly, groups
from core.data.store import Store
from registry import register


@register("split", "stratified")
class Stratified:
    """Split by patient, each part with the same mix of tumour-free, little and much tumour.

    Patients (joined with those who own the same scan) are ordered by tumour burden, the tumour-free first. A part
    takes one at random from each of equal stretches of that order. Cases without a label are left out.

    Either parts by share, or k folds of which `fold` tests, a share `val` of the others validates and the rest trains;
    over all folds each patient tests once.

    Args:
        test: share of the patients that tests; not used with folds.
        val: share of the patients that validates; with folds, share of those who do not test.
        seed: of the draw.
        folds: number of folds; null for parts by share.
        fold: which fold tests, from 0.

    Raises ValueError for impossible shares and SplitError for too few patients.

    Example: {name: stratified, test: 0.2, val: 0.15, seed: 0}
    """

    def __init__(
        self,
        store: Store,
        *,
        test: float = 0.2,
        val: float = 0.15,
        seed: int = 0,
        folds: int | None = None,
        fold: int | None = None,
    ) -> None:
        for name, share in (("test", test), ("val", val)):
            if not 0 <= share < 1:
                raise ValueError(f"{name} is a share of the patients: want 0 <= {name} < 1, got {share:g}")
        if folds is None:
            if fold is not None:
                raise ValueError("fold needs folds, e.g. folds: 5")
            if test + val >= 1:
                raise ValueError(f"test and val leave nothing to train on: {test:g} + {val:g}")
        else:
            if folds < 2:
                raise ValueError(f"want at least 2 folds, got {folds}")
            if fold is None or not 0 <= fold < folds:
                raise ValueError(f"with folds: {folds}, fold says which one tests: 0 to {folds - 1}, got {fold}")
        self._store, self._test, self._val, self._seed = store, test, val, seed
        self._folds, self._fold = folds, fold

    def parts(self) -> dict[str, list[str]]:
        """Case ids under train, val and test."""
        everyone = groups(self._store)
        rng = np.random.default_rng(self._seed)
        total = len(everyone)
        if self._folds is None or self._fold is None:
            tested = _count(self._test, total)
            validated = _count(self._val, total)
            self._enough(total, tested + validated + 1)
            test, rest = draw_evenly(everyone, tested, rng)
        else:
            self._enough(total, max(self._folds, 2 + (self._val > 0)))
            test, rest = self._fold_of(everyone, rng)
            validated = _count(self._val, len(rest))
            self._enough(total, len(test) + validated + 1)
        val, train = draw_evenly(rest, validated, rng)
        named = {"train": train, "val": val, "test": test}
        position = {case: i for i, case in enumerate(self._store.cases)}
        return {
            name: sorted((case for group in chosen for case in group.cases), key=position.__getitem__)
            for name, chosen in named.items()
        }

    def _fold_of(self, everyone: list[Group], rng: np.random.Generator) -> tuple[list[Group], list[Group]]:
        folds = self._folds or 1
        assigned: list[int] = []
        for start in range(0, len(everyone), folds):
            # Each run of `folds` neighbours in burden goes to the folds in a random order: one patient each.
            assigned += rng.permutation(folds)[: len(everyone) - start].tolist()
        test = [g for g, f in zip(everyone, assigned, strict=True) if f == self._fold]
        return test, [g for g, f in zip(everyone, assigned, strict=True) if f != self._fold]

    def _enough(self, total: int, wanted: int) -> None:
        if total < wanted:
            raise SplitError(
                f"{self._store.root} has {total} labelled patient{'' if total == 1 else 's'}, and this split needs at "
                f"least {wanted}; set split.test=0 or split.val=0, use fewer folds, or list the cases (split: file)"
            )


def _count(share: float, total: int) -> int:
    """Patients in a share: rounded, but at least one if the share is not 0."""
    return max(1, math.floor(share * total + 0.5)) if share > 0 else 0
