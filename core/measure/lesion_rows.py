"""One row a lesion of either side: what it is, what it was matched with, and how well; columns in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from core.contracts import Rows
from core.measure import surface
from core.measure.components import Connectivity
from core.measure.lesions import Lesions, diameter_mm, join
from core.measure.matching import THRESHOLDS, Overlaps, match_at, overlaps
from core.measure.pair import CasePair, Side
from core.measure.regions import region_dice

COVERED = 0.1
"""Share of a reference lesion from which on it counts as found by coverage."""


def lesion_overlaps(pair: CasePair, connectivity: Connectivity = 26) -> Overlaps:
    """Pairs of a case's lesions that overlap, computed once."""
    return pair.cached(
        ("overlaps", connectivity),
        lambda: overlaps(pair.lesions("ref", connectivity), pair.lesions("pred", connectivity)),
    )


def partners(pair: CasePair, threshold: str, connectivity: Connectivity = 26) -> dict[int, int]:
    """Matched lesions, id in the reference: id in the prediction; `threshold` is "any", "iou_0.1" or "iou_0.5"."""

    def compute() -> dict[int, int]:
        found = lesion_overlaps(pair, connectivity)
        chosen = match_at(found, THRESHOLDS[threshold])
        return dict(zip(found.ref[chosen].tolist(), found.pred[chosen].tolist(), strict=True))

    return pair.cached(("partners", threshold, connectivity), compute)


def lesion_rows(
    pair: CasePair,
    *,
    connectivity: Connectivity = 26,
    min_lesion_ml: float = 0.0,
    tolerances_mm: Sequence[float] = (1.0, 2.0, 3.0),
    definition: surface.Surface = "edge6",
) -> Rows:
    """The rows of table ``lesions`` of one case, those of the reference first.

    Args:
        pair: the case.
        connectivity: neighbours that make one lesion.
        min_lesion_ml: lesions below it say so in `ignored`; they are matched all the same.
        tolerances_mm: of the surface Dice of a matched pair.
        definition: of the surface.
    """
    sides: dict[Side, Lesions] = {"ref": pair.lesions("ref", connectivity), "pred": pair.lesions("pred", connectivity)}
    found = lesion_overlaps(pair, connectivity)
    at = {pair: i for i, pair in enumerate(zip(found.ref.tolist(), found.pred.tolist(), strict=True))}
    dice = 2 * found.voxels / (sides["ref"].voxels[found.ref] + sides["pred"].voxels[found.pred])
    matched = {threshold: partners(pair, threshold, connectivity) for threshold in THRESHOLDS}
    touches = {
        "ref": np.bincount(found.ref, minlength=sides["ref"].count + 1),
        "pred": np.bincount(found.pred, minlength=sides["pred"].count + 1),
    }
    # A reference is merged if a prediction that touches it touches another one too.
    merged = np.zeros(sides["ref"].count + 1, bool)
    merged[found.ref[touches["pred"][found.pred] > 1]] = True
    overlap = np.bincount(found.ref, weights=found.voxels, minlength=sides["ref"].count + 1).astype(np.int64)[1:]
    regions = region_dice(sides["ref"], sides["pred"], pair.spacing_mm, overlap) if pair.spacing_trusted else None
    rows: Rows = []
    for side, lesions in sides.items():
        flip = side == "pred"
        partner = {t: {p: r for r, p in m.items()} if flip else m for t, m in matched.items()}
        for i, row in enumerate(_properties(pair, side, lesions), start=1):
            other = partner["any"].get(i)
            place = None if other is None else at[(other, i) if flip else (i, other)]
            row["matched"] = other
            row["iou"] = None if place is None else float(found.iou[place])
            row["dice"] = None if place is None else float(dice[place])
            for threshold in list(THRESHOLDS)[1:]:
                row[f"matched_{threshold}"] = partner[threshold].get(i)
            row["touches"] = int(touches[side][i])
            row["ignored"] = int(row["volume_ml"] is not None and row["volume_ml"] < min_lesion_ml)
            if not flip:
                best = matched["iou_0.5"].get(i)
                voxels = int(lesions.voxels[i])
                row["iou_at_0.5"] = None if best is None else float(found.iou[at[i, best]])
                row["coverage"] = int(overlap[i - 1]) / voxels
                row["covered"] = int(row["coverage"] >= COVERED)
                row["merged"], row["split"] = int(merged[i]), int(touches[side][i] > 1)
                row["cc_dice"] = None if regions is None else float(regions[i - 1])
                row.update(_boundary(pair, sides, i, other, tolerances_mm, definition))
            rows.append(row)
    return rows


