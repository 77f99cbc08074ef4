"""One case from its number alone: which patient, which scan, and everything in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from plugins.source.phantom.body import Build, draw_build, paint_frame
from plugins.source.phantom.fields import F32, Canvas, Grid
from plugins.source.phantom.lesions import Lesion, draw_lesions, grown, paint_cysts, paint_lesion
from plugins.source.phantom.liver import LiverShape, draw_places, paint_liver
from plugins.source.phantom.organs import paint_organs
from plugins.source.phantom.scanner import Protocol, draw_protocol, expose, lay_grid

BLOCK = 8  # cases in a block: the last two are one patient's, and in four blocks of five one is without tumour


@dataclass(frozen=True)
class CaseData:
    """A made case; arrays are [Z, Y, X] with x to the left, y to the back, z to the head."""

    patient: str
    image: F32
    true: F32
    label: npt.NDArray[np.uint8]
    tissue: npt.NDArray[np.uint8]
    grid: Grid
    build: Build
    protocol: Protocol
    lesions: list[Lesion]

    def describe(self) -> dict[str, Any]:
        """What the manifest says of it."""
        dz, dy, dx = self.grid.spacing
        voxel_ml = dz * dy * dx / 1000
        return {
            "patient": self.patient,
            "spacing_mm": [round(step, 4) for step in (dz, dy, dx)],
            "orientation": self.protocol.orientation,
            "shape": list(self.grid.shape),
            "stored": self.protocol.stored,
            "noise_hu": self.protocol.noise_hu,
            "padding_hu": self.protocol.padding,
            "liver_ml": round(float((self.label > 0).sum()) * voxel_ml, 1),
            "tumour_ml": round(float((self.label == 2).sum()) * voxel_ml, 2),
            "lesions": [lesion.as_dict() for lesion in self.lesions],
        }


def patient_of(index: int) -> int:
    """The number of a case's patient: that of the patient's first case."""
    return index - 1 if index % BLOCK == BLOCK - 1 else index


def is_tumour_free(seed: int, index: int) -> bool:
    """Spread evenly rather than drawn freely, so that a split of few cases still meets both kinds."""
    block, place = divmod(index, BLOCK)
    chosen = int(np.random.default_rng((seed, 7, block)).integers(0, BLOCK - 2))
    return block % 5 != 4 and place == chosen


def make_case(seed: int, index: int) -> CaseData:
    """Make case `index` of the data set `seed`; nothing else has a say in it."""
    first = patient_of(index)
    build = draw_build((seed, 1, first))
    places = draw_places(build)
    shape = LiverShape(build, places)
    lesions = draw_lesions(build.rng(30), shape, tumour_free=is_tumour_free(seed, first))
    scan = np.random.default_rng((seed, 2, index))
    if index != first:
        lesions = grown(scan, lesions)
    protocol = draw_protocol(scan, build)
    grid = lay_grid(protocol, shape.extent_z())

    canvas = Canvas(grid, build.warp())
    cavity, lining = paint_frame(canvas, build)
    liver = shape(canvas, cavity, lining)
    paint_organs(canvas, build, places, liver, cavity, lining)
    paint_liver(canvas, shape, liver)
    label = (liver < 0).astype(np.uint8)
    paint_cysts(canvas, shape, lesions, liver)
    for lesion in lesions:
        paint_lesion(canvas, shape, lesion, liver, label)
    image = expose(scan, canvas.hu, label == 1, grid, protocol)
    patient = f"phantom-{seed}-{first:04d}"
    return CaseData(patient, image, canvas.hu, label, canvas.tissue, grid, build, protocol, lesions)
