"""What data set and inferer share of a volume's way to the network, and the exact way back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from core.errors import UserError
from core.values import AIR_HU, IGNORE

if TYPE_CHECKING:
    import torch

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Geometry:
    """How a slice comes to the network's grid and back.

    Slices are resampled in the plane to `size` (the image by area averages where it shrinks, else linearly; labels by
    the nearest voxel), then padded at the bottom and right to a multiple of `divisor` (images with air, labels with
    `IGNORE`). On the way back logits lose the padding and are resampled linearly.

    Attributes:
        channels: image channels that the network gets; a single slice is repeated to fill them. None: ``2*context+1``.
        context: neighbouring slices on each side as further channels.
        context_mm: distance of these neighbours from each other in mm: of each multiple the nearest slice, so that a
            thick-sliced scan and a thin-sliced one show the same stretch of the body; null takes adjacent slices.
        ends: what stands for slices past the scan's ends: "repeat" the end slice, or "mirror" the slices before it.
        size: in-plane size (one number or ``[height, width]``) of the resampled slice; null keeps the scan's own.
        divisor: the network divides each in-plane axis by this.
    """

    channels: int | None = None
    context: int = 0
    context_mm: float | None = None
    ends: Literal["repeat", "mirror"] = "repeat"
    size: int | tuple[int, int] | None = None
    divisor: int = 32

    def __post_init__(self) -> None:
        """Raises ValueError for values that contradict each other."""
        if self.context < 0:
            raise ValueError(f"context must not be negative, got {self.context}")
        if self.context_mm is not None and not 0 < self.context_mm < math.inf:
            raise ValueError(f"context_mm must be positive or null, got {self.context_mm:g}")
        if self.context_mm is not None and self.context == 0:
            raise ValueError(f"context_mm {self.context_mm:g} needs neighbours: set context to 1 or more")
        if self.divisor < 1:
            raise ValueError(f"divisor must be at least 1, got {self.divisor}")
        if self.size is not None and min(self.size_yx((1, 1))) < 1:
            raise ValueError(f"size must be at least 1, got {self.size}")
        if self.channels is not None and self.channels != self.images and self.images != 1:
            raise ValueError(
                f"channels must be {self.images} with context {self.context} (2*context+1), got {self.channels}"
            )
        if self.channels is not None and self.channels < 1:
            raise ValueError(f"channels must be at least 1, got {self.channels}")

    @property
    def images(self) -> int:
        """Slices that travel to the device for one sample."""
        return 2 * self.context + 1

    @property
    def repeat(self) -> int:
        """How often the network's input repeats a single slice."""
        return self.channels if self.channels is not None and self.images == 1 else 1

    @property
    def resamples(self) -> bool:
        """Whether slices are resampled."""
        return self.size is not None

    def size_yx(self, shape_yx: Sequence[int]) -> tuple[int, int]:
        """In-plane size after resampling, before padding."""
        if self.size is None:
            return int(shape_yx[0]), int(shape_yx[1])
        return (self.size, self.size) if isinstance(self.size, int) else (int(self.size[0]), int(self.size[1]))

    def padded_yx(self, shape_yx: Sequence[int]) -> tuple[int, int]:
        """In-plane size that the network sees."""
        height, width = self.size_yx(shape_yx)
        return -(-height // self.divisor) * self.divisor, -(-width // self.divisor) * self.divisor

    def neighbours(self, z: int, depth: int, spacing_z_mm: float | None = None) -> list[int]:
        """The slices that make up sample `z` of a scan of `depth` slices, `spacing_z_mm` apart.

        Raises:
            ValueError: if `context_mm` is set and the spacing is not known.
        """
        step = 1.0
        if self.context_mm is not None:
            if spacing_z_mm is None or not 0 < spacing_z_mm < math.inf:
                raise ValueError(f"context_mm {self.context_mm:g} needs the distance of the slices in mm")
            step = self.context_mm / spacing_z_mm
        # Halves are rounded away from z, so that both sides reach equally far.
        above = [math.floor(k * step + 0.5) for k in range(1, self.context + 1)]
        return [self._inside(z + d, depth) for d in (*(-d for d in reversed(above)), 0, *above)]

    def check_spacing(self, name: str, *, trusted: bool) -> None:
        """Refuse a scan whose slices `context_mm` cannot count.

        Args:
            name: of the scan, for the message.
            trusted: whether its spacing can be trusted.

        Raises:
            UserError: with what to do.
        """
        if self.context_mm is not None and not trusted:
            raise UserError(
                f"{name}: its spacing cannot be trusted, so no slice is known to be {self.context_mm:g} mm away "
                f"(context_mm); set dataset.context_mm=null to take adjacent slices, or leave the scan out of the split"
            )

    def check_volumes(self, who: str) -> None:
        """Refuse what only slices have, on behalf of a component that works on volumes.

        Raises:
            ValueError: with what to do.
        """
        if self.context or self.size is not None:
            raise ValueError(
                f"{who} works on volumes: set dataset.context=0 and dataset.size=null (prepare.spacing resamples)"
            )

    def image(self, slices: np.ndarray) -> np.ndarray:
        """Int16 HU ``[C, Y, X]`` -> int16 HU ``[C, H, W]`` on the network's grid."""
        return self._to_grid(slices, area=True, fill=AIR_HU)

    def label(self, slices: np.ndarray) -> np.ndarray:
        """Labels ``[C, Y, X]`` -> the same dtype ``[C, H, W]`` on the network's grid."""
        return self._to_grid(slices, area=False, fill=IGNORE)

    def lesion(self, slices: np.ndarray) -> np.ndarray:
        """Lesion ids ``[C, Y, X]`` -> the same dtype ``[C, H, W]`` on the network's grid, padded with 0."""
        return self._to_grid(slices, area=False, fill=0)

    def back(self, logits: torch.Tensor, shape_yx: Sequence[int]) -> torch.Tensor:
        """Logits ``[B, K, H, W]`` on the network's grid -> ``[B, K, Y, X]`` on the scan's."""
        import torch.nn.functional as F

        height, width = self.size_yx(shape_yx)
        logits = logits[..., :height, :width]
        if (height, width) == tuple(shape_yx):
            return logits
        target = (int(shape_yx[0]), int(shape_yx[1]))
        return F.interpolate(logits, size=target, mode="bilinear", align_corners=False)

    def _inside(self, z: int, depth: int) -> int:
        if self.ends == "repeat" or depth == 1:
            return min(max(z, 0), depth - 1)
        z %= 2 * (depth - 1)
        return min(z, 2 * (depth - 1) - z)

    def _to_grid(self, slices: np.ndarray, *, area: bool, fill: int) -> np.ndarray:
        size = self.size_yx(slices.shape[-2:])
        if size != slices.shape[-2:]:
            slices = np.stack([_resample(s, size, area=area) for s in slices])
        height, width = self.padded_yx(slices.shape[-2:]) if self.size is None else self.padded_yx(size)
        pad = (height - slices.shape[-2], width - slices.shape[-1])
        if not any(pad):
            return slices
        return np.pad(slices, ((0, 0), (0, pad[0]), (0, pad[1])), constant_values=fill)


@dataclass(frozen=True)
class DatasetKeys(Geometry):
    """Core's keys of the ``dataset:`` node: the geometry, and where the training samples are kept.

    Attributes:
        cache: "ram" keeps all training samples in this computer's memory, "device" on the GPU (each rank all of
            them); "none" reads them from the store each time.
    """

    cache: Literal["none", "ram", "device"] = "none"


def place(start: int, size: int, length: int) -> int:
    """Where a window of `size` that would begin at `start` begins on an axis of `length`.

    It is moved inside where it fits; where the axis is shorter, it reaches beyond both ends alike.
    """
    return (length - size) // 2 if length < size else min(max(start, 0), length - size)


def window(start: Sequence[int], size: Sequence[int], shape: Sequence[int]) -> tuple[Slices, Slices]:
    """The part of an array of `shape` under the window that begins at `start`, and where it lies in the window."""
    pairs = list(zip(start, size, shape, strict=True))
    source = tuple(slice(max(a, 0), max(min(a + n, whole), 0)) for a, n, whole in pairs)
    return source, tuple(slice(s.start - a, s.stop - a) for s, (a, *_) in zip(source, pairs, strict=True))


def _resample(plane: np.ndarray, size_yx: tuple[int, int], *, area: bool) -> np.ndarray:
    import cv2

    target = (size_yx[1], size_yx[0])
    if area:
        shrinks = size_yx[0] < plane.shape[0] or size_yx[1] < plane.shape[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return np.rint(cv2.resize(plane.astype(np.float32), target, interpolation=method)).astype(plane.dtype)
    # NEAREST_EXACT shares its voxel centres with AREA and LINEAR; plain NEAREST is half a voxel off.
    wide = plane.astype(np.float32)
    return cv2.resize(wide, target, interpolation=cv2.INTER_NEAREST_EXACT).astype(plane.dtype)
