"""Slices of a compressed array, read and unpacked past HDF5.

HDF5 does one thing at a time and holds Python's lock meanwhile, so data threads would wait for each other and make the
training wait. Here only the places of the chunks come from HDF5; reading and unpacking leave both locks alone.
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

    def __init__(self, data: h5py.Dataset, file: int, unpack: Any, places: dict[int, tuple[int, int]]) -> None:
        self.shape, self.dtype = data.shape, data.dtype
        self._file, self._unpack, self._places = file, unpack, places
        self._count = int(np.prod(self.shape[1:]))

    @classmethod
    def of(cls, data: h5py.Dataset) -> Chunks | None:
        """The array's chunks, or None if only HDF5 can read it (another layout or filter, no library to unpack)."""
        unpack = _unpacker()
        if unpack is None or data.ndim != 3 or data.chunks != (1, *data.shape[1:]) or not data.dtype.isnative:
            return None
        made = data.id.get_create_plist()
        if made.get_nfilters() != 1 or not hasattr(data.id, "chunk_iter"):
            return None
        code, _, values, _ = made.get_filter(0)
        if code != _BITSHUFFLE or len(values) < 5 or values[4] != _LZ4:
            return None
        places: dict[int, tuple[int, int]] = {}
        unfiltered = []

        def note(chunk: Any) -> None:
            places[chunk.chunk_offset[0]] = (chunk.byte_offset, chunk.size)
            if chunk.filter_mask:
                unfiltered.append(chunk)

        data.id.chunk_iter(note)
        if unfiltered or len(places) != data.shape[0]:
            return None
        return cls(data, data.file.id.get_vfd_handle(), unpack, places)

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
        used = self._unpack(packed[_HEADER:], out.ctypes.data, self._count, width, block // width)
        if used != size - _HEADER:
            raise OSError(f"chunk {z} cannot be unpacked")


@cache
def _unpacker() -> Any:
    # bshuf_decompress_lz4(in, out, elements, bytes of one, elements of a block) -> bytes used
    for path in Path(hdf5plugin.PLUGIN_PATH).glob("libh5bshuf.*"):
        try:
            function = ctypes.CDLL(str(path)).bshuf_decompress_lz4
        except (OSError, AttributeError):
            continue  # built in another way: HDF5 itself still reads the chunks
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t]
        function.restype = ctypes.c_int64
        return function
    return None
