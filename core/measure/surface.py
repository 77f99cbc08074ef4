"""Surfaces of masks and the distances between them; definitions in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from core.measure.components import bounding_box
from core.measure.elements import element_areas, neighbour_codes
from core.measure.nearest import nearest
from core.measure.overlap import Empty
from core.measure.pair import CasePair, Structure

Surface = Literal["edge6", "edge18", "element"]
"""What is a mask's surface. ``edge6``, ``edge18``: its voxels with one of 6 or 18 neighbours outside, measured between
voxel centres; ``element``: the surface between voxels, weighted by area."""

DISTANCES = ("assd_mm", "rmsd_mm", "hd_mm", "hd95_mm")


@dataclass(frozen=True)
class Points:
    """A mask's surface.

    Attributes:
        at: int64 ``[n, 3]``, z, y, x: voxels, or for ``element`` the corners before them.
        areas: mm2 ``[n]``; None counts each as 1.
    """

    at: np.ndarray
    areas: np.ndarray | None


@dataclass(frozen=True)
class Distances:
    """Distances in mm between the surfaces of two masks, both of which have one.

    Attributes:
        pred: from each surface element of the prediction to the nearest of the reference.
        ref: the other way.
        pred_areas: weights of the elements; None counts each as 1.
        ref_areas: the same of the reference.
    """

    pred: np.ndarray
    ref: np.ndarray
    pred_areas: np.ndarray | None = None
    ref_areas: np.ndarray | None = None

    def assd(self) -> float:
        """Average symmetric surface distance, both directions pooled."""
        return (_total(self.pred, self.pred_areas) + _total(self.ref, self.ref_areas)) / self._size()

    def rmsd(self) -> float:
        """Root mean square symmetric surface distance, both directions pooled."""
        squares = _total(self.pred**2, self.pred_areas) + _total(self.ref**2, self.ref_areas)
        return float(np.sqrt(squares / self._size()))

    def hd(self) -> float:
        """Hausdorff distance: the greatest of both directions."""
        return float(max(self.pred.max(), self.ref.max()))

    def hd95(self) -> float:
        """The larger of the two directed 95th percentiles."""
        return max(_percentile(self.pred, self.pred_areas), _percentile(self.ref, self.ref_areas))

    def nsd(self, tolerance_mm: float) -> float:
        """Normalised surface Dice: the share of both surfaces within `tolerance_mm` of the other."""
        near = _share(self.pred, self.pred_areas, tolerance_mm) + _share(self.ref, self.ref_areas, tolerance_mm)
        return near / self._size()

    def _size(self) -> float:
        return _weight(self.pred, self.pred_areas) + _weight(self.ref, self.ref_areas)


def of_pair(pair: CasePair, structure: Structure, surface: Surface = "edge6") -> Distances | None:
    """Distances between a case's two surfaces of a structure, computed once; None if one side has none."""

    def compute() -> Distances | None:
        return between(*pair.structure(structure), pair.spacing_mm, surface)

    return pair.cached(("surface", structure, surface), compute)


def between(
    pred: np.ndarray, ref: np.ndarray, spacing_mm: Sequence[float], surface: Surface = "edge6"
) -> Distances | None:
    """Distances between the surfaces of two masks ``[z, y, x]`` on one grid; None if one of them is empty.

    Raises:
        ValueError: for a surface that is none.
    """
    a, b = points(pred, spacing_mm, surface), points(ref, spacing_mm, surface)
    if not len(a.at) or not len(b.at):
        return None
    forth, back = nearest(a.at, b.at, spacing_mm)[0], nearest(b.at, a.at, spacing_mm)[0]
    return Distances(forth, back, a.areas, b.areas)


def figures(
    pair: CasePair,
    structure: Structure,
    *,
    surface: Surface = "edge6",
    tolerances_mm: Sequence[float] = (1.0, 2.0, 3.0),
    empty: Empty = "lits",
) -> dict[str, float | None]:
    """ASSD, RMSD, HD, HD95 and NSD of one structure of a case, by column name; None is not a number.

    Args:
        pair: the case; without a trusted spacing nothing here is a number.
        structure: liver, parenchyma or tumour.
        surface: its definition.
        tolerances_mm: of the NSD.
        empty: both sides empty: distances are no numbers and the NSD is 1 (``nan``: no number either). One side empty:
            the NSD is 0, distances are no numbers (``worst``: the volume's diagonal).
    """
    lengths: list[float | None] = [None] * len(DISTANCES)
    shares: list[float | None] = [None] * len(tolerances_mm)
    if pair.spacing_trusted:
        found, counts = of_pair(pair, structure, surface), pair.counts(structure)
        if found is not None:
            lengths = [found.assd(), found.rmsd(), found.hd(), found.hd95()]
            shares = [found.nsd(tolerance) for tolerance in tolerances_mm]
        elif counts.pred or counts.ref:
            lengths = [diagonal_mm(pair) if empty == "worst" else None] * len(DISTANCES)
            shares = [0.0] * len(tolerances_mm)
        elif empty != "nan":
            shares = [1.0] * len(tolerances_mm)
    names = [*DISTANCES, *(nsd_column(tolerance) for tolerance in tolerances_mm)]
    return dict(zip(names, [*lengths, *shares], strict=True))


