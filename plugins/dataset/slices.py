"""Two-dimensional samples: slices with their neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from core.contracts import Record, Sample
from core.data.store import Store
from core.infer.geometry import Geometry
from registry import register


@register("dataset", "slices")
class Slices:
    """Axial slices, with `context` neighbours on each side as channels.

    Args:
        keep: "foreground" keeps slices with liver or tumour and a few empty ones; "all" keeps every slice.
        empty_ratio: empty slices kept per foreground slice of the same scan, spread evenly over the scan's empty ones.

    Raises ValueError for a negative ratio or a case without a label.

    Example: {name: slices, channels: 3, context: 0, keep: foreground, empty_ratio: 0.1}
    """

    draws = False

    def __init__(
        self,
        store: Store,
        cases: Sequence[str],
        geometry: Geometry,
        lesions: bool = True,
        *,
        keep: Literal["foreground", "all"] = "foreground",
        empty_ratio: float = 0.1,
    ) -> None:
        if empty_ratio < 0:
            raise ValueError(f"empty_ratio must not be negative, got {empty_ratio:g}")
        self._store, self._geometry, self._lesions = store, geometry, lesions
        self.records: list[Record] = []
        for case in cases:
            info = store.info(case)
            if not info.labelled:
                raise ValueError(f"case '{case}' has no label, so it cannot be trained on")
            table, ids = store.slices(case), store.slice_lesions(case)
            zs = range(len(table)) if keep == "all" else _kept(table["liver_voxels"] > 0, empty_ratio)
            self.records += [
                Record(*(case, info.patient, z, int(table["liver_voxels"][z]), int(table["tumour_voxels"][z]), ids[z]))
                for z in zs
            ]

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """The slice at `index` on the network's grid; nothing is drawn."""
        record = self.records[index]
        store, geometry, case = self._store, self._geometry, record.case
        zs = geometry.neighbours(record.z, store.info(case).shape[0])
        image, label = store.image(case, zs), store.label(case, [record.z])
        return Sample(geometry.image(image), geometry.label(label)[0], self._lesion(record), index)

    def load_into(self, index: int, row: Sample) -> bool:
        """Write the slice at `index` into a row of a batch, if it goes there neither resampled nor padded."""
        record, geometry = self.records[index], self._geometry
        depth, *plane = self._store.info(record.case).shape
        if not tuple(plane) == geometry.size_yx(plane) == geometry.padded_yx(plane) == row.label.shape:
            return False
        self._store.image(record.case, geometry.neighbours(record.z, depth), row.image)
        self._store.label(record.case, [record.z], row.label[None])
        if row.lesion is not None:
            row.lesion[:] = self._lesion(record)
        return True

    def _lesion(self, record: Record) -> np.ndarray | None:
        if not self._lesions:
            return None
        # A slice without lesions needs no look into the file.
        if record.lesions:
            ids = self._store.lesion(record.case, [record.z])
        else:
            ids = np.zeros((1, *self._store.info(record.case).shape[1:]), np.int32)
        return self._geometry.lesion(ids)[0]


def _kept(foreground: np.ndarray, empty_ratio: float) -> list[int]:
    full, empty = np.flatnonzero(foreground), np.flatnonzero(~foreground)
    count = min(len(empty), round(empty_ratio * len(full)))
    spread = empty[((np.arange(count) + 0.5) * len(empty) / max(count, 1)).astype(int)]
    return sorted([*full.tolist(), *spread.tolist()])
