"""What a scan's intensities say against it, from the counts of every value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from core.audit.rules import Finding

PADDING = (-3024, -2048, -2000, -1500)
"""Values that scanners and converters put where nothing was measured."""
PADDING_SHARE = 0.001
STEP = 1.4
"""Values this far apart on average, within soft tissue, were rescaled from fewer levels."""
CLIP_SHARE = 0.002
SLOPE = (0.75, 1.33)
AIR_HU = (-1150.0, -900.0)
LUNG_HU = (-1150.0, -700.0)
SURE_AIR = 0.1
"""Where this share of the voxels lies close to the peak, it is the air around the patient and not the lung."""
WIDE = 1000
"""Values that reach further are no window, but another scale."""
TISSUE_HU = (-200.0, 250.0)

_OFFSET = 32768
_NEAR = 40
_SOFT = (-150, 200)


@dataclass(frozen=True)
class Intensities:
    """The values of a scan.

    Attributes:
        low, high: extremes, padding left out.
        distinct: how many different values there are.
        padding: value -> share of the voxels.
        step: mean distance of neighbouring values within soft tissue, 0 if there are too few voxels to say.
        clipped: (value, share) at the lower and upper end, where the values heap up.
        peaks: where air and soft tissue lie, and the share of the voxels close to the former; or None.
    """

    low: int
    high: int
    distinct: int
    padding: dict[int, float]
    step: float
    clipped: tuple[tuple[int, float], ...]
    peaks: tuple[float, float, float] | None


def count_values(array: np.ndarray) -> np.ndarray:
    """How often each int16 value occurs, int64 ``[65536]``, from -32768 on."""
    counts = np.zeros(65536, np.int64)
    for plane in array:
        counts += np.bincount(np.ascontiguousarray(plane).view(np.uint16).ravel(), minlength=65536)
    return np.roll(counts, _OFFSET)


def intensities(counts: np.ndarray) -> Intensities:
    """What the counts of `count_values` say."""
    values = np.flatnonzero(counts) - _OFFSET
    total = int(counts.sum())
    padding = _padding(values, counts, total)
    kept = counts.copy()
    for value in padding:
        kept[value + _OFFSET] = 0
    left = np.flatnonzero(kept) - _OFFSET
    if not len(left):
        left, kept = values, counts
    return Intensities(
        int(left[0]), int(left[-1]), len(values), padding, _step(kept), _clipped(left, kept), _peaks(left, kept)
    )


def check_intensities(seen: Intensities, note: str | None, declared_hu: bool, case: str) -> list[Finding]:
    """Findings on windowing, scale and padding.

    Args:
        seen: of the scan.
        note: what `core.data.checks.intensity_note` says of it.
        declared_hu: whether the source says that the intensities are HU.
        case: its id.
    """
    found = []
    before = _windowed(seen, note)
    # Of a window the peaks say nothing about the scale; of values in steps they do.
    cut = len(seen.clipped) == 2 or (note is not None and seen.high - seen.low < WIDE)
    scale = "" if cut or seen.peaks is None else _scale(*seen.peaks)
    if not declared_hu:
        found.append(Finding("declared_windowed", before or "nothing speaks against HU", (case,)))
    elif scale:
        found.append(Finding("hu_scale", scale, (case,)))
    elif before:
        found.append(Finding("windowed", before, (case,)))
    if seen.padding:
        parts = ", ".join(f"{value} in {_percent(share)} of the voxels" for value, share in seen.padding.items())
        found.append(Finding("padding", parts, (case,)))
    return found


def _windowed(seen: Intensities, note: str | None) -> str:
    parts = []
    if note or len(seen.clipped) == 2:
        parts.append(f"all within [{seen.low}, {seen.high}]")
    if seen.clipped and (note or seen.step >= STEP or seen.clipped[-1][0] > 0):
        parts.append(
            " and ".join(f"{_percent(share)} of the voxels at {value} exactly" for value, share in seen.clipped)
        )
    if seen.step >= STEP:
        parts.append(f"{seen.distinct} different values, in steps of {seen.step:.2f}")
    return "; ".join(parts)


def _scale(air: float, tissue: float, share: float) -> str:
    slope = (tissue - air) / 1050
    low, high = AIR_HU if share > SURE_AIR else LUNG_HU
    if SLOPE[0] <= slope <= SLOPE[1] and low <= air <= high and TISSUE_HU[0] <= tissue <= TISSUE_HU[1]:
        return ""
    likes = []  # the soft tissue may be fat, so that air is the surer mark
    if SLOPE[0] <= slope <= SLOPE[1]:
        likes.append(f"HU {air + 1000:+.0f}")
    if abs(air / -1000 - slope) < 0.25 * slope:
        likes.append(f"{air / -1000:.2g} x HU")
    like = " or ".join(likes) or f"{slope:.1f} x HU {air + 1000 * slope:+.0f}"
    peaks = f"air lies at {air:.0f} and soft tissue at {tissue:.0f} (-1000 and about 50 are expected)"
    return f"{peaks}; this looks like {like}"


def _padding(values: np.ndarray, counts: np.ndarray, total: int) -> dict[int, float]:
    """The lowest values, where they stand alone or are known to be padding."""
    found = {}
    for i, value in enumerate(values[:20].tolist()):
        share = counts[value + _OFFSET] / total
        alone = i + 1 < len(values) and values[i + 1] - value > 100
        if share >= PADDING_SHARE and ((alone and value < 0) or value in PADDING):
            found[value] = float(share)
    return found


def _step(counts: np.ndarray) -> float:
    part = counts[_SOFT[0] + _OFFSET : _SOFT[1] + _OFFSET]
    found = np.flatnonzero(part)
    if part.sum() < 10 * len(part) or len(found) < 3:
        return 0.0
    return float((found[-1] - found[0]) / (len(found) - 1))


def _clipped(values: np.ndarray, counts: np.ndarray) -> tuple[tuple[int, float], ...]:
    """Ends within the range of tissue at which the values heap up."""
    total, found = int(counts.sum()), []
    for end, inward, limit in ((int(values[0]), 1, -900), (int(values[-1]), -1, 2000)):
        if (end < limit) if inward == 1 else (end > limit):
            continue  # a scanner's own limits: -1024, 3071
        here = counts[end + _OFFSET]
        beside = [counts[end + inward * k + _OFFSET] for k in range(1, 21)]
        if here > CLIP_SHARE * total and here > 10 * max(float(np.mean(beside)), 1.0):
            found.append((end, float(here / total)))
    return tuple(found)


def _peaks(values: np.ndarray, counts: np.ndarray) -> tuple[float, float, float] | None:
    """Where the most voxels lie in the lower and in the upper part of the range: air and soft tissue."""
    total = counts.sum()
    share = np.cumsum(counts) / total
    low, high = int(values[0]), int(np.searchsorted(share, 0.999)) - _OFFSET
    if high - low < 200:
        return None
    middle = low + round(0.45 * (high - low))
    soft = ndimage.gaussian_filter1d(counts.astype(float), (high - low) / 200)
    below, above = soft[low + _OFFSET : middle + _OFFSET], soft[middle + _OFFSET : high + 1 + _OFFSET]
    shares = counts[low + _OFFSET : middle + _OFFSET].sum() / total
    if not 0.03 < shares < 0.97:  # without air, or nothing but it
        return None
    air, tissue = low + int(np.argmax(below)), middle + int(np.argmax(above))
    near = counts[max(0, air + _OFFSET - _NEAR) : air + _OFFSET + _NEAR + 1].sum() / total
    return float(air), float(tissue), float(near)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
