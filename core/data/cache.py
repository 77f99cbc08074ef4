"""All training samples kept in memory: this computer's (``dataset.cache: ram``) or the device's (``device``)."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from core import dist
from core.contracts import Batch, Record, Sample
from core.data.memory import Shared, free_bytes, size
from core.data.samples import Key, Samples, ShapeError
from core.data.workers import in_threads
from core.errors import UserError

_SPARE = 0.9
"""Share of the free memory that samples may take; the rest is for all else."""
_CHUNK = 16
"""Samples read at a time."""
_CPU = torch.device("cpu")

Shapes = tuple[tuple[int, ...], tuple[int, ...]]
"""Of one sample's image and label."""


class RamCache:
    """A training set's samples in memory that data processes and ranks share; stands in for the data set."""

    draws = False

    def __init__(self, memory: Shared, count: int, shapes: Shapes, lesions: bool) -> None:
        self.memory, self.count, self.shapes, self.lesions = memory, count, shapes, lesions
        self.bytes = memory.count
        arrays: dict[str, np.ndarray] = {}
        at = 0
        for name, (shape, dtype) in _layout(shapes, lesions).items():
            arrays[name] = memory.array((count, *shape), dtype, at)
            at += arrays[name].nbytes
        self.image, self.label, self.lesion = arrays["image"], arrays["label"], arrays.get("lesion")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle where the memory is found, not what it holds."""
        return RamCache, (self.memory, self.count, self.shapes, self.lesions)

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """A copy of the sample at `index`."""
        lesion = None if self.lesion is None else self.lesion[index].copy()
        return Sample(self.image[index].copy(), self.label[index].copy(), lesion, index)

    def load_into(self, index: int, row: Sample) -> bool:
        """Write the sample at `index` into a row of a batch."""
        row.image[:], row.label[:] = self.image[index], self.label[index]
        if self.lesion is not None and row.lesion is not None:
            row.lesion[:] = self.lesion[index]
        return True

    def rows(self, first: int, end: int) -> Batch:
        """The memory of a stretch of samples, as a batch."""
        lesion = None if self.lesion is None else torch.from_numpy(self.lesion[first:end])
        return Batch(torch.from_numpy(self.image[first:end]), torch.from_numpy(self.label[first:end]), lesion, [], [])


class DeviceCache:
    """A training set's samples on the device; batches are drawn by index there, which leaves workers nothing to do."""

    ahead = 0

    def __init__(self, count: int, shapes: Shapes, lesions: bool, device: torch.device) -> None:
        self.count, self.device, self.bytes = count, device, _bytes(count, shapes, lesions)
        tensors = {
            name: torch.empty((count, *shape), dtype=getattr(torch, dtype), device=device)
            for name, (shape, dtype) in _layout(shapes, lesions).items()
        }
        self.image, self.label, self.lesion = tensors["image"], tensors["label"], tensors.get("lesion")

    def run(self, keys: Iterable[list[Key]]) -> Generator[Batch, None, None]:
        """The micro-batches."""
        for micro in keys:
            yield self.batch(micro)

    def batch(self, keys: Sequence[Key]) -> Batch:
        """One micro-batch."""
        index = torch.tensor([k[2] for k in keys])
        if self.device.type == "cuda":  # a copy from ordinary memory would wait for all that the GPU still has to do
            index = index.pin_memory().to(self.device, non_blocking=True)
        lesion = None if self.lesion is None else self.lesion.index_select(0, index)
        image, label = self.image.index_select(0, index), self.label.index_select(0, index)
        return Batch(image, label, lesion, [k[2] for k in keys], [k[1] for k in keys])

    def put(self, first: int, batch: Batch) -> None:
        """Keep a stretch of samples."""
        end = first + len(batch.image)
        self.image[first:end].copy_(batch.image)
        self.label[first:end].copy_(batch.label)
        if self.lesion is not None and batch.lesion is not None:
            self.lesion[first:end].copy_(batch.lesion)

    def close(self) -> None:
        """Nothing runs."""


def ram_cache(samples: Samples, threads: int) -> RamCache:
    """Keep all samples in this computer's memory, once for all its ranks; a collective.

    Raises:
        UserError: if they draw from their generator, differ in shape, or would not fit.
    """
    shapes, bare = _check("ram", samples), _bare(samples)
    count, lesions = len(samples.dataset.records), samples.blueprint.lesions
    here = [rank for rank, computer in enumerate(dist.gather(_computer())) if computer == _computer()]
    mine, leads = here.index(dist.rank()), here[0] == dist.rank()
    if leads:
        _check_room("ram", _CPU, count, shapes, lesions)
        memory = Shared(_bytes(count, shapes, lesions))
        dist.gather(memory.path)
    else:
        memory = Shared(_bytes(count, shapes, lesions), dist.gather(None)[here[0]])
    kept = RamCache(memory, count, shapes, lesions)

    def fill(reader: Samples, first: int) -> None:
        end = min(first + _CHUNK, count)
        reader.write([(0, i, i) for i in range(first, end)], kept.rows(first, end))

    _fill(bare, list(range(mine * _CHUNK, count, len(here) * _CHUNK)), fill, threads)
    dist.gather(None)  # all ranks have written their part
    return kept


