import gzip
import itertools
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from core.data.volume import Native, VolumeError, read_image, read_label, same_grid, to_native, write_labels

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
ALL_AXES = [codes for order in itertools.permutations(("RL", "AP", "SI")) for codes in itertools.product(*order)]


def hu(shape=(6, 5, 4), seed=0):
    array = np.random.default_rng(seed).integers(-1000, 1200, shape).astype(np.int16)
    array.flat[0], array.flat[-1] = -1024, 1300
    return array


def save(path, array, affine=None, **header):
    affine = np.diag([0.7, 0.8, 2.5, 1]) if affine is None else affine
    image = nib.Nifti1Image(array, affine)
    for name, value in header.items():
        image.header[name] = value
    nib.save(image, path)
    return path


def affine_of(codes, zooms=(0.7, 0.8, 2.5), tilt=0.0):
    """Voxel -> RAS for file axes that point along `codes`, turned by `tilt` radians about two axes."""
    columns = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    c, s = np.cos(tilt), np.sin(tilt)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    out = np.eye(4)
    out[:3, :3] = turn @ np.array([columns[k] for k in codes]).T @ np.diag(zooms)
    out[:3, 3] = (11.5, -20.25, 300)
    return out


@pytest.mark.parametrize("tilt", [0.0, 0.2])
@pytest.mark.parametrize("codes", ALL_AXES, ids="".join)
def test_every_orientation_round_trips_to_identical_voxels(tmp_path, codes, tilt):
    array = np.random.default_rng(1).integers(0, 3, (6, 5, 4)).astype(np.uint8)
    affine = affine_of(codes, tilt=tilt)
    save(tmp_path / "in.nii", array, affine)
    volume = read_label(tmp_path / "in.nii")
    assert volume.native.axcodes == codes
    assert nib.aff2axcodes(volume.affine) == ("L", "P", "S")
    assert volume.array.flags.c_contiguous
    write_labels(tmp_path / "out.nii.gz", volume.array, volume.native)
    before, after = nib.load(tmp_path / "in.nii"), nib.load(tmp_path / "out.nii.gz")
    assert np.array_equal(np.asanyarray(after.dataobj), array)
    assert np.array_equal(after.affine, before.affine)


@pytest.mark.parametrize("codes", [("L", "P", "S"), ("R", "A", "I"), ("S", "L", "A")])
def test_each_voxel_keeps_its_place_in_the_patient(tmp_path, codes):
    array = hu()
    affine = affine_of(codes, tilt=0.1)
    volume = read_image(save(tmp_path / "in.nii.gz", array, affine))
    for voxel in np.ndindex(*array.shape):
        where = nib.load(tmp_path / "in.nii.gz").affine @ (*voxel, 1)
        x, y, z = np.rint(np.linalg.inv(volume.affine) @ where)[:3].astype(int)
        assert volume.array[z, y, x] == array[voxel]
    assert sorted(volume.spacing_mm) == pytest.approx([0.7, 0.8, 2.5])


def test_lps_file_is_taken_as_it_lies(tmp_path):
    array = hu((3, 4, 5))
    volume = read_image(save(tmp_path / "in.nii", array, affine_of("LPS", (0.7, 0.8, 2.5))))
    assert np.array_equal(volume.array, array.transpose(2, 1, 0))
    assert volume.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    assert volume.array.dtype == np.int16


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "i4", "u2", "f4", "f8"])
def test_number_formats_give_the_same_hu(tmp_path, dtype):
    array = hu() // 4 + 300 if dtype == "u2" else hu()  # u2 holds no negative HU
    image = nib.Nifti1Image(array.astype(dtype), np.eye(4) * 2)
    if dtype == ">i2":
        image = nib.Nifti1Image(array.astype(dtype), np.eye(4) * 2, nib.Nifti1Header(endianness=">"))
    nib.save(image, tmp_path / "in.nii")
    assert np.array_equal(
        read_image(tmp_path / "in.nii").array, read_image(save(tmp_path / "a.nii", array, np.eye(4) * 2)).array
    )


