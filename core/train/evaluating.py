"""A network as it is evaluated, and back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

from core.train.compiling import eager
from core.train.objective import Objective


@contextlib.contextmanager
def evaluating(network: nn.Module, objective: Objective) -> Iterator[None]:
    """In here network and losses are in evaluation mode and run uncompiled (whole volumes come in many shapes).

    Afterwards each module has the mode that it had: parts that a model keeps frozen in evaluation mode stay so.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    objective.eval()
    try:
        with eager(network):
            yield
    finally:
        objective.train()
        for module, training in modes:
            module.training = training
