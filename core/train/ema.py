"""Exponential moving average of the weights (Polyak and Juditsky 1992)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


class EMA:
    """A second network whose weights and float buffers follow the first: ``ema += (1 - decay) * (now - ema)``.

    Args:
        network: the trained network.
        decay: share kept in each step, in (0, 1); early on ``(1 + step) / (10 + step)`` where that is less, so that a
            short run does not average its initial weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, network: nn.Module, step: int, moved: torch.Tensor | None = None) -> None:
        """Follow the network; integer buffers are copied.

        Args:
            network: the trained network.
            step: number of the update (from 0) that it has just had.
            moved: bool scalar on the device, false if the update was left out (fp16); None is true.
        """
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        pairs = list(zip(self._tensors(self.network), self._tensors(network), strict=True))
        mine, theirs = [m for m, _ in pairs if m.is_floating_point()], [t for m, t in pairs if m.is_floating_point()]
        # All tensors in a few kernels; one by one, launching them would take longer than the arithmetic.
        if moved is None:
            torch._foreach_lerp_(mine, theirs, weight)
        else:
            change = torch._foreach_sub(theirs, mine)
            torch._foreach_mul_(change, weight * moved.float())
            torch._foreach_add_(mine, change)
        for m, t in pairs:
            if not m.is_floating_point():
                m.copy_(t)

    @staticmethod
    def _tensors(network: nn.Module) -> list[torch.Tensor]:
        return [*network.parameters(), *network.buffers()]

    def state_dict(self) -> dict[str, Any]:
        """The averaged network's state."""
        return self.network.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the averaged network's state."""
        self.network.load_state_dict(state)
