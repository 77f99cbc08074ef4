"""The training loader alone: against ``.npy`` files, against copies in memory, and by number and kind of workers."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import registry
from core.bench.plain import NpySlices, PlainLoader, RawCopy, write_slices
from core.bench.report import Column, Report, Table
from core.bench.stage import scratch
from core.bench.timing import Spread, in_turns, progress, rate, ratio, timed, uninterrupted
from core.build import build
from core.data.loader import Blueprint, TrainLoader
from core.data.samples import Key
from core.data.store import Store
from core.errors import UserError
from core.experiment import Experiment
from core.train.assemble import split_parts
from core.train.objective import Objective
from core.values import CLASSES

Rates = dict[tuple[str, bool], Spread]
"""Images a second by side, and whether it transforms."""
_NPY_HEADER = 128
IMAGES = 256
"""Of a pass, where `steps` is left out: enough for full pipelines, few enough to write as files."""


class Stretch:
    """One stretch of epoch 0, over which all loaders go again and again, so that files and caches are equally warm."""

    def __init__(self, experiment: Experiment, store: Store, device: torch.device, steps: int | None) -> None:
        self.experiment, self.store, self.device = experiment, store, device
        if experiment.dataset.name != "slices" or experiment.dataset.args.get("crop", "none") != "none":
            raise UserError(
                f"bench.py loader compares whole slices with files of slices; dataset '{experiment.dataset.name}' "
                f"gives others: add 'dataset={{name: slices}}'"
            )
        objective = Objective([(p.name, 1.0, build(p, classes=CLASSES)) for p in experiment.loss])
        self.blueprint = Blueprint(
            store=experiment.store,
            cases=tuple(split_parts(experiment, store)[0]["train"]),
            dataset=experiment.dataset,
            geometry=experiment.geometry,
            transforms=tuple(experiment.transform),
            seed=experiment.train.seed,
            lesions="lesion" in objective.asks,
            sources=registry.sources(),
        )
        with contextlib.closing(self.ours(False, 0, "thread", "none")) as loader:
            self.records, self.micro, batch, last = loader.records, loader.micro, loader.batch, loader.steps_per_epoch
            self.steps = min(steps or math.ceil(IMAGES / batch), last)
            self.first, self.images, order = last - self.steps, self.steps * batch, loader.order(0)
        positions = range(self.first * batch, last * batch, self.micro)
        self.keys: list[list[Key]] = [[(0, p, order[p]) for p in range(at, at + self.micro)] for at in positions]

    def ours(self, transforms: bool, workers: int | str, start: str, cache: str) -> TrainLoader:
        """The loader of training."""
        settings = self.experiment.train
        return TrainLoader(
            self._blueprint(transforms),
            self.experiment.sampler,
            batch=settings.batch,
            micro_batch=settings.micro_batch,
            workers=workers,
            worker_start=start,
            prefetch=settings.prefetch,
            device=self.device,
            cache=cache,
        )

    def plain(self, folder: Path, transforms: bool, workers: int, start: str) -> PlainLoader:
        """The same batches from ``.npy`` files."""
        slices = NpySlices(folder, self._blueprint(transforms), self.records)
        prefetch = self.experiment.train.prefetch
        return PlainLoader(slices, self.keys, workers=workers, start=start, prefetch=prefetch, device=self.device)

    def write(self, folder: Path) -> None:
        """Write the slices of the stretch as ``.npy``."""
        drawn = sorted({index for keys in self.keys for _, _, index in keys})
        write_slices(folder, self.store, [self.records[i] for i in drawn], self.blueprint)

    def file_bytes(self) -> int:
        """An upper bound of what `write` writes."""
        plane = max(math.prod(self.store.info(case).shape[1:]) for case in self.blueprint.cases)
        return len(self.keys) * self.micro * plane * (2 * self.experiment.geometry.images + 5)

    def size_share(self) -> tuple[float, float]:
        """Bytes a slice in the store, and in ``.npy``, over all slices of the training cases."""
        infos = {case: self.store.info(case) for case in self.blueprint.cases}
        slices = sum(info.shape[0] for info in infos.values())
        stored = sum(self.store.path(case).stat().st_size for case in infos)
        per_voxel, files = (7, 3) if self.blueprint.lesions else (3, 2)
        flat = sum(per_voxel * math.prod(info.shape) + _NPY_HEADER * files * info.shape[0] for info in infos.values())
        return stored / slices, flat / slices

    def _blueprint(self, transforms: bool) -> Blueprint:
        return self.blueprint if transforms else dataclasses.replace(self.blueprint, transforms=())


def bench_loader(
    experiment: Experiment,
    store: Store,
    device: torch.device,
    *,
    steps: int | None,
    seconds: float,
    workers: Sequence[int],
    blocks: int,
) -> Report:
    """The loader alone.

    Args:
        experiment: all but its network and its `train.workers` in the table are used.
        store: the experiment's.
        device: where batches come out.
        steps: of the stretch; None: as many as hold 256 images.
        seconds: a block goes over the stretch as often as takes about this long.
        workers: numbers of workers of the table, each as threads and as processes.
        blocks: how often each side is timed.
    """
    kinds = (False, True) if experiment.transform else (False,)
    stretch = Stretch(experiment, store, device, steps)
    starts = [(0, "thread"), *((n, s) for s in ("fork", "thread") for n in workers if s in _available())]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch(stretch.file_bytes()))
        stretch.write(folder)
        loaders = {(_kind(*one), t): stretch.ours(t, *one, "none") for t in kinds for one in starts}
        settings = experiment.train
        chosen = {
            t: stretch.ours(t, settings.workers, settings.worker_start, experiment.dataset.keys.cache) for t in kinds
        }
        loaders |= {("store", transforms): loader for transforms, loader in chosen.items()}
        plain = {("npy", t): stretch.plain(folder, t, ours.workers, ours.worker_start) for t, ours in chosen.items()}
        # Processes first: one that is forked while threads run may inherit a lock that nobody opens any more.
        both: list[tuple[tuple[str, bool], TrainLoader | PlainLoader]] = [*loaders.items(), *plain.items()]
        both.sort(key=lambda item: item[1].worker_start == "thread")
        sides: dict[tuple[str, bool], Callable[[], object]] = {}
        for key, loader in both:
            stack.callback(loader.close)
            sides[key] = _drain(loader, stretch.first)
            with uninterrupted():  # a process that is interrupted in the middle of its start prints a traceback
                sides[key]()
        for transforms in kinds:
            _check_same(stretch, chosen[transforms], plain["npy", transforms])
        few = list(plain["npy", False])[: math.ceil(IMAGES / stretch.micro)]
        sides["copy", False] = RawCopy(few, len(stretch.keys))
        rates = _rates(sides, stretch, seconds, blocks)
        names = {t: _kind(loader.workers, loader.worker_start) for t, loader in chosen.items()}
    megabytes = sum(tensor.nbytes for tensor in few[0]) / stretch.micro / 2**20
    tables = [
        _npy_table(rates, names, stretch),
        _copy_table(rates, megabytes),
        _worker_table(rates, kinds, [_kind(*one) for one in starts]),
    ]
    return Report("loader", _settings(stretch, seconds, blocks), tables)


def _drain(loader: TrainLoader | PlainLoader, first: int) -> Callable[[], object]:
    if isinstance(loader, PlainLoader):
        return lambda: [None for _ in loader]
    return lambda: [None for _ in loader.epoch(0, first)]


def _available() -> list[str]:
    return ["thread", *multiprocessing.get_all_start_methods()]


def _kind(count: int, start: str) -> str:
    noun = "thread" if start == "thread" else "process"
    plural = "s" if noun == "thread" else "es"
    return "in place" if count == 0 else f"{count} {noun}{plural if count > 1 else ''}"


def _check_same(stretch: Stretch, ours: TrainLoader, plain: PlainLoader) -> None:
    # Before anything is timed: a comparison of different batches would be worth nothing.
    # Both are run to their end, so that nothing is under way when the clock starts.
    first, *_ = [micro for step in ours.epoch(0, stretch.first) for micro in step]
    (image, label, *_), *_ = list(plain)
    if not (torch.equal(first.image, image) and torch.equal(first.label, label)):
        raise RuntimeError("the loader and the .npy files give different batches, so their times cannot be compared")


def _rates(sides: dict[tuple[str, bool], Callable[[], object]], stretch: Stretch, seconds: float, blocks: int) -> Rates:
    passes = {name: max(1, round(seconds / timed(once, stretch.device))) for name, once in sides.items()}

    def block(key: tuple[str, bool]) -> Callable[[], float]:
        return lambda: timed(lambda: [sides[key]() for _ in range(passes[key])], stretch.device)

    names = {key: f"{key[0]}, transformed" if key[1] else key[0] for key in sides}
    with progress("loader", len(sides) * (blocks + 1)) as bar:
        taken = in_turns({names[key]: block(key) for key in sides}, blocks, bar)
    return {key: rate(stretch.images * passes[key], taken[names[key]]) for key in sides}


def _npy_table(rates: Rates, workers: dict[bool, str], stretch: Stretch) -> Table:
    stored, flat = stretch.size_share()
    table = Table(
        "npy",
        "the loader as the experiment has it, against uncompressed .npy files",
        [
            Column("workers", "workers"),
            Column("loader", "images/s", ".0f"),
            Column("npy", ".npy images/s", ".0f"),
            Column("ratio", "of .npy", ".3f", range=True),
            Column("size", "of its size", ".3f"),
        ],
        notes=[
            f"The same slices, workers, transforms and draws (the batches are compared first). A slice takes "
            f"{stored / 2**10:.0f} kB in the store, lesion ids and tables included, and {flat / 2**10:.0f} kB as .npy."
        ],
    )
    for transforms, kind in workers.items():
        ours, npy = rates["store", transforms], rates["npy", transforms]
        name = "with the experiment's transforms" if transforms else "without transforms"
        table.add(name, workers=kind, loader=ours, npy=npy, ratio=ratio(ours, npy), size=stored / flat)
    return table


def _copy_table(rates: Rates, megabytes: float) -> Table:
    table = Table(
        "copy",
        "the loader without transforms, against copying the batches' bytes in memory",
        [
            Column("rate", "images/s", ".0f"),
            Column("gb", "GB/s", ".2f"),
            Column("ratio", "of the copy", ".3f", range=True),
        ],
    )
    for name, key in (("copy", "copy"), ("loader", "store"), (".npy", "npy")):
        found = rates[key, False]
        gigabytes = found.median * megabytes / 2**10
        table.add(name, rate=found, gb=gigabytes, ratio=ratio(found, rates["copy", False]))
    return table


def _worker_table(rates: Rates, kinds: Sequence[bool], workers: Sequence[str]) -> Table:
    columns = []
    for transforms in kinds:
        head = "with transforms" if transforms else "without"
        columns += [
            Column(f"rate_{transforms}".lower(), f"{head}: images/s", ".0f"),
            Column(f"ratio_{transforms}".lower(), "of in place", ".2f"),
        ]
    table = Table(
        "workers",
        "from the store by kind and number of workers, without transforms and with them; nobody else at work",
        columns,
    )
    for kind in workers:
        figures: dict[str, Spread] = {}
        for transforms in kinds:
            found, here = rates[kind, transforms], rates["in place", transforms]
            figures |= {f"rate_{transforms}".lower(): found, f"ratio_{transforms}".lower(): ratio(found, here)}
        table.add(kind, **figures)
    return table


def _settings(stretch: Stretch, seconds: float, blocks: int) -> dict[str, object]:
    experiment = stretch.experiment
    return {
        "experiment": experiment.file,
        "size": experiment.geometry.size or "the scan's own",
        "context": experiment.geometry.context,
        "batch": experiment.train.batch,
        "micro_batch": stretch.micro,
        "compression": experiment.prepare.compression,
        "cache": experiment.dataset.keys.cache,
        "sampler": experiment.sampler.name,
        "transforms": [plan.name for plan in experiment.transform] or None,
        "device": str(stretch.device),
        "images a pass": stretch.images,
        "seconds a block": seconds,
        "blocks": blocks,
    }