def test_slope_and_intercept_are_applied_and_fractions_rounded(tmp_path):
    stored = np.array([0, 1, 2, 1024, 3000, 4000], np.int16).reshape(3, 2, 1)
    path = tmp_path / "in.nii"
    save(path, stored, affine_of("LPS"))
    raw = bytearray(path.read_bytes())
    raw[112:120] = struct.pack("<ff", 0.9, -1024.0)  # scl_slope, scl_inter
    path.write_bytes(bytes(raw))
    want = np.rint(stored * np.float64(np.float32(0.9)) - 1024).astype(np.int16)
    assert np.array_equal(read_image(path).array, want.transpose(2, 1, 0))


def test_nifti_2_and_a_gzip_file_without_its_suffix_are_read(tmp_path):
    array = hu()
    nib.save(nib.Nifti2Image(array, affine_of("LPS")), tmp_path / "two.nii")
    save(tmp_path / "one.nii.gz", array, affine_of("LPS"))
    (tmp_path / "one.nii.gz").rename(tmp_path / "misnamed.nii")
    assert np.array_equal(read_image(tmp_path / "two.nii").array, read_image(tmp_path / "misnamed.nii").array)


def test_spacing_in_metres_is_turned_into_mm_and_written_back_as_metres(tmp_path):
    affine = affine_of("LPS", (0.0007, 0.0008, 0.0025))
    volume = read_image(save(tmp_path / "in.nii", hu(), affine, xyzt_units=1))
    assert volume.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    write_labels(tmp_path / "out.nii", np.zeros(volume.array.shape, np.uint8), volume.native)
    assert nib.load(tmp_path / "out.nii").header["xyzt_units"] == 1
    assert np.array_equal(nib.load(tmp_path / "out.nii").affine, nib.load(tmp_path / "in.nii").affine)


def test_fourth_axis_of_length_one_is_dropped(tmp_path):
    array = hu()
    assert np.array_equal(
        read_image(save(tmp_path / "a.nii", array[..., None])).array, read_image(save(tmp_path / "b.nii", array)).array
    )


