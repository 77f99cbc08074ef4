"""The data that travels between components. `core.contracts` names all of it again, for plugins.

Arrays are ``[Z, Y, X]`` in the canonical orientation (LPS: x grows to the patient's left, y to the back, z to the
head). In tensor shapes B is batch, C channels, ``*S`` space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Case:
    """One scan as a source finds it.

    Attributes:
        id: unique in the source; names the store's file.
        patient: scans of one patient never part.
        image: a NIfTI, NRRD or MetaImage file, or a folder with a DICOM series.
        label: such a file with 0 background, 1 liver, 2 tumour, or a DICOM-SEG file, or None.
        origin: the data set's name and version, for provenance; begins with ``PHANTOM`` for synthetic data.
        spacing_trusted: False leaves the case out of every figure in mm or ml.
        hu_trusted: False if the intensities were windowed or rescaled before.
        repairs: known faults that `prepare` may mend, e.g. ``label_affine``; each repair is reported.
        series: SeriesInstanceUID of the scan, where `image` is a folder that may hold several.
        label_map: (value in the file, label) pairs; values not named become background. Empty: 0, 1, 2 as they are.
        part: ``train``, ``val`` or ``test`` where the data set's own layout says so, else empty.
        external: belongs to an external test set: it never trains or validates, and is tested apart.
    """

    id: str
    patient: str
    image: Path
    label: Path | None = None
    origin: str = ""
    spacing_trusted: bool = True
    hu_trusted: bool = True
    repairs: tuple[str, ...] = ()
    series: str = ""
    label_map: tuple[tuple[int, int], ...] = ()
    part: str = ""
    external: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a data set's index: what a sampler sees of a sample.

    Attributes:
        z: the slice; of a patch, the middle slice of what its anchor is drawn from.
        liver_voxels: labels 1 and 2 on the slice; of a patch, 0 if its anchor lies outside the liver.
        tumour_voxels: on the slice; of a patch, those of the lesion that it is anchored in.
        lesions: ids of the case's lesions that the sample shows a part of; of a crop, those of its whole slice.
        diameters_mm: of those lesions, (6V/pi)^(1/3); not a number where the spacing cannot be trusted.
    """

    case: str
    patient: str
    z: int
    liver_voxels: int
    tumour_voxels: int
    lesions: tuple[int, ...] = ()
    diameters_mm: tuple[float, ...] = ()


@dataclass(slots=True)
class Sample:
    """One training sample on the CPU.

    Attributes:
        image: int16 HU ``[C, *S]``.
        label: uint8 ``[*S]``, `IGNORE` where padded.
        lesion: int32 lesion ids ``[*S]``, 0 outside lesions; None may stand for them if no loss asks.
        index: position in the data set's `records`.
    """

    image: np.ndarray
    label: np.ndarray
    lesion: np.ndarray | None
    index: int


@dataclass(slots=True)
class Batch:
    """One micro-batch of one rank.

    Attributes:
        image: int16 HU ``[B, C, *S]``, float32 HU after an augment.
        label: uint8 ``[B, *S]``.
        lesion: int32 ``[B, *S]``, or None if no loss asks for it.
        indices: positions in the data set's `records`.
        positions: positions in the epoch's global order.
    """

    image: torch.Tensor
    label: torch.Tensor
    lesion: torch.Tensor | None
    indices: list[int]
    positions: list[int]

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`; copies from pinned memory do not wait."""
        lesion = None if self.lesion is None else self.lesion.to(device, non_blocking=True)
        image, label = self.image.to(device, non_blocking=True), self.label.to(device, non_blocking=True)
        return Batch(image, label, lesion, self.indices, self.positions)

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory; torch's loader calls this."""
        lesion = None if self.lesion is None else self.lesion.pin_memory()
        return Batch(self.image.pin_memory(), self.label.pin_memory(), lesion, self.indices, self.positions)


@dataclass(frozen=True)
class Example:
    """One slice of a validation, on the scan's own (canonical) grid, to be looked at.

    Attributes:
        image: int16 HU ``[Y, X]``.
        reference: uint8 ``[Y, X]``.
        pred: uint8 ``[Y, X]``, after post-processing.
    """

    case: str
    z: int
    image: np.ndarray
    reference: np.ndarray
    pred: np.ndarray


@dataclass(frozen=True)
class RunState:
    """What a hook sees at an event.

    Attributes:
        run: the run directory.
        step: global batches consumed.
        config: the experiment as YAML.
        resumed_from: the step of the checkpoint that this process went on from, or None.
        cost: what the last logged steps cost: ``images_per_s``, ``loader_wait`` (share of the time), ``memory_gb``
            (most taken so far: of the GPU, else of this process).
        evaluated_step: the step of the last validation that this run has on record.
        examples: slices of the last validation to look at, the same ones each time.
        drawn: at an epoch's end, what the sampler drew in it (`core.data.drawn.statistics`).
    """

    run: Path
    step: int
    epoch: int
    total_steps: int
    steps_per_epoch: int
    config: str
    resumed_from: int | None = None
    cost: Mapping[str, float] = field(default_factory=dict)
    evaluated_step: int = 0
    examples: Sequence[Example] = ()
    drawn: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """What an inferer returns for one volume, on the volume's own (canonical) voxel grid.

    Attributes:
        labels: uint8 ``[Z, Y, X]``.
        probabilities: float16 ``[K, Z, Y, X]`` if asked for.
    """

    labels: np.ndarray
    probabilities: np.ndarray | None = None
