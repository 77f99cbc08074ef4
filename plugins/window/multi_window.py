"""Several HU windows as channels."""

from __future__ import annotations

import torch
from torch import nn

from registry import register


@register("window", "multi_window")
class MultiWindow(nn.Module):
    """Several fixed HU windows side by side as channels, each clipped and scaled to [0, 1].

    A narrow window spreads the few HU between liver and tumour, a wide one keeps bone, lung and calcification apart.
    With several slices as channels, each slice's windows stand together. With a model that takes any number of
    channels leave ``dataset.channels: null``: else a single slice's windows are repeated to fill them.

    Args:
        windows: pairs of HU that become 0 and 1.

    Shape: HU [B, C, *S] -> [B, C * len(windows), *S] in [0, 1].

    Raises:
        ValueError: without a window, or if one is no pair with low below high.

    Example: {name: multi_window, windows: [[-200, 250], [0, 180], [-1000, 1000]]}
    """

    low: torch.Tensor
    span: torch.Tensor

    def __init__(self, *, windows: list[list[float]] | None = None) -> None:
        super().__init__()
        pairs = [[-200.0, 250.0], [0.0, 180.0], [-1000.0, 1000.0]] if windows is None else windows
        if not pairs:
            raise ValueError("windows must hold at least one pair [low, high], in HU")
        for pair in pairs:
            if len(pair) != 2 or not -float("inf") < pair[0] < pair[1] < float("inf"):
                raise ValueError(f"each of windows must be [low, high] in HU, low below high, got {pair}")
        bounds = torch.tensor(pairs, dtype=torch.float32)
        # Of the configuration, not of the training: not in a checkpoint, but moved to the device.
        self.register_buffer("low", bounds[:, 0], persistent=False)
        self.register_buffer("span", bounds[:, 1] - bounds[:, 0], persistent=False)

    def channels(self, images: int) -> int:
        """As many as came in, times the windows."""
        return images * len(self.low)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """HU -> [0, 1]."""
        shape = (1, 1, -1) + (1,) * (image.ndim - 2)
        out = ((image.unsqueeze(2) - self.low.view(shape)) / self.span.view(shape)).clamp(0, 1)
        return out.flatten(1, 2)
