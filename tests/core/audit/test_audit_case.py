"""Each finding on one case, on a spoilt body; and none on clean ones."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from core.audit.case import examine
from core.audit.rules import RULES
from core.contracts import Case
from tests.core.audit.bodies import AFFINE, SHAPE, body, case, save
from tests.core.data import dicom_files


def found(seen):
    return {f.rule: f.saw for f in seen.findings}


@pytest.fixture(scope="module")
def clean():
    return body()


@pytest.mark.parametrize("seed", [0, 2])
def test_nothing_is_found_on_a_clean_case(tmp_path, seed):
    seen = examine(case(tmp_path, seed=seed))
    assert seen.findings == []
    assert [p.plane for p in seen.pictures] == ["axial", "coronal", "sagittal"]
    assert (seen.row["axes"], seen.row["lesions"], seen.row["liver_hu"]) == ("LPS", 1, 110)
    assert seen.row["liver_ml"] == pytest.approx(seen.row["liver_voxels"] * 0.024, abs=0.01)


@pytest.mark.parametrize(
    ("axes", "named"),
    [
        ((0,), "z (head to foot)"),
        ((1,), "y (front to back)"),
        ((2,), "x (left to right)"),
        ((1, 2), "y (front to back) and x (left to right)"),
        ((0, 2), "z (head to foot) and x (left to right)"),
    ],
)
def test_mirrored_mask_is_found_with_the_axes_to_mirror(tmp_path, clean, axes, named):
    saw = found(examine(case(tmp_path, label=np.flip(clean[1], axes))))
    assert f"; mirrored along {named} it would be 0." in saw["mirrored_mask"]
    assert "(below -50 or above 300 HU)" in saw["mirrored_mask"]


@pytest.mark.parametrize(
    ("shift", "text"),
    [
        ((2, 0, 0), "moved 2 voxels (12 mm) to the feet its outline lies on "),
        ((0, 4, 0), "moved 4 voxels (8 mm) to the front its outline lies on "),
        ((0, 0, -5), "moved 5 voxels (10 mm) to the patient's left its outline lies on "),
    ],
)
def test_shifted_mask_is_found_with_the_way_back(tmp_path, clean, shift, text):
    saw = found(examine(case(tmp_path, label=np.roll(clean[1], shift, (0, 1, 2)))))
    assert saw["shifted_mask"].startswith(text)
    assert saw["shifted_mask"].endswith(" times stronger edges")


def test_another_patients_mask_is_found(tmp_path, clean):
    elsewhere = np.zeros_like(clean[1])
    elsewhere[2:14, 16:80, 44:84] = 1
    saw = found(examine(case(tmp_path, label=elsewhere)))
    assert "half of it lies within [" in saw["mask_off_liver"]


@pytest.mark.parametrize(
    ("spoil", "rule", "text"),
    [
        (lambda v: v * 2, "hu_scale", "this looks like 2 x HU"),
        (lambda v: v + 324, "hu_scale", "this looks like HU +324"),
        (lambda v: v.clip(-160, 240), "windowed", "all within [-160, 240]; "),
        (lambda v: v.clip(-1000, 250), "windowed", "all within [-1000, 250]; "),
        (lambda v: v.clip(-1024, 400) // 8 * 8, "windowed", "different values, in steps of 8."),
    ],
    ids=["factor 2", "offset", "window", "cut on top", "steps"],
)
def test_intensities_that_are_not_hu_are_found(tmp_path, clean, spoil, rule, text):
    seen = examine(case(tmp_path, image=spoil(clean[0].astype(int)).astype(np.int16)))
    assert text in found(seen)[rule]
    assert (seen.row["hu_trusted"], seen.row["liver_hu"]) == (False, None)


def test_declared_windowing_is_a_remark(tmp_path, clean):
    saw = found(examine(case(tmp_path, image=clean[0].clip(-160, 240), hu_trusted=False)))
    assert set(saw) == {"declared_windowed"}


def test_padding_is_named_with_its_share_and_kept_out_of_the_range(tmp_path, clean):
    image = clean[0].copy()
    image[:, :, :8] = -3024
    seen = examine(case(tmp_path, image=image))
    assert found(seen) == {"padding": "-3024 in 6.2 % of the voxels"}
    assert seen.row["hu_low"] == -1024


def _two_pieces(label):
    label[7:9] = 0


def _holes(label):
    label[6:9, 42:47, 48:53] = 0


def _lesion_outside(label):
    label[4:6, 10:13, 100:103] = 2


def _speckles(label):
    for x in (10, 14, 18):
        label[3, 20, x] = 1


def _tumour_alone(label):
    label[label == 1] = 2


def _empty(label):
    label[:] = 0


def _cut(label):
    label[0] = label[7]


@pytest.mark.parametrize(
    ("spoil", "rule", "text"),
    [
        (_two_pieces, "liver_pieces", "2 pieces, of 56 %, 44 % of the liver"),
        (_holes, "holes", "1 holes with 75 voxels, 0.4 % of the liver"),
        (_lesion_outside, "lesion_outside", "1 of 2 lesions: 18 voxels at slice 4 to 5"),
        (_speckles, "speckles", "3 pieces of liver have at most 5 voxels"),
        (_tumour_alone, "tumour_without_liver", "20735 voxels of 2, none of 1"),
        (_empty, "empty_label", "none of 196608 voxels is liver or tumour"),
        (_cut, "cut_liver", "2289 voxels on the lowest slice (at most 2397 on one)"),
    ],
)
def test_odd_labels_are_found(tmp_path, clean, spoil, rule, text):
    label = clean[1].copy()
    spoil(label)
    assert found(examine(case(tmp_path, label=label)))[rule] == text


def test_odd_slices_are_found(tmp_path, clean):
    constant, repeated = clean[0].copy(), clean[0].copy()
    constant[[0, 1, 15]] = -1024
    repeated[9] = repeated[8]
    saw = found(examine(case(tmp_path, "constant", image=constant)))
    assert saw["constant_slices"] == "3 slices (0 to 1, 15) of 16"
    saw = found(examine(case(tmp_path, "repeated", image=repeated)))
    assert saw["repeated_slices"] == "1 slice (9) of 16 repeat the one before"


def test_missing_slices_show_as_a_jump(tmp_path, clean):
    parts = [np.concatenate([a[3:11], np.flip(a[3:11], 2)]) for a in clean]
    saw = found(examine(case(tmp_path, image=parts[0], label=parts[1])))
    assert saw["missing_slices"].startswith("between slices 7 and 8 (")


@pytest.mark.parametrize(
    ("affine", "rule", "text"),
    [
        (np.eye(4), "spacing_untrusted", "the affine is the identity (1 mm, no origin): "),
        (
            np.diag([-2.5, -2.5, 6, 1]) + 0.0,
            "spacing_implausible",
            "voxels of 6 x 2.5 x 2.5 mm (z, y, x); plausible are ",
        ),
        (np.diag([-0.9, -0.9, 3, 1]), "body_implausible", "10 cm wide and 7 cm deep; 20 to 60 cm are plausible widths"),
        (np.diag([-0.9, -0.9, 3, 1]), "liver_volume", "50 ml; 400 to 4000 ml are plausible"),
        (np.diag([-1.5, -6.0, 1.5, 1]), "not_axial", "the slices are coronal: 6 mm along y, 1.5 mm along z"),
    ],
    ids=["identity", "voxels", "body", "liver", "coronal"],
)
def test_odd_grids_are_found(tmp_path, affine, rule, text):
    affine = affine.astype(float)
    if rule != "spacing_untrusted":
        affine[:3, 3] = 1
    seen = examine(case(tmp_path, affine=affine))
    assert found(seen)[rule].startswith(text)
    assert (seen.row["liver_ml"] is None) == (rule == "spacing_untrusted")


def test_left_and_right_swapped_in_scan_and_label_is_found(tmp_path):
    affine = AFFINE.copy()
    affine[0] *= -1
    saw = found(examine(case(tmp_path, affine=affine)))
    assert list(saw) == ["liver_left"]
    assert saw["liver_left"].endswith(" % of the body's width left of its middle")


def test_oblique_axes_are_remarked(tmp_path):
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    assert found(examine(case(tmp_path, affine=turn @ AFFINE))) == {"oblique": "by 5.7 degrees"}


def test_qform_and_sform_that_disagree_are_found(tmp_path):
    wanted = case(tmp_path)
    picture = nib.load(wanted.image)
    picture = nib.Nifti1Image(np.array(picture.dataobj), picture.affine, picture.header)
    other = AFFINE.copy()
    other[2, 3] += 7
    picture.set_sform(AFFINE, 1)
    picture.set_qform(other, 1)
    nib.save(picture, wanted.image)
    assert found(examine(wanted)) == {"forms_disagree": "by up to 7 mm within the scan"}


def test_labels_header_and_type_are_remarked(tmp_path, clean):
    wanted = case(tmp_path)
    turned = AFFINE.copy()
    turned[:, 0] *= -1
    turned[0, 3] -= 2.0 * (SHAPE[2] - 1)
    save(wanted.label, clean[1][:, :, ::-1].astype(np.float32), turned)
    assert found(examine(wanted)) == {
        "float_label": "float32, all values whole",
        "label_header": "axes LPS in the scan, RPS in the label",
    }


def test_what_prepare_refuses_is_refused_here_with_the_same_words(tmp_path, clean):
    missing = case(tmp_path, "missing")
    missing.image.unlink()
    assert found(examine(missing)) == {
        "refused": f"{missing.image}: the scan is missing; its label is there: {missing.label}"
    }
    cut = case(tmp_path, "cut")
    cut.image.write_bytes(cut.image.read_bytes()[:5000])
    assert found(examine(cut))["refused"].startswith(
        f"{cut.image}: cut short: its header promises 393568 bytes, the file has 5000"
    )
    strange = case(tmp_path, "strange", label=clean[1] * 3)
    seen = examine(strange)
    assert found(seen)["refused"].startswith(
        f"{strange.label}: labels must be 0 (background), 1 (liver) and 2 (tumour)"
    )
    assert len(seen.pictures) == 3  # the scan is shown without it
    other = case(tmp_path, "other", label_affine=np.diag([-2, -2, 5, 1.0]))
    assert "its affine differs from the scan's by up to " in found(examine(other))["refused"]
    mended = dataclasses.replace(other, repairs=("label_affine",))
    assert found(examine(mended)) == {"reader": "repaired: the label's affine, replaced by the scan's"}


def test_more_lesions_than_can_be_numbered_are_refused_as_prepare_refuses_them(tmp_path, monkeypatch):
    def noise(label):
        raise ValueError("70000 separate lesions: this is noise, not a tumour label")

    monkeypatch.setattr("core.audit.masks.find_lesions", noise)
    wanted = case(tmp_path)
    seen = examine(wanted)
    assert found(seen) == {"refused": f"{wanted.label}: 70000 separate lesions: this is noise, not a tumour label"}
    assert seen.row["lesions"] is None


def test_a_scan_without_label_is_remarked(tmp_path):
    assert found(examine(dataclasses.replace(case(tmp_path), label=None))) == {"no_label": "the source names none"}


def test_every_rule_says_why_and_what_to_do():
    assert all(rule.title and rule.why and rule.todo for rule in RULES.values())


def test_other_formats_are_read_as_prepare_reads_them(tmp_path, clean):
    for name, array in zip(("scan.mha", "label.nrrd"), clean, strict=True):
        picture = SimpleITK.GetImageFromArray(array)
        picture.SetSpacing((2.0, 2.0, 6.0))
        picture.SetOrigin((-120.0, -90.0, -40.0))
        SimpleITK.WriteImage(picture, tmp_path / name)
    seen = examine(Case("c", "p", tmp_path / "scan.mha", tmp_path / "label.nrrd"))
    assert (found(seen), seen.row["axes"], seen.row.get("dtype")) == ({}, "LPS", None)


def test_a_dicom_series_with_a_segmentation_is_read_as_prepare_reads_it(tmp_path, clean):
    series = dicom_files.slices(clean[0], spacing=(6.0, 2.0, 2.0))
    folder = dicom_files.write(tmp_path / "series", series)
    segments = [dicom_files.segment(1, "Liver"), dicom_files.segment(2, "Liver tumor")]
    seg = dicom_files.write_seg(tmp_path / "seg.dcm", series, clean[1], segments)
    seen = examine(Case("c", "p", folder, seg))
    assert found(seen) == {}
    assert (seen.row["axes"], seen.row["lesions"], seen.row["liver_hu"]) == ("LPS", 1, 110)
