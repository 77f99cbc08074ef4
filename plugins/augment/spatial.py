"""Spatial augmentations of a batch on its device: image, label and lesion ids of a sample move together.

What is moved is interpolated linearly in float32 HU (label and lesion ids take the nearest voxel) and not rounded back;
what comes in from outside is air and background. Samples that are not chosen keep every value.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F

from core import draws
from core.contracts import Batch
from core.values import AIR_HU
from registry import register

Grid = Callable[[torch.Tensor, int, int], tuple[torch.Tensor, torch.Tensor]]
"""(seeds, height, width) -> where each pixel comes from, x and y from the slice's centre in pixels, [B, H, W] each."""


@register("augment", "flip")
class Flip:
    """Mirror the slice or the volume; the image keeps its type.

    Args:
        p: probability, for each axis by itself.
        axes: "x" swaps left and right, "y" front and back, "z" (volumes only) head and feet.

    Raises:
        ValueError: for a probability outside [0, 1] or no axis; called with slices, for the axis z.

    Example: {name: flip, p: 0.5, axes: [x, y]}
    """

    def __init__(self, *, p: float = 0.5, axes: tuple[Literal["x", "y", "z"], ...] = ("x", "y")) -> None:
        _check_probability(p)
        if not axes:
            raise ValueError("axes must name x, y or z, or several of them")
        self.p = p
        self.axes = tuple(dict.fromkeys(axes))

    def __call__(self, batch: Batch, seeds: torch.Tensor) -> Batch:
        """The mirrored batch."""
        if "z" in self.axes and batch.image.ndim != 5:
            raise ValueError(f"flip: only volumes [B, C, D, H, W] have an axis z, got {_shape(batch)}")
        for axis in self.axes:
            batch = self._flip(batch, seeds, axis)
        return batch

    def _flip(self, batch: Batch, seeds: torch.Tensor, axis: str) -> Batch:
        dimension = {"x": -1, "y": -2, "z": -3}[axis]

        def change(_: torch.Tensor, *fields: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(field.flip(dimension) for field in fields)

        chosen = draws.uniform(seeds, f"flip/{axis}") < self.p
        return _replaced(batch, draws.change_some(seeds, chosen, change, _fields(batch)))


@register("augment", "affine")
class Affine:
    """Scale, rotate, shear and shift in the plane about the slice's centre.

    Args:
        p: probability.
        rotate_deg: range of the angle, degrees.
        scale: range of the factor, the same for both axes; above 1 magnifies.
        shear_deg: range of the shear's angle, degrees, drawn for each axis by itself.
        shift: largest shift along each axis, as a share of the slice's side.

    Raises:
        ValueError: for a probability outside [0, 1] or a range that is not one; called with volumes.

    Example: {name: affine, rotate_deg: [-15, 15], scale: [0.85, 1.2], shear_deg: [-5, 5], shift: 0.05}
    """

    def __init__(
        self,
        *,
        p: float = 0.5,
        rotate_deg: tuple[float, float] = (-15.0, 15.0),
        scale: tuple[float, float] = (0.85, 1.2),
        shear_deg: tuple[float, float] = (0.0, 0.0),
        shift: float = 0.05,
    ) -> None:
        _check_probability(p)
        if not -math.inf < rotate_deg[0] <= rotate_deg[1] < math.inf:
            raise ValueError(f"rotate_deg wants [lowest, highest], got {list(rotate_deg)}")
        if not 0 < scale[0] <= scale[1] < math.inf:
            raise ValueError(f"scale wants [lowest, highest] above 0, got {list(scale)}")
        # Sheared by 45 degrees along both axes, a slice is a line.
        if not -45 < shear_deg[0] <= shear_deg[1] < 45:
            raise ValueError(f"shear_deg wants [lowest, highest] between -45 and 45, got {list(shear_deg)}")
        if not 0 <= shift < 1:
            raise ValueError(f"shift must be from 0 to below 1, got {shift}")
        self.p, self.rotate_deg, self.scale, self.shear_deg, self.shift = p, rotate_deg, scale, shear_deg, shift

    def __call__(self, batch: Batch, seeds: torch.Tensor) -> Batch:
        """The moved batch."""
        return _moved("affine", self.p, batch, seeds, self._grid)

    def _grid(self, seeds: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        def draw(word: str, low: float, high: float) -> torch.Tensor:
            return draws.uniform(seeds, f"affine/{word}", low, high).view(-1, 1, 1)

        angle = torch.deg2rad(draw("rotate_deg", *self.rotate_deg))
        scale = draw("scale", *self.scale)
        shear_x = torch.deg2rad(draw("shear_deg/x", *self.shear_deg)).tan()
        shear_y = torch.deg2rad(draw("shear_deg/y", *self.shear_deg)).tan()
        cos, sin = angle.cos(), angle.sin()
        x = _from_centre(width, seeds)[None, None, :] - draw("shift/x", -self.shift, self.shift) * width
        y = _from_centre(height, seeds)[None, :, None] - draw("shift/y", -self.shift, self.shift) * height
        # Forward a pixel is scaled, rotated, sheared, then shifted; where it comes from is the way back.
        back = 1 / (scale * (1 - shear_x * shear_y))
        from_x = x * ((cos + sin * shear_y) * back) - y * ((cos * shear_x + sin) * back)
        from_y = x * ((sin - cos * shear_y) * back) + y * ((cos - sin * shear_x) * back)
        return from_x, from_y


@register("augment", "elastic")
class Elastic:
    """Bend the slice by a smooth random field (Simard et al. 2003, doi:10.1109/ICDAR.2003.1227801).

    The field is a sum of Gaussian bumps of random height, one `smooth_px` apart, which cannot be told from white noise
    smoothed by a Gaussian and costs a few small matrix products.

    Args:
        p: probability.
        shift_px: range of the field's standard deviation, in pixels (as the slice comes in).
        smooth_px: standard deviation of the bumps, in pixels; smaller folds more.

    Raises:
        ValueError: for a probability outside [0, 1] or a range that is not one; called with volumes.

    Example: {name: elastic, p: 0.2, shift_px: [0, 4], smooth_px: 12}
    """

    def __init__(self, *, p: float = 0.2, shift_px: tuple[float, float] = (0.0, 4.0), smooth_px: float = 12.0) -> None:
        _check_probability(p)
        if not 0 <= shift_px[0] <= shift_px[1] < math.inf:
            raise ValueError(f"shift_px wants [lowest, highest], not negative, got {list(shift_px)}")
        if not 1 <= smooth_px < math.inf:
            raise ValueError(f"smooth_px must be at least 1, got {smooth_px}")
        self.p, self.shift_px, self.smooth_px = p, shift_px, smooth_px

    def __call__(self, batch: Batch, seeds: torch.Tensor) -> Batch:
        """The bent batch."""
        return _moved("elastic", self.p, batch, seeds, self._grid)

    def _grid(self, seeds: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        along_y, along_x = self._bumps(height, seeds), self._bumps(width, seeds)
        heights = draws.normal(seeds, "elastic/field", (2, along_y.shape[1], along_x.shape[1])).double()
        field = (along_y @ heights @ along_x.T).float()
        field = field * draws.uniform(seeds, "elastic/shift_px", *self.shift_px).view(-1, 1, 1, 1)
        x, y = _from_centre(width, seeds)[None, None, :], _from_centre(height, seeds)[None, :, None]
        return x + field[:, 0], y + field[:, 1]

    def _bumps(self, side: int, seeds: torch.Tensor) -> torch.Tensor:
        """What each bump adds at each pixel along one axis, [side, bumps]; autocast and TF32 leave float64 alone."""
        at = torch.arange(side, device=seeds.device, dtype=torch.float64)[:, None] / self.smooth_px
        # Four more on either side: the bumps next to them add less than a thousandth.
        bump = torch.arange(-4, math.ceil(side / self.smooth_px) + 5, device=seeds.device)[None, :]
        weight = torch.exp(-0.5 * (at - bump) ** 2)
        return weight / weight.square().sum(1, keepdim=True).sqrt()


def _moved(name: str, p: float, batch: Batch, seeds: torch.Tensor, grid: Grid) -> Batch:
    if batch.image.ndim != 4:
        raise ValueError(f"{name} works on slices [B, C, H, W], got {_shape(batch)}")
    height, width = batch.image.shape[-2:]

    def change(seeds: torch.Tensor, image: torch.Tensor, *masks: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x, y = grid(seeds, height, width)
        where = torch.stack([x * (2 / width), y * (2 / height)], dim=-1)
        # grid_sample fills with 0: air must be 0 for that. float32 holds every lesion id up to 16 million.
        image = _sample(image - AIR_HU, where, "bilinear") + AIR_HU
        moved = _sample(torch.stack([mask.float() for mask in masks], dim=1), where, "nearest")
        return image, *(moved[:, i].to(mask.dtype) for i, mask in enumerate(masks))

    image, *masks = _fields(batch)
    chosen = draws.uniform(seeds, f"{name}/p") < p
    return _replaced(batch, draws.change_some(seeds, chosen, change, [image.float(), *masks]))


def _sample(values: torch.Tensor, where: torch.Tensor, mode: str) -> torch.Tensor:
    return F.grid_sample(values, where, mode=mode, padding_mode="zeros", align_corners=False)


def _from_centre(side: int, seeds: torch.Tensor) -> torch.Tensor:
    return torch.arange(side, device=seeds.device, dtype=torch.float32) - (side - 1) / 2


def _fields(batch: Batch) -> list[torch.Tensor]:
    return [field for field in (batch.image, batch.label, batch.lesion) if field is not None]


def _replaced(batch: Batch, fields: tuple[torch.Tensor, ...]) -> Batch:
    image, label, *lesion = fields
    return dataclasses.replace(batch, image=image, label=label, lesion=lesion[0] if lesion else None)


def _shape(batch: Batch) -> str:
    return f"images of shape {list(batch.image.shape)}"


def _check_probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"p must be from 0 to 1, got {p}")
