"""A case whose prediction is missing and was let through: it never scores as an empty prediction would."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from core.contracts import Rows

_ZERO = re.compile(r"(?!tp_|fp_|fn_)(.*_)?(dice|iou|precision|recall|f1|nsd(_[\d.]+mm)?|pq|sq|rq)(_.*)?")


def as_missing(tables: dict[str, Rows], *, trusted: bool = True) -> dict[str, Rows]:
    """The tables of a pair with a blank prediction, as those of a case that has no prediction.

    Overlap and NSD are 0 for every structure, also where the reference has none (a blank prediction would score 1
    there), and VOE is 1; distances are not numbers. Rows of ``cases`` and ``lits`` say ``missing``. The lesions are
    right already: a blank prediction finds none.

    Args:
        tables: of the blank prediction.
        trusted: whether the spacing is; without, the NSD stays no number, as every figure in mm.
    """
    out = dict(tables)
    if "cases" in tables:
        out["cases"] = [_score(row, trusted) for row in tables["cases"]]
    if "lits" in tables:  # its own empty masks score 1 too
        out["lits"] = [{**row, "missing": 1} for row in tables["lits"]]
    return out


def _score(row: Mapping[str, Any], trusted: bool) -> dict[str, Any]:
    in_mm = () if trusted else tuple(name for name in row if "nsd" in name)
    scores = {n: 0.0 if _ZERO.fullmatch(n) and n not in in_mm else value for n, value in row.items()}
    if "voe" in row:
        scores["voe"] = 1.0
    return {**scores, "missing": 1}
