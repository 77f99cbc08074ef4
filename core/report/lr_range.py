"""The picture of a learning-rate range test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from core.report.figures import COLOURS, STYLE
from core.report.tables import whole_file

if TYPE_CHECKING:
    from core.train.lr_range import Curve, Suggestion


def draw(path: Path, curve: Curve, found: Suggestion, *, title: str) -> None:
    """Draw the loss over the learning rate, raw and smoothed, with the rates of note."""
    same = found.rate is not None and found.steepest is not None and abs(found.rate / found.steepest - 1) < 0.05
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        axis = figure.subplots()
        axis.plot(curve.rates, curve.losses, color="0.7", linewidth=1, label="loss of each step")
        axis.plot(curve.rates, curve.smoothed, color=COLOURS["liver"], linewidth=2, label="smoothed")
        for name, rate, colour, dash in (
            ("steepest fall", None if same else found.steepest, "0.3", "--"),
            ("loss above its beginning", found.diverged, "0.3", ":"),
            ("suggestion", found.rate, COLOURS["tumour"], "-"),
        ):
            if rate is not None:
                axis.axvline(rate, color=colour, linestyle=dash, linewidth=1.5, label=f"{name}: {rate:.1e}")
        # An explosion must not press all the rest flat.
        shown = np.concatenate([curve.smoothed, np.minimum(curve.losses, np.nanmax(curve.smoothed))])
        shown = shown[np.isfinite(shown)]
        if len(shown):
            margin = 0.08 * max(float(np.ptp(shown)), 1e-6)
            axis.set_ylim(shown.min() - margin, shown.max() + margin)
        axis.set_xscale("log")
        axis.set_xlabel("learning rate")
        axis.set_ylabel("training loss")
        axis.set_title(title, fontweight="bold")
        axis.grid(axis="y", color="0.9", linewidth=0.8)
        axis.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
        with whole_file(path) as file:
            figure.savefig(file, format="png", dpi=200)
