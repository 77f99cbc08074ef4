"""Rectangles cut out of a batch's slices or volumes."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch

from core import draws
from core.contracts import Batch
from core.values import AIR_HU, IGNORE
from registry import register


@register("augment", "cutout")
class Cutout:
    """Fill rectangles (boxes of volumes) with one value (DeVries and Taylor 2017, arXiv:1708.04552).

    Each lies wholly within the slice; they may overlap. The image leaves as float32 HU.

    Args:
        p: probability.
        count: rectangles a sample.
        size: range of each side, as a share of the slice's side, drawn for each axis by itself.
        fill_hu: what they are filled with, HU; air by default.
        label: "ignore" leaves the rectangles out of every loss, and takes their lesion ids away; "keep" asks the
            network to guess from what surrounds them, even a tumour that is hidden wholly.

    Raises:
        ValueError: for a probability outside [0, 1], a count below 1, or a range that is not one.

    Example: {name: cutout, p: 0.2, count: 2, size: [0.05, 0.2], fill_hu: -1024, label: ignore}
    """

    def __init__(
        self,
        *,
        p: float = 0.2,
        count: int = 1,
        size: tuple[float, float] = (0.05, 0.2),
        fill_hu: float = AIR_HU,
        label: Literal["keep", "ignore"] = "ignore",
    ) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p must be from 0 to 1, got {p}")
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        if not 0 < size[0] <= size[1] <= 1:
            raise ValueError(f"size wants [lowest, highest] above 0 and up to 1, got {list(size)}")
        if not -32768 <= fill_hu <= 32767:
            raise ValueError(f"fill_hu must be a value of a scan, from -32768 to 32767 HU, got {fill_hu}")
        self.p, self.count, self.size, self.fill_hu, self.label = p, count, size, fill_hu, label

    def __call__(self, batch: Batch, seeds: torch.Tensor) -> Batch:
        """The batch with holes."""
        space = batch.image.shape[2:]

        def change(seeds: torch.Tensor, image: torch.Tensor, *masks: torch.Tensor) -> tuple[torch.Tensor, ...]:
            hole = self._hole(seeds, space)
            image = image.masked_fill(hole[:, None], self.fill_hu)
            return image, *(mask.masked_fill(hole, fill) for mask, fill in zip(masks, (IGNORE, 0), strict=False))

        chosen = draws.uniform(seeds, "cutout/p") < self.p
        masks = [] if self.label == "keep" else [m for m in (batch.label, batch.lesion) if m is not None]
        image, *masks = draws.change_some(seeds, chosen, change, [batch.image.float(), *masks])
        if masks:
            batch = dataclasses.replace(batch, label=masks[0], lesion=masks[1] if len(masks) > 1 else None)
        return dataclasses.replace(batch, image=image)

    def _hole(self, seeds: torch.Tensor, space: torch.Size) -> torch.Tensor:
        """Where a rectangle lies, bool [B, *space]."""
        hole = torch.zeros((len(seeds), *space), dtype=torch.bool, device=seeds.device)
        for k in range(self.count):
            rectangle = torch.ones_like(hole)
            for axis, side in enumerate(space):
                at = torch.arange(side, device=seeds.device)
                length = (draws.uniform(seeds, f"cutout/{k}/size/{axis}", *self.size) * side).round().clamp(1, side)
                room = side - length
                # Rounding may bring a number just below the room's end up to it.
                start = (draws.uniform(seeds, f"cutout/{k}/start/{axis}") * (room + 1)).floor().minimum(room)
                first, past = start[:, None], (start + length)[:, None]
                along = (at >= first) & (at < past)
                rectangle &= along.view(-1, *[side if i == axis else 1 for i in range(len(space))])
            hole |= rectangle
        return hole
