"""Means of the training metrics between two logs, and what the steps cost."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed

from core import dist

_T = TypeVar("_T")


class Meter:
    """Sums on the device in float64; reduced over ranks and read only when a row is logged.

    Args:
        names: what `add` brings, in this order.
    """

    def __init__(self, names: list[str], device: torch.device) -> None:
        self.names, self.device = names, device
        self.cost: dict[str, float] = {}
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._sum = torch.zeros(len(self.names) + 1, dtype=torch.float64, device=self.device)
        self.reset_clock()

    def reset_clock(self) -> None:
        """Time counts from now."""
        self._images, self._waited, self._since = 0, 0.0, time.perf_counter()

    def add(self, values: torch.Tensor, counts: torch.Tensor) -> None:
        """Add one step's values [N], if `counts` (bool scalar): a step that updated nothing is none."""
        one = torch.ones_like(self._sum[:1])
        self._sum += torch.where(counts, torch.cat([values, one]), 0.0)

    def count(self, images: int) -> None:
        """Count images of a step, over all ranks."""
        self._images += images

    def timed(self, batches: Iterable[_T]) -> Iterator[_T]:
        """The batches, timing how long the loop waits for each."""
        iterator = iter(batches)
        while True:
            before = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited += time.perf_counter() - before
            yield batch

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time in here is not the steps': validation and checkpoints."""
        before = time.perf_counter()
        yield
        self._since += time.perf_counter() - before

    def read(self) -> dict[str, float]:
        """Means since the last read, over steps and ranks; a collective. Sets `cost` and begins anew."""
        total = self._sum.clone()
        if dist.world() > 1:
            torch.distributed.all_reduce(total)
        *sums, steps = total.tolist()
        seconds = max(time.perf_counter() - self._since, 1e-9)
        self.cost = {"images_per_s": self._images / seconds, "loader_wait": self._waited / seconds}
        if self.device.type == "cuda":
            self.cost["memory_gb"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        else:
            unit = 1 if sys.platform == "darwin" else 1024
            self.cost["memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
        self.reset()
        return {name: value / max(steps, 1.0) for name, value in zip(self.names, sums, strict=True)}

    def state_dict(self) -> list[dict[str, Any]]:
        """Every rank's sums, so that a resumed run logs the same row as an uninterrupted one; a collective."""
        return dist.gather({"names": self.names, "sum": self._sum.tolist()})

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Go on from this rank's sums.

        With another number of ranks they cannot be told apart: the next row then covers the steps since the resume.
        """
        if len(states) == dist.world() and states[0]["names"] == self.names:
            self._sum = torch.tensor(states[dist.rank()]["sum"], dtype=torch.float64, device=self.device)
