"""Window and model as one module: HU in, logits out."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from core.infer.geometry import Geometry


class Network(nn.Module):
    """HU -> window -> repeated channels -> model -> logits; the same in training, evaluation, prediction and export.

    Args:
        window: component of kind ``window``.
        model: component of kind ``model``.
        geometry: says how often a single slice is repeated.

    Shape: HU [B, C, *S] of any real dtype -> logits [B, K, *S], or a list of them in training (deep supervision).
    """

    def __init__(self, window: Any, model: nn.Module, geometry: Geometry) -> None:
        super().__init__()
        self.window = window
        self.model = model
        self.repeat = geometry.repeat
        self.channels_last = False

    def use_channels_last(self) -> None:
        """Keep 2-D weights and inputs with channels last, as tensor cores and AMX like; 3-D models stay as they are."""
        if not any(p.ndim == 5 for p in self.parameters()):
            self.channels_last = True
            self.to(memory_format=torch.channels_last)

    def forward(self, image: torch.Tensor) -> Any:
        """HU [B, C, *S] -> logits."""
        x = self.window(image.float())
        if self.repeat > 1:
            x = x.repeat_interleave(self.repeat, dim=1)
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.model(x)


def finest(logits: Any) -> torch.Tensor:
    """The finest of the logits of a model with deep supervision; plain logits as they are."""
    return logits[0] if isinstance(logits, (list, tuple)) else logits
