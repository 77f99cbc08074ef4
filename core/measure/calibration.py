"""Whether probabilities mean what they say, from voxels counted in bins; definitions in docs/metrics.md."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Bins:
    """Voxels of equally wide bins of probability; those of several cases may be added.

    Attributes:
        voxels: how many, ``[bins]``.
        predicted: the sum of their probabilities, ``[bins]``.
        observed: how many of them are what the probability is about, ``[bins]``.
        squares: the sum of (probability - observed)^2, ``[bins]``.
    """

    voxels: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray
    squares: np.ndarray

    def ece(self) -> float | None:
        """Expected calibration error: mean distance of probability and frequency over bins, weighted by voxels.

        Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015.
        """
        total = self.voxels.sum()
        return float(np.abs(self.predicted - self.observed).sum() / total) if total else None

    def brier(self) -> float | None:
        """Brier score: mean squared distance of probability and truth, whatever the bins (Brier 1950)."""
        total = self.voxels.sum()
        return float(self.squares.sum() / total) if total else None


def count_bins(probability: np.ndarray, truth: np.ndarray, bins: int) -> Bins:
    """Count voxels into bins of equal width over [0, 1]; each holds its lower end, the last one its upper end too.

    Args:
        probability: ``[N]``.
        truth: bool ``[N]``.
        bins: how many.
    """
    exact = probability.astype(np.float64)
    which = np.clip((exact * bins).astype(np.intp), 0, bins - 1)
    voxels, predicted, observed, squares = (
        np.bincount(which, weights=weights, minlength=bins)
        for weights in (None, exact, truth.astype(np.float64), (exact - truth) ** 2)
    )
    return Bins(voxels, predicted, observed, squares)
