"""A small clean pair, scan and label, and the way to write it as files before one of them is spoilt."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (36, 40, 12)
"""Along the file's axes: to the patient's left, to the back, to the head."""
AFFINE = np.diag([-8.0, -8.0, 12.0, 1.0])
AFFINE[:3, 3] = 140, 160, -70


def body(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A trunk in air with spine, lungs, liver and a tumour in it; int16 HU and uint8 labels, in the file's axis order.

    Seeds are patients: the organs move and grow a little with them.
    """
    rng = np.random.default_rng(seed)
    x, y, z = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]

    def ball(centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
        axes = zip((x, y, z), centre, radii, strict=True)
        return np.asarray(sum(((axis - c) / r) ** 2 for axis, c, r in axes) <= 1)

    move = rng.uniform(-1, 1, 3) * (1.5, 1.5, 0.5)
    grow = rng.uniform(0.9, 1.1)
    hu = np.full(SHAPE, -1000.0)
    hu[ball((18, 20, 6), (16, 15, 99))] = -90
    hu[ball((18, 20, 6), (14, 13, 99))] = 45
    for middle in (11, 25):
        hu[ball((middle, 20, 13), (7, 8, 4.5))] = -820
    hu[ball((18, 30, 6), (2.5, 2.5, 99))] = 520
    # Under the lung and towards the front, so that it is told from its mirror images as a real one is.
    liver = ball((11 + move[0], 17 + move[1], 4.5 + move[2]), (8 * grow, 8 * grow, 4 * grow))
    tumour = ball((10 + move[0], 16 + move[1], 4.5 + move[2]), (2.6, 2.2, 1.4))
    hu[liver], hu[tumour] = 112, 62
    hu += rng.normal(0, 12, SHAPE) * (hu > -950) + rng.normal(0, 4, SHAPE)
    return np.rint(hu).astype(np.int16), (liver.astype(np.uint8) + tumour).astype(np.uint8)


@dataclass
class Pair:
    """Case volume-12 of a folder in LiTS' layout, as files that may be written in any wrong way.

    Attributes:
        root: the folder.
        hu: int16, in the file's axis order.
        mask: uint8, likewise.
    """

    root: Path
    scan: Path
    label: Path
    hu: np.ndarray
    mask: np.ndarray
    affine: np.ndarray = field(default_factory=AFFINE.copy)

    @classmethod
    def clean(cls, root: Path, number: int = 12) -> Pair:
        """The pair of that number, written."""
        hu, mask = body(number)
        names = (root / f"{kind}-{number}.nii.gz" for kind in ("volume", "segmentation"))
        pair = cls(root, *names, hu, mask)
        pair.save_scan(hu)
        pair.save_label(mask)
        return pair

    def save_scan(self, array: np.ndarray, affine: np.ndarray | None = None) -> None:
        """Write the scan."""
        nib.save(nib.Nifti1Image(array, self.affine if affine is None else affine), self.scan)  # type: ignore[attr-defined]

    def save_label(self, array: np.ndarray, affine: np.ndarray | None = None) -> None:
        """Write the label."""
        nib.save(nib.Nifti1Image(array, self.affine if affine is None else affine), self.label)  # type: ignore[attr-defined]

    def save_both(self, affine: np.ndarray) -> None:
        """Write both, on another grid."""
        self.save_scan(self.hu, affine)
        self.save_label(self.mask, affine)

    def unpack(self) -> None:
        """Write the scan anew as a plain .nii."""
        self.scan.unlink()
        self.scan = self.scan.with_suffix("")
        self.save_scan(self.hu)

    def patch(self, offset: int, form: str, *values: float, label: bool = False) -> None:
        """Overwrite header fields of the scan, and of the label too, at a byte offset of NIfTI-1."""
        self.unpack()
        if label:
            self.label.unlink()
            self.label = self.label.with_suffix("")
            self.save_label(self.mask)
        for path in (self.scan, self.label) if label else (self.scan,):
            raw = bytearray(path.read_bytes())
            struct.pack_into(f"<{form}", raw, offset, *values)
            path.write_bytes(raw)


@dataclass(frozen=True)
class Spoilt:
    """One spoilt input.

    Attributes:
        what: what is wrong with it.
        says: what `prepare` answers, the folder's name left out; a remark where it is taken, empty where it is silent.
        taken: whether it goes into the store all the same.
        audit: what the audit finds in it then.
    """

    name: str
    what: str
    says: str
    make: Callable[[Pair], None]
    taken: bool = False
    audit: str = ""


def collector(into: list[Spoilt]) -> Callable[..., Callable[[Callable[[Pair], None]], Callable[[Pair], None]]]:
    """A decorator that lists a function that spoils a clean pair."""

    def spoilt(
        what: str, says: str, *, taken: bool = False, audit: str = ""
    ) -> Callable[[Callable[[Pair], None]], Callable[[Pair], None]]:
        def add(make: Callable[[Pair], None]) -> Callable[[Pair], None]:
            into.append(Spoilt(make.__name__, what, says, make, taken, audit))
            return make

        return add

    return spoilt
