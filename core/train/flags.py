"""What a step found out about itself, read one step late, so that the device never waits for this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed

from core import dist
from core.contracts import Batch

SAVE, TIME_UP, SIGNAL = 1, 2, 3
"""What a rank may request at a step; the greatest of all ranks counts."""


@dataclass(frozen=True)
class Flag:
    """One step's flags, as numbers.

    Attributes:
        norm: of the gradient, before clipping; equal on all ranks.
        losses: the objective and its terms on this rank.
        request: the greatest request of all ranks, or 0.
        batch: the step's micro-batches on this rank.
    """

    step: int
    norm: float
    losses: list[float]
    request: int
    batch: Sequence[Batch]


class Flags:
    """A queue of flags: `put` after each step, `read` what is due.

    With one process on the CPU a step's flags are due at once. Else they are due after the next step: copies to the
    host and the reduction over ranks then run beside its arithmetic.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.lag = int(device.type == "cuda" or dist.world() > 1)
        self._queue: deque[tuple[int, Sequence[Batch], torch.Tensor, Any, Any]] = deque()

    def put(self, step: int, batch: Sequence[Batch], norm: torch.Tensor, losses: torch.Tensor, request: int) -> None:
        """Queue the flags of one step; a collective that nobody waits for."""
        numbers = torch.cat([torch.full((1,), request, dtype=torch.float64, device=self.device), norm[None], losses])
        work = event = None
        if dist.world() > 1:
            work = torch.distributed.all_reduce(numbers[:1], op=torch.distributed.ReduceOp.MAX, async_op=True)
        if self.device.type == "cuda":
            if work is not None:
                work.wait()  # the stream waits, this process does not
            host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            numbers = host.copy_(numbers, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._queue.append((step, batch, numbers, work, event))

    def read(self, *, all_of_them: bool = False) -> list[Flag]:
        """The flags that are due, oldest first; before a checkpoint, all of them."""
        out = []
        while len(self._queue) > (0 if all_of_them else self.lag):
            step, batch, numbers, work, event = self._queue.popleft()
            if event is not None:
                event.synchronize()
            elif work is not None:
                work.wait()
            request, norm, *losses = numbers.tolist()
            out.append(Flag(step, norm, losses, int(request), batch))
        return out