@pytest.mark.parametrize(("qform", "sform"), [(1, 1), (0, 2), (1, 0), (0, 0), (3, 4)])
def test_written_labels_repeat_the_scans_header_fields(tmp_path, qform, sform):
    image = nib.Nifti1Image(hu(), None)
    image.header.set_zooms((0.7, 0.8, 2.5))
    image.header.set_qform(affine_of("LAS"), code=qform)
    image.header.set_sform(affine_of("LAS", tilt=0.05), code=sform)
    image.header["xyzt_units"] = 10
    nib.save(image, tmp_path / "in.nii")
    volume = read_image(tmp_path / "in.nii")
    write_labels(tmp_path / "out.nii.gz", np.ones(volume.array.shape, np.uint8), volume.native)
    before, after = nib.load(tmp_path / "in.nii"), nib.load(tmp_path / "out.nii.gz")
    assert after.shape == before.shape
    assert after.get_data_dtype() == np.uint8
    for name in ("qform_code", "sform_code", "xyzt_units", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x"):
        assert np.array_equal(after.header[name], before.header[name]), name
    assert np.array_equal(after.affine, before.affine)
    assert np.array_equal(after.header["pixdim"][:4], before.header["pixdim"][:4])


def test_native_without_header_fields_writes_its_affine(tmp_path):
    affine = affine_of("LPS")
    write_labels(tmp_path / "out.nii", np.zeros((4, 5, 6), np.uint8), Native(("L", "P", "S"), (6, 5, 4), affine))
    assert np.allclose(nib.load(tmp_path / "out.nii").affine, affine)


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    native = Native(("L", "P", "S"), (6, 5, 4), affine_of("LPS"))
    path = tmp_path / "out.nii.gz"
    write_labels(path, np.zeros((4, 5, 6), np.uint8), native)
    before = path.read_bytes()
    with pytest.raises(
        VolumeError, match=r"labels of shape \(4, 5, 7\) \[Z,Y,X\] do not fit a scan of shape \(6, 5, 4\)"
    ):
        write_labels(path, np.zeros((4, 5, 7), np.uint8), native)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out.nii.gz"]
    with pytest.raises(VolumeError, match=r"out.txt: a label map is written as .nii or .nii.gz"):
        write_labels(tmp_path / "out.txt", np.zeros((4, 5, 6), np.uint8), native)


def test_to_native_undoes_the_canonical_orientation():
    native = Native(("A", "I", "R"), (4, 3, 2), np.eye(4))
    labels = np.arange(24, dtype=np.uint8).reshape(3, 4, 2)  # z from the second axis, y from the first
    out = to_native(labels, native)
    assert out.shape == (4, 3, 2)
    assert out[0, 0, 0] == labels[2, 3, 1]


def _break(array, case):
    array = array.astype(np.float32)
    if case == "nan":
        array[0, 0, :2] = np.nan
    if case == "inf":
        array[1, 1, 1] = np.inf
    if case == "normalised":
        array = np.random.default_rng(0).random(array.shape).astype(np.float32)
    if case == "standardised":
        array = np.linspace(-2.6, 3.4, array.size, dtype=np.float32).reshape(array.shape)
    if case == "huge":
        array[1, 1, 1] = 40000
    if case == "grey":
        array = np.linspace(1, 255, array.size).astype(np.uint8).reshape(array.shape)
    if case == "no intercept":
        array = array + 1024
    return array


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("nan", "2 of 120 voxels are not finite (NaN or infinite)"),
        ("inf", "1 of 120 voxels are not finite (NaN or infinite)"),
        ("normalised", "all intensities lie within [0, 1]: normalised or empty, not HU"),
        ("standardised", "intensities are fractions within [-3, 3]: normalised, not HU"),
        ("huge", "intensities reach from -1024 to 40000, beyond 16 bits, so they are not HU"),
        ("grey", "all intensities lie within [1, 255]: 8-bit grey values, not HU"),
        ("no intercept", "intensities within [0, 2324] look like HU + 1024: the rescale intercept is missing"),
    ],
)
def test_intensities_that_cannot_be_hu_are_refused(tmp_path, case, message):
    path = save(tmp_path / "in.nii.gz", _break(hu(), case))
    with pytest.raises(VolumeError) as error:
        read_image(path)
    assert str(error.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("values", "found"),
    [([0, 1, 2, 3], "3"), ([-1, 0, 4, 255], "-1, 4, 255"), ([0, 0.5, 1], "0.5"), ([0, np.nan], "nan")],
)
def test_labels_other_than_0_1_2_are_listed(tmp_path, values, found):
    path = save(tmp_path / "in.nii", np.array(values, np.float32).reshape(-1, 1, 1))
    with pytest.raises(VolumeError) as error:
        read_label(path)
    assert str(error.value) == f"{path}: labels must be 0 (background), 1 (liver) and 2 (tumour); it also holds {found}"


def test_whole_numbered_float_labels_are_fine(tmp_path):
    label = np.random.default_rng(0).integers(0, 3, (6, 5, 4))
    read = read_label(save(tmp_path / "in.nii", label.astype(np.float64), affine_of("LPS")))
    assert read.array.dtype == np.uint8
    assert np.array_equal(read.array, label.transpose(2, 1, 0))


@pytest.mark.parametrize("keep", [10, 300, 352, 0.5, 0.999])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_file_cut_short_is_refused_with_its_path(tmp_path, keep, suffix):
    path = save(tmp_path / f"in{suffix}", hu((30, 30, 10)))
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if keep > 1 else int(keep * len(whole))])
    with pytest.raises(VolumeError) as error:
        read_image(path)
    assert str(error.value).startswith(f"{path}: ")
    said = ("cut short: its header promises", "unreadable or cut short (", "not a NIfTI file")
    assert any(text in str(error.value) for text in said)


def test_damaged_gzip_is_refused_by_its_checksum(tmp_path):
    path = save(tmp_path / "in.nii.gz", hu((30, 30, 10)))
    whole = bytearray(path.read_bytes())
    whole[-6] ^= 0xFF
    path.write_bytes(bytes(whole))
    with pytest.raises(VolumeError, match="unreadable or cut short"):
        read_image(path)


