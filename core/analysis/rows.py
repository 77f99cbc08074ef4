"""What error analysis adds to the tables of one case."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.analysis.associated import Thresholds, associated
from core.analysis.false_positives import false_positive
from core.analysis.slices import lesion_slices
from core.analysis.surroundings import LiverBorder, surroundings
from core.contracts import Rows
from core.measure import overlap
from core.measure.lesion_rows import lesion_overlaps, partners
from core.measure.lesions import diameter_mm
from core.measure.pair import CasePair, Counts, Side
from core.values import TUMOUR


def analyse(pair: CasePair, limits: Thresholds) -> dict[str, Rows]:
    """Tables ``cases``, ``slices`` and ``lesions`` of one case; columns of other metrics are the same there."""
    return {
        "cases": _cases(pair),
        "slices": _slices(pair),
        "lesions": [*_references(pair, limits), *_predictions(pair, limits)],
    }


def _cases(pair: CasePair) -> Rows:
    rows: Rows = []
    for structure in ("liver", "tumour"):
        counts = pair.counts(structure)
        row: dict[str, Any] = {"case": pair.case, "structure": structure}
        row.update(voxels_pred=counts.pred, voxels_ref=counts.ref, voxels_both=counts.both)
        row["volume_ml_ref"] = None if pair.voxel_ml is None else counts.ref * pair.voxel_ml
        rows.append(row)
    rows[1]["slice_thickness_mm"] = _thickness(pair)
    return rows


def _slices(pair: CasePair) -> Rows:
    rows: Rows = []
    per_slice = pair.slice_counts("tumour")
    for z in np.flatnonzero(per_slice[:, :2].any(axis=1)):
        counts = Counts(*(int(n) for n in per_slice[z]))
        # One side is not empty, so that no policy for empty masks matters.
        rows.append({"case": pair.case, "z": int(z), "structure": "tumour", "dice": overlap.dice(counts)})
        rows[-1]["in_reference"] = int(counts.ref > 0)
    return rows


def _references(pair: CasePair, limits: Thresholds) -> Rows:
    found, matched = lesion_overlaps(pair), partners(pair, "any")
    iou = {(r, p): v for r, p, v in zip(found.ref.tolist(), found.pred.tolist(), found.iou.tolist(), strict=True)}
    shared = np.bincount(found.pred, minlength=pair.lesions("pred").count + 1)[found.pred] > 1
    merged = set(found.ref[shared].tolist())
    by_slice = lesion_slices(pair)
    rows: Rows = []
    for row in _basic(pair, "ref"):
        i, partner = row["lesion"], matched.get(row["lesion"])
        box = pair.lesions("ref").boxes[i - 1]
        around = surroundings(pair, i)
        row["slices"] = box[0].stop - box[0].start
        row["matched"] = partner
        row["dice"] = None if partner is None else 2 * iou[i, partner] / (1 + iou[i, partner])
        row["merged"] = int(i in merged)
        row["contrast_hu"], row["noise_hu"], row["cnr"] = around.contrast_hu, around.noise_hu, around.cnr
        row["border_hu_per_mm"] = around.border_hu_per_mm
        trusted = pair.spacing_trusted
        row["border_distance_mm"] = LiverBorder.of(pair).distance(pair.lesions("ref"), i) if trusted else None
        row["slice_thickness_mm"] = _thickness(pair)
        dice = by_slice.dice(i, box[0].start, box[0].stop - 1)
        row["dice_first_slice"], row["dice_last_slice"] = float(dice[0]), float(dice[-1])
        row["dice_middle_slices"] = float(dice[1:-1].mean()) if len(dice) > 2 else None
        row["zero_middle_slices"] = int((dice[1:-1] == 0).sum())
        rows.append(row)
    for row in rows:
        others = [r["contrast_hu"] for r in rows if r is not row and r["contrast_hu"] is not None]
        row["features"] = ";".join(associated(row, others, limits))
    return rows


def _predictions(pair: CasePair, limits: Thresholds) -> Rows:
    owner = {pred: ref for ref, pred in partners(pair, "any").items()}
    overlapping = set(lesion_overlaps(pair).pred.tolist())
    rows: Rows = []
    for row in _basic(pair, "pred"):
        row["matched"] = owner.get(row["lesion"])
        if row["lesion"] not in overlapping:
            row.update(false_positive(pair, row["lesion"], limits.border_mm))
        rows.append(row)
    return rows


def _basic(pair: CasePair, side: Side) -> Rows:
    lesions = pair.lesions(side)
    rows: Rows = []
    for i in range(1, lesions.count + 1):
        voxels = int(lesions.voxels[i])
        ml = None if pair.voxel_ml is None else voxels * pair.voxel_ml
        row: dict[str, Any] = {"case": pair.case, "side": side, "lesion": i, "voxels": voxels}
        row.update(volume_ml=ml, diameter_mm=diameter_mm(ml), probability=_probability(pair, side, i))
        rows.append(row)
    return rows


def _probability(pair: CasePair, side: Side, lesion: int) -> float | None:
    if pair.probabilities is None:
        return None
    lesions = pair.lesions(side)
    box = lesions.boxes[lesion - 1]
    return float(pair.probabilities[TUMOUR][box][lesions.inside(box) == lesion].mean(dtype=np.float64))


def _thickness(pair: CasePair) -> float | None:
    return pair.spacing_mm[0] if pair.spacing_trusted else None
