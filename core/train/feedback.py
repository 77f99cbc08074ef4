"""What a sampler that follows the loss learns of an epoch: the loss of each of its samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from core import dist
from core.contracts import Batch
from core.values import IGNORE

Seen = list[tuple[int, int, float]]
"""Position in the epoch's global order, position in the records, loss."""


def sample_losses(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each sample over its valid voxels, whatever the objective is; 0 where none is valid.

    Shape: logits [B, K, *S], target [B, *S] -> [B], float32.
    """
    with torch.no_grad():
        logits, target = logits.detach().float(), target.long()
        voxels = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
        return voxels.flatten(1).sum(1) / (target != IGNORE).flatten(1).sum(1).clamp(min=1)


class Feedback:
    """Gathers the losses of an epoch's samples and gives them to the sampler before the next epoch.

    The sampler then has the same state on all ranks. What has been gathered of an epoch under way is in the checkpoint.

    Args:
        sampler: component of kind ``sampler``; with an ``observe`` it is given ``observe(indices, losses)``.

    Attributes:
        wanted: whether the sampler asks for losses.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler, self.wanted = sampler, hasattr(sampler, "observe")
        self._before: Seen = []  # of all ranks, from the checkpoint
        self._since: list[tuple[list[int], list[int], torch.Tensor]] = []  # of this rank; losses stay on the device

    def add(self, micro: Sequence[Batch], losses: Sequence[torch.Tensor]) -> None:
        """Note the losses [B] of one step's micro-batches on this rank."""
        for batch, values in zip(micro, losses, strict=bool(self.wanted)):
            self._since.append((batch.positions, batch.indices, values))

    def begin_epoch(self) -> None:
        """Give the sampler what the epoch before has brought, in its global order; a collective where it is wanted.

        Losses that are not finite are left out.
        """
        if not self.wanted:
            return
        seen = [one for one in self._gather() if math.isfinite(one[2])]
        if seen:
            self.sampler.observe([index for _, index, _ in seen], [loss for _, _, loss in seen])
        self._before, self._since = [], []

    def state_dict(self) -> dict[str, Any] | None:
        """The sampler's state and the losses that it has not been given yet; a collective where it is wanted."""
        if not self.wanted:
            return None
        seen = self._gather()
        places = torch.tensor([[position, index] for position, index, _ in seen], dtype=torch.int64).reshape(-1, 2)
        losses = torch.tensor([loss for *_, loss in seen], dtype=torch.float64)
        return {"sampler": self.sampler.state_dict(), "places": places, "losses": losses}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Go on from what `state_dict` gave."""
        if state is None or not self.wanted:
            return
        self.sampler.load_state_dict(state["sampler"])
        places, losses = state["places"].tolist(), state["losses"].tolist()
        self._before = [(position, index, loss) for (position, index), loss in zip(places, losses, strict=True)]
        self._since = []

    def _gather(self) -> Seen:
        mine = [
            one
            for positions, indices, losses in self._since
            for one in zip(positions, indices, losses.double().tolist(), strict=True)
        ]
        return sorted([*self._before, *(one for share in dist.gather(mine) for one in share)])
