"""Overlapping 3-D windows, averaged."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from core.contracts import OnLogits, Prediction
from core.infer.geometry import Geometry, window
from core.infer.network import finest
from core.infer.running import device_of, evaluating, labels_of
from core.values import AIR_HU
from registry import register

if TYPE_CHECKING:
    from core.data.volume import Volume


@register("inferer", "sliding_window")
class SlidingWindow:
    """Runs a 3-D network over overlapping windows and averages the logits, those in a window's middle weighing most.

    As in nnU-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z): windows are spread evenly with at least the
    asked overlap, and their weight is a Gaussian with a standard deviation of an eighth of the window. It is a product
    over the axes, and so is the sum of all windows' weights, which therefore need not be kept. Equal logits give the
    lower label. The network runs in evaluation mode and is left in the mode in which it came.

    Windows go from the first slice to the last. Slices that no later window covers are finished, so what is kept is one
    window's depth of float32 logits, ``4 * classes * patch[0] * Y * X`` bytes on the network's device (200 MB for 64
    slices of 512 x 512), three times that for a moment, however many slices there are. Half precision would save half
    of it and round the sums of many windows.

    Args:
        patch: size of a window along z, y, x in voxels; that of the training patches. A volume smaller than it is
            padded with air on both sides.
        overlap: least share of a window, along each axis, that the next one covers again.
        batch: windows at a time; changes memory and speed, not the result beyond rounding.

    Raises:
        ValueError: for a value out of range, or a geometry for slices.
        UserError: if the network gives NaN.

    Example: {name: sliding_window, patch: [4, 32, 32], overlap: 0.5, batch: 2}
    """

    dimensions = 3

    def __init__(
        self,
        network: nn.Module,
        geometry: Geometry,
        *,
        patch: tuple[int, int, int] = (32, 128, 128),
        overlap: float = 0.5,
        batch: int = 2,
    ) -> None:
        geometry.check_volumes("inferer 'sliding_window'")
        if min(patch) < 1:
            raise ValueError(f"patch must be positive, got {list(patch)}")
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap must be from 0 to below 1, got {overlap:g}")
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        self.network, self.patch, self.overlap, self.batch = network, patch, overlap, batch

    def __call__(self, volume: Volume, *, probabilities: bool = False, on_logits: OnLogits | None = None) -> Prediction:
        """Labels on the volume's own voxel grid.

        `on_logits` gets ``[1, K, D, Y, X]``, the averaged logits of whole slices as they are finished.
        """
        array = volume.array
        depth, height, width = array.shape
        labels, soft = np.zeros(array.shape, np.uint8), None
        axes = [_starts(n, size, self.overlap) for n, size in zip(array.shape, self.patch, strict=True)]
        with torch.no_grad(), evaluating(self.network):
            device = device_of(self.network)
            weights = [_gaussian(size, device) for size in self.patch]
            totals = [_total(*axis, n) for axis, n in zip(zip(axes, weights, strict=True), array.shape, strict=True)]
            kept: torch.Tensor | None = None  # sums of the slices from `first` on that are not finished
            first = max(axes[0][0], 0)
            for start, following in zip(axes[0], [*axes[0][1:], depth], strict=True):
                sums = self._layer(array, start, axes, weights, device)
                if kept is not None:
                    sums[:, : kept.shape[1]] += kept
                done = min(following, depth) - first
                plane = totals[1][:, None] * totals[2]
                logits = (sums[:, :done] / (totals[0][first : first + done, None, None] * plane))[None]
                if on_logits is not None:
                    on_logits(logits, (slice(first, first + done), slice(0, height), slice(0, width)))
                labels[first : first + done] = labels_of(logits, first, first + done)[0].cpu().numpy()
                if probabilities:
                    if soft is None:
                        soft = np.empty((logits.shape[1], *array.shape), np.float16)
                    soft[:, first : first + done] = torch.softmax(logits[0], dim=0).half().cpu().numpy()
                kept, first = sums[:, done:].clone(), first + done
        return Prediction(labels, soft)

    def _layer(
        self,
        array: np.ndarray,
        start: int,
        axes: list[list[int]],
        weights: list[torch.Tensor],
        device: torch.device,
    ) -> torch.Tensor:
        """Weighted sums of logits, float32 ``[K, D, Y, X]``, of all windows that begin on slice `start`."""
        weight = weights[0][:, None, None] * weights[1][:, None] * weights[2]
        shape, corners = array.shape, [(start, y, x) for y in axes[1] for x in axes[2]]
        covered = range(max(start, 0), min(start + self.patch[0], shape[0]))
        sums: torch.Tensor | None = None
        for at in range(0, len(corners), self.batch):
            some = corners[at : at + self.batch]
            windows = np.full((len(some), 1, *self.patch), AIR_HU, np.int16)
            places = [window(corner, self.patch, shape) for corner in some]
            for hu, (source, target) in zip(windows, places, strict=True):
                hu[(0, *target)] = array[source]
            for logits, (source, target) in zip(
                finest(self.network(torch.from_numpy(windows).to(device))), places, strict=True
            ):
                if sums is None:
                    sums = torch.zeros((len(logits), len(covered), *shape[1:]), device=device)
                # Into float32 before it is weighted: sums of half precision would round windows away.
                sums[(slice(None), slice(None), *source[1:])] += (logits.float() * weight)[(slice(None), *target)]
        assert sums is not None
        return sums


def _starts(length: int, size: int, overlap: float) -> list[int]:
    """Where windows begin along one axis, spread evenly."""
    if length <= size:
        return [(length - size) // 2]
    count = math.ceil((length - size) / max(size * (1 - overlap), 1)) + 1
    return [round(i * (length - size) / (count - 1)) for i in range(count)]


def _gaussian(size: int, device: torch.device) -> torch.Tensor:
    """Weights along one axis, float32 [size], greatest in the middle."""
    distance = torch.arange(size, device=device, dtype=torch.float32) - (size - 1) / 2
    return torch.exp(-0.5 * (distance / (size / 8)) ** 2)


def _total(starts: list[int], weights: torch.Tensor, length: int) -> torch.Tensor:
    """The sum of all windows' weights along one axis, [length]."""
    total = torch.zeros(length, device=weights.device)
    for start in starts:
        (source,), (target,) = window([start], [len(weights)], [length])
        total[source] += weights[target]
    return total
