"""Random numbers for a batch on its device, without a generator: each is a hash of a sample's seed and of a word.

So a sample draws the same numbers whatever its batch, its place in it, its rank and its device: integers and uniform
numbers to the bit, normal ones to rounding. Two draws of one sample differ by their words (``"noise/std_hu"``). Nothing
here reads a value back from a GPU, which would make the host wait for it.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Sequence

import torch

_MULTIPLIERS = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))
_24 = (1 << 24) - 1


def fork(seeds: torch.Tensor, word: str) -> torch.Tensor:
    """Other seeds, as unlike the old ones as chance: for the numbers that `word` stands for.

    Args:
        seeds: int64 [B], one a sample.
        word: what is drawn; no two draws of a component share it.
    """
    return _mix(seeds ^ _number(word))


def uniform(seeds: torch.Tensor, word: str, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    """One number a sample from `low` to `high`, float32 [B]; from 0 to below 1 if neither is given."""
    share = ((fork(seeds, word) >> 40) & _24).float() / (1 << 24)
    return low + (high - low) * share


def normal(seeds: torch.Tensor, word: str, shape: Sequence[int]) -> torch.Tensor:
    """Standard normal numbers, float32 [B, *shape], by Box and Muller's method; none is beyond 5.8."""
    count = math.prod(shape)
    # A stride of its own for each sample: with a common one, all would walk along one and the same sequence.
    first, stride = fork(seeds, word)[:, None], fork(seeds, f"{word}/stride")[:, None] | 1
    bits = _mix(torch.arange((count + 1) // 2, device=seeds.device) * stride + first)
    radius = (((bits >> 40) & _24) + 1).float().div_(1 << 24).log_().mul_(-2).sqrt_()
    angle = (bits & _24).float().mul_(2 * math.pi / (1 << 24))
    pairs = torch.cat([angle.cos() * radius, angle.sin() * radius], dim=1)
    return pairs[:, :count].reshape(-1, *shape)


def change_some(
    seeds: torch.Tensor,
    chosen: torch.Tensor,
    change: Callable[..., tuple[torch.Tensor, ...]],
    fields: Sequence[torch.Tensor],
) -> tuple[torch.Tensor, ...]:
    """The fields of a batch, changed for the chosen samples and bit for bit as they were for the others.

    Args:
        seeds: int64 [B].
        chosen: bool [B].
        change: ``change(seeds, *fields)`` for any number of samples, fields of the same types and shapes back; it may
            not write into those it gets.
        fields: each [B, ...].
    """
    if _may_look(seeds.device):
        # One by one, since vectorised arithmetic may round a value by where it stands in the batch; and a slice fits
        # the cache.
        picked = chosen.tolist()
        if not any(picked):
            return tuple(fields)
        rows = [
            change(seeds[i : i + 1], *(f[i : i + 1] for f in fields)) if one else tuple(f[i : i + 1] for f in fields)
            for i, one in enumerate(picked)
        ]
        return tuple(torch.cat(column) for column in zip(*rows, strict=True))
    changed = change(seeds, *fields)
    return tuple(
        torch.where(chosen.view(-1, *[1] * (old.ndim - 1)), new, old) for new, old in zip(changed, fields, strict=True)
    )


def _may_look(device: torch.device) -> bool:
    # Elsewhere the host would have to wait until the values are there.
    return device.type == "cpu"


def _mix(x: torch.Tensor) -> torch.Tensor:
    # The last steps of SplitMix64 (Steele et al. 2014, doi:10.1145/2660193.2660195); int64 products wrap around.
    x = (x ^ _right(x, 30)).mul_(_MULTIPLIERS[0])
    x = x.bitwise_xor_(_right(x, 27)).mul_(_MULTIPLIERS[1])
    return x.bitwise_xor_(_right(x, 31))


def _right(x: torch.Tensor, bits: int) -> torch.Tensor:
    # torch shifts copies of the sign in.
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


@functools.lru_cache(maxsize=1024)
def _number(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little", signed=True)
