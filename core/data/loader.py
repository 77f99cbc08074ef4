"""From a sampler's global order to each rank's micro-batches on its device."""

from __future__ import annotations

import math
import weakref
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

import torch

from core.build import Plan, build
from core.contracts import Batch, Record
from core.data.cache import DeviceCache, RamCache, device_cache, ram_cache
from core.data.drawn import statistics
from core.data.feed import feed, in_steps
from core.data.memory import size
from core.data.samples import Blueprint, Key, Samples
from core.data.workers import Workers, choose, fill_threads, start_workers
from core.errors import UserError

__all__ = ["Blueprint", "TrainLoader"]


class TrainLoader:
    """Batches of an epoch for one rank.

    Args:
        batch: samples a step over all ranks.
        micro_batch: samples a forward pass; None is batch / world.
        workers: data workers; "auto" and `worker_start` "auto" take the measured default (`workers.choose`).
        prefetch: micro-batches that each worker keeps ready.
        device: where batches come out.
        cache: where the training samples are kept: "none", "ram", "device".
        overfit: every epoch is the first so many batches of epoch 0, untransformed; None trains on everything.

    Raises:
        UserError: for an empty training set, a batch larger than an epoch or one that ranks cannot share, a cache that
            cannot be.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        sampler: Plan,
        *,
        batch: int,
        micro_batch: int | None = None,
        rank: int = 0,
        world: int = 1,
        workers: int | str = "auto",
        worker_start: str = "auto",
        prefetch: int = 4,
        device: torch.device | None = None,
        cache: str = "none",
        overfit: int | None = None,
    ) -> None:
        if overfit is not None:
            blueprint = replace(blueprint, transforms=())
        self.samples, self.device = Samples(blueprint), device or torch.device("cpu")
        self.batch, self.rank, self.world = batch, rank, world
        self.micro = _micro(batch, micro_batch, world)
        self.accumulate = batch // (self.micro * world)
        self.seed, self.overfit = blueprint.seed, overfit
        self.records: Sequence[Record] = self.samples.dataset.records
        if not self.records:
            raise UserError(
                f"the training set is empty: dataset '{blueprint.dataset.name}' keeps no slice of "
                f"{len(blueprint.cases)} training cases"
            )
        self._sampler_name = sampler.name
        self.sampler = build(sampler, records=self.records)
        self.length = len(self.sampler.order(self.seed, 0))
        self.steps_per_epoch = _steps(self.length, batch, overfit, sampler.name)
        self._running: weakref.ref[Generator[list[Batch], None, None]] | None = None
        self._cache: RamCache | DeviceCache | None = None
        self._source: Workers
        if cache == "device":
            self._cache = self._source = device_cache(self.samples, self.device, fill_threads())
            self.workers, self.worker_start = 0, "none"
            return
        if cache == "ram":
            self._cache = self.samples.kept = ram_cache(self.samples, fill_threads())
        self.workers, self.worker_start = choose(
            workers,
            worker_start,
            transforms=bool(blueprint.transforms),
            quick=cache == "ram" or self.samples.store.compression(blueprint.cases[0]) == "none",
        )
        pin = self.device.type == "cuda"
        self._source = start_workers(self.samples, self.workers, self.worker_start, prefetch, pin=pin)

    def order(self, epoch: int) -> list[int]:
        """The epoch's global order, checked."""
        epoch = self._drawn(epoch)
        order = [int(i) for i in self.sampler.order(self.seed, epoch)]
        if len(order) != self.length or min(order) < 0 or max(order) >= len(self.records):
            raise UserError(
                f"sampler '{self._sampler_name}' gave {len(order)} positions between {min(order)} and {max(order)} in "
                f"epoch {epoch}; want {self.length} (as in epoch 0) between 0 and {len(self.records) - 1}"
            )
        return order if self.overfit is None else order[: self.overfit * self.batch]

    def drawn(self, step: int) -> dict[str, float]:
        """What the sampler drew of the epoch that global batch number `step` ends or is in, as figures for the log.

        Nothing where the same batches come again and again.
        """
        if self.overfit is not None:
            return {}
        epoch = (step - 1) // self.steps_per_epoch
        return statistics(self.records, self.order(epoch)[: (step - epoch * self.steps_per_epoch) * self.batch])

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Batch]]:
        """The micro-batches of each step of an epoch, on the device, from its step `start` on.

        One epoch at a time: asking for another ends the one before, and so does letting go of it.
        """
        self._stop()
        running = self._run(epoch, start)
        self._running = weakref.ref(running)
        return running

    def first(self) -> list[Batch]:
        """The first step's micro-batches, on the device, loaded in this thread: for the trial step."""
        keys = self._keys(0, 0)
        return [self._batch(next(keys)).to(self.device) for _ in range(self.accumulate)]

    def memory(self) -> str:
        """What the batches that wait for their step take, and the samples that are kept."""
        each = self.micro * sum(math.prod(shape) * dtype.itemsize for shape, dtype in self.samples.layout())
        ahead = self._source.ahead
        text = f"{ahead} micro-batches ahead, {size(ahead * each)}" if ahead else f"no batch ahead, {size(each)}"
        if self._cache is None:
            return text
        where = "on the device" if isinstance(self._cache, DeviceCache) else "in memory"
        return f"{len(self.records)} samples kept {where}, {size(self._cache.bytes)}; {text}"

    def close(self) -> None:
        """End the data workers, and the epoch that is under way."""
        self._stop()
        self._source.close()

    def _run(self, epoch: int, start: int) -> Generator[list[Batch], None, None]:
        batches = self._source.run(self._keys(epoch, start))
        try:
            resident = isinstance(self._cache, DeviceCache)
            yield from in_steps(batches, self.accumulate) if resident else feed(batches, self.accumulate, self.device)
        finally:
            batches.close()

    def _stop(self) -> None:
        running = None if self._running is None else self._running()
        if running is not None:
            running.close()
        self._running = None

    def _batch(self, keys: list[Key]) -> Batch:
        return self._cache.batch(keys) if isinstance(self._cache, DeviceCache) else self.samples.batch(keys)

    def _drawn(self, epoch: int) -> int:
        return epoch if self.overfit is None else 0

    def _keys(self, epoch: int, start: int) -> Iterator[list[Key]]:
        """This rank's keys, micro-batch by micro-batch."""
        order, epoch = self.order(epoch), self._drawn(epoch)
        share = self.batch // self.world
        for step in range(start, self.steps_per_epoch):
            # Contiguous blocks: striding by rank would turn an alternating order into all-tumour and no-tumour ranks.
            first = step * self.batch + self.rank * share
            keys = [(epoch, p, order[p]) for p in range(first, first + share)]
            for i in range(0, share, self.micro):
                yield keys[i : i + self.micro]


def _micro(batch: int, micro_batch: int | None, world: int) -> int:
    if micro_batch is None:
        if batch % world:
            raise UserError(
                f"train.batch {batch} is not divisible by {world} ranks; try {batch // world * world or world}"
            )
        return batch // world
    if batch % (micro_batch * world):
        raise UserError(
            f"train.batch {batch} is not a multiple of train.micro_batch {micro_batch} x {world} ranks, "
            f"so gradients cannot be accumulated exactly"
        )
    return micro_batch


def _steps(length: int, batch: int, overfit: int | None, sampler: str) -> int:
    """Steps of an epoch."""
    if length < batch:
        raise UserError(
            f"train.batch is {batch}, but an epoch of sampler '{sampler}' has only {length} samples; "
            f"set train.batch to at most {length}"
        )
    if overfit is None:
        return length // batch
    if overfit > length // batch:
        raise UserError(
            f"train.overfit is {overfit}, but an epoch of sampler '{sampler}' has only {length // batch} batches; "
            f"set train.overfit to at most {length // batch}"
        )
    return overfit
