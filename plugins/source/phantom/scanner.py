"""The scanner: the grid a case is sampled on, the blur and noise of its images, and the files it leaves."""

from __future__ import annotations

import gzip
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy.ndimage import gaussian_filter1d

from plugins.source.phantom.body import Build
from plugins.source.phantom.fields import F32, Field, Grid

ORIENTATIONS = ("LPS", "RAS", "LAS", "RPS", "LPI", "RAI", "PLS", "SPL", "ASR")
SHARES = (0.27, 0.22, 0.17, 0.08, 0.07, 0.05, 0.05, 0.05, 0.04)
STORED = ("int16", "int16_offset", "int16_scaled", "float32")
THICKNESS_MM = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)


@dataclass(frozen=True)
class Protocol:
    """How one scan was made."""

    thickness_mm: float
    matrix: int
    pixel_mm: float
    noise_hu: float
    orientation: str
    stored: str
    padding: float | None  # HU outside the circular field of view, none where the square is filled
    below_mm: float
    above_mm: float
    shift: tuple[float, float]


def draw_protocol(rng: np.random.Generator, build: Build) -> Protocol:
    """Draw a scan's settings; the field of view follows the patient's width."""
    thickness = float(rng.choice(THICKNESS_MM, p=(0.02, 0.06, 0.12, 0.17, 0.28, 0.10, 0.25)))
    matrix = int(rng.choice((224, 256, 288), p=(0.12, 0.76, 0.12)))
    field_mm = 2 * build.half_width * rng.uniform(1.03, 1.18)
    if thickness < 2:
        matrix = 192 if thickness < 1.2 else 224
    pixel = float(np.clip(field_mm / matrix, 1.15, 1.95))
    noise = float(np.clip(rng.lognormal(np.log(11.5), 0.3) * (3.0 / thickness) ** 0.2, 8.0, 24.0))
    return Protocol(
        thickness_mm=thickness,
        matrix=matrix,
        pixel_mm=round(pixel, 4),
        noise_hu=round(noise, 2),
        orientation=str(rng.choice(ORIENTATIONS, p=SHARES)),
        stored=str(rng.choice(STORED, p=(0.6, 0.15, 0.1, 0.15))),
        padding=(None, -1024.0, -2048.0)[int(rng.choice(3, p=(0.45, 0.3, 0.25)))],
        below_mm=rng.uniform(16, 42),
        above_mm=rng.uniform(10, 32),
        shift=(rng.uniform(-7, 7), rng.uniform(-6, 16)),
    )


def lay_grid(protocol: Protocol, liver_z: tuple[float, float]) -> Grid:
    """The voxel centres of a scan over the liver and some of what lies above and below."""
    low, high = liver_z[0] - protocol.below_mm, liver_z[1] + protocol.above_mm
    z = np.arange(low, high, protocol.thickness_mm, dtype=np.float64)
    half = (np.arange(protocol.matrix) - (protocol.matrix - 1) / 2) * protocol.pixel_mm
    x, y = half + protocol.shift[0], half + protocol.shift[1]
    return Grid(z.astype(np.float32), y.astype(np.float32), x.astype(np.float32))


def blur(volume: F32, sigmas: tuple[float, float, float]) -> F32:
    """Gaussian blur, in voxels along each axis."""
    for axis, sigma in enumerate(sigmas):
        if sigma > 0.15:
            volume = gaussian_filter1d(volume, sigma, axis=axis, mode="nearest", truncate=3.0)
    return volume


def expose(rng: np.random.Generator, true: F32, liver: npt.NDArray[np.bool_], grid: Grid, protocol: Protocol) -> F32:
    """Blur by slice profile and soft kernel, then add the band-passed noise that filtered back-projection leaves."""
    dz, dy, dx = grid.spacing
    image = blur(true, (0.30 if dz > 2.2 else 0.22 * 3.0 / dz, 0.80 / dy, 0.80 / dx))
    white = rng.standard_normal(grid.shape, dtype=np.float32)
    along = blur(white, (0.55 / dz, 0.95 / dy, 0.95 / dx))
    noise = along - np.float32(0.75) * blur(along, (0, 2.6 / dy, 2.6 / dx))
    noise *= np.float32(protocol.noise_hu) / noise[liver].std()
    # photons are scarcest in the middle of the trunk
    radius = np.sqrt((grid.x[None, :] / 170) ** 2 + (grid.y[:, None] / 120) ** 2)
    noise *= np.clip(1.18 - 0.42 * radius**2, 0.45, 1.2).astype(np.float32)
    noise += 1.3 * Field(rng, 38.0)(grid.z, grid.y, grid.x)
    image = np.clip(image + noise, -1024, 3071)
    if protocol.padding is not None:
        half = (protocol.matrix - 0.5) * protocol.pixel_mm / 2
        x, y = grid.x - protocol.shift[0], grid.y - protocol.shift[1]
        outside = (x[None, :] ** 2 + y[:, None] ** 2) > half**2
        image[:, outside] = protocol.padding
    return image if protocol.stored == "float32" else np.round(image)


def affine_of(grid: Grid) -> npt.NDArray[np.float64]:
    """The affine of an array [X, Y, Z] whose axes run to left, back and head, as NIfTI's left-to-right RAS wants it."""
    dz, dy, dx = (round(step, 4) for step in grid.spacing)
    affine = np.diag((-dx, -dy, dz, 1.0))
    affine[:3, 3] = (-float(grid.x[0]), -float(grid.y[0]), float(grid.z[0]))
    return affine


def encode(volume: npt.NDArray[np.generic], grid: Grid, orientation: str, stored: str) -> bytes:
    """A .nii.gz of [Z, Y, X] in the orientation and number format asked for; the same input gives the same bytes."""
    affine = affine_of(grid)
    change = ornt_transform(nib.io_orientation(affine), axcodes2ornt(tuple(orientation)))
    data = np.transpose(volume, (2, 1, 0))
    moved = nib.apply_orientation(data, change)
    affine = affine @ inv_ornt_aff(change, data.shape)
    slope = {"int16_offset": (1.0, -1024.0), "int16_scaled": (0.5, -1024.0)}.get(stored)
    if slope:
        moved = (moved - slope[1]) / slope[0]
    dtype = {"uint8": np.uint8, "float32": np.float32}.get(stored, np.int16)
    image = nib.Nifti1Image(np.asfortranarray(moved.astype(dtype)), affine)
    image.header.set_xyzt_units("mm")
    if slope:
        image.header.set_slope_inter(*slope)
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)
