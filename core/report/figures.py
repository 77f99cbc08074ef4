"""Figures of an evaluation: how Dice is distributed, and what the best, median and worst cases look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from core.contracts import Rows
from core.measure.overlap import values
from core.measure.pair import Structure
from core.report.tables import number, whole_file
from core.values import BACKGROUND, TUMOUR

WINDOW_HU = (-160, 240)
# Okabe and Ito's palette, which colour-blind readers tell apart; line styles say the same once more.
REFERENCE, PREDICTION = "#56B4E9", "#E69F00"
DASHES: Any = (0, (3.0, 1.6))
COLOURS: dict[str, str] = {"liver": "#0072B2", "tumour": "#D55E00"}
STYLE: Any = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
}


@dataclass(frozen=True)
class Panel:
    """One slice of one case for the overlays.

    Attributes:
        case: the case's id.
        z: the slice's index from the feet.
        image: int16 HU ``[Y, X]``.
        pred: predicted labels ``[Y, X]``.
        reference: reference labels ``[Y, X]``.
        spacing_yx: of the pixels, in mm.
    """

    case: str
    z: int
    image: np.ndarray
    pred: np.ndarray
    reference: np.ndarray
    spacing_yx: tuple[float, float]


def choose_slice(pred: np.ndarray, reference: np.ndarray) -> int:
    """The slice with the greatest reference tumour area or, without a tumour, with the most wrong voxels."""
    tumour = np.array([np.count_nonzero(r == TUMOUR) for r in reference])
    if tumour.any():
        return int(tumour.argmax())
    wrong = np.array([np.count_nonzero(p != r) for p, r in zip(pred, reference, strict=True)])
    if wrong.any():
        return int(wrong.argmax())
    return int(np.array([np.count_nonzero(r) for r in reference]).argmax())


def make_panel(
    case: str, image: np.ndarray, pred: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]
) -> Panel:
    """The slice of a case that the overlays show; copies, so that the volumes can go."""
    z = choose_slice(pred, reference)
    spacing_yx = (float(spacing_mm[1]), float(spacing_mm[2]))
    return Panel(case, z, image[z].copy(), pred[z].copy(), reference[z].copy(), spacing_yx)


def choose_cases(rows: Rows) -> list[tuple[str, str]]:
    """Best, median and worst case by tumour Dice, as (rank, case); fewer if there are fewer cases.

    Cases with no tumour on either side score 1 by policy and show nothing: they stand back while there are others.
    Where no case has a tumour on either side, the liver's Dice decides.
    """
    scored = _ranked([row for row in rows if row["structure"] == "tumour" and not _empty(row)])
    if not scored:
        scored = _ranked([row for row in rows if row["structure"] == "liver"])
    if not scored:
        return []
    places = {"best": len(scored) - 1, "median": (len(scored) - 1) // 2, "worst": 0}
    if len(scored) < 3:
        places = {"best": len(scored) - 1, "worst": 0} if len(scored) == 2 else {"only case": 0}
    return [(rank, scored[place]) for rank, place in places.items()]


def _empty(row: Mapping[str, Any]) -> bool:
    return not row.get("voxels_pred") and not row.get("voxels_ref")


def _ranked(rows: Rows) -> list[str]:
    scored = [(row["dice"], place, row["case"]) for place, row in enumerate(rows) if row.get("dice") is not None]
    return [case for *_, case in sorted(scored)]


def dice_distribution(path: Path, tables: Mapping[str, Rows], *, title: str) -> None:
    """Draw how Dice is distributed per slice and per case, for liver and tumour."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.9), layout="constrained")
        figure.suptitle(title, fontsize=11, fontweight="bold")
        structures: tuple[Structure, ...] = ("liver", "tumour")
        axes = figure.subplots(1, 2, sharey=True)
        for axis, structure in zip(axes, structures, strict=True):
            _distribution(axis, tables, structure)
        axes[0].set_ylabel("Dice")
        figure.text(
            0.5,
            -0.01,
            "Box: quartiles and median (from four values on); diamond: mean. Slices: those with the structure in "
            "either mask.\nOpen circles: cases without a tumour in the reference (1 if none was predicted, else 0).",
            ha="center",
            va="top",
            fontsize=7.5,
            color="0.35",
        )
        with whole_file(path) as file:
            figure.savefig(file, format="png", dpi=200, bbox_inches="tight", pad_inches=0.12)


