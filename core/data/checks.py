"""What speaks against an array being HU, or a label map, or on a trustworthy grid.

Slabs are checked while they are read, so that a scan is gone through once.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def geometry_note(affine: np.ndarray, header: Mapping[str, np.ndarray]) -> str | None:
    """Why a scan's spacing cannot be trusted, or None, from its own affine and raw header fields."""
    if np.array_equal(np.abs(affine), np.eye(4)):
        return "the affine is the identity (1 mm, no origin): spacing and orientation cannot be trusted"
    if header and not header["qform_code"] and not header["sform_code"]:
        return "the header has neither qform nor sform: orientation is a guess, the spacing cannot be trusted"
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
        if low >= 0 and self.bright > 0.15 * self.voxels:
            return f"intensities within [{low:.6g}, {high:.6g}] look like HU + 1024: the rescale intercept is missing"
        return None


class LabelCheck:
    """Casts slabs to uint8 and remembers labels that are not 0, 1, 2."""

    def __init__(self) -> None:
        self.strange: set[float] = set()

    def add(self, slab: np.ndarray) -> np.ndarray:
        """The slab as uint8 labels."""
        if slab.dtype.kind == "f":
            whole = np.rint(slab)
            with np.errstate(invalid="ignore"):
                off = ~(np.abs(slab - whole) < 1e-4)  # written so that NaN and infinity count as off
            if off.any():
                self.strange.update(np.unique(slab[off])[:10].tolist())
                return np.zeros(slab.shape, np.uint8)
            slab = whole
        out = (slab < 0) | (slab > 2)
        if out.any():
            self.strange.update(np.unique(slab[out])[:10].tolist())
        return slab.astype(np.uint8, copy=False)

    def complaint(self) -> str | None:
        """Which labels there should not be, or None."""
        if not self.strange:
            return None
        found = ", ".join(f"{v:g}" for v in sorted(self.strange)[:10])
        return f"labels must be 0 (background), 1 (liver) and 2 (tumour); it also holds {found}"
