"""Split by patient, even in tumour burden, lesion count and slice thickness."""

from __future__ import annotations

import numpy as np

from core.data.splits import (
    Group,
    SplitError,
    case_ids,
    check_share,
    count_of,
    draw_parts,
    groups,
    most_even,
    strata,
)
from core.data.store import Store
from registry import register


@register("split", "stratified")
class Stratified:
    """Split by patient, each part with the same mix of tumour burden, lesion counts and slice thickness.

    Patients (joined with those who own the same scan, whole or in part, in whatever source) are ordered by tumour
    burden, the tumour-free first. A part takes one at random from each of equal stretches of that order. Of 100 such
    draws, the one counts whose parts differ least from all patients in the shares of burden (none, quarters of the
    rest), lesion count (0, 1, 2 to 4, 5 to 9, more) and slice thickness (untrusted, up to 1.5 mm, up to 3 mm, more).
    Cases without a label and external ones are left out.

    Either parts by share, or k folds of which `fold` tests, a share `val` of the others validates and the rest trains;
    over all folds each patient tests once.

    Args:
        test: share of the patients that tests; not used with folds.
        val: share of the patients that validates; with folds, share of those who do not test.
        seed: of the draws.
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
        check_share("test", test)
        check_share("val", val)
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
        total = len(everyone)
        if self._folds is None or self._fold is None:
            counts = [count_of(self._test, total), count_of(self._val, total)]
            self._enough(total, sum(counts) + 1)
            test, val, train = draw_parts(everyone, counts, self._seed)
        else:
            self._enough(total, max(self._folds, 2 + (self._val > 0)))
            folds = self._all_folds(everyone, self._folds)
            test = folds[self._fold]
            rest = [group for group in everyone if group not in set(test)]
            validated = count_of(self._val, len(rest))
            self._enough(total, len(test) + validated + 1)
            val, train = draw_parts(rest, [validated], self._seed)
        named = {"train": train, "val": val, "test": test}
        return {name: case_ids(self._store, chosen) for name, chosen in named.items()}

    def _all_folds(self, everyone: list[Group], folds: int) -> list[list[Group]]:
        def draw(rng: np.random.Generator) -> list[list[Group]]:
            assigned: list[int] = []
            for start in range(0, len(everyone), folds):
                # Each run of `folds` neighbours in burden goes to the folds in a random order: one patient each.
                assigned += rng.permutation(folds)[: len(everyone) - start].tolist()
            return [[g for g, f in zip(everyone, assigned, strict=True) if f == fold] for fold in range(folds)]

        return most_even(draw, strata(everyone), self._seed)

    def _enough(self, total: int, wanted: int) -> None:
        if total < wanted:
            raise SplitError(
                f"{self._store.root} has {total} labelled patient{'' if total == 1 else 's'}, and this split needs at "
                f"least {wanted}; set split.test=0 or split.val=0, use fewer folds, or list the cases (split: file)"
            )