def check_surface(surface: Surface) -> Surface:
    """The definition itself.

    Raises:
        ValueError: if there is no such definition.
    """
    if surface not in get_args(Surface):
        raise ValueError(f"unknown surface '{surface}', known: {', '.join(get_args(Surface))}")
    return surface


def check_tolerances(tolerances_mm: Sequence[float]) -> tuple[float, ...]:
    """The tolerances themselves.

    Raises:
        ValueError: for none, one that is no finite number from 0 on, or one given twice.
    """
    if not tolerances_mm or not all(np.isfinite(t) and t >= 0 for t in tolerances_mm):
        raise ValueError(f"tolerances_mm must be one or more numbers of 0 mm or more, got {list(tolerances_mm)}")
    if len({nsd_column(t) for t in tolerances_mm}) < len(tolerances_mm):
        raise ValueError(f"tolerances_mm must differ, got {list(tolerances_mm)}")
    return tuple(float(t) for t in tolerances_mm)


def nsd_column(tolerance_mm: float) -> str:
    """The name of an NSD."""
    return f"nsd_{tolerance_mm:g}mm"


def diagonal_mm(pair: CasePair) -> float:
    """Corner to corner of the whole volume."""
    return float(np.linalg.norm(np.multiply(pair.pred.shape, pair.spacing_mm)))


def points(mask: np.ndarray, spacing_mm: Sequence[float], surface: Surface = "edge6") -> Points:
    """The surface of a mask ``[z, y, x]``; all outside the array is outside the mask.

    Raises:
        ValueError: for a surface that is none.
    """
    check_surface(surface)
    box = bounding_box(mask, mask.shape)
    inside, corner = mask[box], [s.start for s in box]
    if surface == "element":
        codes = neighbour_codes(inside)
        shape, at = codes.shape, np.flatnonzero((codes != 0) & (codes != 255))
        areas = element_areas(spacing_mm)[codes.ravel()[at]]
    else:
        shape, at, areas = inside.shape, np.flatnonzero(edges(inside, 6 if surface == "edge6" else 18)), None
    # Several times faster than argwhere.
    return Points(np.stack(np.unravel_index(at, shape), axis=1) + corner, areas)


def edges(mask: np.ndarray, neighbours: Literal[6, 18] = 6) -> np.ndarray:
    """Voxels of a bool mask ``[z, y, x]`` with one of 6 or 18 neighbours outside it or outside the array."""
    out = mask.copy()
    if min(mask.shape) < 3:
        return out
    for z in range(1, len(mask) - 1):  # slice by slice, so that what is combined stays in the cache
        if not mask[z].any():
            continue
        if neighbours == 6:
            inner = _cross(mask[z])
            inner &= mask[z - 1, 1:-1, 1:-1]
            inner &= mask[z + 1, 1:-1, 1:-1]
        else:
            inner = _square(mask[z])
            inner &= _cross(mask[z - 1])
            inner &= _cross(mask[z + 1])
        np.greater(out[z, 1:-1, 1:-1], inner, out=out[z, 1:-1, 1:-1])
    return out


def _cross(plane: np.ndarray) -> np.ndarray:
    inner: np.ndarray = plane[1:-1, :-2] & plane[1:-1, 2:]
    inner &= plane[1:-1, 1:-1]
    inner &= plane[:-2, 1:-1]
    inner &= plane[2:, 1:-1]
    return inner


def _square(plane: np.ndarray) -> np.ndarray:
    rows = plane[:, :-2] & plane[:, 2:]
    rows &= plane[:, 1:-1]
    inner: np.ndarray = rows[:-2] & rows[2:]
    inner &= rows[1:-1]
    return inner


def _weight(distances: np.ndarray, areas: np.ndarray | None) -> float:
    return float(len(distances) if areas is None else areas.sum())


def _total(distances: np.ndarray, areas: np.ndarray | None) -> float:
    return float(distances.sum() if areas is None else distances @ areas)


def _share(distances: np.ndarray, areas: np.ndarray | None, tolerance_mm: float) -> float:
    near = distances <= tolerance_mm
    return float(np.count_nonzero(near) if areas is None else areas[near].sum())


def _percentile(distances: np.ndarray, areas: np.ndarray | None, q: float = 0.95) -> float:
    """Of elements that count 1: interpolated as numpy does; of areas: the first distance that q of them do not pass."""
    if areas is None:
        return float(np.quantile(distances, q))
    order = np.argsort(distances, kind="stable")
    reached = np.cumsum(areas[order]) / areas.sum()
    return float(distances[order[min(int(np.searchsorted(reached, q)), len(order) - 1)]])
