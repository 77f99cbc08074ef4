"""AdamW."""

from __future__ import annotations

import torch
from torch import nn

from core.train import fused
from registry import register


@register("optimizer", "adamw")
def adamw(
    model: nn.Module,
    *,
    lr: float = 3e-4,
    weight_decay: float = 1e-2,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> torch.optim.Optimizer:
    """AdamW, without decay on norms and biases (Loshchilov and Hutter 2019, arXiv:1711.05101).

    Fused, on the CPU and on GPUs: one kernel does a whole update.

    Args:
        model: whose parameters are trained, as far as they require a gradient.
        lr: learning rate; the schedule multiplies it.
        weight_decay: decoupled decay of all weights with two or more axes; vectors (norms, biases) are spared.
        betas: decay of the running means of gradient and squared gradient.
        eps: added to the denominator; raise it to 1e-6 or more if bf16 training is unsteady.

    Example: {name: adamw, lr: 3.0e-4, weight_decay: 0.01}
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    return fused.optimizer(torch.optim.AdamW, parameters, groups, lr=lr, betas=betas, eps=eps)
