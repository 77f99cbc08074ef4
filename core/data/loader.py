"""From a sampler's global order to each rank's micro-batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

import registry
from core.build import Plan, build
from core.contracts import Batch, Record, Sample
from core.data.store import Store
from core.errors import UserError
from core.infer.geometry import Geometry
from core.seed import sample_rng

Key = tuple[int, int, int]
"""Epoch, position in the epoch's global order, position in the data set's records."""


@dataclass(frozen=True)
class Blueprint:
    """All that a data process needs to make samples; picklable, so it works under fork, spawn and forkserver.

    Attributes:
        cases: the training cases.
        lesions: whether a loss asks for lesion ids.
        sources: where components come from (`registry.sources`).
    """

    store: Path
    cases: tuple[str, ...]
    dataset: Plan
    geometry: Geometry
    transforms: tuple[Plan, ...]
    seed: int
    lesions: bool
    sources: tuple[list[str], list[str]]


class Samples:
    """Training samples by key, a whole micro-batch at a time. Only the blueprint is pickled."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint = blueprint

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the blueprint alone: the other process rebuilds from plans."""
        return Samples, (self.blueprint,)

    @cached_property
    def dataset(self) -> Any:
        """The data set, built on first use in this process."""
        registry.restore(self.blueprint.sources)
        plan = self.blueprint
        return build(plan.dataset, store=self._store, cases=plan.cases, geometry=plan.geometry)

    @cached_property
    def transforms(self) -> list[Any]:
        """The transforms, built on first use in this process."""
        records = self.dataset.records
        return [build(plan, records=records, store=self._store) for plan in self.blueprint.transforms]

    @cached_property
    def _store(self) -> Store:
        return Store(self.blueprint.store)

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """One micro-batch."""
        samples = []
        for epoch, position, index in keys:
            rng = sample_rng(self.blueprint.seed, epoch, position)
            sample = self.dataset.load(index, rng)
            for transform in self.transforms:
                sample = transform(sample, rng)
            samples.append(sample)
        return self._collate(samples, keys)

    def _collate(self, samples: list[Sample], keys: Sequence[Key]) -> Batch:
        def stack(arrays: list[np.ndarray]) -> torch.Tensor:
            return torch.from_numpy(np.stack(arrays))

        try:
            lesion = stack([s.lesion for s in samples]) if self.blueprint.lesions else None
            image, label = stack([s.image for s in samples]), stack([s.label for s in samples])
        except ValueError as error:
            shapes = sorted({s.image.shape for s in samples})
            raise UserError(
                f"samples of one batch differ in shape: {', '.join(map(str, shapes))}; "
                f"set dataset.size, or crop in the last transform"
            ) from error
        return Batch(image, label, lesion, [k[2] for k in keys], [k[1] for k in keys])


class _MicroBatches:
    """This rank's keys, micro-batch by micro-batch, from a step of an epoch on."""

    def __init__(self, loader: TrainLoader) -> None:
        self.loader, self.epoch, self.start = loader, 0, 0

    def __iter__(self) -> Iterator[list[Key]]:
        loader = self.loader
        order = loader.order(self.epoch)
        share = loader.batch // loader.world
        for step in range(self.start, loader.steps_per_epoch):
            # Contiguous blocks: striding by rank would turn an alternating order into all-tumour and no-tumour ranks.
            first = step * loader.batch + loader.rank * share
            keys = [(self.epoch, p, order[p]) for p in range(first, first + share)]
            for i in range(0, share, loader.micro):
                yield keys[i : i + loader.micro]


class TrainLoader:
    """Batches of an epoch for one rank.

    Args:
        batch: samples a step over all ranks.
        micro_batch: samples a forward pass; None is batch / world.
        workers: data processes; "auto" is a core less than this rank's share of them, at most 8.
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
        pin: bool = False,
    ) -> None:
        self.samples = Samples(blueprint)
        self.batch, self.rank, self.world = batch, rank, world
        self.micro = _micro(batch, micro_batch, world)
        self.accumulate = batch // (self.micro * world)
        self.seed = blueprint.seed
        self.records: Sequence[Record] = self.samples.dataset.records
        if not self.records:
            raise UserError(
                f"the training set is empty: dataset '{blueprint.dataset.name}' keeps no slice of "
                f"{len(blueprint.cases)} training cases"
            )
        self._sampler_name = sampler.name
        self.sampler = build(sampler, records=self.records)
        self.length = len(self.sampler.order(self.seed, 0))
        self.steps_per_epoch = self.length // batch
        if self.steps_per_epoch == 0:
            raise UserError(
                f"train.batch is {batch}, but an epoch of sampler '{sampler.name}' has only {self.length} samples; "
                f"set train.batch to at most {self.length}"
            )
        self.workers = _workers(workers)
        self._keys = _MicroBatches(self)
        start = None if self.workers == 0 or worker_start == "auto" else worker_start
        self._loader: DataLoader = DataLoader(
            self.samples,  # type: ignore[arg-type]
            batch_sampler=self._keys,
            collate_fn=_as_is,
            num_workers=self.workers,
            multiprocessing_context=start,
            persistent_workers=self.workers > 0,
            prefetch_factor=4 if self.workers else None,
            worker_init_fn=_quiet_worker,
            pin_memory=pin,
        )

    def order(self, epoch: int) -> list[int]:
        """The epoch's global order, checked."""
        order = [int(i) for i in self.sampler.order(self.seed, epoch)]
        if len(order) != self.length or min(order) < 0 or max(order) >= len(self.records):
            raise UserError(
                f"sampler '{self._sampler_name}' gave {len(order)} positions between {min(order)} and {max(order)} in "
                f"epoch {epoch}; want {self.length} (as in epoch 0) between 0 and {len(self.records) - 1}"
            )
        return order

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Batch]]:
        """The micro-batches of each step of an epoch, from its step `start` on."""
        self._keys.epoch, self._keys.start = epoch, start
        micro: list[Batch] = []
        for batch in self._loader:
            micro.append(batch)
            if len(micro) == self.accumulate:
                yield micro
                micro = []

    def first(self) -> list[Batch]:
        """The first step's micro-batches, loaded in this process: for the trial step."""
        self._keys.epoch, self._keys.start = 0, 0
        keys = iter(self._keys)
        return [self.samples.__getitems__(next(keys)) for _ in range(self.accumulate)]


def _micro(batch: int, micro_batch: int | None, world: int) -> int:
    if micro_batch is None:
        if batch % world:
            raise UserError(f"train.batch {batch} is not divisible by {world} ranks; try {batch // world * world or world}")
        return batch // world
    if batch % (micro_batch * world):
        raise UserError(
            f"train.batch {batch} is not a multiple of train.micro_batch {micro_batch} x {world} ranks, "
            f"so gradients cannot be accumulated exactly"
        )
    return micro_batch


def _workers(wanted: int | str) -> int:
    if isinstance(wanted, int):
        return wanted
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(8, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - 1))


def _as_is(batch: Any) -> Any:
    return batch


def _quiet_worker(_: int) -> None:
    import cv2

    # One thread a data process: OpenCV's pool in each of them would fight the training for the cores.
    cv2.setNumThreads(0)
    # A group of its own: Ctrl-C and torchrun's SIGTERM reach the whole group of the training, which finishes its step
    # and then ends its workers; torch's watchdog ends them if it is killed.
    os.setpgid(0, 0)
