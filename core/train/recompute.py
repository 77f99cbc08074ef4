"""Activation checkpointing: a block's activations are computed again in the backward pass instead of being kept."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(network: nn.Module) -> int:
    """Let the repeated blocks of a network keep their inputs alone (Chen et al. 2016, arXiv:1604.06174); in place.

    Loss, gradients, dropout and running statistics stay the same to the bit (under torch.compile as exact as that
    is); a step does at most one more forward pass of arithmetic. The network's structure, the names in its state
    dict, copying and pickling stay as they are; without gradients nothing is different.

    A block is a child of ``nn.Sequential``, of ``nn.ModuleList`` or of a module whose children are all of one class;
    it has children of its own and weights, and less than half of the network's parameters. Of blocks inside blocks
    the outermost count, but a plain ``nn.Sequential`` of blocks is looked into.

    Returns:
        How many blocks there are; with 0 nothing is saved.
    """
    blocks = _blocks(network)
    for block in blocks:
        if "forward" not in vars(block):
            block.forward = _Recomputed(block)
    return len(blocks)


class _Recomputed:
    """A block's forward. It refers to the block as an attribute, so that a copy of the block gets a copy of this."""

    def __init__(self, block: nn.Module) -> None:
        self.block = block

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forward = functools.partial(type(self.block).forward, self.block, **kwargs)
        if not torch.is_grad_enabled():
            return forward(*args)
        if torch.compiler.is_compiling():  # the compiler sees to it that buffers are changed once
            return checkpoint(forward, *args, use_reentrant=False)
        # A caller may add to a list after the call (DenseNet does).
        args = tuple(list(a) if isinstance(a, list) else a for a in args)
        return checkpoint(forward, *args, use_reentrant=False, context_fn=functools.partial(_contexts, self.block))


def _contexts(block: nn.Module) -> tuple[_Buffers, _Buffers]:
    before = _Buffers(block)
    return before, before


class _Buffers:
    pass


def _blocks(network: nn.Module) -> list[nn.Module]:
    most = sum(p.numel() for p in network.parameters()) / 2
    found: list[nn.Module] = []

    def look(module: nn.Module, listed: bool) -> None:
        children = list(module.children())
        weights = [p for p in module.parameters() if p.ndim > 1]
        whole = listed and bool(children) and bool(weights) and not isinstance(module, nn.ModuleList)
        if whole and type(module) is not nn.Sequential and sum(p.numel() for p in module.parameters()) < most:
            found.append(module)
            return
        before = len(found)
        lists = isinstance(module, (nn.Sequential, nn.ModuleList)) or len({type(c) for c in children}) == 1 < len(children)
        for child in children:
            look(child, lists)
        if whole and len(found) == before:
            found.append(module)

    look(network, False)
    return found
