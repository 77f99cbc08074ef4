"""Files of an older schema -> the present one, from what they hold; the raw scans are not needed."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from core.data.casefile import SCHEMA, SUFFIX, StoreError, case_files, damaged, open_case, other_schema
from core.data.fingerprint import fingerprint
from core.data.grid import Grid
from core.data.ingest import content_hash, flush, foreground_histogram, grid_attributes
from core.data.signature import signature_of

CHANGES = {
    1: "part and external (none: the source says so at the next prepare), the label's hash, the fingerprint, the "
    "histogram of liver and tumour HU, the scan's own grid",
}
"""What a step from each older schema adds."""


@dataclass
class Migration:
    """What was brought to the present schema.

    Attributes:
        done: cases, by the schema that they came from.
        failed: (case, what is wrong); their files are as they were.
    """

    root: Path
    done: dict[int, list[str]] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def table(self) -> str:
        """The report as text."""
        lines = []
        for schema, cases in sorted(self.done.items()):
            count = f"{len(cases)} case{'s' if len(cases) != 1 else ''}"
            lines.append(f"store {self.root}: {count} brought from schema {schema} to {SCHEMA}")
            lines.append(f"  added: {CHANGES[schema]}")
            lines.append("  kept: every array, its hash, its tables")
        lines += [f"  not brought over: {case}  {text}" for case, text in self.failed]
        return "\n".join(lines) or f"store {self.root}: nothing to bring over, all cases have schema {SCHEMA}"


def migrate(root: Path) -> Migration:
    """Bring every case of a store to the present schema, a file at a time, each whole or not at all.

    The caller holds the store's lock.

    Raises:
        StoreError: if a file is of a later schema; nothing is changed then.
    """
    found = Migration(root)
    old: list[tuple[str, int]] = []
    for case in case_files(root):
        try:
            with open_case(root / f"{case}{SUFFIX}", any_schema=True) as file:
                schema = file.attrs.get("schema")
        except StoreError as error:
            found.failed.append((case, str(error)))
            continue
        if isinstance(schema, np.integer) and int(schema) in CHANGES:
            old.append((case, int(schema)))
        elif schema != SCHEMA:
            raise StoreError(other_schema(root / f"{case}{SUFFIX}", schema))
    for case, schema in old:
        path = root / f"{case}{SUFFIX}"
        partial = root / f".{path.name}.{os.getpid()}.partial"
        try:
            shutil.copyfile(path, partial)
            with h5py.File(partial, "r+", locking=False) as file:
                _from_1(file)
            flush(partial)
            os.replace(partial, path)
            found.done.setdefault(schema, []).append(case)
        except (KeyError, ValueError) as error:
            found.failed.append((case, damaged(path, error)))
        except OSError as error:
            if error.errno is not None:  # the disk, not the file's content
                raise StoreError(f"{root}: {error}; mend that and run again, it goes on from here") from error
            found.failed.append((case, damaged(path, error)))
        finally:
            partial.unlink(missing_ok=True)
    return found


def _from_1(file: h5py.File) -> None:
    a = file.attrs
    image = file["image"][...]
    label = file["label"][...] if "label" in file else None
    z, y, x = image.shape
    spacing = tuple(float(s) for s in a["spacing_mm"])
    grid = Grid((z, y, x), spacing, ((0, z), (0, y), (0, x)), (z, y, x))  # type: ignore[arg-type]
    added: dict[str, Any] = {
        "schema": SCHEMA,
        "part": "",
        "external": False,
        "series": "",
        "label_hash": "" if label is None else content_hash(label),
        "signature": _signature(str(a["signature"])),
        **grid_attributes(grid, np.asarray(a["affine"])),
    }
    for name, value in added.items():
        a[name] = value
    file["fingerprint"] = fingerprint(image)
    file["foreground_histogram"] = foreground_histogram(image, label)


def _signature(old: str) -> str:
    """The present signature of what an old one says, so that the next prepare finds the case unchanged."""
    try:
        schema, compression, image, label, _, _, spacing, hu, repairs, labelled = json.loads(old)
    except ValueError:
        return ""
    if schema != 1:
        return ""
    return signature_of(
        compression=compression,
        image=image,
        label=label,
        labelled=labelled,
        read=("", (), tuple(repairs), spacing, hu),
    )
