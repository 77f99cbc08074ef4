"""The weighted sum of single losses."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

OFFERED = ("lesion",)
"""What a loss may ask of the sample by name, after logits and target."""


class Objective:
    """Sum of ``weight * loss``; with deep supervision over all resolutions, each half the weight of the finer one.

    Args:
        terms: name, weight and loss of each term; names are those of the log (``train/<name>``).
    """

    def __init__(self, terms: Sequence[tuple[str, float, Any]]) -> None:
        self.terms = [(name, weight, loss, _asks(loss)) for name, weight, loss in terms]

    @property
    def asks(self) -> set[str]:
        """What the losses ask of the sample by name."""
        return {name for *_, asks in self.terms for name in asks}

    @property
    def names(self) -> list[str]:
        """The terms' names."""
        return [name for name, *_ in self.terms]

    def to(self, device: torch.device) -> Objective:
        """Move losses that hold tensors."""
        for _, _, loss, _ in self.terms:
            if isinstance(loss, torch.nn.Module):
                loss.to(device)
        return self

    def eval(self):
        for *_, loss, _ in self.terms:
            if isinstance(loss, torch.nn.Module): loss.eval()

    def train(self):
        for *_, loss, _ in self.terms:
            if isinstance(loss, torch.nn.Module): loss.train()

    def state_dict(self):
        return {f"{i}.{k}": v for i, (*_, loss, _) in enumerate(self.terms) if isinstance(loss, torch.nn.Module) for k, v in loss.state_dict().items()}

    def load_state_dict(self, state):
        return None

    def __call__(
        self, logits: Any, target: torch.Tensor, extras: Mapping[str, torch.Tensor | None] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The objective, and the unweighted terms [T] of the finest resolution, detached.

        Args:
            logits: [B, K, *S], or a list of them, finest first.
            target: uint8 or int64 [B, *S].
            extras: what losses may ask for, e.g. ``lesion`` [B, *S].
        """
        scales = list(logits) if isinstance(logits, (list, tuple)) else [logits]
        weights = [0.5**i for i in range(len(scales))]
        total, finest = None, None
        for scale_weight, scale in zip(weights, scales, strict=True):
            terms = self._terms(scale.float(), target, extras or {})
            finest = terms.detach() if finest is None else finest
            weighted = sum(w * t for (_, w, _, _), t in zip(self.terms, terms, strict=True))
            part = weighted * (scale_weight / sum(weights))
            total = part if total is None else total + part
        assert total is not None
        assert finest is not None
        return total, finest

    def _terms(
        self, logits: torch.Tensor, target: torch.Tensor, extras: Mapping[str, torch.Tensor | None]
    ) -> torch.Tensor:
        shape = logits.shape[2:]
        target = _to_scale(target, shape).long()
        given = {k: _to_scale(v, shape) for k, v in extras.items() if v is not None}
        return torch.stack([loss(logits, target, **{a: given[a] for a in asks}) for _, _, loss, asks in self.terms])


def _to_scale(values: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    if values.shape[1:] == shape:
        return values
    return F.interpolate(values[:, None].float(), size=tuple(shape), mode="nearest-exact")[:, 0].to(values.dtype)


def _asks(loss: Any) -> tuple[str, ...]:
    function = loss.forward if isinstance(loss, torch.nn.Module) else loss
    parameters = list(inspect.signature(function).parameters)
    return tuple(p for p in parameters if p in OFFERED)
