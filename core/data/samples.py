"""Training samples by key, a micro-batch at a time."""

from __future__ import annotations

import copy
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

import registry
from core.build import Plan, build
from core.contracts import Batch, Sample
from core.data.store import Store
from core.errors import UserError
from core.infer.geometry import Geometry
from core.seed import sample_rng

Key = tuple[int, int, int]
"""Epoch, position in the epoch's global order, position in the data set's records."""

Layout = list[tuple[tuple[int, ...], torch.dtype]]
"""Shape and type of one sample's image, label and, where a loss asks, lesion ids."""

Empty = Callable[[tuple[int, ...], torch.dtype], torch.Tensor]
"""Where a batch's memory comes from."""


@dataclass(frozen=True)
class Blueprint:
    """All that a data worker needs to make samples; picklable, so it works under fork, spawn and forkserver.

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


def plain_memory(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Memory of this process."""
    # NumPy asks for huge pages, torch does not: a fresh batch then costs a fraction of the page faults.
    return torch.from_numpy(np.empty(shape, str(dtype).removeprefix("torch.")))


class UsedAgain:
    """Memory of this process that goes round: a batch that nobody holds any more leaves its own to a later one.

    Fresh memory costs page faults, which here take a quarter of the time of reading a batch. Safe for threads.
    """

    def __init__(self, most: int = 64) -> None:
        self._free: deque[np.ndarray] = deque(maxlen=most)

    def __call__(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Memory for one array of a batch."""
        array = self._take(shape, str(dtype).removeprefix("torch."))
        lent = array.view()  # the tensor's storage holds it, and so does all that is made from the tensor
        weakref.finalize(lent, self._free.append, array).atexit = False
        return torch.from_numpy(lent)

    def _take(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        for _ in range(len(self._free)):
            try:
                array = self._free.popleft()
            except IndexError:  # another thread was quicker
                break
            if array.shape == shape and array.dtype == dtype:
                return array
            self._free.append(array)
        return np.empty(shape, dtype)


def pinned_memory(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Page-locked memory, from which copies to a GPU do not wait; torch keeps and reuses it."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)


class ShapeError(UserError):
    """Samples that cannot lie in one array."""


class Samples:
    """Training samples by key. Not safe for several threads: each takes its own `twin`.

    Data set, transforms and store are built on first use in a process; only what they are built from is pickled.

    Args:
        kept: stands in for the data set when samples are read (`core.data.cache`), or None.
    """

    def __init__(self, blueprint: Blueprint, kept: Any = None) -> None:
        self.blueprint, self.kept = blueprint, kept
        self._layout: Layout | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what they are rebuilt from."""
        return Samples, (self.blueprint, self.kept)

    def twin(self) -> Samples:
        """The same samples for another thread."""
        twin = Samples(self.blueprint, self.kept)
        twin.store = copy.copy(self.store)  # with files of its own
        return twin

    @cached_property
    def dataset(self) -> Any:
        """The data set."""
        registry.restore(self.blueprint.sources)
        plan = self.blueprint
        return build(plan.dataset, store=self.store, cases=plan.cases, geometry=plan.geometry, lesions=plan.lesions)

    @cached_property
    def transforms(self) -> list[Any]:
        """The transforms."""
        records = self.dataset.records
        return [build(plan, records=records, store=self.store) for plan in self.blueprint.transforms]

    @cached_property
    def store(self) -> Store:
        """The store."""
        return Store(self.blueprint.store)

    def batch(self, keys: Sequence[Key], empty: Empty = plain_memory) -> Batch:
        """One micro-batch.

        Raises:
            ShapeError: if its samples differ in shape.
            UserError: if they have no lesion ids although a loss asks for them.
        """
        first = self._sample(keys[0])
        count, lesions = len(keys), self.blueprint.lesions
        image = empty((count, *first.image.shape), torch.int16)
        label = empty((count, *first.label.shape), torch.uint8)
        lesion = empty((count, *first.label.shape), torch.int32) if lesions else None
        batch = Batch(image, label, lesion, [k[2] for k in keys], [k[1] for k in keys])
        self.write(keys, batch, first)
        self._layout = [(tuple(t.shape[1:]), t.dtype) for t in (image, label, lesion) if t is not None]
        return batch

    def layout(self) -> Layout:
        """Shape and type of each array of a sample: of those made last, or else of the first record."""
        if self._layout is None:
            self.batch([(0, 0, 0)])
        assert self._layout is not None
        return self._layout

    def write(self, keys: Sequence[Key], batch: Batch, first: Sample | None = None) -> None:
        """Write a micro-batch into a batch's memory; `first` is its first sample if it has been made already."""
        image, label = batch.image.numpy(), batch.label.numpy()
        lesion = None if batch.lesion is None else batch.lesion.numpy()
        for i, key in enumerate(keys):
            row = Sample(image[i], label[i], None if lesion is None else lesion[i], key[2])
            if i == 0 and first is not None:
                _copy(first, row)
            elif self._into is None or not self._into(key[2], row):
                _copy(self._sample(key), row)

    @cached_property
    def _reader(self) -> Any:
        return self.dataset if self.kept is None else self.kept

    @cached_property
    def _into(self) -> Callable[[int, Sample], bool] | None:
        return None if self.blueprint.transforms else getattr(self._reader, "load_into", None)

    @cached_property
    def _draws(self) -> bool:
        return bool(self.transforms) or getattr(self._reader, "draws", True)

    def _sample(self, key: Key) -> Sample:
        rng: Any = sample_rng(self.blueprint.seed, *key[:2]) if self._draws else _NO_DRAWS
        sample: Sample = self._reader.load(key[2], rng)
        for transform in self.transforms:
            sample = transform(sample, rng)
        return sample


class _NoDraws:
    def __getattr__(self, name: str) -> Any:
        raise TypeError(f"the data set says `draws = False`, yet its load() asks rng for {name}")


_NO_DRAWS = _NoDraws()


def _copy(sample: Sample, row: Sample) -> None:
    if row.lesion is not None and sample.lesion is None:
        raise UserError("a loss asks for lesion ids, but the data set's samples have none")
    pairs = (sample.image, row.image), (sample.label, row.label), (sample.lesion, row.lesion)
    for values, target in pairs:
        if values is None or target is None:
            continue
        if values.shape != target.shape:
            shapes = ", ".join(map(str, sorted({sample.image.shape, row.image.shape})))
            raise ShapeError(
                f"samples of one batch differ in shape: {shapes}; set dataset.size, or crop in the last transform"
            )
        target[:] = values
