"""Cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from core.dist import sum_over_ranks
from core.values import IGNORE
from registry import register


@register("loss", "cross_entropy")
class CrossEntropy:
    """Cross-entropy over the voxels that are not ignored, optionally weighted by class.

    Sum and count run over the micro-batch of all ranks, so the value does not depend on how a micro-batch is spread
    over them; gradient accumulation still averages micro-batches. With every voxel ignored it is 0.

    Args:
        class_weights: one factor a class, e.g. ``[0.5, 1, 2]``; the mean is then weighted too. null: all 1. Strong
            weights buy recall with false positives: on LiTS weighted cross-entropy alone is far behind the plain one.
        label_smoothing: share of the target that is spread over all classes, from 0 to below 1 (Szegedy et al. 2016,
            arXiv:1512.00567).

    Shape: logits [B, K, *S], target int64 [B, *S] -> scalar.

    Raises:
        ValueError: for weights that are not one finite, non-negative number a class, or smoothing outside [0, 1).

    Example: {name: cross_entropy, class_weights: [0.5, 1.0, 2.0], label_smoothing: 0.0}
    """

    def __init__(self, classes: int, *, class_weights: list[float] | None = None, label_smoothing: float = 0.0) -> None:
        if class_weights is not None:
            if len(class_weights) != classes:
                raise ValueError(
                    f"class_weights wants one number for each of the {classes} classes, got {len(class_weights)}"
                )
            if not all(0 <= w < float("inf") for w in class_weights) or not any(class_weights):
                raise ValueError(f"class_weights must be finite, not negative and not all 0, got {class_weights}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be from 0 to below 1, got {label_smoothing}")
        self.weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.label_smoothing = label_smoothing

    def __call__(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The weighted mean over voxels."""
        valid = target != IGNORE
        weights = None
        counts = valid.float()
        if self.weights is not None:
            weights = self.weights = self.weights.to(logits.device)
            counts = weights[target.masked_fill(~valid, 0)] * counts
        # Voxel by voxel, then summed: on CUDA the sum inside the kernel has no deterministic version.
        each = F.cross_entropy(
            logits.float(),
            target,
            weight=weights,
            ignore_index=IGNORE,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        total, count = sum_over_ranks(torch.stack([each.sum(), counts.sum()]))
        return total / torch.where(count > 0, count, torch.ones_like(count))
