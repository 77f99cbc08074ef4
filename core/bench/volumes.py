"""What predicting and evaluating measure: one network, whole scans, and where the time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core import experiment as experiments
from core import seed
from core.bench.report import Column, Table
from core.bench.timing import Spread, spread, wait_for
from core.build import build
from core.contracts import Metric, OnLogits, Postprocess, Prediction
from core.data.store import Store
from core.data.volume import Volume
from core.errors import UserError
from core.experiment import Experiment
from core.infer.evaluate import wants_probabilities
from core.infer.geometry import Geometry
from core.infer.network import Network
from core.infer.run import build_network, load_run
from core.train.precision import autocast


class Clock:
    """Seconds by part, over the cases of one block."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """The time in here is that part's."""
        wait_for(self.device)
        before = time.perf_counter()
        yield
        wait_for(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - before


@dataclass
class Subject:
    """An experiment's network and what belongs to it; with a run's weights, or untrained.

    Attributes:
        weights: the checkpoint's name, or ``untrained``.
    """

    experiment: Experiment
    network: Network
    postprocess: list[Postprocess]
    metrics: list[Metric]
    device: torch.device
    weights: str
    probabilities: bool = field(init=False)

    def __post_init__(self) -> None:
        """Whether the inferer has to keep probabilities, as `evaluate_case` decides it."""
        self.probabilities = wants_probabilities(self.postprocess)

    @property
    def precision(self) -> Any:
        """The context in which the network runs."""
        return autocast(self.device, self.experiment.train.precision)

    def inferer(self, clock: Clock | None = None) -> Any:
        """The experiment's inferer; with a clock, one that times its parts."""
        geometry: Any = self.experiment.geometry
        if clock is not None:
            geometry = _TimedGeometry(geometry, clock)
        return build(self.experiment.inferer, network=self.network, geometry=geometry)

    def settings(self, cases: Sequence[str], blocks: int) -> dict[str, Any]:
        """For the report's head."""
        return {
            "experiment": self.experiment.file,
            "model": self.experiment.model.name,
            "weights": self.weights,
            "inferer": " ".join(f"{k}={v}" for k, v in self.experiment.inferer.plain().items()),
            "size": self.experiment.geometry.size or "the scan's own",
            "precision": self.experiment.train.precision,
            "device": str(self.device),
            "cases": list(cases),
            "blocks": blocks,
        }

    def note(self) -> list[str]:
        """What the figures of an untrained network stand for."""
        if self.weights != "untrained":
            return []
        return [
            "Untrained weights: the output is noise such as no post-processor or metric meets, so these get the "
            "reference, moved by a voxel. A run directory in place of the experiment file measures its best checkpoint."
        ]


def load_subject(path: Path, overrides: Sequence[str], device: torch.device) -> Subject:
    """The network of an experiment file (untrained) or of a run directory (its best checkpoint).

    Raises:
        UserError: if the run has no checkpoint, or it does not fit.
    """
    if path.is_dir():
        run = load_run(path, "best", device, overrides)
        return Subject(run.experiment, run.network, run.postprocess, run.metrics(), device, run.checkpoint.name)
    experiment = experiments.load(path, overrides)
    seed.seed_init(experiment.train.seed)
    network = build_network(experiment).to(device).eval()
    if experiment.train.channels_last:
        network.use_channels_last()
    postprocess = [build(plan) for plan in experiment.postprocess]
    return Subject(experiment, network, postprocess, [build(p) for p in experiment.metric], device, weights="untrained")


def pick(store: Store, count: int) -> list[str]:
    """The first `count` cases with a reference.

    Raises:
        UserError: if there is none.
    """
    cases = [case for case in store.cases if store.info(case).labelled][:count]
    if not cases:
        raise UserError(f"{store.root}: no case has a reference")
    return cases


class BareNetwork:
    """The network alone on all slices of some scans, in batches that lie on the device already.

    Args:
        subject: the network and what belongs to it.
        arrays: int16 HU ``[Z, Y, X]``.
        spacings_z_mm: distance of each array's slices.
    """

    def __init__(self, subject: Subject, arrays: Sequence[np.ndarray], spacings_z_mm: Sequence[float]) -> None:
        self.subject = subject
        geometry, size = subject.experiment.geometry, int(subject.experiment.inferer.args.get("batch", 16))
        self.batches: list[torch.Tensor] = []
        for array, spacing in zip(arrays, spacings_z_mm, strict=True):
            near = [geometry.neighbours(z, len(array), spacing) for z in range(len(array))]
            planes = torch.from_numpy(np.ascontiguousarray(geometry.image(array))).to(subject.device)
            stacks = torch.tensor(near, device=planes.device)
            self.batches += [planes[stacks[first : first + size]] for first in range(0, len(array), size)]

    @torch.no_grad()
    def __call__(self) -> None:
        """Run it over all of them, and throw the logits away."""
        with self.subject.precision:
            for batch in self.batches:
                self.subject.network(batch)


class TimedInferer:
    """The inferer with a clock at the network and at the geometry; what is left is its own work.

    The clock waits for the device at each part, so its times are those of the parts one by one, without what a GPU
    does beside them.
    """

    def __init__(self, subject: Subject, clock: Clock) -> None:
        self.subject, self.clock = subject, clock
        self.inferer = subject.inferer(clock)

    def __call__(self, volume: Volume, *, probabilities: bool = False, on_logits: OnLogits | None = None) -> Prediction:
        """As the inferer; adds to the clock's parts ``slices``, ``network``, ``back`` and ``labels``."""
        known = dict(self.clock.seconds)
        opened: list[Any] = []

        def before(*_: Any) -> None:
            opened.append(self.clock.part("network"))
            opened[-1].__enter__()

        def after(*_: Any) -> None:
            opened.pop().__exit__(None, None, None)

        handles = [
            self.subject.network.register_forward_pre_hook(before),
            self.subject.network.register_forward_hook(after),
        ]
        try:
            with self.clock.part("whole"):
                prediction: Prediction = self.inferer(volume, probabilities=probabilities, on_logits=on_logits)
        finally:
            for handle in handles:
                handle.remove()
        seconds = self.clock.seconds
        whole = seconds.pop("whole")
        inner = sum(seconds.get(name, 0.0) - known.get(name, 0.0) for name in ("slices", "network", "back"))
        seconds["labels"] = seconds.get("labels", 0.0) + whole - inner
        return prediction


def stand_in(reference: np.ndarray) -> np.ndarray:
    """Labels such as a trained network gives: the reference, moved by a voxel along y and x."""
    return np.roll(reference, (1, 1), axis=(1, 2))


def shares(key: str, title: str, names: dict[str, str], blocks: Sequence[dict[str, float]], cases: int) -> Table:
    """A table of the parts: milliseconds a case, and share of their sum.

    Args:
        key: of the table.
        title: of the table.
        names: part -> what the table calls it, in its order.
        blocks: seconds by part, one dictionary a block.
        cases: in each block.
    """
    table = Table(key, title, [Column("ms", "ms a case", ".1f"), Column("share", "share", ".3f", range=True)])
    for part, name in names.items():
        seconds = [block.get(part, 0.0) for block in blocks]
        table.add(
            name,
            ms=spread([1000 * s / cases for s in seconds]),
            share=spread([s / sum(block.values()) for s, block in zip(seconds, blocks, strict=True)]),
        )
    return table


def slice_rate(slices: int, seconds: Spread) -> Spread:
    """Slices a second."""
    return spread([slices / s for s in seconds.values])


class _TimedGeometry:
    """The geometry with a clock at the way to the network's grid and back."""

    def __init__(self, geometry: Geometry, clock: Clock) -> None:
        self._geometry, self._clock = geometry, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._geometry, name)

    def image(self, slices: np.ndarray) -> np.ndarray:
        """As the geometry's."""
        with self._clock.part("slices"):
            return self._geometry.image(slices)

    def back(self, logits: torch.Tensor, shape_yx: Sequence[int]) -> torch.Tensor:
        """As the geometry's."""
        with self._clock.part("back"):
            return self._geometry.back(logits, shape_yx)
