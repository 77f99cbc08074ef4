"""A scan's content as numbers that survive re-saving: which scans are the same, whole or in part?

A slice becomes a map of 32 x 32 means of HU clipped to [-150, 200] (inside the windows that extracts are cut to), and
the map the 136 means over cells that the symmetries of the square carry into each other. So mirroring or transposing
the plane changes nothing, rounding and 8-bit steps next to nothing. Scans are compared as sets of slices, so that
neither their order nor cropping along z matters.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from core.data.store import Store

LOW, HIGH = -150, 200
SIDE = 32
TOLERANCE_HU = 1.5
"""Root mean square difference up to which two slices are the same one."""
FLAT_HU = 30.0
"""A slice whose numbers spread less than this (air, padding) says nothing."""
SHARE = 0.5
"""Scans that share this part of the shorter one's slices are near duplicates."""
KEPT = ".duplicates.json"
"""The file of a store that keeps what was found."""

_SEARCHED = 8  # dimensions of the search tree


@dataclass(frozen=True)
class Match:
    """Two scans that show the same.

    Attributes:
        share: of the slices of the shorter one (those that show something) that the other has too.
        slices: how many these are.
    """

    a: str
    b: str
    share: float
    slices: int


def fingerprint(array: np.ndarray) -> np.ndarray:
    """The fingerprint of a scan, float16 ``[Z, 136]`` in HU; parts of a scan give parts of it.

    Args:
        array: int16 HU ``[Z, Y, X]`` on the scan's own grid, neither resampled nor cropped in the plane.
    """
    maps = np.empty((len(array), SIDE, SIDE), np.float32)
    # Area means are wanted; where a slice has fewer pixels than the map, only the linear way is symmetric.
    way = cv2.INTER_AREA if min(array.shape[1:]) >= SIDE else cv2.INTER_LINEAR
    clipped = np.empty(array.shape[1:], np.int16)
    for z, plane in enumerate(array):
        np.clip(plane, LOW, HIGH, out=clipped)
        maps[z] = cv2.resize(clipped.astype(np.float32), (SIDE, SIDE), interpolation=way)
    maps += maps[:, ::-1]
    maps += maps[:, :, ::-1]
    maps += maps.transpose(0, 2, 1)
    rows, columns = np.triu_indices(SIDE // 2)
    return (maps[:, rows, columns] / 8).astype(np.float16)


def near_duplicates(prints: Mapping[str, np.ndarray]) -> list[Match]:
    """Pairs of scans that have at least half the slices of the shorter one in common, in the order of `prints`.

    Args:
        prints: `fingerprint` of each scan.
    """
    names = list(prints)
    kept = [p[np.ptp(p.astype(np.float32), axis=1) >= FLAT_HU] if len(p) else p for p in prints.values()]
    counts = np.array([len(p) for p in kept])
    if (counts > 0).sum() < 2:
        return []
    points = np.concatenate(kept)
    scan = np.repeat(np.arange(len(names)), counts)
    first, second = _same(points, scan)
    if not len(first):
        return []
    swap = scan[first] > scan[second]
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    pairs = scan[first] * len(names) + scan[second]
    in_a, in_b = (_distinct(pairs, slices, len(points)) for slices in (first, second))
    found = []
    for pair, of_a in in_a.items():
        a, b = divmod(pair, len(names))
        # The smaller count, so that one slice which resembles many is one slice.
        slices, shorter = min(of_a, in_b[pair]), min(counts[a], counts[b])
        if slices >= SHARE * shorter:
            found.append(Match(names[a], names[b], float(slices / shorter), int(slices)))
    return found


def _same(points: np.ndarray, scan: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of slices of two scans that are the same within the tolerance."""
    from scipy.spatial import cKDTree  # each process that prepares would wait for it, and none of them needs it

    wide = points.astype(np.float32)
    wide -= wide.mean(0)
    # Along orthogonal directions distances only shrink, so a search along the widest few misses nothing.
    _, directions = np.linalg.eigh(wide.T @ wide)
    narrow = wide @ directions[:, -_SEARCHED:]
    radius = TOLERANCE_HU * np.sqrt(wide.shape[1])
    pairs = cKDTree(narrow).query_pairs(radius, output_type="ndarray")
    pairs = pairs[scan[pairs[:, 0]] != scan[pairs[:, 1]]]
    near = np.zeros(len(pairs), bool)
    for start in range(0, len(pairs), 100_000):
        i, j = pairs[start : start + 100_000].T
        near[start : start + 100_000] = np.square(wide[i] - wide[j]).sum(1) <= radius**2
    return pairs[near, 0], pairs[near, 1]


def _distinct(pairs: np.ndarray, slices: np.ndarray, total: int) -> dict[int, int]:
    """How many different slices each pair has."""
    ids, counts = np.unique(np.unique(pairs * total + slices) // total, return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def duplicates(store: Store) -> list[Match]:
    """The near duplicates among all cases of a store; computed once for the same cases and kept in its folder.

    A folder that cannot be written to costs only the time.
    """
    contents = [(case, store.info(case).content_hash) for case in store.cases]
    made_with = [SIDE, LOW, HIGH, TOLERANCE_HU, FLAT_HU, SHARE]
    key = hashlib.sha256(json.dumps([made_with, contents]).encode()).hexdigest()
    file = store.root / KEPT
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["of"] == key:
            return [Match(**match) for match in kept["matches"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = near_duplicates({case: store.fingerprint(case) for case in store.cases})
    partial = store.root / f"{KEPT}.{os.getpid()}.partial"
    try:
        partial.write_text(json.dumps({"of": key, "matches": [asdict(match) for match in found]}), encoding="utf-8")
        os.replace(partial, file)
    except OSError:
        pass
    return found
