"""What the loader is measured against: uncompressed ``.npy`` files, and copies in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

import registry
from core.build import build
from core.contracts import Record, Sample
from core.data.samples import Blueprint, Key
from core.data.store import Store
from core.seed import sample_rng

Tensors = tuple[torch.Tensor, ...]
"""Image int16 [B, C, H, W], label uint8 [B, H, W], and lesion ids int32 where a loss asks for them."""


def write_slices(folder: Path, store: Store, records: Sequence[Record], blueprint: Blueprint) -> None:
    """Write all that these records need: a file a slice for the image, one for its label, one for its lesions."""
    wanted: dict[str, set[int]] = {}
    targets: dict[str, set[int]] = {}
    for record in records:
        info = store.info(record.case)
        near = blueprint.geometry.neighbours(record.z, info.shape[0], info.spacing_mm[0])
        wanted.setdefault(record.case, set()).update(near)
        targets.setdefault(record.case, set()).add(record.z)
    for case, zs in wanted.items():
        for z in zs:
            np.save(folder / f"{case}_{z}_image.npy", store.image(case, [z])[0])
        for z in targets[case]:
            np.save(folder / f"{case}_{z}_label.npy", store.label(case, [z])[0])
            if blueprint.lesions:
                np.save(folder / f"{case}_{z}_lesion.npy", store.lesion(case, [z])[0])


class NpySlices:
    """Micro-batches from ``.npy`` files, as one would write it by hand; a data set for torch's loader.

    Geometry, transforms and their draws are the experiment's, so that the batches are those of the real loader.
    """

    def __init__(self, folder: Path, blueprint: Blueprint, records: Sequence[Record]) -> None:
        self.folder, self.blueprint, self.records = folder, blueprint, records

    def __reduce__(self) -> tuple[Any, ...]:
        return NpySlices, (self.folder, self.blueprint, self.records)

    @cached_property
    def _depths(self) -> dict[str, tuple[int, float]]:
        infos = map(Store(self.blueprint.store).info, self.blueprint.cases)
        return {info.case: (info.shape[0], info.spacing_mm[0]) for info in infos}

    @cached_property
    def _transforms(self) -> list[Any]:
        registry.restore(self.blueprint.sources)
        store = Store(self.blueprint.store)
        return [build(plan, records=self.records, store=store) for plan in self.blueprint.transforms]

    def __getitem__(self, keys: Sequence[Key]) -> Tensors:
        """One micro-batch."""
        samples = [self._sample(key) for key in keys]
        images = torch.from_numpy(np.stack([s.image for s in samples]))
        labels = torch.from_numpy(np.stack([s.label for s in samples]))
        if not self.blueprint.lesions:
            return images, labels
        return images, labels, torch.from_numpy(np.stack([s.lesion for s in samples if s.lesion is not None]))

    def _sample(self, key: Key) -> Sample:
        epoch, position, index = key
        record, geometry = self.records[index], self.blueprint.geometry
        near = geometry.neighbours(record.z, *self._depths[record.case])
        image = geometry.image(np.stack([self._read(record.case, z, "image") for z in near]))
        label = geometry.label(self._read(record.case, record.z, "label")[None])[0]
        lesion = None
        if self.blueprint.lesions:
            lesion = geometry.lesion(self._read(record.case, record.z, "lesion")[None])[0]
        sample = Sample(image, label, lesion, index)
        rng = sample_rng(self.blueprint.seed, epoch, position)
        for transform in self._transforms:
            sample = transform(sample, rng)
        return sample

    def _read(self, case: str, z: int, name: str) -> np.ndarray:
        return np.load(self.folder / f"{case}_{z}_{name}.npy")


class PlainLoader:
    """The micro-batches of `keys`, each time the same, on the device.

    Args:
        workers: 0 loads in place.
        start: of the workers: ``thread``, or how processes start; no matter with 0.
        prefetch: micro-batches that each worker keeps ready.
    """

    def __init__(
        self,
        slices: NpySlices,
        keys: Sequence[list[Key]],
        *,
        workers: int,
        start: str,
        prefetch: int,
        device: torch.device,
    ) -> None:
        self.slices, self.keys, self.device = slices, keys, device
        self.worker_start, self.ahead = start, workers * prefetch
        self._pool: ThreadPoolExecutor | None = None
        self._processes: DataLoader[Any] | None = None
        if workers and start == "thread":
            self._pool = ThreadPoolExecutor(workers)
        elif workers:
            self._processes = DataLoader(
                slices,  # type: ignore[arg-type]
                sampler=keys,
                batch_size=None,
                num_workers=workers,
                multiprocessing_context=start,
                persistent_workers=True,
                prefetch_factor=prefetch,
                worker_init_fn=_settle_worker,
                pin_memory=device.type == "cuda",
            )

    def __iter__(self) -> Iterator[Tensors]:
        if self._processes is not None:
            batches: Iterator[Tensors] = iter(self._processes)
        else:
            batches = self._in_threads(self._pool) if self._pool is not None else (self.slices[k] for k in self.keys)
        for batch in batches:
            yield tuple(tensor.to(self.device, non_blocking=True) for tensor in batch)

    def _in_threads(self, pool: ThreadPoolExecutor) -> Iterator[Tensors]:
        flying: deque[Future[Tensors]] = deque()
        for keys in self.keys:
            flying.append(pool.submit(self.slices.__getitem__, keys))
            if len(flying) >= self.ahead:
                yield flying.popleft().result()
        while flying:
            yield flying.popleft().result()

    def close(self) -> None:
        """End threads and processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._processes = None


def _settle_worker(_: int) -> None:
    import cv2

    cv2.setNumThreads(0)  # one thread a process, as the workers of training


class RawCopy:
    """Copies as many bytes as the batches hold from one place of the memory to another."""

    def __init__(self, batches: Sequence[Tensors], count: int) -> None:
        self.sources = [tuple(t.cpu().clone() for t in batch) for batch in batches]
        self.target = tuple(torch.empty_like(t) for t in self.sources[0])
        self.count = count

    def __call__(self) -> None:
        """Copy `count` batches."""
        for i in range(self.count):
            for target, source in zip(self.target, self.sources[i % len(self.sources)], strict=True):
                target.copy_(source)
