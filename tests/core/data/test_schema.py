"""What a case's file holds beside the arrays that were read, and that docs/data.md names all of it."""

import hashlib
import json
import re
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from scans import make, run

from core.contracts import Prediction
from core.data.fingerprint import fingerprint
from core.data.ingest import foreground_histogram
from core.data.store import HISTOGRAM_LOW, SCHEMA, Store, StoreError
from core.data.volume import write_labels


def canonical(path):
    return np.asanyarray(nib.load(path).dataobj).T  # LPS already


@pytest.fixture
def written(tmp_path):
    """Its own voxels; the second without a label."""
    assert not run([make(tmp_path, "c-9", 0), make(tmp_path, "c-11", 1, labelled=False)], tmp_path / "store").bad
    return tmp_path / "store"


def test_hashes_fingerprint_and_histogram_are_those_of_the_arrays(written):
    store = Store(written)
    for case in ("c-9", "c-11"):
        info, image = store.info(case), store.image(case)
        digest = hashlib.sha256(json.dumps(list(image.shape)).encode() + image.astype("<i2").tobytes())
        assert info.content_hash == digest.hexdigest()
        prints = store.fingerprint(case)
        assert (prints.dtype, prints.shape) == (np.float16, (12, 136))
        assert np.array_equal(prints, fingerprint(image))
        assert (info.native_shape, info.native_spacing_mm) == (info.shape, info.spacing_mm)
        assert store.grid(case).identity
    label = store.label("c-9")
    digest = hashlib.sha256(json.dumps(list(label.shape)).encode() + label.tobytes())
    assert store.info("c-9").label_hash == digest.hexdigest()
    assert np.array_equal(store.reference("c-9"), label)
    histogram, hu = store.foreground_histogram("c-9"), store.image("c-9")[label > 0]
    assert (histogram.dtype, histogram.shape, histogram.sum()) == (np.int64, (4096,), len(hu))
    assert all(histogram[value - HISTOGRAM_LOW] == (hu == value).sum() for value in (-999, 30, 77, 110, 998))
    assert store.info("c-11").label_hash == ""
    assert store.foreground_histogram("c-11").sum() == 0
    with pytest.raises(StoreError, match="case 'c-11' has no label"):
        store.reference("c-11")


def test_hu_beyond_the_histogram_are_counted_at_its_ends():
    image = np.array([[[-3024, -1024, 3071, 9000]]], np.int16)
    counts = foreground_histogram(image, np.ones(image.shape, np.uint8))
    assert (counts[0], counts[-1], counts.sum()) == (2, 2, 4)


def test_a_store_of_other_voxels_keeps_the_label_of_the_scan(tmp_path):
    case = make(tmp_path, "c-1", 0)
    root = tmp_path / "store"
    assert not run([case], root, spacing=(None, 1.4, 1.6), crop="liver", margin_mm=1.0).bad
    store, label = Store(root), canonical(case.label)
    info, grid = store.info("c-1"), store.grid("c-1")
    assert info.native_shape == grid.scan == label.shape
    assert info.native_spacing_mm == pytest.approx((2.5, 0.8, 0.8))
    assert info.shape == store.image("c-1").shape == store.label("c-1").shape != label.shape
    assert info.spacing_mm == pytest.approx(grid.spacing_mm)
    assert info.spacing_mm == pytest.approx((2.5, 1.4, 1.6), rel=0.1)
    assert np.array_equal(store.reference("c-1"), label)
    assert np.array_equal(store.label("c-1"), grid.label(store.reference("c-1")))
    assert np.array_equal(store.image("c-1"), grid.image(canonical(case.image).astype(np.int16)))
    volume = store.volume("c-1")
    assert volume.affine == pytest.approx(grid.affine(h5py.File(root / "c-1.h5").attrs["scan_affine"]))
    assert len(store.fingerprint("c-1")) == label.shape[0]
    # A label brought back is written on the scan's own voxels.
    back = grid.back(Prediction(store.label("c-1")))
    write_labels(tmp_path / "out.nii.gz", back.labels, volume.native)
    written, own = nib.load(tmp_path / "out.nii.gz"), nib.load(case.label)
    assert written.shape == own.shape
    assert np.array_equal(written.affine, nib.load(case.image).affine)


def test_the_page_names_every_part_of_a_file_and_no_other(tmp_path):
    run([make(tmp_path, "c-1", 0)], tmp_path / "store", spacing=(4.0, None, None))
    page = (Path(__file__).resolve().parents[3] / "docs" / "data.md").read_text()
    part = page.split("## What a file holds")[1].split("\n## ")[0]
    tables = [block for block in part.split("\n\n") if block.startswith("| ")]
    rows = [[line.split(" | ") for line in table.splitlines()[2:]] for table in tables]
    named = [{name for row in table for name in re.findall("`([^`]+)`", row[0])} for table in rows]
    with h5py.File(tmp_path / "store" / "c-1.h5") as file:
        assert named[0] == set(file)
        attributes = {"header_*" if name.startswith("header_") else name for name in file.attrs}
        assert named[1] == attributes
        for (cell, kind, what), data in ((row, file[re.findall("`([^`]+)`", row[0])[0]]) for row in rows[0]):
            if kind.startswith("table"):
                assert [n for n in re.findall("`([^`]+)`", what) if n in data.dtype.names] == [*data.dtype.names], cell
            else:
                assert kind.split()[0] == str(data.dtype), cell
    assert f"Schema {SCHEMA}." in part
