"""Stochastic gradient descent."""

from __future__ import annotations

import torch
from torch import nn

from core.train import fused
from registry import register


@register("optimizer", "sgd")
def sgd(
    model: nn.Module, *, lr: float = 1e-2, momentum: float = 0.99, nesterov: bool = True, weight_decay: float = 3e-5
) -> torch.optim.Optimizer:
    """SGD with momentum; the defaults are nnU-Net's (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z).

    Fused, on the CPU and on GPUs: one kernel does a whole update.

    Args:
        model: whose parameters are trained, as far as they require a gradient.
        lr: learning rate; the schedule multiplies it. nnU-Net pairs 0.01 with the ``poly`` schedule.
        momentum: share of the last update that is kept, from 0 to below 1.
        nesterov: look ahead; wants momentum above 0.
        weight_decay: L2 penalty on all parameters, norms and biases too (as nnU-Net has it).

    Raises:
        ValueError: for nesterov without momentum, or a value out of range.

    Example: {name: sgd, lr: 0.01, momentum: 0.99, nesterov: true}
    """
    if nesterov and momentum <= 0:
        raise ValueError("nesterov wants momentum above 0; set nesterov: false or a momentum such as 0.9")
    parameters = [p for p in model.parameters() if p.requires_grad]
    settings = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    return fused.optimizer(torch.optim.SGD, parameters, parameters, **settings)
