"""What each kind of component receives and must do, and the data that travels between them.

Arrays are ``[Z, Y, X]`` in the canonical orientation (LPS: x grows to the patient's left, y to the back, z to the
head). In tensor shapes B is batch, C channels, K classes, ``*S`` space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

import registry
from core.infer.geometry import DatasetKeys
from core.types import Batch, Case, Example, Prediction, Record, RunState, Sample

if TYPE_CHECKING:
    import torch

    from core.data.volume import Volume
    from core.measure.pair import CasePair

__all__ = [
    "EVENTS",
    "KINDS",
    "Augment",
    "Batch",
    "Case",
    "Dataset",
    "Example",
    "Hook",
    "Inferer",
    "Loss",
    "LossKeys",
    "Metric",
    "MetricKeys",
    "Model",
    "OnLogits",
    "Optimizer",
    "Postprocess",
    "Prediction",
    "Record",
    "Rows",
    "RunState",
    "Sample",
    "Sampler",
    "Schedule",
    "Source",
    "Split",
    "SplitKeys",
    "Transform",
    "Window",
]

Rows = list[dict[str, Any]]


@runtime_checkable
class Source(Protocol):
    """Finds the scans of a data set."""

    def cases(self) -> Sequence[Case]:
        """All cases, in a stable order. Raises ValueError with what to do if there are none."""
        ...


@runtime_checkable
class Split(Protocol):
    """Decides which patients train, validate and test. Runtime: store."""

    def parts(self) -> Mapping[str, Sequence[str]]:
        """Case ids under ``train``, ``val`` and ``test``."""
        ...


@runtime_checkable
class Dataset(Protocol):
    """Cuts training samples out of the store. Runtime: store, cases, geometry, lesions (whether a loss asks for them).

    It may say ``draws = False`` of itself: `load` draws nothing from `rng`, so `dataset.cache` can keep its samples.
    It may add ``load_into(index, row)``, which writes the sample into the arrays of the `Sample` `row`, shaped like
    those of another sample, and returns whether it could: untransformed batches are then read without a copy.
    """

    @property
    def records(self) -> Sequence[Record]:
        """One record a sample."""
        ...

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """The sample at `index`; pure, given `rng`. Without `lesions` its lesion may be None."""
        ...


@runtime_checkable
class Transform(Protocol):
    """Changes a sample on the CPU. Runtime: records, store. Draws from `rng` alone."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The changed sample; the image stays int16 HU, shapes may change together."""
        ...


@runtime_checkable
class Augment(Protocol):
    """Changes a batch on the device; one seed a sample, so that it depends neither on ranks nor on batch size."""

    def __call__(self, batch: Batch, seeds: torch.Tensor) -> Batch:
        """The changed batch. `seeds` is int64 ``[B]``."""
        ...


@runtime_checkable
class Sampler(Protocol):
    """Gives one global order of an epoch; knows nothing of ranks. Runtime: records.

    It may add ``observe(indices, losses)``, with its state (``state_dict``, ``load_state_dict``): called once between
    two epochs with the samples of the one before in their global order, positions in `records` and the mean
    cross-entropy of each over its valid voxels. Samples whose loss was not finite are left out. An order then depends
    on seed, epoch and that state.
    """

    def order(self, seed: int, epoch: int) -> Sequence[int]:
        """Positions in `records`; the same length in every epoch."""
        ...


@runtime_checkable
class Window(Protocol):
    """Turns HU into the model's input; a torch module, part of the network. Runtime: store, cases (or None).

    Values fitted on training cases are buffers, saved with the run and loaded where no store is at hand.
    """

    def channels(self, images: int) -> int:
        """Channels out for `images` channels in."""
        ...

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """HU ``[B, C, *S]`` (float) -> float ``[B, C', *S]``; traceable."""
        ...


