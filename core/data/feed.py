"""Micro-batches onto the device, a step ahead of their use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

from core.contracts import Batch

_Item = TypeVar("_Item")


def feed(batches: Iterable[Batch], accumulate: int, device: torch.device) -> Iterator[list[Batch]]:
    """The micro-batches of each step (`accumulate` of them), on the device.

    On a GPU the next step's are copied on a stream of their own while one step is computed.
    """
    steps = in_steps(batches, accumulate)
    if device.type != "cuda":
        for step in steps:
            yield [batch.to(device) for batch in step]
        return
    stream = torch.cuda.Stream(device)
    for step, copied in _one_ahead(_copied(steps, device, stream)):
        current = torch.cuda.current_stream(device)
        current.wait_event(copied)
        for batch in step:
            for tensor in (batch.image, batch.label, batch.lesion):
                if tensor is not None:
                    # Its memory belongs to the side stream, which must not take it back while this one computes.
                    tensor.record_stream(current)
        yield step


def in_steps(batches: Iterable[Batch], accumulate: int) -> Iterator[list[Batch]]:
    """The micro-batches of each step."""
    step: list[Batch] = []
    for batch in batches:
        step.append(batch)
        if len(step) == accumulate:
            yield step
            step = []


def _copied(
    steps: Iterable[list[Batch]], device: torch.device, stream: torch.cuda.Stream
) -> Iterator[tuple[list[Batch], torch.cuda.Event]]:
    for step in steps:
        with torch.cuda.stream(stream):
            moved = [batch.to(device) for batch in step]
            event = stream.record_event()
        yield moved, event


def _one_ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """The same items, each taken before the one before it is given away."""
    current = next(items, None)
    while current is not None:
        following, error = None, None
        try:
            following = next(items, None)
        except Exception as problem:  # it belongs to the next step: this one is whole
            error = problem
        yield current
        if error is not None:
            raise error
        current = following
