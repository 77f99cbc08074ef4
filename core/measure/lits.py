"""What the public scorer of LiTS computes, to be set beside published tables; docs/metrics.md says how it differs.

After P. Christ's program at github.com/PatrickChrist/lits-challenge-scoring (Bilic et al., The Liver Tumor Segmentation
Benchmark, Med Image Anal 84, 2023, arXiv:1901.04056), from a table of overlaps in place of its passes over the volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal, get_args

import numpy as np

from core.measure.components import Box
from core.measure.lesions import Lesions, join
from core.measure.matching import overlaps
from core.measure.pair import CasePair
from core.measure.surface import Distances, between, of_pair

Mode = Literal["published", "documented"]
MODES: tuple[Mode, ...] = get_args(Mode)
"""``published``: as the program runs; ``documented``: as its text says, which is the true IoU of a merged pair."""

THRESHOLDS = (0.0, 0.5)
"""A detection overlaps by more than this."""

ABSENT = 9001.0
"""The distance, and the volume difference, to what is not there."""


@dataclass(frozen=True)
class Numbered:
    """The 6-connected lesions of one side, numbered as the program numbers them.

    Attributes:
        lesions: with ids of their own.
        ids: those ids by number; ``ids[0]`` is 0. Numbers follow each lesion's first voxel when x runs slowest and z
            fastest, as nibabel's arrays are scanned.
    """

    lesions: Lesions
    ids: np.ndarray

    @property
    def voxels(self) -> np.ndarray:
        """Voxels by number."""
        return self.lesions.voxels[self.ids]

    def numbers(self, ids: np.ndarray) -> np.ndarray:
        """The numbers of lesions that are known by their ids."""
        return np.argsort(self.ids)[ids]

    def mask(self, numbers: Sequence[int], box: Box) -> np.ndarray:
        """The mask of some lesions in a box that holds them."""
        return np.isin(self.lesions.inside(box), self.ids[list(numbers)])

    def boxes(self, numbers: Sequence[int]) -> list[Box]:
        """The boxes of some lesions."""
        return [self.lesions.boxes[self.ids[number] - 1] for number in numbers]


@dataclass(frozen=True)
class Merged:
    """Reference lesions and predictions that belong together.

    Attributes:
        lesion: the id that they share, the least of the references'.
        references: ids.
        predictions: ids.
        both: voxels that they have in common.
        iou: of the union of each side.
        detected: by mode, whether it counts at an overlap of more than 0.5.
    """

    lesion: int
    references: tuple[int, ...]
    predictions: tuple[int, ...]
    both: int
    iou: float
    detected: dict[Mode, bool]


@dataclass(frozen=True)
class Detection:
    """The correspondence of one case.

    Attributes:
        true: true positives by mode and threshold; negative where failed pairs had many references.
        merged: every pair, in the order of its first prediction.
    """

    true: dict[tuple[Mode, float], int]
    merged: tuple[Merged, ...]


@dataclass(frozen=True)
class Scores:
    """One object: overlap, and edge18 surface distances in mm (None without a spacing to trust)."""

    dice: float
    jaccard: float
    voe: float
    rvd: float
    assd_mm: float | None
    rmsd_mm: float | None
    msd_mm: float | None


def nothing(distances: bool = True) -> Scores:
    """What an object scores that is not there, and a mean over no object."""
    far = ABSENT if distances else None
    return Scores(0.0, 0.0, 1.0, ABSENT, far, far, far)


def number(lesions: Lesions) -> Numbered:
    """Number the lesions of one side as the program does."""
    z, y, x = np.nonzero(lesions.ids)
    slices, rows, _ = lesions.ids.shape
    first = np.full(lesions.count + 1, lesions.ids.size)
    first[0] = -1
    np.minimum.at(first, lesions.ids[z, y, x].astype(np.intp), (x * rows + y) * slices + z)
    return Numbered(lesions, np.argsort(first))


def detect(pred: Numbered, ref: Numbered) -> Detection:
    """Which lesions count as detected, in both modes and at both thresholds."""
    found = overlaps(ref.lesions, pred.lesions)
    p, r, n = pred.numbers(found.pred), ref.numbers(found.ref), found.voxels
    if not len(n):
        return Detection({(mode, t): 0 for mode in MODES for t in THRESHOLDS}, ())
    best = _best(r, p, n, ref.lesions.count)
    group = np.arange(ref.lesions.count + 1)
    for chosen in np.unique(best[best > 0]):
        own = np.flatnonzero(best == chosen)
        group[own] = own[0]
    p, g, n = _summed(p, group[r], n)
    given = _best(p, g, n, pred.lesions.count)

    members = {int(i): np.flatnonzero(group == i) for i in np.unique(g)}
    parts = {int(i): np.flatnonzero(given == i) for i in np.unique(given[given > 0])}
    common = {(int(a), int(b)): int(c) for a, b, c in zip(*_summed(given[p], g, n), strict=True)}
    area_p = {i: int(pred.voxels[own].sum()) for i, own in parts.items()}
    area_r = {i: int(ref.voxels[own].sum()) for i, own in members.items()}

    order = sorted(parts, key=lambda i: int(parts[i][0]))
    labelled = set(parts)
    merged = []
    for i in order:
        both = common[i, i]
        iou = both / (area_p[i] + area_r[i] - both)
        # The program looks for the prediction under its old id, where another group's id, or nothing, stands by now.
        old = int(parts[i][0])
        beside = area_p[old] - common.get((old, i), 0) if old in labelled else 0
        detected: dict[Mode, bool] = {"published": both / (area_r[i] + beside) > 0.5, "documented": iou > 0.5}
        if not detected["published"]:
            labelled.discard(i)
        merged.append(Merged(i, _ints(members[i]), _ints(parts[i]), both, iou, detected))
    true = {(mode, 0.0): len(merged) for mode in MODES}
    for mode in MODES:
        true[mode, 0.5] = len(merged) - sum(len(m.references) for m in merged if not m.detected[mode])
    return Detection(true, tuple(merged))


def score_lesion(merged: Merged, pred: Numbered, ref: Numbered, pair: CasePair) -> Scores:
    """The scores of one merged pair, inside its own box."""
    box = reduce(join, [*pred.boxes(merged.predictions), *ref.boxes(merged.references)])
    masks = pred.mask(merged.predictions, box), ref.mask(merged.references, box)
    p, r = (int(np.count_nonzero(mask)) for mask in masks)
    return score(p, r, merged.both, between(*masks, pair.spacing_mm, "edge18") if pair.spacing_trusted else None)


def score_liver(pair: CasePair) -> Scores:
    """The scores of the liver, labels 1 and 2; not there if the prediction has no voxel of label 1."""
    counts = pair.counts("liver")
    if not counts.ref or not has_liver(pair):
        return nothing(pair.spacing_trusted)
    distances = of_pair(pair, "liver", "edge18") if pair.spacing_trusted else None
    return score(counts.pred, counts.ref, counts.both, distances)


def score(p: int, r: int, both: int, distances: Distances | None) -> Scores:
    """The scores of one object that both sides have, from its voxels and its distances."""
    dice, jaccard = 2 * both / (p + r), both / (p + r - both)
    mm = (None, None, None) if distances is None else (distances.assd(), distances.rmsd(), distances.hd())
    # Signed, and divided by the prediction: the program hands the two sides over the other way round.
    return Scores(dice, jaccard, 1 - jaccard, (r - p) / p, *mm)


def has_liver(pair: CasePair) -> bool:
    """Whether the prediction has any voxel of label 1."""
    return pair.counts("parenchyma").pred > 0


def burden_error(pair: CasePair) -> float | None:
    """Tumour voxels over liver voxels, reference minus prediction; None without a liver in the reference.

    A prediction without label 1 has a burden of 9001 in the program.
    """
    tumour, liver = pair.counts("tumour"), pair.counts("liver")
    if not liver.ref:
        return None
    return tumour.ref / liver.ref - (tumour.pred / liver.pred if has_liver(pair) else ABSENT)


def _best(of: np.ndarray, others: np.ndarray, n: np.ndarray, count: int) -> np.ndarray:
    """By id: the one of `others` with the greatest n, the least of these if they are equal; 0 without any."""
    order = np.lexsort((others, -n, of))
    first = order[np.unique(of[order], return_index=True)[1]]
    out = np.zeros(count + 1, np.int64)
    out[of[first]] = others[first]
    return out


def _summed(a: np.ndarray, b: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sum of n for every pair of a and b, sorted by a, then b."""
    if not len(a):
        return a, b, n
    width = int(b.max()) + 1
    keys, place = np.unique(a.astype(np.int64) * width + b, return_inverse=True)
    return keys // width, keys % width, np.bincount(place, weights=n).astype(np.int64)


def _ints(ids: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in ids)
