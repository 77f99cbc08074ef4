"""Three-dimensional samples: patches anchored in lesions, in the liver and elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from core.contracts import Record, Sample
from core.data.store import CaseInfo, Store
from core.infer.geometry import Geometry, place, window
from core.values import AIR_HU, IGNORE, LIVER, TUMOUR
from registry import register

Region = Literal["lesion", "liver", "elsewhere"]


@dataclass(frozen=True)
class _Source:
    """What a record's anchors are drawn from: voxels of `region`, so many on each slice."""

    region: Region
    lesion: int
    zs: np.ndarray
    until: np.ndarray  # voxels up to and with each of these slices


@register("dataset", "patches")
class Patches:
    """3-D patches, each around an anchor: a voxel drawn from a lesion, from the liver, or from elsewhere.

    There is one record for each lesion of each case, so that a sampler can draw lesions, small ones as often as large
    ones; nnU-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z) draws foreground voxels, of which large lesions
    have most, and puts them in the middle of the patch. Here the anchor lies anywhere in the patch's inner part. A
    patch that would reach beyond the volume is moved back into it, as the windows of inferer `sliding_window` are; a
    volume smaller than the patch is padded on both sides (air, labels `IGNORE`). Patches have the store's voxels:
    `prepare.spacing` resamples them.

    A record of a lesion tells of that lesion (`tumour_voxels`, `lesions`, `diameters_mm`); its z is the lesion's middle
    slice. Those of a region have no `tumour_voxels`, although tumour may come into the patch.

    Args:
        patch: size along z, y, x in voxels, the last two multiples of `divisor`; give the inferer the same.
        liver: records a case anchored in its liver outside lesions, one voxel as likely as another.
        elsewhere: records a case anchored outside its liver.
        jitter: inner share of the patch, along each axis, in which the anchor comes to lie anywhere: 0 is always the
            middle, 1 the whole patch.

    Raises:
        ValueError: for a value out of range, a case without a label, or a geometry for slices.

    Example: {name: patches, patch: [4, 32, 32], liver: 2, elsewhere: 1, jitter: 0.6}
    """

    def __init__(
        self,
        store: Store,
        cases: Sequence[str],
        geometry: Geometry,
        lesions: bool = True,
        *,
        patch: tuple[int, int, int] = (32, 128, 128),
        liver: int = 2,
        elsewhere: int = 1,
        jitter: float = 0.6,
    ) -> None:
        geometry.check_volumes("dataset 'patches'")
        if min(patch) < 1 or any(side % geometry.divisor for side in patch[1:]):
            raise ValueError(
                f"patch must be positive, and along y and x a multiple of divisor ({geometry.divisor}), "
                f"got {list(patch)}"
            )
        if liver < 0 or elsewhere < 0:
            raise ValueError(f"liver and elsewhere must not be negative, got {liver} and {elsewhere}")
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter must be from 0 to 1, got {jitter:g}")
        self._store, self._lesions, self._patch, self._jitter = store, lesions, patch, jitter
        self.records: list[Record] = []
        self._sources: list[_Source | None] = []  # None: a lesion's, found when it is first drawn
        self._of_case: dict[str, list[int]] = {}
        for case in cases:
            info = store.info(case)
            if not info.labelled:
                raise ValueError(f"case '{case}' has no label, so it cannot be trained on")
            first = len(self.records)
            self._add(info, liver, elsewhere)
            self._of_case[case] = list(range(first, len(self.records)))

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """A patch of the record at `index`: its anchor is drawn, and where in the patch that lies."""
        case, patch = self.records[index].case, self._patch
        shape = self._store.info(case).shape
        start = []
        for at, size, length in zip(self._anchor(index, rng), patch, shape, strict=True):
            reach = int(self._jitter * size / 2)
            lies = size // 2 + (int(rng.integers(-reach, reach + 1)) if reach else 0)
            start.append(place(at - min(max(lies, 0), size - 1), size, length))
        source, target = window(start, patch, shape)
        image, label = np.full(patch, AIR_HU, np.int16), np.full(patch, IGNORE, np.uint8)
        lesion = np.zeros(patch, np.int32) if self._lesions else None
        # By slices: a whole one is unpacked in any case, and one at a time stays in the processor's cache.
        plane, marks = np.empty((1, *shape[1:]), np.int16), np.empty((1, *shape[1:]), np.uint8)
        _, ys, xs = source
        _, to_y, to_x = target
        for z, to_z in zip(range(*source[0].indices(shape[0])), range(*target[0].indices(patch[0])), strict=True):
            image[to_z, to_y, to_x] = self._store.image(case, [z], plane)[0, ys, xs]
            label[to_z, to_y, to_x] = self._store.label(case, [z], marks)[0, ys, xs]
            if lesion is not None and (label[to_z] == TUMOUR).any():
                lesion[to_z, to_y, to_x] = self._store.lesion(case, [z])[0, ys, xs]
        return Sample(image[None], label, lesion, index)

    def _add(self, info: CaseInfo, liver: int, elsewhere: int) -> None:
        """The records of one case."""
        for row in self._store.lesions(info.case):
            z, number = (int(row["z_first"]) + int(row["z_last"])) // 2, int(row["id"])
            size = (int(row["voxels"]), (number,), (float(row["diameter_mm"]),))
            self.records.append(Record(info.case, info.patient, z, info.liver_voxels, *size))
            self._sources.append(None)
        table = self._store.slices(info.case)
        inside = table["liver_voxels"].astype(np.int64)
        regions: tuple[tuple[Region, np.ndarray, int, int], ...] = (
            ("liver", inside - table["tumour_voxels"], liver, info.liver_voxels),
            ("elsewhere", info.shape[1] * info.shape[2] - inside, elsewhere, 0),
        )
        for region, voxels, count, liver_voxels in regions:
            if not voxels.any():
                continue
            source = _source(region, 0, np.flatnonzero(voxels), voxels[voxels > 0])
            z = int(source.zs[np.searchsorted(source.until, source.until[-1] // 2, side="right")])
            self.records += [Record(info.case, info.patient, z, liver_voxels, 0)] * count
            self._sources += [source] * count

    def _anchor(self, index: int, rng: np.random.Generator) -> tuple[int, int, int]:
        """A voxel (z, y, x) of the record's lesion or region, each as likely as another."""
        source, case = self._sources[index], self.records[index].case
        if source is None:
            self._find_lesions(case)
            source = self._sources[index]
            assert source is not None
        number = int(rng.integers(source.until[-1]))
        row = int(np.searchsorted(source.until, number, side="right"))
        z = int(source.zs[row])
        if source.region == "lesion":
            hit = self._store.lesion(case, [z])[0] == source.lesion
        else:
            label = self._store.label(case, [z])[0]
            hit = label == LIVER if source.region == "liver" else label == 0
        voxels = np.flatnonzero(hit)
        at = int(voxels[number - int(source.until[row]) + len(voxels)])
        return z, at // hit.shape[1], at % hit.shape[1]

    def _find_lesions(self, case: str) -> None:
        """How many voxels each lesion of a case has on each slice: one look at its tumour slices, then kept.

        What is kept is no larger than the store's own table of lesions on slices.
        """
        counts: dict[int, list[tuple[int, int]]] = {}
        for z in np.flatnonzero(self._store.slices(case)["tumour_voxels"]).tolist():
            voxels = np.bincount(self._store.lesion(case, [z]).ravel())
            for lesion in (np.flatnonzero(voxels[1:]) + 1).tolist():
                counts.setdefault(lesion, []).append((z, int(voxels[lesion])))
        for index in self._of_case[case]:
            if self._sources[index] is None:
                (own,) = self.records[index].lesions
                zs, of_own = np.array(counts[own], np.int64).T
                self._sources[index] = _source("lesion", own, zs, of_own)


def _source(region: Region, lesion: int, zs: np.ndarray, voxels: np.ndarray) -> _Source:
    return _Source(region, lesion, zs, np.cumsum(voxels))
