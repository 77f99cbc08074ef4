"""`strict` and the LiTS scorer side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.report.cells import NONE, Table, mean, with_interval
from core.report.folder import Evaluation

_PAIRS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("tumour Dice per case", "lesion.dice_per_case", ("tumour", "dice", "mean")),
    ("tumour Dice, global", "lesion.dice_global", ("tumour", "dice", "global")),
    ("lesion recall, any overlap", "lesion.recall_greater_zero", ("lesions", "any", "recall")),
    ("lesion precision, any overlap", "lesion.precision_greater_zero", ("lesions", "any", "precision")),
    ("lesion recall at 0.5", "lesion.recall", ("lesions", "iou_0.5", "recall")),
    ("lesion precision at 0.5", "lesion.precision", ("lesions", "iou_0.5", "precision")),
    ("true positives at 0.5", "lesion.tp", ("lesions", "iou_0.5", "tp")),
    ("false positives at 0.5", "lesion.fp", ("lesions", "iou_0.5", "fp")),
    ("false negatives at 0.5", "lesion.fn", ("lesions", "iou_0.5", "fn")),
    ("Dice of detected lesions", "lesion.dice", ("lesions", "dice_detected", "mean")),
    ("VOE of detected lesions", "lesion.voe", ()),
    ("RVD of detected lesions", "lesion.rvd", ()),
    ("ASSD of detected lesions, mm", "lesion.assd_mm", ("lesions", "boundary", "assd_mm", "mean")),
    ("MSD of detected lesions, mm", "lesion.msd_mm", ("lesions", "boundary", "hd_mm", "mean")),
    ("liver Dice per case", "liver.dice_per_case", ("liver", "dice", "mean")),
    ("liver Dice, global", "liver.dice_global", ("liver", "dice", "global")),
    ("liver VOE", "liver.voe", ("liver", "voe", "mean")),
    ("liver RVD", "liver.rvd", ("liver", "rvd", "mean")),
    ("liver ASSD, mm", "liver.assd_mm", ("liver", "assd_mm", "mean")),
    ("liver RMSD, mm", "liver.rmsd_mm", ("liver", "rmsd_mm", "mean")),
    ("liver MSD, mm", "liver.msd_mm", ("liver", "hd_mm", "mean")),
    ("tumour burden, RMSE", "tumour_burden.rmse", ("tumour_burden", "rmse")),
    ("tumour burden, greatest error", "tumour_burden.max", ("tumour_burden", "max_abs")),
)
"""Name, figure of the LiTS scorer, figure of `strict`."""


def lits_table(e: Evaluation) -> Table | None:
    """`strict` beside the LiTS scorer, as its program runs and as its text says."""
    modes = [e.of("lits_published"), e.of("lits_documented")]
    if not any(isinstance(mode, Mapping) for mode in modes):
        return None
    table = Table(
        (
            ("", ""),
            ("strict", "as docs/metrics.md defines them"),
            ("lits, published", "as the challenge's program runs, its defect included"),
            ("lits, documented", "as the challenge's text says"),
        )
    )
    flat = [_flat(mode) if isinstance(mode, Mapping) else {} for mode in modes]
    known = dict.fromkeys(key for _, key, _ in _PAIRS)
    for label, key, path in _PAIRS:
        if any(key in mode for mode in flat):
            strict = e.of(*path[:-1]) if path else None
            own = with_interval(strict, path[-1]) if path and path[-1] != "mean" else mean(strict)
            table.add(label, own, *(with_interval(mode, key) for mode in flat))
    for key in dict.fromkeys(key for mode in flat for key in mode):
        if key not in known and not key.endswith("_ci95"):
            table.add(key.replace("_", " ").replace(".", ": "), NONE, *(with_interval(mode, key) for mode in flat))
    table.notes.append(
        "Detected lesions are those of any overlap in strict, of more than 0.5 in lits. RVD is (P - R) / R in strict "
        "and (R - P) / P in lits; the greatest error of burden has a sign in lits alone."
    )
    return table


def _flat(nested: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{before}{name}.")
        else:
            out[f"{before}{name}"] = value
    return out
