"""What a label says against itself, and against its scan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
from scipy import ndimage

from core.audit.fit import LEFT_SHARE, Fit
from core.audit.rules import Finding
from core.data.tables import Lesions, find_lesions
from core.measure.components import number_components
from core.values import LIVER, TUMOUR

LIVER_ML = (400.0, 4000.0)
END_SHARE = 0.02
"""A liver is cut if its area on the scan's first or last slice is this share of its largest."""
PIECE_SHARE = 0.02
SPECKLE_VOXELS = 5
SPECKLES = 3
HOLE_SHARE = 0.002
NAMED = 5

_WAYS = (
    ("to the feet", "to the head"),
    ("to the front", "to the back"),
    ("to the patient's right", "to the patient's left"),
)


@dataclass(frozen=True)
class Labels:
    """A label in figures.

    Attributes:
        liver_voxels: of labels 1 and 2.
        tumour_voxels: of label 2.
        lesions: voxels of each connected component of label 2.
        box: where labels 1 and 2 lie, or None.
        centre: ``(z, y, x)``, of the largest lesion, or else of the slice with most liver.
    """

    liver_voxels: int
    tumour_voxels: int
    lesions: tuple[int, ...]
    box: tuple[slice, slice, slice] | None
    centre: tuple[int, int, int] | None


def measure(label: np.ndarray) -> tuple[Labels, Lesions]:
    """Count liver, tumour and lesions of a label ``[Z, Y, X]``."""
    areas = np.array([np.count_nonzero(plane) for plane in label], np.int64)
    tumour = sum(int(np.count_nonzero(plane == TUMOUR)) for plane in label)
    if not areas.any():
        return Labels(0, 0, (), None, None), find_lesions(label[:0])
    rows, columns = np.zeros(label.shape[1], bool), np.zeros(label.shape[2], bool)
    for plane in label[areas > 0]:
        rows |= plane.any(axis=1)
        columns |= plane.any(axis=0)
    box = (_span(areas > 0), _span(rows), _span(columns))
    lesions = find_lesions(label)
    if lesions.count:
        largest = int(np.argmax(lesions.voxels))
        part = lesions.boxes[largest]
        own = tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(part, lesions.box, strict=True))
        mask, corner = lesions.ids[own] == largest + 1, [s.start for s in part]
    else:
        z = int(np.argmax(areas))
        mask, corner = label[z : z + 1] > 0, [z, 0, 0]
    middle = np.argwhere(mask).mean(axis=0)
    centre = tuple(int(c + round(float(m))) for c, m in zip(corner, middle, strict=True))
    voxels = tuple(int(v) for v in lesions.voxels)
    return Labels(int(areas.sum()), tumour, voxels, box, centre), lesions  # type: ignore[arg-type]


def check_label(
    label: np.ndarray, seen: Labels, lesions: Lesions, spacing_mm: Sequence[float], trusted: bool, case: str
) -> list[Finding]:
    """Findings on a label alone.

    Args:
        label: uint8 ``[Z, Y, X]``.
        seen: what `measure` says of it, as is `lesions`.
        lesions: its components of label 2.
        spacing_mm: along z, y, x.
        trusted: whether the spacing can be trusted; without, nothing is said in ml.
        case: its id.
    """
    if seen.box is None:
        return [Finding("empty_label", f"none of {label.size} voxels is liver or tumour", (case,))]
    if seen.tumour_voxels == seen.liver_voxels:
        return [Finding("tumour_without_liver", f"{seen.tumour_voxels} voxels of 2, none of 1", (case,))]
    found = []
    ml = seen.liver_voxels * math.prod(spacing_mm) / 1000
    if trusted and not LIVER_ML[0] <= ml <= LIVER_ML[1]:
        limits = f"{LIVER_ML[0]:.0f} to {LIVER_ML[1]:.0f} ml are plausible"
        found.append(Finding("liver_volume", f"{ml:.0f} ml; {limits}", (case,)))
    return [*found, *_ends(label, case), *_pieces(label[seen.box] > 0, case), *_lesions(label, lesions, case)]


def check_fit(fit: Fit, spacing_mm: Sequence[float], trusted: bool, case: str) -> list[Finding]:
    """Whether the mask lies on its liver."""
    inside = f"{100 * fit.odd:.0f} % of the mask are fat, lung, air or bone (below -50 or above 300 HU)"
    spread = f"half of it lies within [{fit.low:.0f}, {fit.high:.0f}] HU"
    if fit.flip:
        left = f"mirrored along {fit.flip} it would be {100 * fit.flip_odd:.1f} %"
        return [Finding("mirrored_mask", f"{inside}; {left}", (case,))]
    if fit.shift is not None:
        moves = [
            f"{abs(d)} voxels{f' ({abs(d) * mm:.0f} mm)' if trusted else ''} {way[d > 0]}"
            for d, mm, way in zip(fit.shift, spacing_mm, _WAYS, strict=True)
            if d
        ]
        saw = f"moved {', '.join(moves)} its outline lies on {fit.shift_gain:.1f} times stronger edges"
        return [Finding("shifted_mask", saw, (case,))]
    if fit.misfit:
        return [Finding("mask_off_liver", f"{inside}; {spread}", (case,))]
    return []


