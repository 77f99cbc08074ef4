"""What a sampler drew over an epoch: a picture and a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from core.contracts import Record
from core.data.drawn import bin_names, size_bin, statistics
from core.report.figures import COLOURS, STYLE
from core.report.tables import whole_file

_EMPTY = "0.75"
_STRETCHES = 48
"""Stretches of the order that shares are taken over."""
_BARS = 60
"""Bars that can be told apart; more are drawn as a filled step."""

Lesion = tuple[str, int]


@dataclass(frozen=True)
class Drawn:
    """An order, counted.

    Attributes:
        kinds: of each sample in the order 0 tumour, 1 liver, 2 neither.
        cases: times that each case was drawn with tumour, and without.
        lesions: times that each lesion of the records was shown.
        diameters_mm: of each of them.
    """

    kinds: np.ndarray
    cases: dict[str, tuple[int, int]]
    lesions: dict[Lesion, int]
    diameters_mm: dict[Lesion, float]

    def by_size(self) -> list[tuple[str, int, int]]:
        """Name of each size bin, the lesions there are in it, and how often lesions of it were shown."""
        there, shown = Counter[int](), Counter[int]()
        for lesion, diameter in self.diameters_mm.items():
            there[size_bin(diameter)] += 1
            shown[size_bin(diameter)] += self.lesions[lesion]
        return [(name, there[i], shown[i]) for i, name in enumerate(bin_names())]


def count(records: Sequence[Record], order: Sequence[int]) -> Drawn:
    """Count what an order shows of the records."""
    kinds = np.array([0 if r.tumour_voxels else 1 if r.liver_voxels else 2 for r in records])[np.asarray(order)]
    cases = {r.case: [0, 0] for r in records}
    lesions: dict[Lesion, int] = {}
    diameters: dict[Lesion, float] = {}
    for record in records:
        sizes = record.diameters_mm or (math.nan,) * len(record.lesions)
        for lesion, diameter in zip(record.lesions, sizes, strict=True):
            lesions[record.case, lesion], diameters[record.case, lesion] = 0, diameter
    for index in order:
        record = records[index]
        cases[record.case][record.tumour_voxels == 0] += 1
        for lesion in record.lesions:
            lesions[record.case, lesion] += 1
    return Drawn(kinds, {case: (a, b) for case, (a, b) in cases.items()}, lesions, diameters)


def table(records: Sequence[Record], order: Sequence[int]) -> str:
    """The figures of an order as text."""
    figures, drawn = statistics(records, order), count(records, order)
    shares = ", ".join(f"{100 * figures[name]:.1f} % {name}" for name in ("tumour", "liver", "empty"))
    times = [a + b for a, b in drawn.cases.values()]
    lines = [
        f"samples    {len(order)}, {len(set(order))} different ones of {len(records)}; {shares}",
        f"cases      {sum(t > 0 for t in times)} of {len(times)}, each {min(times)} to {max(times)} times",
    ]
    if drawn.lesions:
        shown = list(drawn.lesions.values())
        lines.append(f"lesions    {sum(n > 0 for n in shown)} of {len(shown)}, each {min(shown)} to {max(shown)} times")
        total = max(sum(shown), 1)
        for name, there, times_shown in drawn.by_size():
            if there:
                share, drawn_share = 100 * there / len(shown), 100 * times_shown / total
                lines.append(
                    f"  {name:<9}{there} lesions shown {times_shown} times: {share:.1f} % of the lesions, "
                    f"{drawn_share:.1f} % of those drawn"
                )
    return "\n".join(lines)


def draw(path: Path, records: Sequence[Record], order: Sequence[int], *, title: str) -> None:
    """Draw what an order shows: kinds of samples along it, lesion sizes, draws of each case and of each lesion.

    Args:
        path: a PNG file.
        records: what was drawn from.
        order: positions in `records`.
        title: of the picture; says what is synthetic.
    """
    drawn = count(records, order)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 6.4), layout="constrained")
        axes = figure.subplots(2, 2)
        _along(axes[0, 0], drawn)
        _sizes(axes[0, 1], drawn)
        _cases(axes[1, 0], drawn)
        _lesions(axes[1, 1], drawn)
        figure.suptitle(title, fontweight="bold", fontsize=11)
        with whole_file(path) as file:
            figure.savefig(file, format="png", dpi=150)


def _along(axis: Axes, drawn: Drawn) -> None:
    edges = np.linspace(0, len(drawn.kinds), min(_STRETCHES, len(drawn.kinds)) + 1).astype(int)
    shares = [np.array([np.mean(drawn.kinds[a:b] == kind) for a, b in pairwise(edges)]) for kind in range(3)]
    colours = (COLOURS["tumour"], COLOURS["liver"], _EMPTY)
    bottom = np.zeros(len(edges) - 1)
    for share, colour, name in zip(shares, colours, ("tumour", "liver, no tumour", "neither"), strict=True):
        axis.stairs(bottom + share, edges, baseline=bottom, fill=True, color=colour, label=name)
        bottom = bottom + share
    axis.set(xlim=(0, edges[-1]), ylim=(0, 1), xlabel="position in the epoch", ylabel="share of samples")
    axis.set_title("what the samples show, along the order")
    axis.legend(fontsize=8, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))


def _sizes(axis: Axes, drawn: Drawn) -> None:
    rows = [row for row in drawn.by_size() if row[1]]
    axis.set_title("lesion sizes: there, and drawn")
    if not rows:
        return _nothing(axis, "no sample names a lesion")
    there, shown = (np.array([row[i] for row in rows], float) for i in (1, 2))
    places = np.arange(len(rows))
    for values, shift, colour, name in (
        (there, -0.2, _EMPTY, f"of {there.sum():.0f} lesions"),
        (shown, 0.2, COLOURS["tumour"], f"of {shown.sum():.0f} times that one was shown"),
    ):
        bars = axis.bar(places + shift, values / max(values.sum(), 1), 0.38, color=colour, label=name)
        axis.bar_label(bars, [f"{v:.0f}" for v in values], fontsize=8)
    axis.set_xticks(places, [_words(row[0]) for row in rows])
    axis.set(ylabel="share", xlabel="equivalent diameter")
    axis.margins(y=0.12)
    axis.legend(fontsize=8, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))


def _cases(axis: Axes, drawn: Drawn) -> None:
    with_tumour, without = np.array(sorted(drawn.cases.values(), key=sum, reverse=True)).T
    axis.set_title(f"draws of each of {len(with_tumour)} cases")
    _bars(axis, with_tumour, 0 * with_tumour, COLOURS["tumour"], "with tumour")
    _bars(axis, without, with_tumour, COLOURS["liver"], "without")
    axis.set(xlabel="cases, the most drawn first", ylabel="times drawn")
    axis.legend(fontsize=8, frameon=False, loc="upper right")
    axis.margins(y=0.3)


def _lesions(axis: Axes, drawn: Drawn) -> None:
    axis.set_title(f"draws of each of {len(drawn.lesions)} lesions")
    if not drawn.lesions:
        return _nothing(axis, "no sample names a lesion")
    sizes = np.array([drawn.diameters_mm[lesion] for lesion in drawn.lesions])
    shown = np.array(list(drawn.lesions.values()))
    known = np.isfinite(sizes)
    axis.scatter(sizes[known], shown[known], 14, COLOURS["tumour"], alpha=0.5, linewidths=0)
    axis.set(xlabel="equivalent diameter in mm", ylabel="times shown")
    if known.any():
        axis.set_xlim(left=0)
    if not known.all():
        # An axis of their own would look like a size.
        low, high = shown[~known].min(), shown[~known].max()
        text = f"{(~known).sum()} of unknown size: {low} to {high} times"
        axis.annotate(text, (0.98, 0.95), xycoords="axes fraction", ha="right", fontsize=8)
    axis.set_ylim(0, max(shown.max() * 1.15, 1))


def _bars(axis: Axes, values: np.ndarray, bottom: np.ndarray, colour: str, name: str) -> None:
    if len(values) <= _BARS:
        axis.bar(np.arange(len(values)), values, 0.8, bottom=bottom, color=colour, label=name)
    else:
        edges = np.arange(len(values) + 1)
        axis.stairs(bottom + values, edges, baseline=bottom, fill=True, color=colour, label=name)


def _words(name: str) -> str:
    low, _, high = name.removesuffix("mm").partition("_")
    return name if not high else f"from {low.removesuffix('mm')} mm" if high == "up" else f"{low} to {high} mm"


def _nothing(axis: Axes, text: str) -> None:
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color="0.4")
    axis.set_xticks([])
    axis.set_yticks([])
