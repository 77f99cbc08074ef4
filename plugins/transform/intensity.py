"""Intensity transforms within fixed HU bounds; values outside the bounds (air, bone, metal) stay as they are.

The bounds are mapped to [0, 1], since albumentations clips there, and back to whole HU.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from core.contracts import Sample
from registry import register


@register("transform", "gamma")
class Gamma:
    """Bend the grey scale: x^gamma with x the HU between the bounds, from 0 to 1.

    Args:
        p: probability.
        gamma: range of the exponent, above 0; 1 changes nothing.
        low: lower bound, HU.
        high: upper bound, HU.

    Raises:
        ValueError: for a probability outside [0, 1], or a range or bounds that are none.

    Example: {name: gamma, p: 0.3, gamma: [0.8, 1.25], low: -200, high: 300}
    """

    def __init__(
        self, *, p: float = 0.3, gamma: tuple[float, float] = (0.8, 1.25), low: float = -200.0, high: float = 300.0
    ) -> None:
        _check(p, low, high)
        if not 0 < gamma[0] <= gamma[1]:
            raise ValueError(f"gamma wants [lowest, highest] above 0, got {list(gamma)}")
        self.p, self.low, self.high = p, low, high
        self.transform = _albumentations().RandomGamma(gamma_limit=(100 * gamma[0], 100 * gamma[1]), p=1.0)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The changed sample."""
        if rng.random() >= self.p:
            return sample
        return _within(sample, self.low, self.high, _seeded(self.transform, rng))


@register("transform", "contrast")
class Contrast:
    """Stretch or squeeze the HU about the middle of the bounds, which stays.

    Args:
        p: probability.
        factor: range of the factor, above 0; 1 changes nothing.
        low: lower bound, HU.
        high: upper bound, HU.

    Raises:
        ValueError: for a probability outside [0, 1], or a range or bounds that are none.

    Example: {name: contrast, p: 0.3, factor: [0.8, 1.25], low: -200, high: 300}
    """

    def __init__(
        self, *, p: float = 0.3, factor: tuple[float, float] = (0.8, 1.25), low: float = -200.0, high: float = 300.0
    ) -> None:
        _check(p, low, high)
        if not 0 < factor[0] <= factor[1]:
            raise ValueError(f"factor wants [lowest, highest] above 0, got {list(factor)}")
        self.p, self.factor, self.low, self.high = p, factor, low, high

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The changed sample."""
        if rng.random() >= self.p:
            return sample
        # albumentations' contrast multiplies about 0, the lower bound: it would make the liver brighter or darker.
        factor = np.float32(rng.uniform(*self.factor))
        return _within(sample, self.low, self.high, lambda x: (x - np.float32(0.5)) * factor + np.float32(0.5))


@register("transform", "brightness")
class Brightness:
    """Shift all HU between the bounds by one value.

    Args:
        p: probability.
        shift_hu: range of the shift, HU.
        low: lower bound, HU.
        high: upper bound, HU.

    Raises:
        ValueError: for a probability outside [0, 1], or a range or bounds that are none.

    Example: {name: brightness, p: 0.3, shift_hu: [-20, 20], low: -200, high: 300}
    """

    def __init__(
        self, *, p: float = 0.3, shift_hu: tuple[float, float] = (-20.0, 20.0), low: float = -200.0, high: float = 300.0
    ) -> None:
        _check(p, low, high)
        if shift_hu[0] > shift_hu[1]:
            raise ValueError(f"shift_hu wants [lowest, highest], got {list(shift_hu)}")
        self.p, self.low, self.high = p, low, high
        limit = (shift_hu[0] / (high - low), shift_hu[1] / (high - low))
        if not -1 <= limit[0] <= limit[1] <= 1:
            raise ValueError(f"shift_hu must not exceed high - low ({high - low:g} HU), got {list(shift_hu)}")
        self.transform = _albumentations().RandomBrightnessContrast(
            brightness_limit=limit, contrast_limit=(0.0, 0.0), brightness_by_max=True, p=1.0
        )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The changed sample."""
        if rng.random() >= self.p:
            return sample
        return _within(sample, self.low, self.high, _seeded(self.transform, rng))


