"""A case whose prediction is missing and was let through: it never scores as an empty prediction would."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from core.contracts import Rows

_ZERO = re.compile(r"(?!tp_|fp_|fn_)(.*_)?(dice|iou|precision|recall|f1|nsd(_[\d.]+mm)?|pq|sq|rq)(_.*)?")


def as_missing(tables: dict[str, Rows]) -> dict[str, Rows]:
    """The tables of a pair with a blank prediction, as those of a case that has no prediction.

    Overlap and NSD are 0 for every structure, also where the reference has none (a blank prediction would score 1
    there), and VOE is 1; distances are not numbers. Rows of ``cases`` and ``lits`` say ``missing``. The lesions are
    right already: a blank prediction finds none.
    """
    out = dict(tables)
    if "cases" in tables:
        out["cases"] = [_score(row) for row in tables["cases"]]
    if "lits" in tables:  # its own empty masks score 1 too
        out["lits"] = [{**row, "missing": 1} for row in tables["lits"]]
    return out


def _score(row: Mapping[str, Any]) -> dict[str, Any]:
    scores = {name: 0.0 if _ZERO.fullmatch(name) else value for name, value in row.items()}
    if "voe" in row:
        scores["voe"] = 1.0
    return {**scores, "missing": 1}
