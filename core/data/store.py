"""The store: one HDF5 file a case (docs/data.md describes the format)."""

from __future__ import annotations

import json
import os
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import hdf5plugin  # noqa: F401  (registers the filter)
import numpy as np

from core.data.chunks import Chunks
from core.data.volume import Native, Volume
from core.errors import UserError

SCHEMA = 2
SUFFIX = ".h5"
HISTOGRAM_LOW = -1024
"""HU of the first bin of `Store.foreground_histogram`; the last is 3071."""
Compression = Literal["bitshuffle-lz4", "none"]

_OPEN_FILES = 128
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class StoreError(UserError):
    """A store or a file in it that cannot be used, with its path and what to do."""


@dataclass(frozen=True)
class CaseInfo:
    """What is known of a case without reading its arrays.

    Attributes:
        shape: ``(Z, Y, X)``.
        spacing_mm: along z, y, x.
        spacing_trusted: False leaves the case out of every figure in mm or ml.
        hu_trusted: False if the intensities were windowed or rescaled before.
        content_hash: sha256 of shape and HU array.
        label_hash: sha256 of shape and label array, empty without a label.
        liver_voxels: labels 1 and 2 together.
        part: ``train``, ``val`` or ``test`` where the data set's own layout says so, else empty.
        external: never trains or validates, and is tested apart.
        repairs: what was mended when the case was stored.
        notes: what the checks remarked on.
    """

    case: str
    patient: str
    origin: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    spacing_trusted: bool
    hu_trusted: bool
    labelled: bool
    content_hash: str
    label_hash: str
    liver_voxels: int
    tumour_voxels: int
    image_path: str
    label_path: str
    part: str = ""
    external: bool = False
    repairs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


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
        names = [p.name[: -len(SUFFIX)] for p in self.root.glob(f"*{SUFFIX}") if not p.name.startswith(".")]
        if not names:
            raise StoreError(f"{self.root}: the store holds no case; write it with tools/prepare.py EXPERIMENT")
        self.cases: tuple[str, ...] = tuple(sorted(names, key=natural))
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

    def volume(self, case: str) -> Volume:
        """The whole scan with its geometry and the way back to the file's own grid."""
        info = self.info(case)
        attributes = self._open(case).file.attrs
        native = Native(
            axcodes=tuple(attributes["native_axcodes"]),
            shape=tuple(int(n) for n in attributes["native_shape"]),  # type: ignore[arg-type]
            affine=np.asarray(attributes["native_affine"]),
            xyzt_units=int(attributes["native_xyzt_units"]),
            header={k[len("header_") :]: np.asarray(attributes[k]) for k in attributes if k.startswith("header_")},
        )
        return Volume(self.image(case), info.spacing_mm, np.asarray(attributes["affine"]), native)

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
            raise StoreError(_damaged(self.path(case), error)) from error


def natural(text: str) -> list[tuple[int, str]]:
    """Sort key under which volume-9 comes before volume-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def check_id(case: str) -> None:
    """Raises StoreError for an id that cannot name a file."""
    if not _ID.fullmatch(case):
        raise StoreError(f"case id '{case}': want letters, digits and . _ + - only, since it names a file")


def open_case(path: Path) -> h5py.File:
    """Open one case's file for reading.

    Raises:
        StoreError: if it is cut short, not HDF5, or of another schema.
    """
    # No chunk cache: a chunk is a slice, seldom wanted twice, and each open array would keep a megabyte.
    try:
        file = h5py.File(path, "r", rdcc_nbytes=0)
    except OSError as error:
        if "unable to lock file" not in str(error):
            raise StoreError(_damaged(path, error)) from error
        # Some network file systems have no locks; files of a store are replaced whole, so reading needs none.
        file = h5py.File(path, "r", rdcc_nbytes=0, locking=False)
    schema = file.attrs.get("schema")
    if schema != SCHEMA:
        file.close()
        raise StoreError(
            f"{path}: store schema {schema}, this version reads {SCHEMA}; delete the folder, run tools/prepare.py again"
        )
    return file


def read_info(file: h5py.File) -> CaseInfo:
    """The description of an open case."""
    a = file.attrs
    return CaseInfo(
        case=str(a["case"]),
        patient=str(a["patient"]),
        origin=str(a["origin"]),
        shape=tuple(int(n) for n in file["image"].shape),  # type: ignore[arg-type]
        spacing_mm=tuple(float(s) for s in a["spacing_mm"]),  # type: ignore[arg-type]
        spacing_trusted=bool(a["spacing_trusted"]),
        hu_trusted=bool(a["hu_trusted"]),
        labelled=bool(a["labelled"]),
        content_hash=str(a["content_hash"]),
        label_hash=str(a["label_hash"]),
        liver_voxels=int(a["liver_voxels"]),
        tumour_voxels=int(a["tumour_voxels"]),
        image_path=str(a["image_path"]),
        label_path=str(a["label_path"]),
        part=str(a["part"]),
        external=bool(a["external"]),
        repairs=tuple(json.loads(a["repairs"])),
        notes=tuple(json.loads(a["notes"])),
    )


def _damaged(path: Path, error: Exception) -> str:
    return f"{path}: cut short or damaged ({error}); delete it and run tools/prepare.py again"