@runtime_checkable
class Model(Protocol):
    """A ``torch.nn.Module``. Runtime: in_channels, classes.

    It may say ``dimensions = 3`` of itself if it takes patches ``[B, C, D, H, W]`` and no slices.
    """

    def __call__(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """``[B, C, *S]`` -> logits ``[B, K, *S]``, or a list of them, finest first, for deep supervision."""
        ...


@runtime_checkable
class Loss(Protocol):
    """One term of the objective. Runtime: classes. Its `weight` is core's.

    It may ask by name for ``lesion`` (int ids ``[B, *S]``).
    """

    def __call__(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Logits ``[B, K, *S]``, target int64 ``[B, *S]`` -> finite scalar, whatever class is absent."""
        ...


@runtime_checkable
class Optimizer(Protocol):
    """Builds a ``torch.optim.Optimizer``. Runtime: model."""

    def step(self) -> Any:
        """One update."""
        ...


@runtime_checkable
class Schedule(Protocol):
    """The learning rate's factor. Runtime: total_steps, steps_per_epoch.

    It may add ``observe(value)``, called after a validation (lower is better), with its state.
    """

    def __call__(self, step: int) -> float:
        """The factor of the optimizer's learning rate for update number `step` (from 0)."""
        ...


class OnLogits(Protocol):
    """Receives the logits of one block of the network's grid while a volume is inferred."""

    def __call__(self, logits: torch.Tensor, block: tuple[slice, ...]) -> None:
        """`logits` ``[B, K, *S]``; `block` slices the label volume brought to the network's grid.

        Of a 2-D network B is the block's slices, of a 3-D one it is 1.
        """
        ...


@runtime_checkable
class Inferer(Protocol):
    """One scan -> labels. Runtime: network (HU -> logits, the window inside), geometry.

    The network's device and precision are the caller's. The same inferer serves validation, evaluation, prediction.
    It may say ``dimensions = 3`` of itself if its network takes volumes.
    """

    def __call__(self, volume: Volume, *, probabilities: bool = False, on_logits: OnLogits | None = None) -> Prediction:
        """Labels on the volume's own voxel grid."""
        ...


@runtime_checkable
class Metric(Protocol):
    """Measures cases. Runtime: none. `validate: false` keeps it out of training's validations.

    It may say ``probabilities = True`` of itself: an evaluation of a run then gives the pair probabilities. It must do
    without them all the same: validations and other people's label files have none.
    """

    def measure(self, pair: CasePair) -> dict[str, Rows]:
        """Rows per table (``cases``: keyed by case and structure) of one case."""
        ...

    def summarise(self, tables: Mapping[str, Rows]) -> dict[str, Any]:
        """Figures over the data set, nested as in ``summary.json``; rows may come from several metrics."""
        ...


@runtime_checkable
class Postprocess(Protocol):
    """Cleans a label volume. Runtime: none. It may ask by name for ``probabilities`` and ``image``."""

    def __call__(self, labels: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
        """Labels ``[Z, Y, X]`` -> labels of the same shape and dtype; the input is not changed."""
        ...


@runtime_checkable
class Hook(Protocol):
    """Listens on rank 0 to a subset of `EVENTS` by methods ``on_<event>(state, ...)``. It may call no collectives.

    ``on_fit_start(state)``, ``on_step_end(state, metrics)`` (means over the last `log_every` steps and all ranks, empty
    in between), ``on_epoch_end(state)``, ``on_eval_start(state)``, ``on_eval_end(state, metrics, rows)``,
    ``on_saved(state, path)``, ``on_fit_end(state, reason)``, ``on_failed(state, error)``.
    It may add ``state_dict`` and ``load_state_dict``.
    """


EVENTS = ("fit_start", "step_end", "epoch_end", "eval_start", "eval_end", "saved", "fit_end", "failed")


def _check_hook(target: Any) -> str | None:
    for name in dir(target):
        if name.startswith("on_") and name[3:] not in EVENTS:
            return f"there is no event '{name[3:]}'{registry.suggest(name[3:], EVENTS)} Events: {', '.join(EVENTS)}"
    return None


@dataclass(frozen=True)
class SplitKeys:
    """Core's keys of the ``split:`` node.

    Attributes:
        leakage: what happens if a patient or a scan, whole or in part, is on two sides: "fail" stops before the run
            begins, "warn" says and records it.
    """

    leakage: Literal["fail", "warn"] = "fail"


@dataclass(frozen=True)
class LossKeys:
    """Core's keys of a ``loss:`` node."""

    weight: float = 1.0


@dataclass(frozen=True)
class MetricKeys:
    """Core's keys of a ``metric:`` node."""

    validate: bool = True


@dataclass(frozen=True)
class _Declaration:
    contract: type
    runtime: tuple[str, ...] = ()
    keys: type | None = None


KINDS: dict[str, _Declaration] = {
    "source": _Declaration(Source),
    "split": _Declaration(Split, ("store",), SplitKeys),
    "dataset": _Declaration(Dataset, ("store", "cases", "geometry", "lesions"), DatasetKeys),
    "transform": _Declaration(Transform, ("records", "store")),
    "augment": _Declaration(Augment),
    "sampler": _Declaration(Sampler, ("records",)),
    "window": _Declaration(Window, ("store", "cases")),
    "model": _Declaration(Model, ("in_channels", "classes")),
    "loss": _Declaration(Loss, ("classes",), LossKeys),
    "optimizer": _Declaration(Optimizer, ("model",)),
    "schedule": _Declaration(Schedule, ("total_steps", "steps_per_epoch")),
    "inferer": _Declaration(Inferer, ("network", "geometry")),
    "metric": _Declaration(Metric, (), MetricKeys),
    "postprocess": _Declaration(Postprocess),
    "hook": _Declaration(Hook),
}
"""Every kind: its contract, what core offers by name, and the keys of its node that are core's own."""

for _kind, _declaration in KINDS.items():
    registry.declare(_kind, runtime=_declaration.runtime, check=_check_hook if _kind == "hook" else None)