def device_cache(samples: Samples, device: torch.device, threads: int) -> DeviceCache:
    """Keep all samples on the device.

    Raises:
        UserError: if they are transformed on the CPU, draw from their generator, differ in shape, or would not fit.
    """
    if samples.blueprint.transforms:
        names = ", ".join(plan.name for plan in samples.blueprint.transforms)
        raise UserError(
            f"dataset.cache=device: samples that are on the device cannot be transformed on the CPU ({names}); "
            f"use `augment` instead of `transform`, or dataset.cache=ram"
        )
    shapes, bare = _check("device", samples), _bare(samples)
    count, lesions = len(samples.dataset.records), samples.blueprint.lesions
    _check_room("device", device, count, shapes, lesions)
    kept = DeviceCache(count, shapes, lesions, device)

    def fill(reader: Samples, first: int) -> None:
        kept.put(first, reader.batch([(0, i, i) for i in range(first, min(first + _CHUNK, count))]))

    _fill(bare, list(range(0, count, _CHUNK)), fill, threads)
    return kept


def _bare(samples: Samples) -> Samples:
    """The samples untransformed."""
    return Samples(dataclasses.replace(samples.blueprint, transforms=()))


def _fill(samples: Samples, firsts: Sequence[int], fill: Callable[[Samples, int], None], threads: int) -> None:
    hidden = None if dist.rank() == 0 else True  # None: only on a terminal
    bar = tqdm(total=len(firsts) * _CHUNK, desc="dataset.cache", unit="slice", disable=hidden, file=sys.stderr)
    with bar:
        for _ in in_threads([samples.twin() for _ in range(threads)], fill, firsts, 4 * threads):
            bar.update(_CHUNK)


def _check(cache: str, samples: Samples) -> Shapes:
    """The shapes of all samples, if they can be kept."""
    if getattr(samples.dataset, "draws", True):
        raise UserError(
            f"dataset.cache={cache}: data set '{samples.blueprint.dataset.name}' may draw from its generator, so its "
            f"samples differ each time and cannot be kept; set dataset.cache=none (a data set that draws nothing says "
            f"so with `draws = False`)"
        )
    found: dict[Shapes, str] = {}
    for case, index in _one_of_each_case(samples.dataset.records).items():
        sample = samples.dataset.load(index, np.random.default_rng(0))
        found.setdefault((sample.image.shape, sample.label.shape), case)
    if len(found) > 1:
        raise ShapeError(
            f"dataset.cache={cache} keeps samples of one shape, but there are {_shown(found)}; "
            f"set dataset.size, e.g. dataset.size=512"
        )
    return next(iter(found))


def _check_room(cache: str, device: torch.device, count: int, shapes: Shapes, lesions: bool) -> None:
    need, free = _bytes(count, shapes, lesions), free_bytes(device)
    if need > _SPARE * free:
        other = "ram or none" if cache == "device" else "none"
        raise UserError(
            f"dataset.cache={cache}: {count} samples take {size(need)}, but {size(free)} are free on "
            f"{device if cache == 'device' else 'this computer'}, of which a tenth is left for all else; "
            f"set dataset.cache={other}, or a smaller dataset.size"
        )


def _shown(found: dict[Shapes, str]) -> str:
    return ", ".join(f"{'x'.join(map(str, image))} ({case})" for (image, _), case in found.items())


def _one_of_each_case(records: Sequence[Record]) -> dict[str, int]:
    return {record.case: index for index, record in enumerate(records)}


def _layout(shapes: Shapes, lesions: bool) -> dict[str, tuple[tuple[int, ...], str]]:
    image, label = shapes
    # The widest type first: each then begins where its type may.
    widest = {"lesion": (label, "int32")} if lesions else {}
    return {**widest, "image": (image, "int16"), "label": (label, "uint8")}


def _bytes(count: int, shapes: Shapes, lesions: bool) -> int:
    parts = _layout(shapes, lesions).values()
    return sum(count * math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in parts)


def _computer() -> str:
    """Equal for processes that see each other under /proc."""
    ids = [str(os.getuid())] if hasattr(os, "getuid") else [str(os.getpid())]
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            ids += [file.read().strip(), os.readlink("/proc/self/ns/pid")]
    except OSError:
        ids.append(str(os.getpid()))
    return " ".join(ids)
