"""The store: one HDF5 file a case (docs/data.md describes the format)."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from core.data.casefile import (
    HISTOGRAM_LOW,
    SCHEMA,
    SUFFIX,
    CaseInfo,
    Compression,
    StoreError,
    case_files,
    damaged,
    natural,
    open_case,
    read_grid,
    read_info,
    read_native,
)
from core.data.chunks import Chunks
from core.data.grid import Grid
from core.data.volume import Volume

__all__ = [
    "HISTOGRAM_LOW",
    "SCHEMA",
    "SUFFIX",
    "CaseInfo",
    "Compression",
    "Store",
    "StoreError",
    "natural",
    "open_case",
    "read_info",
]

_OPEN_FILES = 128


@dataclass
class _Opened:
    file: h5py.File
    arrays: dict[str, Any]


class Store:
    """A folder of prepared cases.

    Only the path and the cases' descriptions are pickled; files are opened when first read, anew in each process (also
    after a fork), and at most 128 at a time.

    Args:
        root: the folder that `prepare` wrote.

    Raises:
        StoreError: if it is missing or empty, or a file in it is cut short.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise StoreError(f"{self.root}: there is no store here; write one with tools/prepare.py EXPERIMENT")
        self.cases: tuple[str, ...] = tuple(case_files(self.root))
        if not self.cases:
            raise StoreError(f"{self.root}: the store holds no case; write it with tools/prepare.py EXPERIMENT")
        self._info: dict[str, CaseInfo] = {}
        self._reset()
        for case in self.cases:
            with open_case(self.path(case)) as file:
                self._info[case] = read_info(file)

    def path(self, case: str) -> Path:
        """The file of a case."""
        return self.root / f"{case}{SUFFIX}"

    def info(self, case: str) -> CaseInfo:
        """What is known of a case without reading its arrays."""
        self._known(case)
        return self._info[case]

    def slices(self, case: str) -> np.ndarray:
        """Structured array, one row a slice: z, liver_voxels (labels 1 and 2), tumour_voxels, lesions (how many)."""
        return self._array(case, "slices")[...]

    def slice_lesions(self, case: str) -> list[tuple[int, ...]]:
        """The ids of the lesions on each slice."""
        out: list[list[int]] = [[] for _ in range(self.info(case).shape[0])]
        for z, lesion in self._array(case, "slice_lesions")[...].tolist():
            out[z].append(lesion)
        return [tuple(ids) for ids in out]

    def lesions(self, case: str) -> np.ndarray:
        """Structured array, one row a lesion: id, voxels, volume_ml, diameter_mm, contrast_hu, z_first, z_last."""
        return self._array(case, "lesions")[...]

    def image(self, case: str, zs: Sequence[int] | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """Int16 HU ``[n, Y, X]`` of the slices `zs` (None: all), in `out` if it is given."""
        return self._read(case, "image", zs, out)

    def label(self, case: str, zs: Sequence[int] | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """Uint8 labels ``[n, Y, X]`` of the slices `zs` (None: all), in `out` if it is given."""
        return self._read(case, "label", zs, out)

    def lesion(self, case: str, zs: Sequence[int] | None = None) -> np.ndarray:
        """Int32 lesion ids ``[n, Y, X]`` of the slices `zs`; None: all."""
        return self._read(case, "lesion", zs).astype(np.int32)

    def compression(self, case: str) -> str:
        """How the case's arrays are stored: "bitshuffle-lz4" or "none"."""
        return str(self._open(case).file.attrs["compression"])

    def reference(self, case: str) -> np.ndarray:
        """Uint8 labels ``[Z, Y, X]`` on the scan's own canonical grid, whatever grid the store keeps."""
        self.label(case, [])  # says so if there is none
        return self._read(case, "label" if self.grid(case).identity else "native_label", None)

    def grid(self, case: str) -> Grid:
        """The way from the scan's own canonical grid to the stored one, and back."""
        return read_grid(self._open(case).file)

    def fingerprint(self, case: str) -> np.ndarray:
        """Float16 ``[Z, F]`` of the scan's own slices (`core.data.fingerprint`), to find near-duplicates by."""
        return self._array(case, "fingerprint")[...]

    def foreground_histogram(self, case: str) -> np.ndarray:
        """Int64 ``[4096]``: how many voxels of labels 1 and 2 have each HU from -1024 to 3071, those beyond clipped."""
        return self._array(case, "foreground_histogram")[...]

    def volume(self, case: str) -> Volume:
        """The whole scan as it is stored, with its geometry and, from its own canonical grid, the way to its file."""
        info, file = self.info(case), self._open(case).file
        affine, series = np.asarray(file.attrs["affine"]), str(file.attrs["series"])
        return Volume(self.image(case), info.spacing_mm, affine, read_native(file), info.notes, series)

    def close(self) -> None:
        """Close this process's files; reading opens them again."""
        if self._process == os.getpid():
            for opened in self._files.values():
                opened.file.close()
        self._reset()

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "cases": self.cases, "_info": self._info}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._files: OrderedDict[str, _Opened] = OrderedDict()

    def _known(self, case: str) -> None:
        if case not in self._info:
            from registry import suggest

            raise StoreError(f"{self.root}: no case '{case}'{suggest(case, self.cases)}")

    def _open(self, case: str) -> _Opened:
        if self._process != os.getpid():
            # After a fork the parent's handles share its file positions and locks: forget them, open our own.
            self._inherited = self._files
            self._reset()
        opened = self._files.get(case)
        if opened is None:
            self._known(case)
            while len(self._files) >= _OPEN_FILES:
                self._files.popitem(last=False)[1].file.close()
            opened = self._files[case] = _Opened(open_case(self.path(case)), {})
        else:
            self._files.move_to_end(case)
        return opened

    def _array(self, case: str, name: str) -> Any:
        opened = self._open(case)
        if name not in opened.arrays:
            if name not in opened.file:
                raise StoreError(f"{self.path(case)}: case '{case}' has no {name} (it came without a label file)")
            data = opened.file[name]
            offset = data.id.get_offset() if data.ndim == 3 and data.chunks is None else None
            if offset is not None:
                data = np.asarray(np.memmap(self.path(case), data.dtype, "r", offset, data.shape))
            else:
                data = Chunks.of(data) or data
            opened.arrays[name] = data
        return opened.arrays[name]

    def _read(self, case: str, name: str, zs: Sequence[int] | None, out: np.ndarray | None = None) -> np.ndarray:
        data = self._array(case, name)
        try:
            zs = range(data.shape[0]) if zs is None else zs
            shape = (len(zs), *data.shape[1:])
            if out is None:
                out = np.empty(shape, data.dtype)
            elif (out.shape, out.dtype) != (shape, data.dtype) or not out.flags.c_contiguous:
                raise ValueError(f"case '{case}': `out` must be contiguous, {data.dtype} {shape}")
            for i, z in enumerate(zs):
                if not 0 <= z < data.shape[0]:
                    raise IndexError(f"case '{case}' has slices 0 to {data.shape[0] - 1}, asked for {z}")
                if i and z == zs[i - 1]:
                    out[i] = out[i - 1]
                elif isinstance(data, Chunks):
                    data.read(z, out[i])
                else:
                    out[i] = data[z]
            return out
        except OSError as error:
            raise StoreError(damaged(self.path(case), error)) from error
