"""Slices from plain ``.npy`` files that ``tools/prepare.py --export npy`` wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

import registry
from core.contracts import Record, Sample
from core.data.exported import Exported
from core.data.store import Store
from core.infer.geometry import Geometry
from registry import register


@register("dataset", "npy_slices")
class NpySlices:
    """The samples of dataset `slices`, read from an exported folder; the store still gives split and validation.

    Args:
        root: the exported folder.
        keep: as in `slices`.
        empty_ratio: as in `slices`.
        crop: as in `slices`.
        crop_size: as in `slices`.
        jitter: as in `slices`.

    Raises:
        ValueError: if there is no export, it lacks a case or holds another content of it, or it was windowed.

    Example: {name: npy_slices, root: exported, channels: 3}
    """

    def __init__(
        self,
        store: Store,
        cases: Sequence[str],
        geometry: Geometry,
        lesions: bool = True,
        *,
        root: Path,
        keep: Literal["foreground", "all"] = "foreground",
        empty_ratio: float = 0.1,
        crop: Literal["none", "body", "liver"] = "none",
        crop_size: int | tuple[int, int] | None = None,
        jitter: float = 0.0,
    ) -> None:
        exported = Exported(root)
        for case in cases:
            there, wanted = exported.info(case), store.info(case)
            if (there.content_hash, there.label_hash) != (wanted.content_hash, wanted.label_hash):
                raise ValueError(f"{root}: case '{case}' is not as in the store {store.root}; export it again")
        if lesions and cases:
            exported.lesion(cases[0], [])  # says so if they were not exported
        args = {"keep": keep, "empty_ratio": empty_ratio, "crop": crop, "crop_size": crop_size, "jitter": jitter}
        self._slices: Any = registry.get("dataset", "slices").target(exported, cases, geometry, lesions, **args)
        self.records: Sequence[Record] = self._slices.records
        self.draws: bool = self._slices.draws

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """The sample at `index`."""
        sample: Sample = self._slices.load(index, rng)
        return sample

    def load_into(self, index: int, row: Sample) -> bool:
        """Write the sample at `index` into a row of a batch, if it goes there as it is."""
        return bool(self._slices.load_into(index, row))
