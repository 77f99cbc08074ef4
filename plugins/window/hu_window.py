"""A fixed HU window."""

from __future__ import annotations

import torch
from torch import nn

from registry import register


@register("window", "hu_window")
class HuWindow(nn.Module):
    """Clip to a fixed HU window, then scale it to [0, 1].

    Args:
        low: HU that becomes 0, and all below it.
        high: HU that becomes 1, and all above it.

    Shape: HU [B, C, *S] -> [B, C, *S] in [0, 1].

    Raises:
        ValueError: if low is not below high.

    Example: {name: hu_window, low: -200, high: 250}
    """

    def __init__(self, *, low: float = -200.0, high: float = 250.0) -> None:
        super().__init__()
        if not -float("inf") < low < high < float("inf"):
            raise ValueError(f"low must be below high, both in HU, got low {low} and high {high}")
        self.low, self.high = float(low), float(high)

    def channels(self, images: int) -> int:
        """As many as came in."""
        return images

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """HU -> [0, 1]."""
        return (image.clamp(self.low, self.high) - self.low) / (self.high - self.low)
