"""The per-slice and per-lesion tables of a case, computed once when the store is written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
from scipy import ndimage

from core.measure.components import number_components
from core.values import LIVER, TUMOUR

SLICE_DTYPE = np.dtype([("z", "<i4"), ("liver_voxels", "<i4"), ("tumour_voxels", "<i4"), ("lesions", "<i4")])
LESION_DTYPE = np.dtype(
    [
        *(("id", "<i4"), ("voxels", "<i8"), ("volume_ml", "<f8"), ("diameter_mm", "<f8"), ("contrast_hu", "<f8")),
        *(("z_first", "<i4"), ("z_last", "<i4")),
    ]
)
SHELL_MM = (2.0, 10.0)
"""Distance from the lesion of the parenchyma that its contrast is taken against."""

_CONTRAST_VOXELS = 2_000_000


@dataclass(frozen=True)
class Lesions:
    """The connected components of a case's tumour label (26 neighbours).

    Attributes:
        ids: uint16, 1..count in the box, 0 elsewhere.
        box: where `ids` lies in the volume ``[Z, Y, X]``; the rest of the volume holds none.
        boxes: of each lesion, in the volume.
    """

    ids: np.ndarray
    box: tuple[slice, slice, slice]
    boxes: list[tuple[slice, slice, slice]]
    voxels: np.ndarray

    @property
    def count(self) -> int:
        """Number of lesions."""
        return len(self.boxes)

    def planes(self, shape: Sequence[int]) -> Iterator[np.ndarray]:
        """Lesion ids uint16 ``[Y, X]`` of all slices, one after the other in the same memory."""
        out = np.zeros(tuple(shape[1:]), np.uint16)
        depth = self.box[0]
        for z in range(shape[0]):
            if self.count and depth.start <= z <= depth.stop:
                out[self.box[1:]] = self.ids[z - depth.start] if z < depth.stop else 0
            yield out


def find_lesions(label: np.ndarray) -> Lesions:
    """The lesions of a label volume ``[Z, Y, X]``.

    Raises:
        ValueError: for more than 65,535 lesions.
    """
    planes, rows, columns = (np.zeros(n, bool) for n in label.shape)
    for z, plane in enumerate(label):  # by slices: a mask of the whole volume would cost as much as the label again
        mask = plane == TUMOUR
        across = mask.any(axis=1)
        if across.any():
            planes[z] = True
            rows |= across
            columns |= mask.any(axis=0)
    if not planes.any():
        return Lesions(np.zeros((0, 0, 0), np.uint16), (slice(0, 0),) * 3, [], np.zeros(0, np.int64))
    box = (_span(planes), _span(rows), _span(columns))
    ids, count = number_components(label[box] == TUMOUR)
    if count > np.iinfo(np.uint16).max:
        raise ValueError(f"{count} separate lesions: this is noise, not a tumour label")
    ids = ids.astype(np.uint16)
    found = cc3d.statistics(ids, no_slice_conversion=False)
    shift = [s.start for s in box]
    boxes = [
        tuple(slice(s.start + d, s.stop + d) for s, d in zip(part, shift, strict=True))
        for part in found["bounding_boxes"][1:]
    ]
    return Lesions(ids, box, boxes, np.asarray(found["voxel_counts"][1:], np.int64))  # type: ignore[arg-type]


def slice_tables(label: np.ndarray | None, lesions: Lesions, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """One row a slice (`SLICE_DTYPE`), and the pairs (z, lesion id), int32 ``[n, 2]``."""
    table = np.zeros(depth, SLICE_DTYPE)
    table["z"] = np.arange(depth)
    pairs: list[tuple[int, int]] = []
    for z, plane in enumerate(label if label is not None else ()):
        table["liver_voxels"][z] = np.count_nonzero(plane)
        table["tumour_voxels"][z] = np.count_nonzero(plane == TUMOUR)
        if table["tumour_voxels"][z]:
            here = np.unique(lesions.ids[z - lesions.box[0].start])
            pairs += [(z, int(i)) for i in here if i]
            table["lesions"][z] = np.count_nonzero(here)
    return table, np.asarray(pairs, np.int32).reshape(-1, 2)


def lesion_table(
    image: np.ndarray, label: np.ndarray, lesions: Lesions, spacing_mm: Sequence[float], spacing_trusted: bool
) -> np.ndarray:
    """One row a lesion (`LESION_DTYPE`).

    Volume and equivalent diameter (6V/pi)^(1/3) are NaN where the spacing cannot be trusted. The contrast is the
    lesion's mean HU less that of the parenchyma 2 to 10 mm away from it, other lesions left out; NaN if there is none.
    """
    table = np.zeros(lesions.count, LESION_DTYPE)
    for i, (box, voxels) in enumerate(zip(lesions.boxes, lesions.voxels, strict=True)):
        volume_mm3 = float(voxels) * math.prod(spacing_mm) if spacing_trusted else math.nan
        table[i] = (
            *(i + 1, voxels, volume_mm3 / 1000, (6 * volume_mm3 / math.pi) ** (1 / 3)),
            *(_contrast(image, label, lesions, i, spacing_mm), box[0].start, box[0].stop - 1),
        )
    return table


def _contrast(image: np.ndarray, label: np.ndarray, lesions: Lesions, i: int, spacing_mm: Sequence[float]) -> float:
    box = lesions.boxes[i]
    own = lesions.ids[tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(box, lesions.box, strict=True))]
    mean = float(image[box][own == i + 1].mean())
    margins = [math.ceil(SHELL_MM[1] / s) for s in spacing_mm]
    near = tuple(
        slice(max(0, s.start - m), min(n, s.stop + m)) for s, m, n in zip(box, margins, image.shape, strict=True)
    )
    # A tumour that fills the liver would cost gigabytes: large boxes are thinned out in the plane first.
    voxels = math.prod(s.stop - s.start for s in near)
    thin = max(1, math.ceil(math.sqrt(voxels / _CONTRAST_VOXELS)))
    steps = (1, thin, thin)
    view = tuple(slice(s.start, s.stop, t) for s, t in zip(near, steps, strict=True))
    mask = np.zeros([s.stop - s.start for s in near], bool)
    mask[tuple(slice(s.start - n.start, s.stop - n.start) for s, n in zip(box, near, strict=True))] = own == i + 1
    outside = ~mask[:, ::thin, ::thin]
    if outside.all():
        return math.nan
    distance = ndimage.distance_transform_edt(outside, sampling=[s * t for s, t in zip(spacing_mm, steps, strict=True)])
    shell = (distance >= SHELL_MM[0]) & (distance <= SHELL_MM[1]) & (label[view] == LIVER)
    return mean - float(image[view][shell].mean()) if shell.any() else math.nan


def _span(hit: np.ndarray) -> slice:
    where = np.flatnonzero(hit)
    return slice(int(where[0]), int(where[-1]) + 1)
