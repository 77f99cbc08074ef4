"""From a scan's own canonical grid to the grid of the store, and back: a box, then other voxels over its extent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from core.data.checks import geometry_note
from core.data.resample import containing, image_planes, label_planes, probability_planes
from core.data.tables import find_lesions
from core.data.volume import Volume
from core.measure.components import number_components
from core.settings import PrepareSettings
from core.types import Prediction
from core.values import AIR_HU, TUMOUR

Shape = tuple[int, int, int]
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First and end along z, y, x."""

BODY_HU = -300
_BODY_STEP_MM = 4.0
_TABLE_MM = 8.0
"""What is thinner than twice this is taken off the body: the table, tubes, blankets."""


@dataclass(frozen=True)
class Grid:
    """The way from a scan's canonical grid to the stored one, and back.

    Attributes:
        scan: shape ``(Z, Y, X)`` of the scan's canonical grid.
        scan_spacing_mm: along z, y, x.
        box: the part of the scan that is kept.
        shape: of the stored grid; it covers the box's whole extent.
    """

    scan: Shape
    scan_spacing_mm: tuple[float, float, float]
    box: Box
    shape: Shape

    @property
    def resamples(self) -> bool:
        """Whether voxels change."""
        return self.shape != self._cropped

    @property
    def identity(self) -> bool:
        """Whether the stored grid is the scan's own."""
        return self.shape == self._cropped == self.scan

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Of the stored grid: what was asked for, up to the rounding to whole voxels over the box's extent."""
        z, y, x = (s * n / m for s, n, m in zip(self.scan_spacing_mm, self._cropped, self.shape, strict=True))
        return (z, y, x)

    def affine(self, scan: np.ndarray) -> np.ndarray:
        """The stored grid's 4x4, voxel (x, y, z) -> RAS mm, from that of the scan's canonical grid."""
        move = np.eye(4)
        for axis, (bounds, old, new) in enumerate(zip(self.box, self._cropped, self.shape, strict=True)):
            step = old / new
            move[2 - axis, 2 - axis] = step
            move[2 - axis, 3] = bounds[0] + (step - 1) / 2  # outer faces lie on each other, not voxel centres
        return np.asarray(scan, float) @ move

    def scan_z(self, z: int) -> int:
        """The scan's slice that holds the middle of a stored one."""
        return self.box[0][0] + int((z + 0.5) * self._cropped[0] / self.shape[0])

    def image(self, array: np.ndarray) -> np.ndarray:
        """Int16 HU ``[Z, Y, X]`` on the scan's grid -> on the stored one."""
        part = array[self.inside]
        if not self.resamples:
            return np.ascontiguousarray(part)
        return _gather(image_planes(part, self.shape), self.shape)

    def label(self, label: np.ndarray) -> np.ndarray:
        """Labels uint8 ``[Z, Y, X]`` on the scan's grid -> on the stored one, every lesion in the box kept.

        A voxel gets what fills most of it. A lesion that would go under leaves the one voxel that holds most of it.
        """
        part = label[self.inside]
        if not self.resamples:
            return np.ascontiguousarray(part)
        out = np.empty(self.shape, np.uint8)
        for z, plane in enumerate(label_planes(part, self.shape)):
            out[z] = plane
        places = [containing(n, m) for n, m in zip(part.shape, self.shape, strict=True)]
        lesions = find_lesions(part)
        for number, box in enumerate(lesions.boxes, 1):
            inside = tuple(slice(b.start - o.start, b.stop - o.start) for b, o in zip(box, lesions.box, strict=True))
            where = np.nonzero(lesions.ids[inside] == number)
            spots = tuple(p[b.start + w] for p, b, w in zip(places, box, where, strict=True))
            if not (out[spots] == TUMOUR).any():
                voxels, count = np.unique(np.ravel_multi_index(spots, self.shape), return_counts=True)
                out.flat[voxels[count.argmax()]] = TUMOUR
        return out

    def image_back(self, array: np.ndarray) -> np.ndarray:
        """Int16 HU on the stored grid -> on the scan's: as it was, or interpolated after resampling; air outside."""
        if self.identity:
            return array
        planes = image_planes(array, self._cropped) if self.resamples else iter(array)
        return self._uncrop(_gather(planes, self._cropped), AIR_HU)

    def back(self, prediction: Prediction, *, probabilities: bool = False) -> Prediction:
        """A prediction on the stored grid -> on the scan's canonical grid; background outside the box.

        After a crop alone the voxels are the same. After resampling, probabilities are interpolated (labels, where
        there are none) and each voxel gets the likeliest class, the lower one where two are equal; a slice at a time,
        so that no more than the labels is held.

        Args:
            prediction: on the stored grid.
            probabilities: whether to return them too.
        """
        labels, likely = prediction.labels, prediction.probabilities
        if labels.shape != self.shape:
            raise ValueError(f"a prediction of shape {labels.shape} does not fit the stored grid, {self.shape}")
        if self.identity:
            return Prediction(labels, likely if probabilities else None)
        given = likely is not None and probabilities
        whole = np.zeros((len(likely), *self.scan), np.float16) if given and likely is not None else None
        if whole is not None:
            whole[0] = 1
        if not self.resamples:
            if whole is not None:
                whole[(slice(None), *self.inside)] = likely
            return Prediction(self._uncrop(labels, 0), whole)
        out = np.zeros(self.scan, np.uint8)
        inner = out[self.inside]
        if likely is None:
            for z, plane in enumerate(label_planes(labels, self._cropped, smooth=True)):
                inner[z] = plane
            return Prediction(out)
        for z, soft in enumerate(probability_planes(likely, self._cropped)):
            inner[z] = _likeliest(soft)
            if whole is not None:
                whole[(slice(None), *self.inside)][:, z] = soft
        return Prediction(out, whole)

    @property
    def _cropped(self) -> Shape:
        z, y, x = (end - first for first, end in self.box)
        return (z, y, x)

    @property
    def inside(self) -> tuple[slice, slice, slice]:
        """The box as slices of the scan."""
        z, y, x = (slice(first, end) for first, end in self.box)
        return (z, y, x)

    def _uncrop(self, array: np.ndarray, fill: int) -> np.ndarray:
        if array.shape == self.scan:
            return array
        out = np.full(self.scan, fill, array.dtype)
        out[self.inside] = array
        return out


