"""What tells whether a stored case is unchanged: its files' stamps, and what decides how they are read and stored."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from core.contracts import Case
from core.data.casefile import Compression
from core.data.summary import grid_key
from core.settings import PrepareSettings


def signature(case: Case, compression: Compression, settings: PrepareSettings) -> str:
    """The signature of a case as it would be stored now."""
    return signature_of(
        compression=compression,
        image=stamp(case.image, case.series),
        label=stamp(case.label),
        labelled=case.label is not None,
        read=(case.series, case.label_map, case.repairs, case.spacing_trusted, case.hu_trusted),
        settings=settings,
    )


def signature_of(
    *,
    compression: str,
    image: Any,
    label: Any,
    labelled: bool,
    read: tuple[Any, ...],
    settings: PrepareSettings | None = None,
) -> str:
    """A signature from its parts.

    Args:
        compression: of the stored arrays.
        image: stamp of the scan.
        label: stamp of the label.
        labelled: whether the source gives a label.
        read: series, label map, repairs, and whether spacing and HU can be trusted.
        settings: None is a store neither cropped nor resampled.
    """
    grid = grid_key(settings or PrepareSettings())
    return json.dumps(["2", compression, image, label, labelled, *read, grid])


def stamp(path: Path | None, series: str = "") -> Any:
    """Size and time of a file, or a hash of those of all files of a folder; None if there is none."""
    if path is None:
        return None
    try:
        if path.is_dir():
            from core.data import dicom

            # A hash: a series has hundreds of files, and an attribute holds 64 KiB.
            return hashlib.sha256(json.dumps(dicom.stamp(path, series)).encode()).hexdigest()
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
