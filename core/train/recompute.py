"""Activation checkpointing: a block's activations are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(network: nn.Module) -> int:
    """Let the repeated blocks of a network keep their inputs alone (Chen et al. 2016, arXiv:1604.06174); in place.

    Loss, gradients, dropout and running statistics stay the same, in eager mode to the bit; a step costs at most one
    more forward pass. Structure, names in the state dict, copying and pickling stay as they are, and without gradients
    nothing is different.

    A block is a child of ``nn.Sequential``, of ``nn.ModuleList`` or of a module whose children are all of one class;
    it has children and weights, but less than half of the network's parameters. Of blocks inside blocks the outermost
    counts; a plain ``nn.Sequential`` of blocks is no block itself.

    Returns:
        How many blocks there are; with 0 nothing is saved.
    """
    blocks = [block for block in _blocks(network) if not _replaced(block)]
    for block in blocks:
        block.forward = _Forward(block)
    return len(blocks)


class _Forward:
    """A block's forward. The block is an attribute, so that a copy of the block gets a copy of this with it."""

    def __init__(self, block: nn.Module) -> None:
        self.block = block

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return type(self.block).forward(self.block, *args, **kwargs)
        # A caller may add to a list after the call, as DenseNet does. All by position: torch then notices tensors that
        # were changed in between.
        given = [list(value) if isinstance(value, list) else value for value in (*args, *kwargs.values())]
        return checkpoint(_Pass(self.block, tuple(kwargs)), *given, use_reentrant=False)


class _Pass:
    """A forward pass, and the same again in the backward pass: that one begins with the same buffers and changes none.

    Else BatchNorm would count a batch twice, and a spectral norm would go on from where the forward pass left it.
    """

    def __init__(self, block: nn.Module, names: tuple[str, ...]) -> None:
        self.block, self.names = block, names
        self.before: _Buffers | None = None

    def __call__(self, *given: Any) -> Any:
        if torch.compiler.is_compiling():  # a compiled graph changes buffers at its end alone, once
            return self._forward(*given)
        if self.before is None:
            self.before = _buffers(self.block)
            return self._forward(*given)
        now = [(module, name, module._buffers[name]) for module, name, _ in self.before]
        try:
            for module, name, buffer in self.before:
                module._buffers[name] = buffer.clone()
            return self._forward(*given)
        finally:
            for module, name, own in now:
                module._buffers[name] = own

    def _forward(self, *given: Any) -> Any:
        args = given[: len(given) - len(self.names)]
        return type(self.block).forward(self.block, *args, **dict(zip(self.names, given[len(args) :], strict=True)))


_Buffers = list[tuple[nn.Module, str, torch.Tensor]]


def _buffers(block: nn.Module) -> _Buffers:
    """Copies of a block's buffers, each with its module and name."""
    return [
        (module, name, buffer.clone())
        for module in block.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]


def _blocks(network: nn.Module) -> list[nn.Module]:
    most = _size(network) / 2
    found: list[nn.Module] = []

    def look(module: nn.Module, listed: bool) -> None:
        children, before = list(module.children()), len(found)
        block = listed and bool(children) and any(p.ndim > 1 for p in module.parameters())
        if block and type(module) not in _LISTS and _size(module) < most:
            found.append(module)
            return
        classes = {type(child) for child in children}
        alike = len(children) > 1 and len(classes) == 1 and not classes & set(_LISTS)
        for child in children:
            look(child, isinstance(module, _LISTS) or alike)
        if block and len(found) == before and not isinstance(module, nn.ModuleList):
            found.append(module)

    look(network, False)
    return found


def _replaced(block: nn.Module) -> bool:
    """Whether another library has put its own in place of the class's forward; it would be lost here."""
    own = vars(block).get("forward")
    return own is not None and not isinstance(own, _Forward)


_LISTS = (nn.Sequential, nn.ModuleList)


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
