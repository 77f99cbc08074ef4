"""Slice by slice in slabs of bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from core.contracts import OnLogits, Prediction
from core.data.checks import geometry_note
from core.infer.geometry import Geometry
from core.infer.network import finest
from core.infer.running import device_of, evaluating, labels_of
from registry import register

if TYPE_CHECKING:
    from core.data.volume import Volume


@register("inferer", "slices")
class Slices:
    """Runs a 2-D network over all slices of a volume, `batch` slices at a time.

    Logits are brought back to the scan's own grid and turned into labels slab by slab, so that memory does not grow
    with the volume beyond its labels (and the probabilities, if asked for). Equal logits give the lower label. The
    network runs in evaluation mode and is left in the mode in which it came.

    Args:
        batch: slices at a time; changes memory and speed, not the result beyond rounding.

    Raises:
        ValueError: if batch is below 1.
        UserError: if the network gives NaN, or the geometry's `context_mm` cannot count a scan's slices.

    Example: {name: slices, batch: 16}
    """

    def __init__(self, network: nn.Module, geometry: Geometry, *, batch: int = 16) -> None:
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        self.network = network
        self.geometry = geometry
        self.batch = batch

    def __call__(self, volume: Volume, *, probabilities: bool = False, on_logits: OnLogits | None = None) -> Prediction:
        """Labels on the volume's own voxel grid.

        `on_logits` gets the logits of each slab on the network's grid, padding included, before they are brought back.
        """
        self._check_spacing(volume)
        depth, *plane = volume.array.shape
        labels = np.zeros(volume.array.shape, np.uint8)
        probability: np.ndarray | None = None
        with torch.no_grad(), evaluating(self.network):
            for first in range(0, depth, self.batch):
                last = min(first + self.batch, depth)
                logits = finest(self.network(self._stacks(volume, first, last)))
                if on_logits is not None:
                    height, width = (int(n) for n in logits.shape[-2:])
                    on_logits(logits, (slice(first, last), slice(0, height), slice(0, width)))
                if self.geometry.size_yx(plane) != tuple(plane):
                    logits = logits.float()  # resampling in bf16 would move the border
                logits = self.geometry.back(logits, plane)
                labels[first:last] = labels_of(logits, first, last).cpu().numpy()
                if probabilities:
                    if probability is None:
                        probability = np.empty((logits.shape[1], *volume.array.shape), np.float16)
                    soft = torch.softmax(logits.float(), dim=1).half().transpose(0, 1)
                    probability[:, first:last] = soft.cpu().numpy()
        return Prediction(labels, probability)

    def _stacks(self, volume: Volume, first: int, last: int) -> torch.Tensor:
        """Int16 HU ``[B, C, H, W]`` of the slices from `first` up to `last` on the network's device."""
        array, spacing = volume.array, volume.spacing_mm[0]
        neighbours = [self.geometry.neighbours(z, len(array), spacing) for z in range(first, last)]
        used = sorted({z for stack in neighbours for z in stack})
        place = {z: i for i, z in enumerate(used)}
        # Each slice is resampled and sent once, however many stacks it is part of.
        slab = array[used[0] : used[-1] + 1] if len(used) == used[-1] + 1 - used[0] else array[used]
        sent = torch.from_numpy(np.ascontiguousarray(self.geometry.image(slab))).to(device_of(self.network))
        return sent[torch.tensor([[place[z] for z in stack] for stack in neighbours], device=sent.device)]

    def _check_spacing(self, volume: Volume) -> None:
        if self.geometry.context_mm is None:
            return
        trusted = geometry_note(volume.native.affine, volume.native.header) is None
        self.geometry.check_spacing("this scan", trusted=trusted)
