"""torch.compile around a network that stays the same object: names in the state dict, copies and DDP see no difference.

Both orders work with DDP; compiled inside DDP, torch splits the graph where DDP's buckets end, so that gradients still
travel while the backward pass runs. Parts that the compiler cannot do run uncompiled by themselves (graph breaks).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


def compile_network(network: nn.Module) -> None:
    """Compile a network's calls, when they are first made; copies of it run uncompiled."""
    network.compile()


def fall_back(network: nn.Module) -> None:
    """Undo `compile_network` and forget what was compiled."""
    network._compiled_call_impl = None
    torch.compiler.reset()


@contextlib.contextmanager
def eager(network: nn.Module) -> Iterator[None]:
    """In here the network runs uncompiled, as it should where inputs come in many shapes; each is compiled anew."""
    compiled = network._compiled_call_impl
    network._compiled_call_impl = None
    try:
        yield
    finally:
        network._compiled_call_impl = compiled


def reason(error: Exception) -> str:
    """Why compiling failed, in one line.

    No class of exception tells it apart from a fault of the model itself, which the tracing meets as well: it was the
    compiler if the same step then works after `fall_back`.
    """
    # torch names the backend first and only then what went wrong in it.
    cause = getattr(error, "inner_exception", None) or error
    text = " ".join(str(cause).partition("\n\n")[0].split())
    text = text if len(text) <= 300 else f"{text[:300]} ..."
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__
