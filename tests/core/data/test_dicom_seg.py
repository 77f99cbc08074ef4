import nibabel as nib
import numpy as np
import pytest
from dicom_files import AFFINE, SERIES, UID, body, enhanced, labels, segment, slices, write, write_seg
from pydicom import dcmread
from pydicom.sr.codedict import codes

from core.data.volume import VolumeError, read_image, read_label, same_grid

HU, LABELS = body(), labels()
BOTH = np.stack([LABELS > 0, LABELS == 2], -1)  # segments overlap: the liver holds the tumour
NAMES = [segment(1, "Liver"), segment(2, "Tumor 1", codes.SCT.Neoplasm)]


@pytest.fixture
def scan(tmp_path):
    return read_image(write(tmp_path / "ct", slices(HU)))


def refusal(path, **given):
    with pytest.raises(VolumeError) as error:
        read_label(path, **given)
    return str(error.value)


def test_overlapping_segments_are_laid_onto_the_scan_with_the_tumour_on_top(tmp_path, scan):
    label = read_label(write_seg(tmp_path / "seg.dcm", slices(HU), BOTH, NAMES), like=scan)
    assert label.array.dtype == np.uint8
    assert np.array_equal(label.array, LABELS)
    assert same_grid(scan, label) is None
    assert np.array_equal(scan.array, HU)


@pytest.mark.parametrize("order", [[3, 1, 2, 5], [6, 5, 4, 3, 2, 1]])
def test_frames_may_be_some_of_the_slices_in_any_order(tmp_path, scan, order):
    source = slices(HU)
    path = write_seg(tmp_path / "seg", [source[k] for k in order], BOTH[order], NAMES)
    want = np.zeros_like(LABELS)
    want[order] = LABELS[order]
    assert np.array_equal(read_label(path, like=scan).array, want)


def test_a_label_map_and_a_folder_with_one_file_are_read(tmp_path, scan):
    names = [segment(1, "Segment_1", codes.SCT.Liver), segment(2, "mass")]
    write_seg(tmp_path / "one" / "seg", slices(HU), LABELS, names, kind="LABELMAP")
    assert np.array_equal(read_label(tmp_path / "one", like=scan).array, LABELS)
    write_seg(tmp_path / "one" / "again", slices(HU), LABELS, names, instance=f"{UID}.9.2")
    assert refusal(tmp_path / "one", like=scan) == (
        f"{tmp_path}/one: 2 DICOM-SEG files in this folder: again, seg; name one"
    )
    assert refusal(tmp_path / "ct", like=scan) == f"{tmp_path}/ct: no DICOM-SEG files in this folder"


def test_a_scan_in_another_orientation_or_format_gets_the_same_label(tmp_path, scan):
    path = write_seg(tmp_path / "seg.dcm", slices(HU), BOTH, NAMES)
    image = nib.Nifti1Image(np.ascontiguousarray(HU.T), AFFINE)
    turned = image.as_reoriented(nib.orientations.axcodes2ornt(("S", "R", "A"), (("L", "R"), ("P", "A"), ("I", "S"))))
    nib.save(turned, tmp_path / "turned.nii")
    other = read_image(tmp_path / "turned.nii")
    assert np.array_equal(read_label(path, like=other).array, LABELS)
    prone = slices(HU, orientation=(-1, 0, 0, 0, -1, 0))
    label = read_label(
        write_seg(tmp_path / "prone.dcm", prone, BOTH, NAMES), like=read_image(write(tmp_path / "prone", prone))
    )
    assert np.array_equal(label.array, LABELS[:, ::-1, ::-1])


def test_an_enhanced_scan_and_a_tilted_one_get_their_labels(tmp_path):
    multi = enhanced(HU)
    scan = read_image(write(tmp_path / "multi", [multi]))
    tilted = slices(HU)
    for k, one in enumerate(tilted):
        one.ImagePositionPatient[1] += 0.5 * k
    path = write_seg(tmp_path / "seg.dcm", tilted, BOTH, NAMES)
    assert np.array_equal(read_label(path, like=read_image(write(tmp_path / "tilted", tilted))).array, LABELS)
    path = write_seg(tmp_path / "plain.dcm", slices(HU), BOTH, NAMES)
    assert np.array_equal(read_label(path, like=scan).array, LABELS)


def test_segments_get_the_meaning_that_the_mapping_gives(tmp_path, scan):
    names = [segment(1, "A"), segment(2, "B"), segment(3, "Spleen")]
    masks = np.stack([LABELS > 0, LABELS == 2, HU > 500], -1)
    path = write_seg(tmp_path / "seg.dcm", slices(HU), masks, names)
    assert np.array_equal(read_label(path, like=scan, mapping=((1, 1), (2, 2))).array, LABELS)
    assert np.array_equal(read_label(path, like=scan, mapping=((2, 1),)).array, LABELS == 2)
    assert refusal(path, like=scan) == (
        f"{path}: is segment 1 'A' or segment 2 'B' or segment 3 'Spleen' liver or tumour? say which segment number "
        f"means what with label_map, e.g. label_map: {{1: 1, 2: 2}} (segment: 1 liver, 2 tumour)"
    )
    assert refusal(path, like=scan, mapping=((7, 1),)) == (
        f"{path}: has none of the segments 7 that label_map names; it has 1 'A', 2 'B', 3 'Spleen'"
    )


