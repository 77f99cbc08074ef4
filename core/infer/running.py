"""What the inferers share of running a network: its device, its mode, and labels from logits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from core.errors import UserError


def labels_of(logits: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """Uint8 ``[B, *S]`` from logits ``[B, K, *S]``: the greatest one's class, the lower one where two are equal.

    By comparisons: argmax over dim 1 is 10 to 30 times slower on the CPU.

    Args:
        logits: on any device, of any precision.
        first: the first slice that they are of, for the message.
        last: one past the last.

    Raises:
        UserError: if there is a NaN.
    """
    best = logits[:, 0]
    labels = torch.zeros(best.shape, dtype=torch.uint8, device=logits.device)
    for label in range(1, logits.shape[1]):
        labels.masked_fill_(logits[:, label] > best, label)
        best = torch.maximum(best, logits[:, label])
    # maximum passes NaN on; without this look a diverged network would read as "no liver".
    if bool(best.amax().isnan()):
        raise UserError(
            f"the network gives NaN on slices {first} to {last - 1}; its weights have diverged, or fp16 overflows "
            f"(try train.precision=bf16)"
        )
    return labels


def device_of(network: nn.Module) -> torch.device:
    """Where the network's weights are."""
    tensors = itertools.chain(network.parameters(), network.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode; afterwards in the mode in which it came."""
    # One by one: a part that was frozen in evaluation mode must not wake up in training mode.
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
