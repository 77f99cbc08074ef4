"""Exact distances from grid points to the nearest of others: near ones looked up, far ones from a k-d tree."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree

_FEW = 1 << 16  # pairs of points that are cheaper compared than looked up
_OFFSETS = 320
"""Offsets looked up before the tree is built: one costs a point about 5 ns, the tree 2000 and its building."""


def nearest(
    points: np.ndarray, targets: np.ndarray, spacing_mm: Sequence[float], labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Distance in mm from each point to the nearest target, and that target's label.

    Distances are those of ``scipy.ndimage.distance_transform_edt`` to the last bit: whole steps times spacing, squared
    and summed. Of targets equally near, which one counts depends on where they lie, never on labels.

    Args:
        points: whole numbers ``[N, 3]``, z, y, x.
        targets: whole numbers ``[M, 3]``, no one twice; M is at least 1.
        spacing_mm: z, y, x.
        labels: whole numbers above 0 ``[M]``; None for 1 everywhere.

    Returns:
        Distances float64 ``[N]`` and labels ``[N]``.
    """
    labels = np.ones(len(targets), bool) if labels is None else labels
    if len(points) * len(targets) <= _FEW:
        return _compared(points, targets, spacing_mm, labels)
    distances, found = np.full(len(points), np.inf), np.zeros(len(points), labels.dtype)
    steps, lengths = _offsets(tuple(float(s) for s in spacing_mm))
    margin = np.abs(np.concatenate(steps)).max(axis=0)
    corner = np.minimum(points.min(axis=0), targets.min(axis=0)) - margin
    shape = np.maximum(points.max(axis=0), targets.max(axis=0)) + 1 + margin - corner
    strides = np.array([shape[1] * shape[2], shape[2], 1], np.int64)
    grid = np.zeros(int(shape.prod()), labels.dtype)
    grid[(targets - corner) @ strides] = labels
    left, places = np.arange(len(points)), (points - corner) @ strides
    for length, equal in zip(lengths, steps, strict=True):
        hit = grid.take(places + equal[0] @ strides)
        for step in equal[1:] @ strides:
            more = grid.take(places + step)
            hit = hit | more if hit.dtype == bool else np.where(hit, hit, more)
        new = np.flatnonzero(hit)
        if not len(new):
            continue
        distances[left[new]], found[left[new]] = length, hit[new]
        rest = np.flatnonzero(hit == 0)
        left, places = left[rest], places[rest]
        if not len(left):
            break
    if len(left):
        scale = np.asarray(spacing_mm, np.float64)
        # Splitting in the middle builds several times faster than by the median, and surfaces are spread evenly.
        tree = cKDTree(targets * scale, balanced_tree=False, compact_nodes=False, leafsize=64)
        which = tree.query(points[left] * scale)[1]
        distances[left], found[left] = _lengths(points[left] - targets[which], scale), labels[which]
    return distances, found


def _compared(
    points: np.ndarray, targets: np.ndarray, spacing_mm: Sequence[float], labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    squares = np.zeros((len(points), len(targets)))
    for axis, step in enumerate(spacing_mm):
        apart = (points[:, axis, None] - targets[:, axis]) * float(step)
        squares += apart * apart
    which = squares.argmin(axis=1)
    return np.sqrt(squares[np.arange(len(points)), which]), labels[which]


def _lengths(steps: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    scaled = steps * spacing_mm
    return np.sqrt((scaled * scaled).sum(axis=-1))


@lru_cache(maxsize=64)
def _offsets(spacing_mm: tuple[float, float, float]) -> tuple[list[np.ndarray], list[float]]:
    """The nearest steps, those of one length together (int64 ``[n, 3]``), and the lengths in mm, in order."""
    # A ball of this radius holds enough of them, unless the grid is so stretched that the ball is thinner than a slice.
    radius = (3 * _OFFSETS * float(np.prod(spacing_mm)) / (4 * np.pi)) ** (1 / 3)
    while True:
        reach = [min(int(radius / s), _OFFSETS) for s in spacing_mm]
        steps = np.array(list(itertools.product(*(range(-n, n + 1) for n in reach))), np.int64)
        lengths = _lengths(steps, np.array(spacing_mm))
        kept = np.flatnonzero(lengths <= radius)
        if len(kept) >= _OFFSETS:
            order = kept[np.argsort(lengths[kept], kind="stable")]
            different, first = np.unique(lengths[order], return_index=True)
            whole = int(np.searchsorted(first, _OFFSETS))
            return np.split(steps[order], first[1:])[:whole], different[:whole].tolist()
        radius *= 1.3
