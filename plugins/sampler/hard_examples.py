"""Samples with a high loss, more often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from core.contracts import Record
from core.data.orders import check_records, check_share, spread, stretch
from registry import register


@register("sampler", "hard_examples")
class HardExamples:
    """Draw samples by the rank of their loss (online batch selection, Loshchilov and Hutter 2015, arXiv:1511.06343).

    The probability of a sample falls exponentially with its rank, so that the size of the loss, which wrong labels
    drive up without bounds, does not count. It is recomputed once an epoch from the loss that the sample had when it
    was last drawn, smoothed over earlier times. A share of the samples comes from an endless row of shuffles of all,
    so that none is forgotten and every loss is brought up to date in the end. Samples never drawn rank first, all
    alike. Before the first losses come in all are drawn alike, as by sampler `uniform`.

    The drawn part is spread over the probabilities in equal steps from a random point (Baker 1987), which keeps each
    sample's count within one of what is expected.

    Args:
        pressure: how much likelier the sample with the greatest loss is than that with the least; 1 is uniform.
        uniform_fraction: share of samples drawn whatever their loss, from 0 to 1.
        smoothing: weight of a sample's earlier loss when a new one comes in, from 0 to below 1.
        length: samples an epoch; null takes as many as there are records.

    Raises:
        ValueError: if there are no records, a value is out of range, or a state is of other records.

    Example: {name: hard_examples, pressure: 100, uniform_fraction: 0.3, smoothing: 0.5}
    """

    def __init__(
        self,
        records: Sequence[Record],
        *,
        pressure: float = 100.0,
        uniform_fraction: float = 0.3,
        smoothing: float = 0.5,
        length: int | None = None,
    ) -> None:
        self.share = check_share("uniform_fraction", uniform_fraction)
        check_records(records, length)
        if not 1 <= pressure < np.inf:
            raise ValueError(f"pressure must be at least 1, got {pressure:g}")
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be from 0 to below 1, got {smoothing:g}")
        self.pressure, self.smoothing = pressure, smoothing
        self.length = length or len(records)
        self.losses = np.full(len(records), np.nan)

    def order(self, seed: int, epoch: int) -> Sequence[int]:
        """Positions in `records`."""
        everyone = np.arange(len(self.losses))
        if np.isnan(self.losses).all():
            return stretch(everyone, epoch * self.length, self.length, (seed, 2)).tolist()
        rng = np.random.default_rng([seed, epoch, 1])
        by_loss = ~spread(self.length, self.share)
        count = int(by_loss.sum())
        rest = self.length - count
        order = np.empty(self.length, np.int64)
        # In another order each epoch: samples of one rank share their chance alike.
        records = rng.permutation(len(self.losses))
        until = np.cumsum(self._probabilities()[records])
        steps = (np.arange(count) + rng.random()) / max(count, 1) * until[-1]
        drawn = records[np.searchsorted(until, steps, side="right").clip(max=len(records) - 1)]
        order[by_loss] = rng.permutation(drawn)
        order[~by_loss] = stretch(everyone, epoch * rest, rest, (seed, 0))
        return order.tolist()

    def observe(self, indices: Sequence[int], losses: Sequence[float]) -> None:
        """Take in an epoch's losses; of a sample that was drawn several times, their mean."""
        count = np.bincount(indices, minlength=len(self.losses))
        total = np.bincount(indices, weights=losses, minlength=len(self.losses))
        seen = count > 0
        new, old = total[seen] / count[seen], self.losses[seen]
        self.losses[seen] = np.where(np.isnan(old), new, self.smoothing * old + (1 - self.smoothing) * new)

    def state_dict(self) -> dict[str, Any]:
        """The smoothed loss of each record; not a number where there is none yet."""
        return {"losses": torch.from_numpy(self.losses.copy())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        losses = state["losses"].numpy()
        if len(losses) != len(self.losses):
            raise ValueError(
                f"the sampler's state holds {len(losses)} losses and there are {len(self.losses)} training samples; "
                f"data set or split are not those of the run"
            )
        self.losses = losses.astype(np.float64)

    def _probabilities(self) -> np.ndarray:
        """Of each record, up to a factor: from 1 for the greatest loss to 1/pressure for the least."""
        known = np.where(np.isnan(self.losses), np.inf, self.losses)
        from scipy.stats import rankdata  # slow to import; every process of every run would wait for it

        rank = rankdata(-known, method="average") - 1
        return np.exp(-np.log(self.pressure) * rank / max(len(rank) - 1, 1))
