"""The weighted sum of single losses."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from core.errors import UserError

OFFERED = ("lesion",)
"""What a loss may ask of the sample by name, after logits and target."""


class Objective:
    """Sum of ``weight * loss``; of several resolutions (deep supervision) the weighted mean.

    Each resolution weighs half as much as the next finer one, and all together 1: nnU-Net's rule (Isensee et al. 2021,
    doi:10.1038/s41592-020-01008-z), which drops the lowest resolution of all; that is left to the model. Labels and
    lesion ids are brought to a coarser resolution by the nearest voxel, so ignored voxels stay ignored and no label
    arises that is not there; a tumour narrower than the coarser voxels may be missing and counts as what is around it.

    Losses that are modules may keep state in buffers: it is moved, saved and restored with a run, as rank 0 has it.

    Args:
        terms: name, weight and loss of each term; names are those of the log (``train/<name>``).

    Raises:
        UserError: for a loss with parameters to be trained.
    """

    def __init__(self, terms: Sequence[tuple[str, float, Any]]) -> None:
        self.terms = [(name, weight, loss, _asks(loss)) for name, weight, loss in terms]
        self._modules = {name: loss for name, _, loss in terms if isinstance(loss, nn.Module)}
        self._modes = [(part, part.training) for loss in self._modules.values() for part in loss.modules()]
        for name, loss in self._modules.items():
            trained = [key for key, parameter in loss.named_parameters() if parameter.requires_grad]
            if trained:
                raise UserError(
                    f"loss '{name}' has parameters that no optimizer would update ({', '.join(trained)}); make them "
                    f"buffers, freeze them (requires_grad_(False)), or let the model hold them"
                )

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
        for loss in self._modules.values():
            loss.to(device)
        return self

    def eval(self) -> None:
        """Put losses that are modules into evaluation mode."""
        for loss in self._modules.values():
            loss.eval()

    def train(self) -> None:
        """Put losses that are modules back as they were built; parts that a loss keeps in evaluation mode stay so."""
        for part, training in self._modes:
            part.training = training

    def state_dict(self) -> dict[str, Any]:
        """What losses that are modules hold, by ``<name>.<key>``."""
        return {f"{name}.{key}": v for name, loss in self._modules.items() for key, v in loss.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        for name, loss in self._modules.items():
            begin = f"{name}."
            loss.load_state_dict({key.removeprefix(begin): v for key, v in state.items() if key.startswith(begin)})

    def __call__(
        self, logits: Any, target: torch.Tensor, extras: Mapping[str, torch.Tensor | None] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The objective, and the unweighted terms [T] of the finest resolution, detached.

        Args:
            logits: [B, K, *S], or a list of them, finest first.
            target: uint8 or int64 [B, *S].
            extras: what losses may ask for, e.g. ``lesion`` [B, *S].

        Raises:
            UserError: if the (first) logits are not of the target's size.
        """
        scales = list(logits) if isinstance(logits, (list, tuple)) else [logits]
        if not scales or scales[0].shape[2:] != target.shape[1:]:
            raise UserError(
                f"the model gives logits of {_sizes(scales)} for labels of {_size(target.shape[1:])}; want the labels' "
                f"size, or a list that begins with it (deep supervision)"
            )
        terms = [self._terms(scale.float(), target, extras or {}) for scale in scales]
        shares = [0.5**i for i in range(len(scales))]
        total = sum(share / sum(shares) * self._weighted(part) for share, part in zip(shares, terms, strict=True))
        return total, terms[0].detach()

    def _weighted(self, terms: torch.Tensor) -> Any:
        return sum(weight * term for (_, weight, _, _), term in zip(self.terms, terms, strict=True))

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
    function = loss.forward if isinstance(loss, nn.Module) else loss
    parameters = list(inspect.signature(function).parameters)
    return tuple(p for p in parameters if p in OFFERED)


def _sizes(scales: Sequence[torch.Tensor]) -> str:
    return ", ".join(_size(scale.shape[2:]) for scale in scales) or "no resolution"


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
