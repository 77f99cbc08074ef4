"""The ``train:`` and ``prepare:`` sections of an experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class PrepareSettings:
    """The ``prepare:`` section.

    Attributes:
        compression: of the store; "none" is read as fast as the memory and takes three times the space.
        workers: processes; null is one a core.
        spacing: voxel size along z, y, x in mm that scans are resampled to, null on an axis that stays as it is
            (``[null, 0.8, 0.8]``: in the plane alone); null resamples nothing.
        crop: "body" cuts to the body's box, found from the image alone; "liver" to the reference's liver, which a new
            scan does not have: it is then taken whole.
        margin_mm: added around that box on each side.
    """

    compression: Literal["bitshuffle-lz4", "none"] = "bitshuffle-lz4"
    workers: int | None = None
    spacing: tuple[float | None, float | None, float | None] | None = None
    crop: Literal["none", "body", "liver"] = "none"
    margin_mm: float = 20.0

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that cannot be, a line each."""
        wrong = []
        if self.workers is not None and self.workers < 1:
            wrong.append(f"workers must be at least 1 or null, got {self.workers}")
        if any(s is not None and not 0.05 <= s <= 50 for s in self.spacing or ()):
            wrong.append(
                f"spacing is in mm, along z, y, x, each between 0.05 and 50 or null, got {list(self.spacing or ())}"
            )
        if not 0 <= self.margin_mm < float("inf"):
            wrong.append(f"margin_mm must not be negative, got {self.margin_mm:g}")
        if wrong:
            raise ValueError("\n".join(wrong))


@dataclass(frozen=True)
class EarlyStop:
    """The ``train.early_stop:`` section; it also says which checkpoint is the best.

    Attributes:
        metric: any figure of a validation, e.g. ``val/loss``, ``val/score`` or ``val/tumour/dice``.
        patience: validations without improvement before stopping; null never stops.
        min_delta: the least change that counts as improvement.
    """

    metric: str = "val/loss"
    mode: Literal["min", "max"] = "min"
    patience: int | None = None
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that cannot be."""
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least 1 or null, got {self.patience}")
        if self.min_delta < 0:
            raise ValueError(f"min_delta must not be negative, got {self.min_delta}")


@dataclass(frozen=True)
class TrainSettings:
    """The ``train:`` section. Batches are global: they are shared out over the ranks.

    Attributes:
        epochs: passes over the sampler's order.
        max_steps: ends training earlier, after so many global batches.
        max_minutes: ends training, with a checkpoint, after so many minutes in this process.
        overfit: trains on the first so many global batches alone, unchanged and without validation, to debug a model.
        batch: samples a step, over all ranks.
        micro_batch: samples a forward pass of one rank; null is batch / ranks (no accumulation).
        sync_batchnorm: BatchNorm's statistics over the micro-batch of all ranks; GPUs only.
        activation_checkpointing: computes activations again in the backward pass instead of keeping them.
        clip_norm: greatest norm of the gradient; null does not clip.
        ema: decay of the averaged weights, e.g. 0.999; null keeps none.
        validate_every: epochs between validations.
        save_minutes: minutes between checkpoints within an epoch; null saves at the ends of epochs alone.
        keep_last: checkpoints kept besides the best.
        log_every: steps between logged metrics.
        workers: data workers a rank; "auto" is cores / ranks less one, at most 8 (4 without transforms); 0 loads in
            place.
        worker_start: how data workers start; "thread" keeps them in this process, "auto" does so without transforms,
            else it is fork where it exists.
        prefetch: micro-batches that each data worker keeps ready.
        timeout_s: seconds that a rank waits for another before it gives up.
    """

    epochs: int = 60
    max_steps: int | None = None
    max_minutes: float | None = None
    overfit: int | None = None
    batch: int = 32
    micro_batch: int | None = None
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    channels_last: bool = True
    compile: bool = False
    sync_batchnorm: bool = False
    activation_checkpointing: bool = False
    clip_norm: float | None = 12.0
    ema: float | None = None
    validate_every: int = 1
    early_stop: EarlyStop = field(default_factory=EarlyStop)
    save_minutes: float | None = 10.0
    keep_last: int = 2
    log_every: int = 20
    workers: int | Literal["auto"] = "auto"
    worker_start: Literal["auto", "thread", "fork", "spawn", "forkserver"] = "auto"
    prefetch: int = 4
    timeout_s: float = 1800.0
    seed: int = 0
    deterministic: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that cannot be, a line each."""
        wrong = []
        for name in ("epochs", "batch", "validate_every", "keep_last", "log_every", "prefetch"):
            if getattr(self, name) < 1:
                wrong.append(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("max_steps", "micro_batch", "max_minutes", "save_minutes", "overfit", "clip_norm", "timeout_s"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                wrong.append(f"{name} must be positive{'' if name == 'timeout_s' else ' or null'}, got {value}")
        if self.ema is not None and not 0 < self.ema < 1:
            wrong.append(f"ema must lie between 0 and 1, got {self.ema}")
        if isinstance(self.workers, int) and self.workers < 0:
            wrong.append(f"workers must not be negative, got {self.workers}")
        if self.seed < 0:
            wrong.append(f"seed must not be negative, got {self.seed}")
        if wrong:
            raise ValueError("\n".join(wrong))


# What --resume may change: nothing that decides a step's arithmetic, except how many steps there are.
RESUMABLE = (
    "run",
    "hook",
    "compare",
    "prepare.workers",
    "prepare.compression",
    "source",  # a moved store is checked against the hashes of the split
    "store",
    "dataset.cache",
    *(f"train.{k}" for k in ("epochs", "max_steps", "max_minutes", "save_minutes", "keep_last", "log_every")),
    *(f"train.{k}" for k in ("workers", "worker_start", "prefetch", "timeout_s", "early_stop.patience")),
)
