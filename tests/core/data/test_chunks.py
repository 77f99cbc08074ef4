"""Slices read past HDF5 are those that HDF5 reads."""

import h5py
import hdf5plugin
import numpy as np
import pytest

from core.data import chunks
from core.data.chunks import Chunks, Packer


def _arrays(shape):
    rng = np.random.default_rng(0)
    sparse = np.zeros(shape, np.uint8)
    sparse[0, 1:, 2] = 2
    sparse[-1, -1, -1] = 1
    return {
        "noise": rng.integers(-3000, 3000, shape).astype(np.int16),
        "air": np.full(shape, -1024, np.int16),
        "sparse": sparse,
        "empty": np.zeros(shape, np.uint8),
        "full": np.ones(shape, np.uint8),
        "ids": np.where(sparse, 40_000, 0).astype(np.uint16),
    }


# A block is 8192 bytes; what fills none, and the last elements short of eight, are stored in ways of their own.
@pytest.mark.parametrize("shape", [(3, 512, 512), (2, 100, 103), (2, 24, 20), (1, 5, 7), (1, 1, 3), (2, 64, 128)])
def test_slices_are_what_hdf5_reads(tmp_path, shape):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, values in _arrays(shape).items():
            file.create_dataset(
                name, data=values, chunks=(1, *shape[1:]), compression=hdf5plugin.Bitshuffle(cname="lz4")
            )
    with h5py.File(tmp_path / "a.h5") as file:
        for name, values in _arrays(shape).items():
            found = Chunks.of(file[name])
            assert found is not None
            for z in reversed(range(shape[0])):
                out = np.full(shape[1:], 99, values.dtype)
                found.read(z, out)
                assert np.array_equal(out, values[z]), name


@pytest.mark.parametrize("shape", [(3, 512, 512), (2, 100, 103), (2, 24, 20), (1, 1, 3), (2, 64, 128)])
def test_what_is_packed_here_is_to_the_byte_what_hdf5_packs(tmp_path, shape):
    for name, values in _arrays(shape).items():
        layout = {"chunks": (1, *shape[1:]), "compression": hdf5plugin.Bitshuffle(nelems=0, cname="lz4")}
        with h5py.File(tmp_path / "a.h5", "w") as theirs, h5py.File(tmp_path / "b.h5", "w") as ours:
            theirs.create_dataset("x", data=values, **layout)
            data = ours.create_dataset("x", shape, values.dtype, **layout)
            packer = Packer.of(data)
            assert packer is not None
            for z, plane in enumerate(values):
                packer.write(z, plane)
            chunks = [[f["x"].id.read_direct_chunk((z, 0, 0)) for z in range(shape[0])] for f in (theirs, ours)]
        assert chunks[0] == chunks[1], name
        with h5py.File(tmp_path / "b.h5") as file:
            assert np.array_equal(file["x"][...], values), name


def test_arrays_of_other_chunks_are_left_to_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        assert Packer.of(file.create_dataset("x", (4, 16, 16), "u1")) is None
        assert Packer.of(file.create_dataset("y", (4, 16, 16), "u1", chunks=(2, 16, 16))) is None


@pytest.mark.parametrize(
    "layout",
    [
        {"chunks": (1, 16, 16), "compression": "gzip"},
        {"chunks": (1, 16, 16), "compression": hdf5plugin.Bitshuffle(cname="zstd")},
        {"chunks": (2, 16, 16), "compression": hdf5plugin.Bitshuffle(cname="lz4")},
        {"chunks": (1, 16, 16)},
        {"chunks": (1, 16, 16), "compression": hdf5plugin.Bitshuffle(cname="lz4"), "fletcher32": True},
    ],
)
def test_any_other_layout_is_left_to_hdf5(tmp_path, layout):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        assert Chunks.of(file.create_dataset("a", data=np.zeros((4, 16, 16), np.int16), **layout)) is None


def test_a_slice_that_was_never_written_is_left_to_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        layout = {"chunks": (1, 16, 16), "compression": hdf5plugin.Bitshuffle(cname="lz4")}
        data = file.create_dataset("a", (4, 16, 16), np.int16, **layout)
        data[0] = 5
        assert Chunks.of(data) is None


def test_without_the_filters_library_hdf5_reads(tmp_path, monkeypatch):
    from loading import write_store

    from core.data.store import Store

    root = write_store(tmp_path)
    want = Store(root).image("v-0")
    monkeypatch.setattr(chunks, "_library", lambda: None)
    store = Store(root)
    assert np.array_equal(store.image("v-0"), want)
    assert isinstance(store._array("v-0", "image"), h5py.Dataset)


@pytest.mark.parametrize("name", ["image", "label"])
@pytest.mark.parametrize("at", [3, 13, 14])
def test_a_damaged_slice_is_named_with_what_to_do(tmp_path, name, at):
    from loading import write_store

    from core.data.store import Store, StoreError

    root = write_store(tmp_path)
    with h5py.File(root / "v-0.h5") as file:
        start = file[name].id.get_chunk_info(4).byte_offset
    with open(root / "v-0.h5", "r+b") as file:
        file.seek(start + at)
        file.write(b"\x01")
    with pytest.raises(StoreError) as error:
        Store(root).volume("v-0") if name == "image" else Store(root).label("v-0")
    assert str(error.value).startswith(f"{root / 'v-0.h5'}: cut short or damaged (")
    assert str(error.value).endswith("; delete it and run tools/prepare.py again")
