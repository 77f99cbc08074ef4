"""A loss of the installed package."""

import torch

from core.dist import sum_over_ranks
from core.values import IGNORE
from registry import register


@register("loss", "mean_absolute")
class MeanAbsolute:
    """Mean absolute difference of the probability of the true class from 1.

    Example: {name: mean_absolute}
    """

    def __call__(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        valid = (target != IGNORE).float()
        true = logits.float().softmax(1).gather(1, target.where(target != IGNORE, 0).unsqueeze(1)).squeeze(1)
        total, count = sum_over_ranks(torch.stack([((1 - true) * valid).sum(), valid.sum()]))
        return total / count.clamp(min=1)