def _distribution(axis: Axes, tables: Mapping[str, Rows], structure: Structure) -> None:
    colour = COLOURS[structure]
    case_rows = [row for row in tables.get("cases", []) if row["structure"] == structure]
    slice_rows = [row for row in tables.get("slices", []) if row["structure"] == structure]
    labels = []
    for x, (name, rows) in enumerate((("slices", slice_rows), ("cases", case_rows))):
        scores = values(rows, "dice")
        keep = np.isfinite(scores)
        scores = scores[keep]
        median = float(np.median(scores)) if len(scores) else None
        labels.append(f"{len(scores)} {name if len(scores) != 1 else name[:-1]}\nmedian {number(median)}")
        if not len(scores):
            continue
        if name == "slices":
            _violin(axis, x, scores, colour)
        else:
            filled = np.array([structure == "liver" or bool(row.get("voxels_ref")) for row in rows])[keep]
            _points(axis, x, scores, filled, colour)
        if len(scores) >= 4:  # quartiles of fewer would hide the points they come from
            _box(axis, x, scores, fill="white" if name == "slices" else "none")
    axis.set_title(structure.capitalize(), color=colour, fontweight="bold")
    axis.set_xticks((0, 1), labels)
    axis.tick_params(axis="x", length=0)
    axis.set_xlim(-0.6, 1.6)
    axis.set_ylim(-0.03, 1.03)
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.grid(axis="y", color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)


def _violin(axis: Axes, x: float, scores: np.ndarray, colour: str) -> None:
    # A histogram of fixed bins and not a kernel estimate, which would draw scores below 0 and above 1.
    counts, edges = np.histogram(scores, bins=40, range=(0, 1))
    smooth = np.convolve(np.pad(counts, 2, mode="reflect"), (0.1, 0.2, 0.4, 0.2, 0.1), mode="valid")
    width = 0.4 * smooth / smooth.max()
    centres = (edges[:-1] + edges[1:]) / 2
    y = np.concatenate(([0], centres, [1]))
    width = np.concatenate((width[:1], width, width[-1:]))
    axis.fill_betweenx(y, x - width, x + width, color=colour, alpha=0.25, linewidth=0)


def _points(axis: Axes, x: float, scores: np.ndarray, filled: np.ndarray, colour: str) -> None:
    order = np.argsort(scores, kind="stable")
    spread = np.empty(len(scores))
    # Neighbours in rank go apart in a fixed pattern, so that the picture is the same every time.
    spread[order] = ((np.arange(len(scores)) * 0.618034) % 1 - 0.5) * 0.56
    for hollow in (False, True):
        take = filled != hollow
        if take.any():
            axis.scatter(
                x + spread[take],
                scores[take],
                s=16,
                facecolors="white" if hollow else colour,
                edgecolors=colour,
                linewidths=0.9,
                alpha=0.9,
                zorder=2.5,
            )


def _box(axis: Axes, x: float, scores: np.ndarray, *, fill: str) -> None:
    low, middle, high = np.quantile(scores, (0.25, 0.5, 0.75))
    axis.fill_between((x - 0.08, x + 0.08), low, high, facecolor=fill, edgecolor="0.15", linewidth=1, zorder=3)
    axis.plot((x - 0.08, x + 0.08), (middle, middle), color="0.15", linewidth=2, solid_capstyle="butt", zorder=4)
    axis.plot(x, scores.mean(), marker="D", markersize=4.5, markerfacecolor="white", markeredgecolor="0.15", zorder=5)