@register("transform", "noise")
class Noise:
    """Add Gaussian noise, independent in every voxel.

    Args:
        p: probability.
        std_hu: range of the noise's standard deviation, HU.
        low: lower bound, HU.
        high: upper bound, HU.

    Raises:
        ValueError: for a probability outside [0, 1], or a range or bounds that are none.

    Example: {name: noise, p: 0.2, std_hu: [0, 20], low: -200, high: 300}
    """

    def __init__(
        self, *, p: float = 0.2, std_hu: tuple[float, float] = (0.0, 20.0), low: float = -200.0, high: float = 300.0
    ) -> None:
        _check(p, low, high)
        if not 0 <= std_hu[0] <= std_hu[1] <= high - low:
            raise ValueError(f"std_hu wants [lowest, highest] from 0 to high - low, got {list(std_hu)}")
        self.p, self.low, self.high = p, low, high
        self.transform = _albumentations().GaussNoise(
            std_range=(std_hu[0] / (high - low), std_hu[1] / (high - low)), per_channel=True, p=1.0
        )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The changed sample."""
        if rng.random() >= self.p:
            return sample
        return _within(sample, self.low, self.high, _seeded(self.transform, rng))


@register("transform", "blur")
class Blur:
    """Smooth the slice with a Gaussian, as a softer reconstruction kernel does.

    Args:
        p: probability.
        sigma_px: range of the Gaussian's standard deviation, in pixels (as the slice comes in).
        low: lower bound, HU.
        high: upper bound, HU.

    Raises:
        ValueError: for a probability outside [0, 1], or a range or bounds that are none.

    Example: {name: blur, p: 0.2, sigma_px: [0.5, 1.0], low: -200, high: 300}
    """

    def __init__(
        self, *, p: float = 0.2, sigma_px: tuple[float, float] = (0.5, 1.0), low: float = -200.0, high: float = 300.0
    ) -> None:
        _check(p, low, high)
        if not 0 < sigma_px[0] <= sigma_px[1]:
            raise ValueError(f"sigma_px wants [lowest, highest] above 0, got {list(sigma_px)}")
        self.p, self.low, self.high = p, low, high
        self.transform = _albumentations().GaussianBlur(sigma_limit=tuple(sigma_px), blur_limit=0, p=1.0)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The changed sample."""
        if rng.random() >= self.p:
            return sample
        return _within(sample, self.low, self.high, _seeded(self.transform, rng, voxelwise=False))


def _albumentations() -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks the network
    import albumentations

    return albumentations


def _seeded(transform: Any, rng: np.random.Generator, *, voxelwise: bool = True) -> Callable[[np.ndarray], np.ndarray]:
    seeded = copy.copy(transform)  # its random state is its own, whatever other threads do
    seed = int(rng.integers(2**31))

    def change(slices: np.ndarray) -> np.ndarray:
        # What looks at single voxels gets all slices as one tall picture, anything else slice by slice with the same
        # draws: albumentations is several times slower on pictures with other than one or three channels.
        pictures = [slices.reshape(-1, slices.shape[-1])] if voxelwise else list(slices)
        out = []
        for picture in pictures:
            seeded.set_random_seed(seed)
            out.append(seeded(image=picture)["image"])
        return np.stack(out).reshape(slices.shape)

    return change


def _within(sample: Sample, low: float, high: float, change: Callable[[np.ndarray], np.ndarray]) -> Sample:
    """Apply `change`, float32 slices ``[N, H, W]`` in [0, 1] -> the same shape, to what lies between the bounds."""
    hu = sample.image.reshape(-1, *sample.image.shape[-2:])
    scaled = (hu.astype(np.float32) - np.float32(low)) * np.float32(1 / (high - low))
    changed = np.clip(change(np.clip(scaled, 0, 1)), 0, 1)
    back = np.rint(changed * np.float32(high - low) + np.float32(low)).astype(hu.dtype)
    inside = (hu >= low) & (hu <= high)
    image = np.where(inside, back, hu).reshape(sample.image.shape)
    return dataclasses.replace(sample, image=image)


def _check(p: float, low: float, high: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"p must be from 0 to 1, got {p}")
    if not low < high:
        raise ValueError(f"low must be below high, both in HU, got low {low} and high {high}")