@pytest.mark.parametrize(
    ("name", "kind", "label"),
    [
        ("Liver", codes.SCT.Organ, 1),
        ("whole_liver", codes.SCT.Organ, 1),
        ("Leber", codes.SCT.Liver, 1),
        ("Segment_1", codes.SCT.Liver, 1),
        ("Segment 1", codes.SCT.Neoplasm, 2),
        ("liver tumour", codes.SCT.Organ, 2),
        ("HCC", codes.SCT.Organ, 2),
        ("Lesion_3", codes.SCT.Organ, 2),
        ("Metastasis", codes.SCT.Liver, 2),
        ("MASS", codes.SCT.Organ, 2),
        ("Liver cyst", codes.SCT.Liver, None),
        ("liver vessels", codes.SCT.Organ, None),
        ("kidney tumour", codes.SCT.Neoplasm, None),
        ("Spleen", codes.SCT.Spleen, None),
        ("Segment 1", codes.SCT.Tissue, None),
    ],
)
def test_names_and_codes_say_what_a_segment_is(tmp_path, scan, name, kind, label):
    path = write_seg(tmp_path / "seg.dcm", slices(HU), (LABELS > 0).astype(np.uint8), [segment(1, name, kind)])
    if label is None:
        assert refusal(path, like=scan).startswith(f"{path}: is segment 1 '{name}' liver or tumour? say which")
    else:
        assert np.array_equal(read_label(path, like=scan).array, label * (LABELS > 0))


def test_a_tumour_of_another_organ_is_not_taken(tmp_path, scan):
    one = segment(1, "Tumour", codes.SCT.Neoplasm)
    where = segment(2, "x", codes.SCT.Kidney).SegmentedPropertyTypeCodeSequence
    one.AnatomicRegionSequence = where
    path = write_seg(tmp_path / "seg.dcm", slices(HU), (LABELS > 0).astype(np.uint8), [one])
    assert refusal(path, like=scan).startswith(f"{path}: is segment 1 'Tumour' liver or tumour? say which")


def test_a_segmentation_of_another_series_or_grid_is_refused(tmp_path, scan):
    other = slices(HU, series=f"{UID}.8")
    path = write_seg(tmp_path / "other.dcm", other, BOTH, NAMES)
    assert refusal(path, like=scan) == f"{path}: made for series {UID}.8; the scan is series {SERIES}"
    path = write_seg(tmp_path / "beside.dcm", slices(HU, origin=(-12.25, 7.9, -300.0)), BOTH, NAMES)
    assert refusal(path, like=scan) == (
        f"{path}: frame 1 does not lie on the scan's grid: its pixels lie up to 0.5 voxels beside the scan's"
    )
    path = write_seg(tmp_path / "above.dcm", slices(HU, origin=(-12.25, 7.5, 300.0)), BOTH, NAMES)
    assert refusal(path, like=scan) == (
        f"{path}: frame 1 does not lie on the scan's grid: it lies beyond the scan, at slice 246 of 8"
    )
    path = write_seg(tmp_path / "shifted.dcm", slices(HU, origin=(-12.25, 8.3, -300.0)), BOTH, NAMES)
    assert refusal(path, like=scan) == (
        f"{path}: frame 1 does not lie on the scan's grid: it is shifted against the scan's slices"
    )
    path = write_seg(tmp_path / "smaller.dcm", slices(HU[:, :20]), BOTH[:, :20], NAMES)
    assert refusal(path, like=scan) == (
        f"{path}: frame 1 does not lie on the scan's grid: 20 x 20 pixels; the scan's slices have 20 x 24"
    )
    path = write_seg(tmp_path / "thin.dcm", slices(HU, spacing=(1.25, 0.8, 0.7)), BOTH, NAMES)
    assert "its pixels lie up to 0.5 voxels beside the scan's" in refusal(path, like=scan)


def test_fractions_are_taken_only_where_they_say_yes_or_no(tmp_path, scan):
    path = write_seg(tmp_path / "whole.dcm", slices(HU), BOTH.astype(float), NAMES, kind="FRACTIONAL")
    assert np.array_equal(read_label(path, like=scan).array, LABELS)
    path = write_seg(tmp_path / "half.dcm", slices(HU), BOTH * 0.5, NAMES, kind="FRACTIONAL")
    assert refusal(path, like=scan) == (
        f"{path}: segment 1 holds fractions, not yes or no; save it anew as a binary segmentation"
    )


def test_what_is_no_segmentation_is_refused(tmp_path, scan):
    path = write_seg(tmp_path / "seg.dcm", slices(HU), BOTH, NAMES)
    assert refusal(path) == f"{path}: DICOM-SEG is laid onto its scan's grid, and no scan was given"
    image = next((tmp_path / "ct").iterdir())
    assert refusal(image, like=scan).startswith(f"{image}: no DICOM-SEG file (")
    path.write_bytes(path.read_bytes()[:-300])
    assert refusal(path, like=scan).startswith(f"{path}: unreadable or cut short (")
    path = write_seg(tmp_path / "seg.dcm", slices(HU), BOTH, NAMES)
    lost = dcmread(path)
    for frame in lost.PerFrameFunctionalGroupsSequence:
        del frame.PlanePositionSequence
    lost.save_as(path)
    assert str(path) in refusal(path, like=scan)
