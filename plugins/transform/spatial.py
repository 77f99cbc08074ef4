"""Spatial transforms of slices: the image as int16 HU, its label and its lesion ids move together."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
from typing import Any, Literal

import numpy as np

from core.contracts import Sample
from core.values import AIR_HU, BACKGROUND
from registry import register


@register("transform", "flip")
class Flip:
    """Mirror the slice.

    Args:
        p: probability, for each axis by itself.
        axes: "x" swaps left and right, "y" front and back.

    Raises:
        ValueError: for a probability outside [0, 1] or no axis.

    Example: {name: flip, p: 0.5, axes: [x, y]}
    """

    def __init__(self, *, p: float = 0.5, axes: tuple[Literal["x", "y"], ...] = ("x", "y")) -> None:
        _check_probability(p)
        if not axes:
            raise ValueError("axes must name x, y or both")
        self.p = p
        self.axes = [{"x": -1, "y": -2}[a] for a in dict.fromkeys(axes)]

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The mirrored sample."""
        axes = tuple(a for a in self.axes if rng.random() < self.p)
        if not axes:
            return sample
        image, label = (np.ascontiguousarray(np.flip(a, axes)) for a in (sample.image, sample.label))
        lesion = None if sample.lesion is None else np.ascontiguousarray(np.flip(sample.lesion, axes))
        return dataclasses.replace(sample, image=image, label=label, lesion=lesion)


@register("transform", "affine")
class Affine:
    """Rotate, scale and shift in the plane; what comes in from outside is air and background.

    The image is interpolated linearly, label and lesion ids take the nearest voxel.

    Args:
        p: probability.
        rotate_deg: range of the angle, degrees.
        scale: range of the factor, the same for both axes; above 1 magnifies.
        shift: largest shift along each axis, as a share of the slice's side.

    Raises:
        ValueError: for a probability outside [0, 1] or a range that is not one.

    Example: {name: affine, p: 0.5, rotate_deg: [-15, 15], scale: [0.85, 1.2], shift: 0.05}
    """

    def __init__(
        self,
        *,
        p: float = 0.5,
        rotate_deg: tuple[float, float] = (-15.0, 15.0),
        scale: tuple[float, float] = (0.85, 1.2),
        shift: float = 0.05,
    ) -> None:
        _check_probability(p)
        if rotate_deg[0] > rotate_deg[1]:
            raise ValueError(f"rotate_deg wants [lowest, highest], got {list(rotate_deg)}")
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale wants [lowest, highest] above 0, got {list(scale)}")
        if not 0 <= shift < 1:
            raise ValueError(f"shift must be from 0 to below 1, got {shift}")
        self.p = p
        self.transform = _albumentations().Affine(
            rotate=tuple(rotate_deg),
            scale=tuple(scale),
            translate_percent={"x": (-shift, shift), "y": (-shift, shift)},
            keep_ratio=True,
            fill=AIR_HU,
            fill_mask=BACKGROUND,
            p=1.0,
        )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The moved sample."""
        return _apply(self.transform, sample, rng) if rng.random() < self.p else sample


@register("transform", "elastic")
class Elastic:
    """Bend the slice by a smooth random field (Simard et al. 2003, doi:10.1109/ICDAR.2003.1227801).

    The image is interpolated linearly, label and lesion ids take the nearest voxel. What comes in from outside is air
    and background.

    Args:
        p: probability.
        shift_px: range of the field's standard deviation, in pixels (as the slice comes in), to within a tenth.
        smooth_px: standard deviation of the Gaussian that smooths the field, in pixels; smaller folds more.

    Raises:
        ValueError: for a probability outside [0, 1] or a range that is not one.

    Example: {name: elastic, p: 0.2, shift_px: [0, 4], smooth_px: 12}
    """

    def __init__(self, *, p: float = 0.2, shift_px: tuple[float, float] = (0.0, 4.0), smooth_px: float = 12.0) -> None:
        _check_probability(p)
        if not 0 <= shift_px[0] <= shift_px[1]:
            raise ValueError(f"shift_px wants [lowest, highest], not negative, got {list(shift_px)}")
        if not 1 <= smooth_px < float("inf"):
            raise ValueError(f"smooth_px must be at least 1, got {smooth_px}")
        self.p, self.shift_px, self.smooth_px = p, shift_px, smooth_px
        # Four values: OpenCV pads further channels with 0, which is water, if it is given only one.
        self.transform = _albumentations().ElasticTransform(
            sigma=smooth_px, fill=(AIR_HU,) * 4, fill_mask=BACKGROUND, p=1.0
        )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The bent sample."""
        if rng.random() >= self.p:
            return sample
        transform = copy.copy(self.transform)
        # albumentations divides white noise by its largest value, smooths it, and multiplies by alpha.
        largest = math.sqrt(2 * math.log(2 * sample.label.size))
        transform.alpha = rng.uniform(*self.shift_px) * largest * 2 * math.sqrt(math.pi) * self.smooth_px
        return _apply(transform, sample, rng)


def _albumentations() -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks the network
    import albumentations

    return albumentations


def _apply(transform: Any, sample: Sample, rng: np.random.Generator) -> Sample:
    if sample.image.ndim != 3:
        raise ValueError(f"this transform works on slices [C, H, W], got an image of shape {sample.image.shape}")
    transform = copy.copy(transform)  # its random state is its own, whatever other threads do
    transform.set_random_seed(int(rng.integers(2**31)))
    mask = sample.label
    if sample.lesion is not None:
        # OpenCV knows no int32; lesion ids are stored as uint16.
        mask = np.stack([sample.label, sample.lesion], axis=-1, dtype=np.uint16, casting="unsafe")
    moved = transform(image=np.ascontiguousarray(sample.image.transpose(1, 2, 0)), mask=mask)
    image = moved["image"].reshape(*moved["image"].shape[:2], -1).transpose(2, 0, 1)
    label, lesion = moved["mask"], None
    if sample.lesion is not None:
        label, lesion = label[..., 0], np.ascontiguousarray(label[..., 1]).astype(sample.lesion.dtype)
    return dataclasses.replace(
        sample,
        image=np.ascontiguousarray(image),
        label=np.ascontiguousarray(label).astype(sample.label.dtype, copy=False),
        lesion=lesion,
    )


def _check_probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"p must be from 0 to 1, got {p}")
