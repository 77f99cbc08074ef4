"""Every random draw comes from counters, so there is no generator state to save."""

from __future__ import annotations

import numpy as np
import torch


def sample_rng(seed: int, epoch: int, position: int) -> np.random.Generator:
    """The generator of the sample at `position` in an epoch's global order; independent of ranks and workers."""
    return np.random.default_rng([seed, epoch, position])


def sample_seed(seed: int, epoch: int, position: int) -> int:
    """The seed for a sample's augmentation on the device; non-negative int64."""
    return int(np.random.SeedSequence([seed, epoch, position, 1]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch for one training step of one rank (dropout)."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank, 2]).generate_state(1, np.uint64)[0]))


def seed_init(seed: int) -> None:
    """Seed torch for building a model: the same initial weights on all ranks."""
    torch.manual_seed(seed)
