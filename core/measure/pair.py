"""One case's prediction and reference, and what its metrics share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from core.errors import UserError
from core.measure.components import Box, Connectivity, bounding_box
from core.measure.lesions import Lesions, find_lesions
from core.values import LIVER, TUMOUR

Structure = Literal["liver", "parenchyma", "tumour"]
Class = Literal["liver", "parenchyma", "tumour", "background"]
Side = Literal["pred", "ref"]
STRUCTURES: tuple[Structure, ...] = get_args(Structure)
"""``liver`` is labels 1 and 2 together, ``parenchyma`` label 1 alone, ``tumour`` label 2."""
CLASSES: tuple[Class, ...] = get_args(Class)
"""The structures, and what lies outside all of them, which only macro figures count."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Counts:
    """Voxels of the prediction, of the reference, and of both at once."""

    pred: int
    ref: int
    both: int


class CasePair:
    """Both label volumes of one case on the scan's own grid; masks and counts are computed once and kept.

    Args:
        case: the case's id.
        pred: predicted labels ``[Z, Y, X]``.
        reference: reference labels ``[Z, Y, X]``.
        spacing_mm: z, y, x.
        patient: whose scan it is; the case's id where that is not known.
        spacing_trusted: False leaves figures in mm and ml empty.
        image: int16 HU ``[Z, Y, X]``, where there is one.
        probabilities: ``[K, Z, Y, X]``, where there are any.

    Raises:
        UserError: if the shapes differ or the spacing is not finite and positive.
    """

    def __init__(
        self,
        case: str,
        pred: np.ndarray,
        reference: np.ndarray,
        spacing_mm: Sequence[float],
        *,
        patient: str = "",
        spacing_trusted: bool = True,
        image: np.ndarray | None = None,
        probabilities: np.ndarray | None = None,
    ) -> None:
        if pred.shape != reference.shape:
            raise UserError(
                f"case '{case}': the prediction has shape {pred.shape} and the reference {reference.shape} "
                f"(z, y, x); both must lie on the scan's own grid"
            )
        if len(spacing_mm) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing_mm):
            raise UserError(f"case '{case}': spacing must be three positive numbers in mm, got {tuple(spacing_mm)}")
        self.case = case
        self.patient = patient or case
        self.pred = pred
        self.reference = reference
        self.spacing_mm = (float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2]))
        self.spacing_trusted = spacing_trusted
        self.image = image
        self.probabilities = probabilities
        self._cache: dict[Hashable, Any] = {}

    def cached(self, key: Hashable, compute: Callable[[], _T]) -> _T:
        """What `compute` gives, computed once for this case: components, surfaces, distances."""
        if key not in self._cache:
            self._cache[key] = compute()
        value: _T = self._cache[key]
        return value

    @property
    def voxel_ml(self) -> float | None:
        """One voxel's volume in ml; None where the spacing cannot be trusted."""
        return float(np.prod(self.spacing_mm)) / 1000 if self.spacing_trusted else None

    @property
    def box(self) -> Box:
        """The smallest box with the foreground of both sides; empty where neither has any."""
        either = (p | r for p, r in zip(self.pred, self.reference, strict=True))
        return self.cached("box", lambda: bounding_box(either, self.pred.shape))

    def crop(self, array: np.ndarray) -> np.ndarray:
        """A view of ``[..., Z, Y, X]`` inside the box."""
        return array[(..., *self.box)]

    def structure(self, name: Structure) -> tuple[np.ndarray, np.ndarray]:
        """The masks of prediction and reference, inside the box."""
        return self.cached(
            ("structure", name), lambda: (_mask(self.crop(self.pred), name), _mask(self.crop(self.reference), name))
        )

    def slice_counts(self, name: Structure) -> np.ndarray:
        """Voxels of prediction, reference and both, int64 ``[Z, 3]``, one row a slice of the whole volume."""
        return self.cached(("slice_counts", name), lambda: self._count(name))

    def counts(self, name: Class) -> Counts:
        """Voxels of prediction, reference and both in the whole volume."""
        if name == "background":
            liver, voxels = self.counts("liver"), int(self.pred.size)
            either = liver.pred + liver.ref - liver.both
            return Counts(voxels - liver.pred, voxels - liver.ref, voxels - either)
        return Counts(*(int(n) for n in self.slice_counts(name).sum(axis=0)))

    def lesions(self, side: Side, connectivity: Connectivity = 26) -> Lesions:
        """The connected components of one side's tumour; at 26 neighbours the reference's ids are the store's."""
        return self.cached(("lesions", side, connectivity), lambda: self._find_lesions(side, connectivity))

    def _find_lesions(self, side: Side, connectivity: Connectivity) -> Lesions:
        if side not in ("pred", "ref"):
            raise ValueError(f"unknown side '{side}', known: pred, ref")
        mask = self.structure("tumour")[0 if side == "pred" else 1]
        return find_lesions(mask, connectivity, [s.start for s in self.box])

    def _count(self, name: Structure) -> np.ndarray:
        out = np.zeros((self.pred.shape[0], 3), np.int64)
        pred, ref = self.structure(name)
        # Slice by slice: counting along axes is several times slower in numpy, and the `and` stays in the cache.
        for z, p, r in zip(range(*self.box[0].indices(len(out))), pred, ref, strict=True):
            out[z] = np.count_nonzero(p), np.count_nonzero(r), np.count_nonzero(p & r)
        return out


def _mask(labels: np.ndarray, name: Structure) -> np.ndarray:
    if name == "liver":
        return (labels == LIVER) | (labels == TUMOUR)
    if name == "parenchyma":
        return labels == LIVER
    if name == "tumour":
        return labels == TUMOUR
    raise ValueError(f"unknown structure '{name}', known: {', '.join(STRUCTURES)}")