def plan_grid(
    volume: Volume, settings: PrepareSettings, *, label: np.ndarray | None = None, spacing_trusted: bool = True
) -> tuple[Grid, list[str]]:
    """The stored grid of a scan, and remarks.

    Args:
        volume: the scan on its own canonical grid.
        settings: ``spacing``, ``crop`` and ``margin_mm`` count.
        label: its reference, for ``crop: liver``.
        spacing_trusted: False leaves the voxels as they are.
    """
    notes = []
    z, y, x = volume.array.shape
    scan = (z, y, x)
    box: Box = ((0, z), (0, y), (0, x))
    if settings.crop == "body":
        found = body_box(volume.array, volume.spacing_mm)
        if found is None:
            notes.append("no body found: the scan is not cropped")
        else:
            box = _grown(found, scan, volume.spacing_mm, settings.margin_mm)
    elif settings.crop == "liver":
        if label is None or not label.any():
            notes.append("no liver in a reference: the scan is not cropped")
        else:
            box = _grown(_box_of(label), scan, volume.spacing_mm, settings.margin_mm)
    cropped = [end - first for first, end in box]
    shape = list(cropped)
    if settings.spacing is not None and not spacing_trusted:
        notes.append("the spacing cannot be trusted: the scan is not resampled")
    elif settings.spacing is not None:
        for axis, wanted in enumerate(settings.spacing):
            if wanted is not None:
                shape[axis] = max(1, round(cropped[axis] * volume.spacing_mm[axis] / wanted))
    return Grid(scan, volume.spacing_mm, box, (shape[0], shape[1], shape[2])), notes


def to_grid(volume: Volume, settings: PrepareSettings) -> tuple[Volume, Grid]:
    """A new scan as the store would hold it, and the way back.

    What `prepare` takes from the reference (``crop: liver``) is left out.
    """
    if settings.spacing is None and settings.crop != "body":
        grid, _ = plan_grid(volume, PrepareSettings())
        return volume, grid
    trusted = geometry_note(volume.native.affine, volume.native.header, volume.spacing_mm) is None
    grid, _ = plan_grid(volume, settings, spacing_trusted=trusted)
    return on_grid(volume, grid), grid


def on_grid(volume: Volume, grid: Grid) -> Volume:
    """The scan's volume on the stored grid."""
    if grid.identity:
        return volume
    stored = grid.image(volume.array)
    return replace(volume, array=stored, spacing_mm=grid.spacing_mm, affine=grid.affine(volume.affine))


def body_box(image: np.ndarray, spacing_mm: Sequence[float]) -> Box | None:
    """The box of the body: the largest part denser than fat's edge, without what is thin; None if there is none."""
    steps = [max(1, round(_BODY_STEP_MM / s)) for s in spacing_mm]
    dense = image[:: steps[0], :: steps[1], :: steps[2]] > BODY_HU
    rounds = max(1, round(_TABLE_MM / max(step * s for step, s in zip(steps[1:], spacing_mm[1:], strict=True))))
    plane = ndimage.generate_binary_structure(2, 1)[None]
    # In the plane: thick slices would take the body's ends along. The scan's border is not an edge of the body.
    core = ndimage.binary_erosion(dense, plane, iterations=rounds, border_value=1)
    if not core.any():
        return None
    parts, _ = number_components(core, 6)
    largest = int(np.bincount(parts.ravel())[1:].argmax()) + 1
    body = ndimage.binary_dilation(parts == largest, plane, iterations=rounds, mask=dense)
    box = []
    for (first, end), step, size in zip(_box_of(body), steps, image.shape, strict=True):
        box.append((max(0, (first - 1) * step + 1), min(size, end * step)))
    return (box[0], box[1], box[2])


def _likeliest(soft: np.ndarray) -> np.ndarray:
    """Uint8 ``[Y, X]``: the class of the greatest of ``[K, Y, X]``, the lower one where two are equal."""
    # By comparisons: argmax over the first axis is ten times slower.
    best, labels = soft[0].copy(), np.zeros(soft.shape[1:], np.uint8)
    for label in range(1, len(soft)):
        labels[soft[label] > best] = label
        np.maximum(best, soft[label], out=best)
    return labels


def _box_of(mask: np.ndarray) -> Box:
    planes = mask.any(axis=(1, 2))
    flat = np.asarray(mask.any(axis=0))
    z, y, x = (np.flatnonzero(hit) for hit in (planes, flat.any(axis=1), flat.any(axis=0)))
    return ((int(z[0]), int(z[-1]) + 1), (int(y[0]), int(y[-1]) + 1), (int(x[0]), int(x[-1]) + 1))


def _grown(box: Box, shape: Shape, spacing_mm: Sequence[float], margin_mm: float) -> Box:
    grown = []
    for (first, end), size, step in zip(box, shape, spacing_mm, strict=True):
        margin = math.ceil(margin_mm / step)
        grown.append((max(0, first - margin), min(size, end + margin)))
    return (grown[0], grown[1], grown[2])


def _gather(planes: Iterable[np.ndarray], shape: Shape) -> np.ndarray:
    out = np.empty(shape, np.int16)
    for z, plane in enumerate(planes):
        out[z] = np.rint(plane)
    return out