def check_side(left: float | None, case: str) -> list[Finding]:
    """Whether the liver lies on the right, given what `core.audit.fit.side` says."""
    if left is None or left < LEFT_SHARE:
        return []
    return [Finding("liver_left", f"{100 * left:.0f} % of the body's width left of its middle", (case,))]


def _ends(label: np.ndarray, case: str) -> list[Finding]:
    largest = max(int(np.count_nonzero(plane)) for plane in label)
    ends = [
        f"{np.count_nonzero(label[z])} voxels on the {name} slice"
        for z, name in ((0, "lowest"), (-1, "highest"))
        if np.count_nonzero(label[z]) > END_SHARE * largest
    ]
    if not ends:
        return []
    return [Finding("cut_liver", f"{' and '.join(ends)} (at most {largest} on one)", (case,))]


def _pieces(liver: np.ndarray, case: str) -> list[Finding]:
    """Large pieces, islands and holes of the liver in its box."""
    found = []
    ids, _ = number_components(liver)
    sizes = np.sort(_voxels(ids))[::-1]
    total = int(sizes.sum())
    large = sizes[sizes >= PIECE_SHARE * total]
    if len(large) > 1:
        shares = ", ".join(f"{100 * n / total:.0f} %" for n in large[:NAMED])
        found.append(Finding("liver_pieces", f"{len(large)} pieces, of {shares} of the liver", (case,)))
    tiny = int(np.count_nonzero(sizes <= SPECKLE_VOXELS))
    if tiny >= SPECKLES:
        found.append(Finding("speckles", f"{tiny} pieces of liver have at most {SPECKLE_VOXELS} voxels", (case,)))
    del ids
    outside, count = number_components(np.pad(~liver, 1, constant_values=True), 6)
    if count > 1:
        holes = np.delete(_voxels(outside), int(outside[0, 0, 0]) - 1)
        if holes.sum() >= HOLE_SHARE * total:
            saw = f"{len(holes)} holes with {holes.sum()} voxels, {100 * holes.sum() / total:.1f} % of the liver"
            found.append(Finding("holes", saw, (case,)))
    return found


def _voxels(ids: np.ndarray) -> np.ndarray:
    """Voxels of each component; numpy's own count would take eight bytes a voxel."""
    return np.asarray(cc3d.statistics(ids)["voxel_counts"][1:], np.int64)


def _lesions(label: np.ndarray, lesions: Lesions, case: str) -> list[Finding]:
    """Lesions apart from the liver, and tiny ones."""
    found, apart = [], []
    for i, box in enumerate(lesions.boxes):
        near = tuple(slice(max(0, s.start - 1), min(n, s.stop + 1)) for s, n in zip(box, label.shape, strict=True))
        liver = label[near] == LIVER
        if not liver.any():
            apart.append(i)
            continue
        own = np.zeros(liver.shape, bool)
        at = tuple(slice(s.start - n.start, s.stop - n.start) for s, n in zip(box, near, strict=True))
        part = tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(box, lesions.box, strict=True))
        own[at] = lesions.ids[part] == i + 1
        if not (ndimage.binary_dilation(own, np.ones((3, 3, 3), bool)) & liver).any():
            apart.append(i)
    if apart:
        places = ", ".join(
            f"{lesions.voxels[i]} voxels at slice {lesions.boxes[i][0].start}"
            + (
                f" to {lesions.boxes[i][0].stop - 1}"
                if lesions.boxes[i][0].stop - 1 > lesions.boxes[i][0].start
                else ""
            )
            for i in apart[:NAMED]
        )
        more = ", ..." if len(apart) > NAMED else ""
        found.append(Finding("lesion_outside", f"{len(apart)} of {lesions.count} lesions: {places}{more}", (case,)))
    tiny = int(np.count_nonzero(np.asarray(lesions.voxels) <= SPECKLE_VOXELS))
    if tiny >= SPECKLES:
        saw = f"{tiny} of {lesions.count} lesions have at most {SPECKLE_VOXELS} voxels"
        found.append(Finding("speckles", saw, (case,)))
    return found


def _span(hit: np.ndarray) -> slice:
    where = np.flatnonzero(hit)
    return slice(int(where[0]), int(where[-1]) + 1)
