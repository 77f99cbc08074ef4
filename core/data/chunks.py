"""Slices of a compressed array, packed, read and unpacked past HDF5.

HDF5 does one thing at a time and holds Python's lock meanwhile, so data threads would wait for each other and make the
training wait. Here only the places of the chunks come from HDF5; reading and unpacking leave both locks alone. Writing
saves what h5py spends on each slice; the file is the same to the byte.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

_BITSHUFFLE, _LZ4 = 32008, 2
_HEADER = 12
"""Bytes before a chunk's data: its unpacked size (8) and a block's size in bytes (4), both big-endian."""


class Chunks:
    """An open array whose chunks are single slices, packed with bitshuffle and LZ4."""

    def __init__(self, data: h5py.Dataset, file: int, places: dict[int, tuple[int, int]]) -> None:
        self.shape, self.dtype = data.shape, data.dtype
        self._file, self._places = file, places
        self._count = int(np.prod(self.shape[1:]))

    @classmethod
    def of(cls, data: h5py.Dataset) -> Chunks | None:
        """The array's chunks, or None if only HDF5 can read it (another layout or filter, no library to unpack)."""
        if _library() is None or not hasattr(os, "pread"):
            return None
        if data.ndim != 3 or data.chunks != (1, *data.shape[1:]) or not data.dtype.isnative:
            return None
        made = data.id.get_create_plist()
        if made.get_nfilters() != 1 or not hasattr(data.id, "chunk_iter"):
            return None
        code, _, values, _ = made.get_filter(0)
        if code != _BITSHUFFLE or len(values) < 5 or values[4] != _LZ4:
            return None
        places: dict[int, tuple[int, int]] = {}

        def note(chunk: Any) -> None:
            if chunk.filter_mask == 0:  # else it was stored as it is
                places[chunk.chunk_offset[0]] = (chunk.byte_offset, chunk.size)

        data.id.chunk_iter(note)
        return cls(data, data.file.id.get_vfd_handle(), places) if len(places) == data.shape[0] else None

    def read(self, z: int, out: np.ndarray) -> None:
        """Write slice `z` into `out` ``[Y, X]``, contiguous and of this array's dtype.

        Raises:
            OSError: if the file is cut short or damaged.
        """
        offset, size = self._places[z]
        packed = os.pread(self._file, size, offset)
        whole, block = int.from_bytes(packed[:8], "big"), int.from_bytes(packed[8:_HEADER], "big")
        width = self.dtype.itemsize
        if len(packed) != size or whole != self._count * width:
            raise OSError(f"chunk {z} is not whole")
        spans = [(_HEADER, size, 0, self._count)]
        if self.dtype.kind == "u":  # labels and lesions are mostly 0, and finding where is quicker than unpacking it
            out.fill(0)
            spans = _not_zero(packed, self._count, width, block // width)
        source, target = np.frombuffer(packed, np.uint8).ctypes.data, out.ctypes.data
        for start, end, first, count in spans:
            used = _library().bshuf_decompress_lz4(source + start, target + first * width, count, width, block // width)
            if used != end - start:
                raise OSError(f"chunk {z} cannot be unpacked")


class Packer:
    """Writes slices into an open array of such chunks, one after the other; equal zeros are packed once."""

    def __init__(self, data: h5py.Dataset) -> None:
        self._data, self._count, self._width = data, int(np.prod(data.shape[1:])), data.dtype.itemsize
        self._block = int(_library().bshuf_default_block_size(self._width))
        self._packed = np.empty(
            _HEADER + _library().bshuf_compress_lz4_bound(self._count, self._width, self._block), np.uint8
        )
        head = (self._count * self._width).to_bytes(8, "big") + (self._block * self._width).to_bytes(4, "big")
        self._packed[:_HEADER] = np.frombuffer(head, np.uint8)
        self._zeros: np.ndarray | None = None

    @classmethod
    def of(cls, data: h5py.Dataset) -> Packer | None:
        """The array's packer, or None if only HDF5 can write it (another layout, no library to pack)."""
        whole = data.chunks is not None and data.chunks == (1, *data.shape[1:]) and data.dtype.isnative
        return cls(data) if whole and _library() is not None else None

    def write(self, z: int, plane: np.ndarray) -> None:
        """Write slice `z` ``[Y, X]``, of the array's dtype."""
        chunk = self._zeros
        empty = self._data.dtype.kind == "u" and not plane.any()
        if chunk is None or not empty:
            plane = np.ascontiguousarray(plane, self._data.dtype)
            size = _library().bshuf_compress_lz4(
                plane.ctypes.data, self._packed.ctypes.data + _HEADER, self._count, self._width, self._block
            )
            if size < 0:
                raise OSError(f"slice {z} cannot be packed")
            chunk = self._packed[: _HEADER + size]
            if empty:
                self._zeros = chunk.copy()
        self._data.id.write_direct_chunk((z, 0, 0), chunk)


def _not_zero(packed: bytes, count: int, width: int, block: int) -> list[tuple[int, int, int, int]]:
    """Runs of blocks that do not unpack to zeros: their bytes from, to, the first element, how many elements."""
    zero = _zero_block(width, block)
    spans, at, start, first = [], _HEADER, _HEADER, 0
    for number in range(count // block):
        if packed.startswith(zero, at):
            if at > start:
                spans.append((start, at, first, number * block - first))
            at += len(zero)
            start, first = at, (number + 1) * block
        else:
            at += 4 + int.from_bytes(packed[at : at + 4], "big")
    if at > len(packed):
        raise OSError("a block reaches past its chunk")
    if first < count:
        spans.append((start, len(packed), first, count - first))
    return spans


@cache
def _zero_block(width: int, block: int) -> bytes:
    """A block of zeros as it lies in a chunk, its size in front; one that another LZ4 wrote is unpacked like any."""
    packed = ctypes.create_string_buffer(2 * width * block + 64)
    size = _library().bshuf_compress_lz4(bytes(width * block), packed, block, width, block)
    return packed.raw[:size]


@cache
def _library() -> Any:
    """hdf5plugin's library with the filter's functions, or None if it was built in another way."""
    for path in Path(hdf5plugin.PLUGIN_PATH).glob("libh5bshuf.*"):
        try:
            library = ctypes.CDLL(str(path))
            functions = library.bshuf_compress_lz4, library.bshuf_decompress_lz4
            bound, block = library.bshuf_compress_lz4_bound, library.bshuf_default_block_size
        except (OSError, AttributeError):
            continue
        for function in functions:  # (in, out, elements, bytes of one, elements of a block) -> bytes of what is packed
            function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t]
            function.restype = ctypes.c_int64
        bound.argtypes, bound.restype = [ctypes.c_size_t] * 3, ctypes.c_size_t  # (elements, bytes of one, of a block)
        block.argtypes, block.restype = [ctypes.c_size_t], ctypes.c_size_t
        return library
    return None
