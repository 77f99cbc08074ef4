"""Curves of the report: recall against false positives, and how far predicted probabilities come true."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from core.report.drawing import Drawing, marker, share_axis, short


def froc(curve: Sequence[Sequence[float]], at: Mapping[str, Any]) -> Markup:
    """Recall against false positives a case, on a scale that doubles; the points that are usually quoted are marked."""
    marks = [(float(name), value) for name, value in at.items() if value is not None]
    says = "; ".join(f"recall {short(value)} at {name:g} false positives a case" for name, value in marks)
    out = Drawing(400, 236, "Free-response ROC", says or "no point")
    left, right, top, bottom = 40, 388, 24, 188
    share_axis(out, left, right, top, bottom)

    def across(fp: float) -> float:
        return left + (math.log2(min(8.0, max(0.125, fp))) + 3) / 6 * (right - left)

    for tick in (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0):
        out.line(across(tick), top, across(tick), bottom, "grid")
        out.text(across(tick), bottom + 15, {0.125: "1/8", 0.25: "1/4", 0.5: "1/2"}.get(tick, f"{tick:g}"), "small")
    steps: list[str] = []
    last = 0.0
    for fp, recall in sorted((float(p[0]), float(p[1])) for p in curve):
        if fp > 8:
            break
        steps += [f"{across(fp):.1f},{bottom - last * (bottom - top):.1f}"] if steps else []
        steps.append(f"{across(fp):.1f},{bottom - recall * (bottom - top):.1f}")
        last = recall
    if steps:
        steps.append(f"{right},{bottom - last * (bottom - top):.1f}")
        out.add("polyline", "curve recall", points=" ".join(steps))
    for fp, recall in marks:
        marker(out, "recall", across(fp), bottom - recall * (bottom - top), f"recall {short(recall)} at {fp:g} a case")
    out.text((left + right) / 2, bottom + 33, "false positives a case", "small")
    out.text(left - 30, top - 12, "recall", "small", "start")
    return out.done()


def reliability(bins: Sequence[Mapping[str, Any]]) -> Markup:
    """Observed share of tumour against the mean predicted probability; on the dashed line probabilities come true.

    Args:
        bins: each with predicted, observed and voxels.
    """
    known = [one for one in bins if one.get("voxels") and one.get("predicted") is not None]
    says = "; ".join(f"predicted {short(one['predicted'])}, observed {short(one['observed'])}" for one in known)
    out = Drawing(400, 236, "Reliability", says or "no voxel")
    left, right, top, bottom = 40, 388, 14, 188
    share_axis(out, left, right, top, bottom)
    out.line(left, bottom, right, top, "split")
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        out.text(left + tick * (right - left), bottom + 15, f"{tick:g}", "small")
    places = [
        (left + one["predicted"] * (right - left), bottom - one["observed"] * (bottom - top), one) for one in known
    ]
    if len(places) > 1:
        out.add("polyline", "curve recall", points=" ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places))
    for x, y, one in places:
        about = f"predicted {short(one['predicted'])}, observed {short(one['observed'])}, {one['voxels']} voxels"
        marker(out, "recall", x, y, about)
    out.text((left + right) / 2, bottom + 33, "mean predicted probability; upwards: share that is tumour", "small")
    return out.done()
