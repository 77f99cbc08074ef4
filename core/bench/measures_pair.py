"""Pairs of label volumes made on the fly, for measuring metrics: a liver, its lesions, and a prediction of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIDE = 512
_MM = 0.77
_HEIGHT_MM = 275
_HALF_MM = np.array([72.0, 68.0, 92.0])
"""Of the liver, z, y, x."""

_Waves = list[tuple[float, np.ndarray, np.ndarray]]
_Ball = tuple[np.ndarray, float]


@dataclass(frozen=True)
class LabelPair:
    """Labels of prediction and reference, uint8 ``[Z, Y, X]``, and the spacing in mm."""

    pred: np.ndarray
    ref: np.ndarray
    spacing_mm: tuple[float, float, float]

    @property
    def volumes(self) -> int:
        """Bytes of both label volumes."""
        return self.pred.nbytes + self.ref.nbytes


def label_pair(slices: int, lesions: int, number: int = 0, side: int = SIDE) -> LabelPair:
    """A liver of about 1.9 l in side x side x slices voxels; its border is predicted about 1.5 mm off, with one leak.

    About one lesion in seven is missed, and as many are invented; the others are a little off. Another number is
    another pair.

    Args:
        slices: of the whole volume, 275 mm high.
        lesions: in the reference, radii of 3 to 18 mm.
        number: of the pair.
        side: rows and columns, 394 mm wide.
    """
    rng = np.random.default_rng(number)
    spacing = np.array([_HEIGHT_MM / slices, _MM * SIDE / side, _MM * SIDE / side])
    middle = np.array([0.5, 0.47, 0.4]) * [slices, side, side] * spacing
    shape, off = _waves(rng, 0.12, 90), _waves(rng, 0.08, 40)
    balls = [_ball(rng, middle) for _ in range(lesions)]
    kept = [ball for i, ball in enumerate(balls) if i % 7 != 3]
    moved = [(at + rng.normal(0, 0.8, 3), radius * rng.uniform(0.85, 1.15)) for at, radius in kept]
    invented = [_ball(rng, middle) for _ in range(lesions // 7)]
    leak = (middle + _HALF_MM * [0.2, -0.3, -0.95], 14.0)
    ref, pred = (np.zeros((slices, side, side), np.uint8) for _ in range(2))
    for z in range(slices):
        at = _slice(z, spacing, middle, shape)
        if at is None:
            continue
        window, points, level = at
        ref[z][window][level <= 1] = 1
        pred[z][window][(level + _wave(off, points) <= 1) | _near(points, leak)] = 1
        for labels, tumours in ((ref, balls), (pred, [*moved, *invented])):
            for ball in tumours:
                if abs(ball[0][0] - z * spacing[0]) <= ball[1]:
                    inside = _near(points, ball) & (labels[z][window] > 0)
                    labels[z][window][inside] = 2
    return LabelPair(pred, ref, (float(spacing[0]), float(spacing[1]), float(spacing[2])))


def _slice(
    z: int, spacing: np.ndarray, middle: np.ndarray, shape: _Waves
) -> tuple[tuple[slice, slice], tuple[float, np.ndarray, np.ndarray], np.ndarray] | None:
    """Where the liver may be in a slice, in voxels and in mm, and how far out each place is; 1 is its border."""
    if abs(z * spacing[0] - middle[0]) > 1.35 * _HALF_MM[0]:
        return None
    rows, columns = (
        slice(int((m - 1.35 * h) / s), int((m + 1.35 * h) / s) + 1)
        for m, h, s in zip(middle[1:], _HALF_MM[1:], spacing[1:], strict=True)
    )
    y, x = (np.arange(w.start, w.stop) * s for w, s in zip((rows, columns), spacing[1:], strict=True))
    points = (z * float(spacing[0]), y[:, None], x[None, :])
    level = sum(((axis - m) / h) ** 2 for axis, m, h in zip(points, middle, _HALF_MM, strict=True))
    return (rows, columns), points, level + _wave(shape, points)


def _waves(rng: np.random.Generator, height: float, length_mm: float) -> _Waves:
    """Six standing waves of about one length, which make a border uneven."""
    out = []
    for _ in range(6):
        pace = 2 * np.pi / (length_mm * rng.uniform(0.7, 1.4, 3))
        out.append((height * rng.uniform(0.5, 1), pace, rng.uniform(0, 2 * np.pi, 3)))
    return out


def _wave(waves: _Waves, points: tuple[float, np.ndarray, np.ndarray]) -> np.ndarray:
    z, y, x = points
    total = np.zeros((y.shape[0], x.shape[1]))
    for height, pace, start in waves:
        depth = height * np.sin(pace[0] * z + start[0])
        total += depth * np.sin(pace[1] * y + start[1]) * np.sin(pace[2] * x + start[2])
    return total


def _ball(rng: np.random.Generator, middle: np.ndarray) -> _Ball:
    way = rng.normal(size=3)
    inside = way / np.linalg.norm(way) * rng.uniform(0, 0.85) ** (1 / 3) * _HALF_MM
    return middle + inside * 0.85, float(np.exp(rng.uniform(np.log(3), np.log(18))))


def _near(points: tuple[float, np.ndarray, np.ndarray], ball: _Ball) -> np.ndarray:
    z, y, x = points
    (at_z, at_y, at_x), radius = ball
    return (y - at_y) ** 2 + (x - at_x) ** 2 <= radius**2 - (z - at_z) ** 2
