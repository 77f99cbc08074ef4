"""Two-dimensional samples: slices with their neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from core.contracts import Record, Sample
from core.data.grid import body_box
from core.data.store import CaseInfo, Store
from core.infer.geometry import Geometry, place, window
from core.values import AIR_HU, IGNORE
from registry import register

_BODY_SLICES = 32
"""Slices, spread over the scan, that the body's box is found on."""


@register("dataset", "slices")
class Slices:
    """Axial slices, with `context` neighbours on each side as channels; whole, or crops of one size.

    A crop is cut on the network's grid, so that all crops have the scale of the whole slices that the inferer runs on.
    It lies around the case's box, the same for all its slices, and is moved back where it would reach beyond the slice;
    a slice smaller than the crop is padded on both sides (air, labels `IGNORE`). Records tell of the whole slice: take
    crops that the liver fits into.

    Args:
        keep: "foreground" keeps slices with liver or tumour and a few empty ones; "all" keeps every slice.
        empty_ratio: empty slices kept per foreground slice of the same scan, spread evenly over the scan's empty ones.
        crop: around what a crop lies: the box of the "body" or of the "liver" (of the body, where there is no liver);
            "none" gives whole slices.
        crop_size: of the crop in pixels of the network's grid (one number or ``[height, width]``), multiples of
            `divisor`.
        jitter: inner share of the crop, along each axis, in which the box's centre comes to lie anywhere: 0 is always
            the middle, and nothing is drawn.

    Raises:
        ValueError: for a value out of range, or a case without a label.
        UserError: for a case whose spacing cannot be trusted, if `context_mm` is set.

    Example: {name: slices, channels: 3, context: 0, keep: foreground, empty_ratio: 0.1}
    """

    draws = False

    def __init__(
        self,
        store: Store,
        cases: Sequence[str],
        geometry: Geometry,
        lesions: bool = True,
        *,
        keep: Literal["foreground", "all"] = "foreground",
        empty_ratio: float = 0.1,
        crop: Literal["none", "body", "liver"] = "none",
        crop_size: int | tuple[int, int] | None = None,
        jitter: float = 0.0,
    ) -> None:
        if empty_ratio < 0:
            raise ValueError(f"empty_ratio must not be negative, got {empty_ratio:g}")
        self._store, self._geometry, self._lesions = store, geometry, lesions
        self._crop, self._jitter = crop, jitter
        self._size = _size(crop, crop_size, geometry.divisor)
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter must be from 0 to 1, got {jitter:g}")
        if jitter and crop == "none":
            raise ValueError(f"jitter {jitter:g} needs a crop: set crop to body or liver")
        self.draws = jitter > 0
        self._centres: dict[str, tuple[int, int]] = {}
        self.records: list[Record] = []
        for case in cases:
            info = store.info(case)
            if not info.labelled:
                raise ValueError(f"case '{case}' has no label, so it cannot be trained on")
            geometry.check_spacing(f"case '{case}'", trusted=info.spacing_trusted)
            self.records += self._of(info, keep, empty_ratio)

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """The slice at `index` on the network's grid; of a crop, its place is drawn."""
        record, store, geometry = self.records[index], self._store, self._geometry
        image = geometry.image(store.image(record.case, self._near(record)))
        label, lesion = geometry.label(store.label(record.case, [record.z]))[0], self._lesion(record)
        if self._size is None:
            return Sample(image, label, lesion, index)
        start = self._start(record.case, rng)
        cut = _cut(lesion, start, self._size, 0) if lesion is not None else None
        return Sample(_cut(image, start, self._size, AIR_HU), _cut(label, start, self._size, IGNORE), cut, index)

    def load_into(self, index: int, row: Sample) -> bool:
        """Write the slice at `index` into a row of a batch, if it goes there neither resampled, padded nor cropped."""
        record, geometry = self.records[index], self._geometry
        plane = self._store.info(record.case).shape[1:]
        if self._size is not None or not plane == geometry.size_yx(plane) == geometry.padded_yx(plane):
            return False
        if plane != row.label.shape:
            return False
        self._store.image(record.case, self._near(record), row.image)
        self._store.label(record.case, [record.z], row.label[None])
        if row.lesion is not None:
            row.lesion[:] = self._lesion(record)
        return True

    def _of(self, info: CaseInfo, keep: str, empty_ratio: float) -> list[Record]:
        table, ids = self._store.slices(info.case), self._store.slice_lesions(info.case)
        sizes = {int(row["id"]): float(row["diameter_mm"]) for row in self._store.lesions(info.case)}
        liver, tumour = table["liver_voxels"].tolist(), table["tumour_voxels"].tolist()
        zs = range(len(table)) if keep == "all" else _kept(table["liver_voxels"] > 0, empty_ratio)
        return [
            Record(info.case, info.patient, z, liver[z], tumour[z], ids[z], tuple(sizes[i] for i in ids[z])) for z in zs
        ]

    def _near(self, record: Record) -> list[int]:
        info = self._store.info(record.case)
        return self._geometry.neighbours(record.z, info.shape[0], info.spacing_mm[0])

    def _lesion(self, record: Record) -> np.ndarray | None:
        if not self._lesions:
            return None
        # A slice without lesions needs no look into the file.
        if record.lesions:
            ids = self._store.lesion(record.case, [record.z])
        else:
            ids = np.zeros((1, *self._store.info(record.case).shape[1:]), np.int32)
        return self._geometry.lesion(ids)[0]

    def _start(self, case: str, rng: np.random.Generator) -> list[int]:
        """Where the crop begins on the case's resampled slices."""
        assert self._size is not None
        if case not in self._centres:
            self._centres[case] = self._centre(self._store.info(case))
        shape = self._geometry.size_yx(self._store.info(case).shape[1:])
        out = []
        for centre, size, length in zip(self._centres[case], self._size, shape, strict=True):
            reach = int(self._jitter * size / 2)
            shift = int(rng.integers(-reach, reach + 1)) if reach else 0
            out.append(place(centre - size // 2 + shift, size, length))
        return out

    def _centre(self, info: CaseInfo) -> tuple[int, int]:
        """The middle of the case's box, y and x on the network's grid."""
        store, (depth, *shape) = self._store, info.shape
        sides = [(0, n) for n in shape]
        if self._crop == "liver" and info.liver_voxels:
            hit = np.zeros(shape, bool)
            for z in np.flatnonzero(store.slices(info.case)["liver_voxels"]).tolist():
                hit |= store.label(info.case, [z])[0] > 0
            spans = (np.flatnonzero(hit.any(axis=axis)) for axis in (1, 0))
            sides = [(int(span[0]), int(span[-1]) + 1) for span in spans]
        else:
            zs = sorted({round(z) for z in np.linspace(0, depth - 1, _BODY_SLICES)})
            spacing = (info.spacing_mm[0] * depth / len(zs), *info.spacing_mm[1:])
            found = body_box(store.image(info.case, zs), spacing)
            sides = sides if found is None else list(found[1:])
        grid = self._geometry.size_yx(shape)
        y, x = (int((first + end) / 2 * m / n) for (first, end), n, m in zip(sides, shape, grid, strict=True))
        return y, x


def _size(crop: str, size: int | tuple[int, int] | None, divisor: int) -> tuple[int, int] | None:
    if crop == "none":
        if size is not None:
            raise ValueError("crop_size needs to know around what to crop: set crop to body or liver")
        return None
    if size is None:
        raise ValueError(f"crop: {crop} needs a crop_size, e.g. crop_size: 256")
    sides = (size, size) if isinstance(size, int) else size
    if min(sides) < 1 or any(side % divisor for side in sides):
        raise ValueError(f"crop_size must be a multiple of divisor ({divisor}), got {size}")
    return sides


def _cut(array: np.ndarray, start: Sequence[int], size: Sequence[int], fill: int) -> np.ndarray:
    """The crop of ``[..., Y, X]`` that begins at `start`, filled up beyond the array."""
    source, target = window(start, size, array.shape[-2:])
    out = np.full((*array.shape[:-2], *size), fill, array.dtype)
    out[..., target[0], target[1]] = array[..., source[0], source[1]]
    return out


def _kept(foreground: np.ndarray, empty_ratio: float) -> list[int]:
    full, empty = np.flatnonzero(foreground), np.flatnonzero(~foreground)
    count = min(len(empty), round(empty_ratio * len(full)))
    spread = empty[((np.arange(count) + 0.5) * len(empty) / max(count, 1)).astype(int)]
    return sorted([*full.tolist(), *spread.tolist()])
