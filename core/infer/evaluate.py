"""One case or many: infer, postprocess, measure; on whole volumes on the scan's own voxel grid."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from core.contracts import Inferer, Metric, OnLogits, Postprocess, Prediction, Rows
from core.errors import UserError
from core.measure.pair import CasePair

if TYPE_CHECKING:
    from core.data.grid import Grid
    from core.data.store import CaseInfo
    from core.data.volume import Volume

KEYS: dict[str, tuple[str, ...]] = {
    "cases": ("case", "structure"),
    "slices": ("case", "z", "structure"),
    "lesions": ("case", "side", "lesion"),
    "candidates": ("case", "candidate"),
}
"""What makes a row of a table one row, whichever metric gives its columns. Rows of other tables are not merged."""
_ROUNDING = 1e-9
WITH_PATIENT = ("cases", "lesions", "candidates")
"""Tables whose rows say the patient: intervals are taken over patients."""


@dataclass(frozen=True)
class Result:
    """What evaluating one case gives, on the scan's own canonical grid.

    Attributes:
        case: the case's id.
        labels: uint8 ``[Z, Y, X]`` after post-processing.
        image: int16 HU ``[Z, Y, X]``; interpolated where the store keeps other voxels.
        tables: rows per table; empty without a reference.
        probabilities: float16 ``[K, Z, Y, X]`` where anything asked for them.
    """

    case: str
    labels: np.ndarray
    image: np.ndarray
    tables: dict[str, Rows] = field(default_factory=dict)
    probabilities: np.ndarray | None = None


def evaluate_case(
    case: str,
    volume: Volume,
    reference: np.ndarray | None,
    *,
    inferer: Inferer,
    postprocess: Sequence[Postprocess] = (),
    metrics: Sequence[Metric] = (),
    info: CaseInfo | None = None,
    on_logits: OnLogits | None = None,
    probabilities: bool = False,
    grid: Grid | None = None,
) -> Result:
    """Infer one volume and, on the scan's own grid, post-process it and measure it where there is a reference.

    Args:
        case: the case's id; `case` of every row.
        volume: the scan as the store holds it.
        reference: uint8 ``[Z, Y, X]`` on the scan's own grid, or None.
        inferer: component of kind ``inferer``.
        postprocess: components of kind ``postprocess``, in order.
        metrics: components of kind ``metric``.
        info: says whether the spacing can be trusted; None trusts it.
        on_logits: gets the logits block by block, as for the inferer.
        probabilities: keep them for the metrics even if no post-processor asks for them.
        grid: from the scan's own grid to that of `volume`; None if it is the same.

    Raises:
        UserError: if the reference has another shape than the scan.
    """
    scan = volume.array.shape if grid is None else grid.scan
    if reference is not None and reference.shape != scan:
        raise UserError(f"case '{case}': the reference has shape {reference.shape} and the scan {scan} (z, y, x)")
    prediction, image = infer(
        volume, inferer=inferer, postprocess=postprocess, on_logits=on_logits, probabilities=probabilities, grid=grid
    )
    if reference is None:
        return Result(case, prediction.labels, image, {}, prediction.probabilities)
    pair = CasePair(
        case,
        prediction.labels,
        reference,
        volume.spacing_mm if grid is None else grid.scan_spacing_mm,
        patient="" if info is None else info.patient,
        spacing_trusted=info is None or info.spacing_trusted,
        image=image,
        probabilities=prediction.probabilities,
    )
    return Result(case, prediction.labels, image, measure(metrics, pair), prediction.probabilities)


def measure(metrics: Sequence[Metric], pair: CasePair) -> dict[str, Rows]:
    """The joined tables of all metrics of one case; rows of `WITH_PATIENT` say whose scan it is."""
    tables = merge_tables(metric.measure(pair) for metric in metrics)
    for name in WITH_PATIENT:
        for row in tables.get(name, []):
            row["patient"] = pair.patient
    return tables


def want_probabilities(metrics: Sequence[Metric]) -> bool:
    """Whether any metric says ``probabilities = True``."""
    return any(getattr(metric, "probabilities", False) for metric in metrics)


def infer(
    volume: Volume,
    *,
    inferer: Inferer,
    postprocess: Sequence[Postprocess] = (),
    on_logits: OnLogits | None = None,
    probabilities: bool = False,
    grid: Grid | None = None,
) -> tuple[Prediction, np.ndarray]:
    """One volume -> post-processed labels, and the image, both on the scan's own canonical grid.

    A new scan and a stored one go this same way, so that prediction and evaluation agree.

    Args:
        volume: on the stored grid.
        inferer: component of kind ``inferer``.
        postprocess: components of kind ``postprocess``, in order.
        on_logits: as for the inferer.
        probabilities: whether to return them, even if no post-processor asks for them.
        grid: from the scan's own grid to that of `volume`; None if it is the same.
    """
    wanted = probabilities or wants_probabilities(postprocess)
    # Labels cannot be interpolated without moving their borders.
    raw = inferer(volume, probabilities=wanted or (grid is not None and grid.resamples), on_logits=on_logits)
    found, image, spacing_mm = raw, volume.array, volume.spacing_mm
    if grid is not None:
        found, image = grid.back(raw, probabilities=wanted), grid.image_back(volume.array)
        spacing_mm = grid.scan_spacing_mm
    labels = apply_postprocess(postprocess, found.labels, spacing_mm, found.probabilities, image)
    return Prediction(labels, found.probabilities), image


def wants_probabilities(postprocess: Sequence[Postprocess]) -> bool:
    """Whether any post-processor asks for probabilities."""
    return any(_asks(step, "probabilities") for step in postprocess)


def apply_postprocess(
    postprocess: Sequence[Postprocess],
    labels: np.ndarray,
    spacing_mm: Sequence[float],
    probabilities: np.ndarray | None = None,
    image: np.ndarray | None = None,
) -> np.ndarray:
    """Run the post-processors in order; each gets `probabilities` and `image` if it asks for them by name.

    Raises:
        TypeError: if one changes shape or dtype.
    """
    for step in postprocess:
        offered = {"probabilities": probabilities, "image": image}
        out = step(labels, spacing_mm, **{name: value for name, value in offered.items() if _asks(step, name)})
        if out.shape != labels.shape or out.dtype != labels.dtype:
            raise TypeError(
                f"postprocess {type(step).__name__} must keep shape and dtype: it got {labels.dtype} {labels.shape} "
                f"and gave {out.dtype} {out.shape}"
            )
        labels = out
    return labels


def merge_tables(parts: Iterable[Mapping[str, Rows]], order: Sequence[str] | None = None) -> dict[str, Rows]:
    """Join the tables of several metrics and cases: rows with the same key become one row.

    Args:
        parts: tables of one metric and one case each, or already joined ones.
        order: case ids; rows are put in this order, however the cases were spread over processes.

    Raises:
        UserError: if two metrics give one field different values, or a row lacks its key.
    """
    merged: dict[str, Rows] = {}
    index: dict[tuple[Any, ...], dict[str, Any]] = {}
    for tables in parts:
        for table, rows in tables.items():
            target = merged.setdefault(table, [])
            for row in rows:
                key = _key(table, row)
                known = index.get(key) if key is not None else None
                if known is None:
                    target.append(dict(row))
                    if key is not None:
                        index[key] = target[-1]
                else:
                    _join(table, known, row)
    if order is not None:
        place = {case: position for position, case in enumerate(order)}
        for rows in merged.values():
            rows.sort(key=lambda row: place.get(row.get("case", ""), len(place)))
    return merged


def summarise(metrics: Sequence[Metric], tables: Mapping[str, Rows]) -> dict[str, Any]:
    """The figures of all metrics over the data set, nested as in ``summary.json``.

    Raises:
        UserError: if two metrics give one figure different values.
    """
    out: dict[str, Any] = {}
    for metric in metrics:
        _nest(out, metric.summarise(tables), ())
    return out


def _asks(component: Any, name: str) -> bool:
    return name in inspect.signature(component).parameters


def _key(table: str, row: Mapping[str, Any]) -> tuple[Any, ...] | None:
    if table not in KEYS:
        return None
    try:
        return (table, *(row[name] for name in KEYS[table]))
    except KeyError as error:
        raise UserError(
            f"a metric gives a row of table '{table}' without {error}; every row needs {', '.join(KEYS[table])}: {row}"
        ) from error


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        # The same sums in another order are the same figure; NaN equals NaN here.
        return math.isclose(a, b, rel_tol=_ROUNDING) or (a != a and b != b)
    return bool(a == b)


def _join(table: str, known: dict[str, Any], row: Mapping[str, Any]) -> None:
    for name, value in row.items():
        if name in known and not _same(known[name], value):
            where = ", ".join(f"{key} {known[key]}" for key in KEYS[table])
            raise UserError(
                f"two metrics give '{name}' of {where} different values, {known[name]} and {value}; "
                f"remove one of them from metric:, or let it use another column"
            )
        known.setdefault(name, value)


def _nest(out: dict[str, Any], new: Mapping[str, Any], path: tuple[str, ...]) -> None:
    for name, value in new.items():
        if isinstance(value, Mapping) and isinstance(out.get(name, {}), dict):
            _nest(out.setdefault(name, {}), value, (*path, name))
        elif name not in out:
            out[name] = value
        elif not _same(out[name], value):
            raise UserError(
                f"two metrics give '{'.'.join((*path, name))}' different values, {out[name]} and {value}; "
                f"remove one of them from metric:, or let it use another name"
            )
