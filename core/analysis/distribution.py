"""Whether Dice comes in two kinds: none at all, and how much where there is some; per case, lesion and slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.analysis.dip import bimodality
from core.analysis.strata import rate
from core.measure.overlap import values
from core.measure.statistics import describe

BINS = 20


def hurdle(dice: np.ndarray, patients: Sequence[str]) -> dict[str, Any]:
    """P(Dice = 0), then the distribution of what is above 0: two questions with two answers.

    Args:
        dice: ``[N]``, 0 to 1.
        patients: whose each is.

    Returns:
        ``n``, ``zero``, ``p_zero`` and ``p_zero_ci95`` (bootstrap over patients), ``positive`` (described, with the
        interval of its mean), ``histogram`` (`BINS` counts over 0 to 1, zeros included), ``bimodality`` of what is
        above 0.
    """
    whose = np.asarray(patients, object)
    above = dice > 0
    return {
        "n": len(dice),
        "zero": int(np.count_nonzero(~above)),
        **rate(~above, list(whose), "p_zero"),
        "positive": describe(dice[above], list(whose[above])),
        "histogram": [int(n) for n in np.histogram(dice, BINS, (0, 1))[0]],
        "bimodality": bimodality(dice[above], list(whose[above])),
    }


def end_slices(lesions: Sequence[Mapping[str, Any]], patients: Sequence[str]) -> dict[str, Any]:
    """Dice on the first (lowest) and the last slice of lesions, beside that on the slices between them.

    Lesions on one or two slices have only ends and are left out, so that all three are about the same lesions.

    Args:
        lesions: reference lesions' rows with ``dice_first_slice``, ``dice_last_slice``, ``dice_middle_slices`` (mean),
            ``zero_middle_slices`` and ``slices``.
        patients: whose each is.

    Returns:
        ``lesions``, and under ``first``, ``middle`` and ``last``: ``n`` slices, ``zero``, ``p_zero``, ``p_zero_ci95``,
        and ``dice`` described over lesions.
    """
    kept = [i for i, row in enumerate(lesions) if row.get("dice_middle_slices") is not None]
    own, whose = [lesions[i] for i in kept], [patients[i] for i in kept]
    out: dict[str, Any] = {"lesions": len(own)}
    for place, column in (("first", "dice_first_slice"), ("last", "dice_last_slice")):
        dice = values(own, column)
        out[place] = {
            "n": len(dice),
            "zero": int((dice == 0).sum()),
            **rate(dice == 0, whose, "p_zero"),
            "dice": describe(dice, whose),
        }
    between = values(own, "slices") - 2
    zero = values(own, "zero_middle_slices")
    out["middle"] = {
        "n": int(between.sum()),
        "zero": int(zero.sum()),
        **rate(zero, whose, "p_zero", between),
        "dice": describe(values(own, "dice_middle_slices"), whose),
    }
    return out