def case_row(pair: CasePair, rows: Rows) -> dict[str, Any]:
    """The lesion columns of the tumour's row in table ``cases``, from the case's rows of `lesion_rows`.

    A lesion that is ignored, or matched with an ignored one, is neither right nor wrong.
    """
    ref = {row["lesion"]: row for row in rows if row["side"] == "ref"}
    out: dict[str, Any] = {"case": pair.case, "structure": "tumour"}
    out["lesions_ref"] = sum(not row["ignored"] for row in ref.values())
    out["lesions_pred"] = sum(row["side"] == "pred" and not row["ignored"] for row in rows)
    for threshold in THRESHOLDS:
        out[f"tp_{threshold}"] = sum(is_hit(row, threshold) for row in ref.values())
        out[f"fp_{threshold}"] = sum(is_false(row, threshold) for row in rows)
    out["voxels_ref"], out["candidates"] = pair.counts("tumour").ref, None
    return out


def column(threshold: str) -> str:
    """The column of a lesion's partner at a threshold."""
    return "matched" if threshold == "any" else f"matched_{threshold}"


def is_hit(row: dict[str, Any], threshold: str) -> bool:
    """Whether a row is a reference lesion that counts and was found."""
    return row["side"] == "ref" and not row["ignored"] and row[column(threshold)] is not None


def is_false(row: dict[str, Any], threshold: str) -> bool:
    """Whether a row is a predicted lesion that counts and is matched with none."""
    return row["side"] == "pred" and not row["ignored"] and row[column(threshold)] is None


def centres(lesions: Lesions, spacing_mm: Sequence[float]) -> np.ndarray:
    """The voxel of each lesion that is nearest to its centroid, int64 ``[count, 3]`` in the whole volume."""
    corner = [s.start for s in lesions.box]
    out = np.rint(lesions.centroids).astype(np.int64)
    hit = lesions.ids[tuple((out - corner).T)]
    for i in np.flatnonzero(hit != np.arange(1, lesions.count + 1)).tolist():  # its middle is not in it
        own = np.argwhere(lesions.inside(lesions.boxes[i]) == i + 1) + [s.start for s in lesions.boxes[i]]
        apart = (own - lesions.centroids[i]) * spacing_mm
        out[i] = own[(apart * apart).sum(axis=1).argmin()]
    return out


def _properties(pair: CasePair, side: Side, lesions: Lesions) -> Rows:
    rows: Rows = []
    middles = centres(lesions, pair.spacing_mm).tolist()
    for i, (box, voxels, (z, y, x)) in enumerate(
        zip(lesions.boxes, lesions.voxels[1:].tolist(), middles, strict=True), start=1
    ):
        ml = None if pair.voxel_ml is None else voxels * pair.voxel_ml
        first, last = box[0].start, box[0].stop - 1
        rows.append(
            {
                "case": pair.case,
                "side": side,
                "lesion": i,
                "voxels": voxels,
                "volume_ml": ml,
                "diameter_mm": diameter_mm(ml),
                **{"z_first": first, "z_last": last, "slices": last - first + 1},
                **{"z": z, "y": y, "x": x},
            }
        )
    return rows


def _boundary(
    pair: CasePair,
    sides: dict[Side, Lesions],
    ref: int,
    pred: int | None,
    tolerances_mm: Sequence[float],
    definition: surface.Surface,
) -> dict[str, float | None]:
    names = ["assd_mm", "hd_mm", "hd95_mm", *(surface.nsd_column(t) for t in tolerances_mm)]
    if pred is None or not pair.spacing_trusted:
        return dict.fromkeys(names)
    box = join(sides["ref"].boxes[ref - 1], sides["pred"].boxes[pred - 1])
    masks = sides["pred"].inside(box) == pred, sides["ref"].inside(box) == ref
    found = surface.between(*masks, pair.spacing_mm, definition)
    if found is None:  # cannot be: both lesions lie in the box
        return dict.fromkeys(names)
    figures = [found.assd(), found.hd(), found.hd95(), *(found.nsd(t) for t in tolerances_mm)]
    return dict(zip(names, figures, strict=True))
