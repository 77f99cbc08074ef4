"""Other formats than NIfTI on their way into the store: a DICOM series and its DICOM-SEG, labels of other numbers."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest
from dicom_files import SERIES, body, labels, segment, slices, write, write_seg
from scans import make, run

from core.contracts import Case
from core.data.store import Store


@pytest.fixture
def case(tmp_path):
    """A folder with two series, of which one is named, and its segmentation."""
    images = slices(body())
    folder = write(tmp_path / "series", images)
    write(folder / "other", slices(body() // 2, series=f"{SERIES}.7"))
    segments = [segment(1, "liver"), segment(2, "tumour")]
    seg = write_seg(tmp_path / "seg.dcm", images, labels(), segments)
    return Case("d-1", "p", folder, seg, origin="test", series=SERIES)


def test_a_series_and_its_segmentation_are_stored(tmp_path, case):
    root = tmp_path / "store"
    report = run([case], root)
    assert (report.bad, report.stored) == ([], ["d-1"])
    store = Store(root)
    assert np.array_equal(store.image("d-1"), body())
    assert np.array_equal(store.label("d-1"), labels())
    assert store.volume("d-1").series == SERIES
    assert store.info("d-1").image_path == str(case.image)
    assert run([case], root).skipped == ["d-1"]
    assert run([dataclasses.replace(case, series=f"{SERIES}.7")], root).bad[0][0] == "d-1"  # the label is not its


def test_a_changed_folder_is_read_again(tmp_path, case):
    root = tmp_path / "store"
    run([case], root)
    path = case.image / "IM0020"  # of the middle
    whole = path.read_bytes()
    path.unlink()
    report = run([case], root)
    assert [bad for bad, _, _ in report.bad] == ["d-1"]
    path.write_bytes(whole)
    assert run([case], root).stored == ["d-1"]


def test_a_series_of_a_thousand_files_has_a_short_signature(tmp_path):
    from core.data.signature import stamp

    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(1500):
        (folder / f"IM{n:04d}").touch()
    first = stamp(folder)
    assert len(first) == 64
    (folder / "IM0700").write_bytes(b"x")
    assert stamp(folder) != first
    assert stamp(folder, "1.2.3") != stamp(folder)
    assert stamp(tmp_path / "none") is None


def test_label_numbers_are_mapped_and_a_changed_map_is_read_again(tmp_path):
    case = make(tmp_path, "a", 0)
    label = np.asanyarray(nib.load(case.label).dataobj)
    nib.save(nib.Nifti1Image(np.array([0, 6, 13], np.uint8)[label], nib.load(case.label).affine), case.label)
    root = tmp_path / "store"
    bad = run([case], root).bad
    assert bad[0][2] == (f"{case.label}: labels must be 0 (background), 1 (liver) and 2 (tumour); it also holds 6, 13")
    case = dataclasses.replace(case, label_map=((6, 1), (13, 2)))
    assert run([case], root).stored == ["a"]
    assert np.array_equal(Store(root).label("a"), label.T)
    case = dataclasses.replace(case, label_map=((6, 1), (13, 1)))
    assert run([case], root).stored == ["a"]
    assert Store(root).info("a").tumour_voxels == 0
    assert run([case], root).skipped == ["a"]
