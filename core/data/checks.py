"""What speaks against an array being HU, or a label map, or on a trustworthy grid.

Slabs are checked while they are read, so that a scan is gone through once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

PLAUSIBLE_MM = (0.1, 20.0)
"""A CT's voxels lie within, along every axis."""

_RIGHT_ANGLE = 0.0087  # cosine: half a degree off is the rounding of some converters
_SPACINGS_APART = 0.01


def geometry_note(
    affine: np.ndarray, header: Mapping[str, np.ndarray], spacing_mm: Sequence[float] | None = None
) -> str | None:
    """Why a scan's spacing cannot be trusted, or None.

    Args:
        affine: the file's own, 4x4.
        header: its raw fields, empty for files other than NIfTI.
        spacing_mm: the scan's, along any order of axes; None: the file's unit is mm.
    """
    if np.array_equal(np.abs(affine), np.eye(4)):
        return "the affine is the identity (1 mm, no origin): spacing and orientation cannot be trusted"
    if header and not header["qform_code"] and not header["sform_code"]:
        return "the header has neither qform nor sform: orientation is a guess, the spacing cannot be trusted"
    size = np.sqrt((np.asarray(affine, float)[:3, :3] ** 2).sum(axis=0))
    steps = np.asarray(size if spacing_mm is None else spacing_mm, float)
    if steps.min() < PLAUSIBLE_MM[0] or steps.max() > PLAUSIBLE_MM[1]:
        voxel = " x ".join(f"{s:.6g}" for s in sorted(steps))
        return f"voxels of {voxel} mm are not a CT's (wrong unit, or a wrong affine): the spacing cannot be trusted"
    axes = np.asarray(affine, float)[:3, :3] / size
    cosine = float(np.abs((axes.T @ axes)[[0, 0, 1], [1, 2, 2]]).max())
    if cosine > _RIGHT_ANGLE:
        return (
            f"the axes meet at {math.degrees(math.acos(min(cosine, 1))):.1f} degrees, not at right angles (a tilted "
            f"gantry, or a registration): mm would be wrong along them, the spacing cannot be trusted"
        )
    named = np.abs(np.asarray(header["pixdim"], float)[1:4]) if header else size
    if (np.abs(named - size) > _SPACINGS_APART * size).any():
        one, other = (" x ".join(f"{s:.4g}" for s in three) for three in (named, size))
        return f"the header gives two spacings, {one} (pixdim) and {other} (sform): the spacing cannot be trusted"
    return None


def intensity_note(array: np.ndarray) -> str | None:
    """Why a scan's HU look windowed, or None. Any CT of an abdomen holds air (-1000) and bone (over 300)."""
    low, high = int(array.min()), int(array.max())
    if low > -500 or high < 300:
        return f"intensities lie within [{low}, {high}]: windowed before, so HU cannot be trusted"
    return None


class HuCheck:
    """Rounds slabs to int16 and remembers what speaks against them being HU."""

    def __init__(self) -> None:
        self.not_finite = self.voxels = self.bright = 0
        self.low, self.high = np.inf, -np.inf
        self.fractions = False

    def add(self, slab: np.ndarray) -> np.ndarray:
        """The slab as int16 HU."""
        self.voxels += slab.size
        if slab.dtype.kind == "f":
            bad = slab.size - int(np.count_nonzero(np.isfinite(slab)))
            if bad:
                self.not_finite += bad
                return np.zeros(slab.shape, np.int16)
            whole = np.rint(slab)
            self.fractions = self.fractions or not np.array_equal(whole, slab)
            slab = whole
        self.low, self.high = min(self.low, float(slab.min())), max(self.high, float(slab.max()))
        self.bright += int(np.count_nonzero(slab > 700))
        if self.low < -32768 or self.high > 32767:
            return np.zeros(slab.shape, np.int16)
        return slab.astype(np.int16, copy=False)

    def complaint(self) -> str | None:
        """Why these intensities cannot be HU, or None."""
        low, high = self.low, self.high
        if self.not_finite:
            return f"{self.not_finite} of {self.voxels} voxels are not finite (NaN or infinite)"
        if low < -32768 or high > 32767:
            return f"intensities reach from {low:.6g} to {high:.6g}, beyond 16 bits, so they are not HU"
        if low >= -1 and high <= 1:
            return f"all intensities lie within [{low:.6g}, {high:.6g}]: normalised or empty, not HU"
        if self.fractions and high - low < 50:
            return f"intensities are fractions within [{low:.6g}, {high:.6g}]: normalised, not HU"
        if low >= 0 and high <= 255:
            return f"all intensities lie within [{low:.6g}, {high:.6g}]: 8-bit grey values, not HU"
        # Bone and contrast medium stay below a twentieth; -2000 and less is padding, which the offset passes by.
        if (low >= 0 and self.bright > 0.15 * self.voxels) or (low <= -2000 and self.bright > 0.25 * self.voxels):
            return f"intensities within [{low:.6g}, {high:.6g}] look like HU + 1024: the rescale intercept is missing"
        return None


def whole_numbers(slab: np.ndarray) -> tuple[np.ndarray, set[float]]:
    """A slab of labels, rounded if they are floats, and up to ten values in it that are no whole numbers."""
    if slab.dtype.kind != "f":
        return slab, set()
    whole = np.rint(slab)
    with np.errstate(invalid="ignore"):
        off = ~(np.abs(slab - whole) < 1e-4)  # written so that NaN and infinity count as off
    return whole, set(np.unique(slab[off])[:10].tolist())


class LabelCheck:
    """Casts slabs to uint8 and remembers labels that are not 0, 1, 2."""

    def __init__(self) -> None:
        self.strange: set[float] = set()

    def add(self, slab: np.ndarray) -> np.ndarray:
        """The slab as uint8 labels."""
        slab, strange = whole_numbers(slab)
        if strange:
            self.strange |= strange
            return np.zeros(slab.shape, np.uint8)
        if slab.size and (slab.min() < 0 or slab.max() > 2):
            self.strange.update(np.unique(slab[(slab < 0) | (slab > 2)])[:10].tolist())
        return slab.astype(np.uint8, copy=False)

    def complaint(self) -> str | None:
        """Which labels there should not be, or None."""
        if not self.strange:
            return None
        found = ", ".join(f"{v:g}" for v in sorted(self.strange)[:10])
        return f"labels must be 0 (background), 1 (liver) and 2 (tumour); it also holds {found}"
