"""Is a store what was written? Hashes, lesion ids and tables of every case, computed again from its arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from core.data import summary as summaries
from core.data.casefile import (
    SCHEMA,
    SUFFIX,
    CaseInfo,
    StoreError,
    case_files,
    open_case,
    other_schema,
    read_grid,
    read_info,
    schema_of,
)
from core.data.fingerprint import fingerprint
from core.data.ingest import content_hash, foreground_histogram
from core.data.tables import find_lesions, lesion_table, slice_tables
from core.parallel import map_cases
from registry import suggest


@dataclass
class Verified:
    """What `verify` found.

    Attributes:
        cases: how many were looked at.
        problems: (case, what differs).
    """

    root: Path
    cases: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)

    def table(self) -> str:
        """The findings as text."""
        if not self.problems:
            return f"store {self.root}: {self.cases} cases verified, all as they were written"
        bad = len({case for case, _ in self.problems})
        width = max(len(case) for case, _ in self.problems)
        lines = [f"store {self.root}: {bad} of {self.cases} cases are not as they were written:"]
        lines += [f"  {case:<{width}}  {text}" for case, text in self.problems]
        lines.append("delete the files of these cases and run tools/prepare.py again: it writes them anew")
        return "\n".join(lines)


def verify(root: Path, *, only: Sequence[str] = (), workers: int | None = None) -> Verified:
    """Read every case whole and compare it with what was recorded of it.

    Args:
        root: the store's folder.
        only: these cases alone; none: all.
        workers: processes; None: one a CPU.

    Raises:
        StoreError: if there is no store, it has no such case, or a case of another schema.
    """
    root = Path(root)
    there = case_files(root) if root.is_dir() else []
    if not there:
        raise StoreError(f"{root}: there is no store here; write one with tools/prepare.py EXPERIMENT")
    for case in only:
        if case not in there:
            raise StoreError(f"{root}: no case '{case}'{suggest(case, there)}")
    paths = [root / f"{case}{SUFFIX}" for case in (only or there)]
    for path in paths:
        schema = schema_of(path)
        if schema is not None and schema != SCHEMA:
            raise StoreError(other_schema(path, schema))
    found = Verified(root, len(paths))
    for path, result in map_cases(verify_case, paths, workers=workers, description="verify"):
        case = path.name[: -len(SUFFIX)]
        texts = [f"{type(result).__name__}: {result}"] if isinstance(result, Exception) else result
        found.problems += [(case, text) for text in texts]
    summary = summaries.read(root)
    if not only and summary.get("complete", True) and summary.get("cases", len(there)) != len(there):
        found.problems.append(("store.json", f"{summary['cases']} cases when it was written, {len(there)} now"))
    return found


def verify_case(path: Path) -> list[str]:
    """What of a case's file is not as it was written."""
    try:
        with open_case(path) as file:
            info = read_info(file)
            problems = [] if info.case == path.name[: -len(SUFFIX)] else [f"the file is of case '{info.case}'"]
            return [*problems, *_contents(file, info)]
    except StoreError as error:
        return [str(error)]


def _contents(file: h5py.File, info: CaseInfo) -> list[str]:
    problems: list[str] = []
    arrays: dict[str, np.ndarray | None] = {}
    for name in ("image", "label", "lesion", "native_label", "slices", "slice_lesions", "lesions", "fingerprint"):
        arrays[name] = _read(file, name, problems)
    image, label, histogram = arrays["image"], arrays["label"], _read(file, "foreground_histogram", problems)
    if image is None or problems:
        return problems
    _hash("image", image, info.content_hash, problems)
    if info.labelled != (label is not None):
        problems.append("label: missing" if label is None else "label: there, but the case counts as unlabelled")
    if label is not None:
        _hash("label", label, info.label_hash, problems)
    grid = read_grid(file)
    lesions = find_lesions(label if label is not None else np.zeros((0, 0, 0), np.uint8))
    per_slice, pairs = slice_tables(label, lesions, len(image))
    wanted: dict[str, np.ndarray | None] = {
        "slices": per_slice,
        "slice_lesions": pairs,
        "foreground_histogram": foreground_histogram(image, label),
        "fingerprint": fingerprint(image) if grid.identity else None,
    }
    if label is not None:
        wanted["lesions"] = lesion_table(image, label, lesions, info.spacing_mm, info.spacing_trusted)
        ids = arrays["lesion"]
        planes = lesions.planes(image.shape)
        if ids is None or any(not np.array_equal(a, b) for a, b in zip(ids, planes, strict=True)):
            problems.append("lesion: not the components of the label")
        native = arrays["native_label"]
        if not grid.identity and (native is None or not np.array_equal(grid.label(native), label)):
            problems.append("native_label: does not give the label on the stored grid")
    for name, value in wanted.items():
        there = histogram if name == "foreground_histogram" else arrays[name]
        if value is not None and (there is None or not _equal(there, value)):
            problems.append(f"{name}: not what the arrays give")
    counts = int(per_slice["liver_voxels"].sum()), int(per_slice["tumour_voxels"].sum())
    if counts != (info.liver_voxels, info.tumour_voxels):
        problems.append(
            f"liver_voxels, tumour_voxels: recorded {info.liver_voxels}, {info.tumour_voxels}, are {counts}"
        )
    return problems


def _read(file: h5py.File, name: str, problems: list[str]) -> np.ndarray | None:
    try:
        return np.asarray(file[name][...]) if name in file else None
    except OSError as error:
        problems.append(f"{name}: cannot be read ({error})")
        return None


def _hash(name: str, array: np.ndarray, recorded: str, problems: list[str]) -> None:
    found = content_hash(array)
    if found != recorded:
        problems.append(f"{name}: another content, its hash is {found[:12]} and not {recorded[:12]}")


def _equal(there: np.ndarray, wanted: np.ndarray) -> bool:
    if there.shape != wanted.shape or there.dtype.names != wanted.dtype.names:
        return False
    if wanted.dtype.names:
        return all(_equal(there[name], wanted[name]) for name in wanted.dtype.names)
    if wanted.dtype.kind != "f":
        return np.array_equal(there, wanted)
    # Another version of a library may round the last digit otherwise.
    return np.allclose(_wide(there), _wide(wanted), rtol=1e-3, atol=1e-6, equal_nan=True)


def _wide(array: np.ndarray) -> Any:
    return array.astype(np.float64)