def test_what_is_not_a_volume_is_refused(tmp_path):
    def message(path):
        with pytest.raises(VolumeError) as error:
            read_image(path)
        return str(error.value)

    assert message(tmp_path / "no.nii") == f"{tmp_path}/no.nii: no such file"
    (tmp_path / "text.nii").write_text("hello, this is no scan" * 50)
    assert message(tmp_path / "text.nii") == f"{tmp_path}/text.nii: not a NIfTI file"
    (tmp_path / "text.nii.gz").write_bytes(gzip.compress(b"neither is this" * 50))
    assert message(tmp_path / "text.nii.gz") == f"{tmp_path}/text.nii.gz: not a NIfTI file"
    four = save(tmp_path / "four.nii", np.zeros((4, 4, 4, 3), np.int16))
    assert message(four) == f"{four}: 4-D of shape (4, 4, 4, 3); want one 3-D volume"
    two = save(tmp_path / "two.nii", np.zeros((4, 4), np.int16))
    assert message(two) == f"{two}: 2-D of shape (4, 4); want one 3-D volume"
    none = save(tmp_path / "none.nii", np.zeros((4, 4, 0), np.int16))
    assert message(none) == f"{none}: no voxels, the shape is (4, 4, 0)"
    colour = save(tmp_path / "rgb.nii", np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]))
    assert "and not plain numbers" in message(colour)
    flat = save(tmp_path / "flat.nii", hu())
    raw = bytearray(flat.read_bytes())
    raw[312:328] = bytes(16)  # srow_z
    flat.write_bytes(bytes(raw))
    assert message(flat).startswith(f"{flat}: the affine is not usable (zero or non-finite spacing)")
    (tmp_path / "folder").mkdir()
    assert message(tmp_path / "folder") == f"{tmp_path}/folder: no DICOM image in this folder"


def test_same_grid_names_the_difference(tmp_path):
    scan = read_image(save(tmp_path / "a.nii", hu(), affine_of("LPS")))
    other = affine_of("LPS")
    other[0, 3] += 0.5
    assert same_grid(scan, scan) is None
    assert same_grid(scan, read_image(save(tmp_path / "b.nii", hu(), other))) == (
        "its affine differs from the scan's by up to 0.5 (allowed: 0.001)"
    )
    assert same_grid(scan, read_image(save(tmp_path / "c.nii", hu((6, 5, 3)), other))) == (
        "shape (3, 5, 6) [Z,Y,X], the scan has (4, 5, 6)"
    )


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real CT at {SHARED}")
@pytest.mark.parametrize("scan", ["chaos_ct3/ct.nii.gz", "lits_real/volume-5.nii.gz", "totalseg_3mm/ct.nii.gz"])
def test_real_scan_lies_as_a_radiologist_sees_it_and_its_labels_go_back(tmp_path, scan):
    volume = read_image(SHARED / scan)
    body = volume.array > (-150 if "lits" in scan else -300)
    # The table lies below the patient, and the spine in the back half of the body: y grows to the back.
    bone = volume.array >= (240 if "lits" in scan else 300)
    assert np.argwhere(bone)[:, 1].mean() > np.argwhere(body)[:, 1].mean()
    labels = (body.astype(np.uint8) + bone).astype(np.uint8)
    write_labels(tmp_path / "out.nii.gz", labels, volume.native)
    before, after = nib.load(SHARED / scan), nib.load(tmp_path / "out.nii.gz")
    assert (after.shape, after.header["xyzt_units"]) == (before.shape, before.header["xyzt_units"])
    assert np.array_equal(after.affine, before.affine)
    assert np.array_equal(read_label(tmp_path / "out.nii.gz").array, labels)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real CT at {SHARED}")
def test_liver_of_a_real_scan_lies_on_the_left_of_the_picture():
    liver = read_label(SHARED / "chaos_ct3" / "liver_gt.nii.gz").array
    assert np.argwhere(liver)[:, 2].mean() < liver.shape[2] / 2
