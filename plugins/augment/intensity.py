"""Intensity augmentations of a batch on its device; slices and volumes, all channels of a sample alike.

Those with bounds change what lies between them, within them; values outside (air, bone, metal) stay as they are. The
image leaves as float32 HU and is not rounded, however many of these follow each other. Samples that are not chosen keep
every value.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch

from core import draws
from core.contracts import Batch
from registry import register


@register("augment", "gamma")
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
        if not 0 < gamma[0] <= gamma[1] < math.inf:
            raise ValueError(f"gamma wants [lowest, highest] above 0, got {list(gamma)}")
        self.p, self.gamma, self.low, self.high = p, gamma, low, high

    def __call__(self, batch: Batch, seeds: torch.Tensor) -> Batch:
        """The changed batch."""

        def change(seeds: torch.Tensor, hu: torch.Tensor) -> torch.Tensor:
            exponent = _draw(hu, seeds, "gamma/gamma", self.gamma)
            return ((hu - self.low) / (self.high - self.low)) ** exponent * (self.high - self.low) + self.low

        return _changed("gamma", self.p, batch, seeds, _within(self.low, self.high, change))


@register("augment", "contrast")
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
        if not 0 < factor[0] <= factor[1] < math.inf:
            raise ValueError(f"factor wants [lowest, highest] above 0, got {list(factor)}")
        self.p, self.factor, self.low, self.high = p, factor, low, high

    def __call__(self, batch: Batch, seeds: torch.Tensor) -> Batch:
        """The changed batch."""
        middle = (self.low + self.high) / 2

        def change(seeds: torch.Tensor, hu: torch.Tensor) -> torch.Tensor:
            return (hu - middle) * _draw(hu, seeds, "contrast/factor", self.factor) + middle

        return _changed("contrast", self.p, batch, seeds, _within(self.low, self.high, change))


@register("augment", "brightness")
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
        if not shift_hu[0] <= shift_hu[1]:
            raise ValueError(f"shift_hu wants [lowest, highest], got {list(shift_hu)}")
        if not low - high <= shift_hu[0] <= shift_hu[1] <= high - low:
            raise ValueError(f"shift_hu must not exceed high - low ({high - low:g} HU), got {list(shift_hu)}")
        self.p, self.shift_hu, self.low, self.high = p, shift_hu, low, high

    def __call__(self, batch: Batch, seeds: torch.Tensor) -> Batch:
        """The changed batch."""

        def change(seeds: torch.Tensor, hu: torch.Tensor) -> torch.Tensor:
            return hu + _draw(hu, seeds, "brightness/shift_hu", self.shift_hu)

        return _changed("brightness", self.p, batch, seeds, _within(self.low, self.high, change))


@register("augment", "noise")
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
        self.p, self.std_hu, self.low, self.high = p, std_hu, low, high

    def __call__(self, batch: Batch, seeds: torch.Tensor) -> Batch:
        """The changed batch."""

        def change(seeds: torch.Tensor, hu: torch.Tensor) -> torch.Tensor:
            noise = draws.normal(seeds, "noise/voxels", hu.shape[1:])
            return hu + noise * _draw(hu, seeds, "noise/std_hu", self.std_hu)

        return _changed("noise", self.p, batch, seeds, _within(self.low, self.high, change))


@register("augment", "blur")
class Blur:
    """Smooth each slice with a Gaussian, as a softer reconstruction kernel does.

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
        if not 0 < sigma_px[0] <= sigma_px[1] < math.inf:
            raise ValueError(f"sigma_px wants [lowest, highest] above 0, got {list(sigma_px)}")
        self.p, self.sigma_px, self.low, self.high = p, sigma_px, low, high

    def __call__(self, batch: Batch, seeds: torch.Tensor) -> Batch:
        """The changed batch."""

        def change(seeds: torch.Tensor, hu: torch.Tensor) -> torch.Tensor:
            sigma = _draw(hu, seeds, "blur/sigma_px", self.sigma_px)
            # Cut at 3.5 standard deviations and mirrored about the border's pixels, as albumentations does.
            radius = int(3.5 * self.sigma_px[1])
            weights = [torch.exp(-0.5 * (k / sigma) ** 2) * (k <= 3.5 * sigma) for k in range(radius + 1)]
            total = weights[0] + 2 * sum(weights[1:], torch.zeros_like(sigma))
            for axis in (-2, -1):
                side = hu.shape[axis]
                wide = hu.index_select(axis, _mirrored(side, radius, hu.device))
                # Sums of shifted slices rather than a convolution, which autocast and TF32 would round to several HU.
                hu = wide.narrow(axis, radius, side) * (weights[0] / total)
                for k in range(1, radius + 1):
                    both = wide.narrow(axis, radius - k, side) + wide.narrow(axis, radius + k, side)
                    hu = hu + both * (weights[k] / total)
            return hu

        return _changed("blur", self.p, batch, seeds, _within(self.low, self.high, change))