def overlays(path: Path, panels: Sequence[tuple[str, Panel]], rows: Rows, *, title: str) -> None:
    """Draw one column a case: the CT, and the same with the contours of reference and prediction.

    Args:
        path: the PNG to write.
        title: above all.
        panels: (rank, panel), as `choose_cases` ranks them.
        rows: the ``cases`` table, for the scores in the titles.
    """
    scores = {(row["case"], row["structure"]): row.get("dice") for row in rows}
    with matplotlib.rc_context(STYLE):
        boxes = [_view(panel) for _, panel in panels]
        layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.0)
        height = 3.0 * max(_tall(panel, box) for (_, panel), box in zip(panels, boxes, strict=True))
        figure = Figure(figsize=(max(4.6, 3.0 * len(panels) + 0.2), 2 * height + 0.95), layout=layout)
        figure.suptitle(title, fontsize=11, fontweight="bold")
        axes = figure.subplots(2, len(panels), squeeze=False)
        for column, ((rank, panel), box) in enumerate(zip(panels, boxes, strict=True)):
            for axis in axes[:, column]:
                _slice(axis, panel, box)
            _contours(axes[1, column], panel, box)
            dice = {name: number(scores.get((panel.case, name))) for name in ("tumour", "liver")}
            axes[0, column].set_title(
                f"{rank.capitalize()}: case {panel.case}, slice {panel.z}\n"
                f"Dice tumour {dice['tumour']}, liver {dice['liver']}",
                fontsize=9,
            )
        figure.legend(handles=_legend(), loc="outside lower center", ncols=2 if len(panels) < 2 else 4, frameon=False)
        with whole_file(path) as file:
            figure.savefig(file, format="png", dpi=200)


def _view(panel: Panel) -> tuple[slice, slice]:
    """A square in mm around both livers with a margin, inside the image."""
    found = np.argwhere((panel.pred != BACKGROUND) | (panel.reference != BACKGROUND))
    height, width = panel.image.shape
    if not len(found):
        return slice(0, height), slice(0, width)
    low, high = found.min(axis=0), found.max(axis=0) + 1
    side_mm = max((high - low) * panel.spacing_yx) * 1.25
    out = []
    for first, last, spacing, size in zip(low, high, panel.spacing_yx, (height, width), strict=True):
        side = min(size, round(side_mm / spacing))
        start = int(np.clip((first + last - side) // 2, 0, size - side))
        out.append(slice(start, start + side))
    return out[0], out[1]


def _tall(panel: Panel, box: tuple[slice, slice]) -> float:
    height, width = ((s.stop - s.start) * mm for s, mm in zip(box, panel.spacing_yx, strict=True))
    return min(2.0, height / width)


def _slice(axis: Axes, panel: Panel, box: tuple[slice, slice]) -> None:
    low, high = WINDOW_HU
    aspect = panel.spacing_yx[0] / panel.spacing_yx[1]
    axis.imshow(panel.image[box], cmap="gray", vmin=low, vmax=high, interpolation="bilinear", aspect=aspect)
    axis.set_axis_off()


def _contours(axis: Axes, panel: Panel, box: tuple[slice, slice]) -> None:
    limits = axis.get_xlim(), axis.get_ylim()  # contour() widens them by the padding
    for labels, colour, dash in ((panel.reference, REFERENCE, "solid"), (panel.pred, PREDICTION, DASHES)):
        for mask, width in ((labels != BACKGROUND, 1.1), (labels == TUMOUR, 1.8)):
            # Padded, so that a mask that reaches the picture's edge is closed there.
            padded = np.pad(mask[box], 1).astype(np.float32)
            if padded.any():
                y, x = (np.arange(n) - 1 for n in padded.shape)
                axis.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=width, linestyles=[dash])
    axis.set_xlim(limits[0])
    axis.set_ylim(limits[1])


def _legend() -> list[Any]:
    entries: list[tuple[str, str, Any]] = [("reference", REFERENCE, "solid"), ("prediction", PREDICTION, DASHES)]
    return [
        Line2D([], [], color=colour, linestyle=dash, linewidth=width, label=f"{structure}, {side}")
        for structure, width in (("liver", 1.1), ("tumour", 2.2))
        for side, colour, dash in entries
    ]
