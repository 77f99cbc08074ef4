"""Mean 0 and standard deviation 1 over the foreground of the training cases."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from core.data.store import HISTOGRAM_LOW, Store
from registry import register


@register("window", "zscore")
class ZScore(nn.Module):
    """Clip to percentiles of the training cases' liver and tumour HU, then mean 0 and standard deviation 1 over them.

    nnU-Net's rule for CT (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z). The four numbers come from all
    foreground voxels (labels 1 and 2) of the training cases, no other part of the split, and are saved with the run.

    Args:
        low: percentile to clip at below, in percent.
        high: percentile to clip at above, in percent.

    Shape: HU [B, C, *S] -> [B, C, *S].

    Raises:
        ValueError: if the percentiles are not in order, or the training cases have no foreground, or it is of one HU.

    Example: {name: zscore, low: 0.5, high: 99.5}
    """

    clip: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, store: Store | None, cases: tuple[str, ...] | None, *, low: float = 0.5, high: float = 99.5
    ) -> None:
        super().__init__()
        if not 0 <= low < high <= 100:
            raise ValueError(f"low and high are percentiles: want 0 <= low < high <= 100, got {low:g} and {high:g}")
        # Without a store a checkpoint fills them.
        fitted = (-1.0, 1.0, 0.0, 1.0) if store is None or cases is None else _fit(store, cases, low, high)
        bottom, top, mean, std = fitted
        self.register_buffer("clip", torch.tensor([bottom, top], dtype=torch.float32))
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def channels(self, images: int) -> int:
        """As many as came in."""
        return images

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """HU -> z-scores."""
        return (torch.minimum(torch.maximum(image, self.clip[0]), self.clip[1]) - self.mean) / self.std


def _fit(store: Store, cases: tuple[str, ...], low: float, high: float) -> tuple[float, float, float, float]:
    """Percentiles, mean and standard deviation of the unclipped foreground, from histograms of whole HU."""
    counts: np.ndarray = np.stack([store.foreground_histogram(case) for case in cases]).sum(axis=0)
    total = int(counts.sum())
    if total == 0:
        raise ValueError(f"the {len(cases)} training cases have no voxel of label 1 or 2 to take the statistics from")
    hu = np.arange(len(counts)) + HISTOGRAM_LOW
    mean = float((hu * counts).sum() / total)
    std = float(np.sqrt(((hu - mean) ** 2 * counts).sum() / total))
    if std == 0:
        raise ValueError(f"all foreground voxels of the {len(cases)} training cases have {mean:g} HU")
    reached = np.cumsum(counts)
    bottom, top = (float(hu[np.searchsorted(reached, max(1.0, q / 100 * total))]) for q in (low, high))
    return bottom, top, mean, std