@register("augment", "low_resolution")
class LowResolution:
    """Simulate low resolution: take the nearest voxels of a coarser grid, and interpolate linearly back.

    After nnU-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z), which goes back by cubic splines; those
    overshoot. It acts in the plane, on all HU: a coarse scan is coarse in bone and at the skin, too. Labels stay as
    fine as they are.

    Args:
        p: probability.
        scale: range of the coarser grid's side, as a share of the slice's; 1 changes nothing.

    Raises:
        ValueError: for a probability outside [0, 1] or a range that is not one.

    Example: {name: low_resolution, p: 0.25, scale: [0.5, 1.0]}
    """

    def __init__(self, *, p: float = 0.25, scale: tuple[float, float] = (0.5, 1.0)) -> None:
        _check_probability(p)
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"scale wants [lowest, highest] above 0 and up to 1, got {list(scale)}")
        self.p, self.scale = p, scale

    def __call__(self, batch: Batch, seeds: torch.Tensor) -> Batch:
        """The changed batch."""

        def change(seeds: torch.Tensor, hu: torch.Tensor) -> torch.Tensor:
            scale = _draw(hu, seeds, "low_resolution/scale", self.scale)
            for axis in (-2, -1):
                side = hu.shape[axis]
                shape = [side if i == hu.ndim + axis else 1 for i in range(hu.ndim)]
                coarse = (scale * side).round().clamp(min=1)
                at = torch.arange(side, device=hu.device).view(shape)
                place = ((at + 0.5) * (coarse / side) - 0.5).clamp(min=0)
                before = place.floor().clamp(max=coarse - 1)
                after = (before + 1).clamp(max=coarse - 1)
                voxels = [_nearest(i.long(), coarse.long(), side).expand(hu.shape) for i in (before, after)]
                first, second = hu.gather(axis, voxels[0]), hu.gather(axis, voxels[1])
                hu = first + (second - first) * (place - before)
            return hu

        return _changed("low_resolution", self.p, batch, seeds, change)


Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(seeds, HU) -> HU, both float32 [B, C, *S]."""


def _changed(name: str, p: float, batch: Batch, seeds: torch.Tensor, change: Change) -> Batch:
    chosen = draws.uniform(seeds, f"{name}/p") < p
    (image,) = draws.change_some(seeds, chosen, lambda seeds, hu: (change(seeds, hu),), [batch.image.float()])
    return dataclasses.replace(batch, image=image)


def _within(low: float, high: float, change: Change) -> Change:
    """`change` between the bounds: it sees HU clipped to them, and cannot leave them."""

    def bounded(seeds: torch.Tensor, hu: torch.Tensor) -> torch.Tensor:
        clipped = hu.clamp(low, high)
        return torch.where(clipped == hu, change(seeds, clipped).clamp(low, high), hu)

    return bounded


def _draw(hu: torch.Tensor, seeds: torch.Tensor, word: str, limits: tuple[float, float]) -> torch.Tensor:
    return draws.uniform(seeds, word, *limits).view(-1, *[1] * (hu.ndim - 1))


def _mirrored(side: int, radius: int, device: torch.device) -> torch.Tensor:
    """Positions -radius .. side - 1 + radius, mirrored about the first and the last."""
    at = torch.arange(-radius, side + radius, device=device).remainder(max(2 * side - 2, 1))
    return torch.minimum(at, (2 * side - 2 - at).abs())


def _nearest(node: torch.Tensor, nodes: torch.Tensor, side: int) -> torch.Tensor:
    """The voxel at a node of the coarser grid, in whole numbers, which are the same on every device."""
    return ((2 * node + 1) * side).div(2 * nodes, rounding_mode="floor")


def _check_probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"p must be from 0 to 1, got {p}")


def _check(p: float, low: float, high: float) -> None:
    _check_probability(p)
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"low must be below high, both in HU, got low {low} and high {high}")
