import os
import shutil

import nibabel as nib
import numpy as np
import pytest
from dicom_files import AFFINE, SERIES, SPACING, SYNTAXES, UID, body, enhanced, slices, write
from pydicom import dcmread
from pydicom.uid import (
    MediaStorageDirectoryStorage,
    SecondaryCaptureImageStorage,
)

from core.data.dicom import objection, stamp
from core.data.dicom_headers import find
from core.data.volume import VolumeError, read_image, same_grid, write_labels

HU = body()
NAMED = f"series {SERIES} ('Portal 2.5', 8 slices)"


def refusal(folder, **given):
    with pytest.raises(VolumeError) as error:
        read_image(folder, **given)
    return str(error.value)


@pytest.fixture
def nifti(tmp_path):
    """The same scan as NIfTI."""
    nib.save(nib.Nifti1Image(np.ascontiguousarray(HU.T), AFFINE), tmp_path / "same.nii")
    return read_image(tmp_path / "same.nii")


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("bits", ["unsigned 12", "signed 16"])
def test_every_transfer_syntax_gives_the_voxels_and_the_grid_of_the_same_nifti(tmp_path, nifti, syntax, bits):
    given = {"bits": 12} if bits == "unsigned 12" else {"signed": True, "intercept": 0}
    volume = read_image(write(tmp_path / "ct", slices(HU, **given), syntax=syntax))
    assert {file.syntax for file in find(tmp_path / "ct").series[SERIES].files} == {SYNTAXES[syntax]}
    assert volume.array.dtype == np.int16
    assert volume.array.flags.c_contiguous
    assert np.array_equal(volume.array, HU)
    assert np.array_equal(volume.array, nifti.array)
    assert np.allclose(volume.affine, nifti.affine, atol=1e-6)
    assert np.allclose(volume.native.affine, AFFINE)
    assert volume.native.shape == (20, 24, 8)
    assert volume.spacing_mm == pytest.approx(SPACING)
    assert (volume.series, volume.notes) == (SERIES, ())


@pytest.mark.parametrize(
    "orientation",
    [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0), (-1, 0, 0, 0, 1, 0), (0.96, 0.28, 0, -0.28, 0.96, 0)],
    ids=["supine", "prone", "feet first", "turned"],
)
def test_labels_written_for_a_series_overlay_it(tmp_path, orientation):
    folder = write(tmp_path / "ct", slices(HU, orientation=orientation))
    volume = read_image(folder)
    assert nib.aff2axcodes(volume.affine) == ("L", "P", "S")
    write_labels(tmp_path / "out.nii.gz", (volume.array > 100).astype(np.uint8), volume.native)
    out = nib.load(tmp_path / "out.nii.gz")
    for path in folder.iterdir():
        one = dcmread(path)
        across, down = np.array(one.ImageOrientationPatient[:3]), np.array(one.ImageOrientationPatient[3:])
        stored = one.pixel_array.astype(int) - 1024
        for row, column in ((0, 0), (12, 8), (10, 7), (19, 10)):
            lps = np.array(one.ImagePositionPatient) + across * 0.7 * column + down * 0.8 * row
            voxel = np.linalg.inv(out.affine) @ [-lps[0], -lps[1], lps[2], 1]
            assert np.abs(voxel - np.rint(voxel)).max() < 1e-3
            i, j, k = np.rint(voxel[:3]).astype(int)
            assert out.dataobj[i, j, k] == (stored[row, column] > 100)
    assert np.allclose(out.header.get_qform(), out.affine, atol=1e-4)


@pytest.mark.parametrize("order", [[7, 6, 5, 4, 3, 2, 1, 0], [2, 5, 0, 7, 1, 4, 6, 3]])
def test_neither_file_names_nor_instance_numbers_order_the_slices(tmp_path, order):
    series = slices(HU)
    for one, number in zip(series, [3, 1, 4, 1, 5, 9, 2, 6], strict=True):
        one.InstanceNumber = number
    volume = read_image(write(tmp_path / "ct", [series[k] for k in order]))
    assert np.array_equal(volume.array, HU)
    assert np.allclose(volume.native.affine, AFFINE)


def test_an_enhanced_file_is_read_by_the_places_of_its_frames(tmp_path, nifti):
    for name, syntax in (("plain", "explicit"), ("packed", "rle")):
        folder = write(tmp_path / name, [enhanced(HU, [3, 1, 0, 2, 7, 5, 6, 4])], syntax=syntax)
        volume = read_image(folder)
        assert np.array_equal(volume.array, HU)
        assert same_grid(volume, nifti) is None


def test_slope_and_intercept_are_each_slices_own(tmp_path):
    series = slices(HU, slope=0.5)
    for one, other in zip(series[::2], slices(HU, intercept=-2000)[::2], strict=True):
        one.RescaleSlope, one.RescaleIntercept, one.PixelData = 1, -2000, other.PixelData
    assert np.array_equal(read_image(write(tmp_path / "ct", series)).array, HU)


@pytest.mark.parametrize("signed", [False, True])
def test_bits_beyond_those_stored_are_passed_over(tmp_path, signed):
    series = slices(HU, bits=12, signed=signed, intercept=0 if signed else -1024)
    for one in series:
        stored = np.frombuffer(one.PixelData, "<u2") & 0x0FFF  # a negative value without its sign
        one.PixelData = (stored | 0x2000).tobytes()  # an overlay, as old files keep them
    assert np.array_equal(read_image(write(tmp_path / "ct", series)).array, np.clip(HU, -2048, 2047))


@pytest.mark.parametrize(
    ("syntax", "kind", "value"), [("explicit", "SS", -2000), ("implicit", "SS", -2000), ("explicit", "US", 63536)]
)
def test_padding_becomes_air_and_is_remarked_on(tmp_path, syntax, kind, value):
    hu = HU.copy()
    hu[:, :3] = -3024
    series = slices(hu, signed=True, PixelPaddingValue=value)
    for one in series:
        one["PixelPaddingValue"].VR = kind
    volume = read_image(write(tmp_path / "ct", series, syntax=syntax))
    hu[:, :3] = -1024
    assert np.array_equal(volume.array, hu)
    assert volume.notes == ("12 % of the voxels are padding (PixelPaddingValue), set to -1024 HU",)


def test_a_padding_value_that_tissue_has_too_changes_nothing(tmp_path):
    volume = read_image(write(tmp_path / "ct", slices(HU, signed=True, intercept=0, PixelPaddingValue=60)))
    assert np.array_equal(volume.array, HU)
    assert volume.notes == ()


def test_files_of_any_name_in_any_folder_beside_anything_are_sorted_out(tmp_path):
    folder, series = tmp_path / "cd", slices(HU)
    write(folder / "DICOM" / "S1", series[:3])
    write(folder / "DICOM" / "S2", series[3:])
    write(folder / "scout", slices(HU[:2], series=f"{UID}.5", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    write(folder / "mr", slices(HU, series=f"{UID}.6", Modality="MR"))
    write(folder / "dose", slices(HU[:1], series=f"{UID}.8", SOPClassUID=SecondaryCaptureImageStorage))
    write(folder / "coronal", slices(HU, series=f"{UID}.10", orientation=(1, 0, 0, 0, 0, -1)))
    directory = slices(HU[:1])[0]
    directory.SOPClassUID = directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.save_as(folder / "DICOMDIR", enforce_file_format=True)
    (folder / "AUTORUN.INF").write_text("[autorun]")
    (folder / "empty").write_bytes(b"")
    (folder / ".hidden.dcm").write_text("no DICOM")
    assert len(find(folder).series) == 5
    volume = read_image(folder)
    assert (volume.series, volume.notes) == (SERIES, ())
    assert np.array_equal(volume.array, HU)
    assert np.array_equal(read_image(folder, series=SERIES).array, HU)
    whys = {uid.rpartition(".")[2]: objection(series) for uid, series in find(folder).series.items()}
    assert whys == {
        "7": None,
        "5": "is a scout view (localizer), not a scan",
        "6": "is of modality MR, not CT",
        "8": "holds no CT images but Secondary Capture Image Storage: a picture of one, its values are no HU",
        "10": "is not axial (a reformatted image); name its SeriesInstanceUID to have it read all the same",
    }


def test_of_several_series_one_must_be_named(tmp_path):
    write(tmp_path / "ct", slices(HU))
    write(tmp_path / "ct", slices(HU[::-1] + 1, series=f"{UID}.8", SeriesDescription="Arterial"), name="X{:04d}.dcm")
    assert refusal(tmp_path / "ct") == (
        f"{tmp_path}/ct: 2 CT series, and nothing says which one is meant; give each a folder of its own, or take "
        f"source 'dicom', which sorts them out:\n  {NAMED}\n  series {UID}.8 ('Arterial', 8 slices)"
    )
    assert np.array_equal(read_image(tmp_path / "ct", series=SERIES).array, HU)
    assert np.array_equal(read_image(tmp_path / "ct", series=f"{UID}.8").array, HU[::-1] + 1)
    assert refusal(tmp_path / "ct", series="1.2") == (
        f"{tmp_path}/ct: no series 1.2 in it:\n  {NAMED}\n  series {UID}.8 ('Arterial', 8 slices)"
    )


def test_a_coronal_series_is_read_where_it_is_named(tmp_path):
    write(tmp_path / "ct", slices(HU, orientation=(1, 0, 0, 0, 0, -1)))
    volume = read_image(tmp_path / "ct", series=SERIES)
    assert volume.notes == ("the slices are not axial: a sagittal or coronal reformat, or a patient lying on the side",)
    assert np.array_equal(volume.array, HU.transpose(1, 0, 2)[::-1])
    assert volume.spacing_mm == pytest.approx((0.8, 2.5, 0.7))


def test_copies_of_a_file_and_scouts_within_the_series_are_passed_over(tmp_path):
    series = slices(HU)
    scout = slices(HU[:1], orientation=(1, 0, 0, 0, 0, -1), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])[0]
    scout.SOPInstanceUID = f"{SERIES}.99"
    folder = write(tmp_path / "ct", [*series, scout])
    shutil.copy(folder / "IM0005", folder / "IM0005 (1)")
    volume = read_image(folder)
    assert np.array_equal(volume.array, HU)
    assert volume.notes == (
        "1 files are copies of others in the series, passed over",
        "1 scout views (localizers) in the series, passed over",
    )


def test_a_tilted_gantry_is_read_as_it_lies(tmp_path):
    series = slices(HU)
    for k, one in enumerate(series):
        one.ImagePositionPatient[1] += 0.5 * k
    volume = read_image(write(tmp_path / "ct", series))
    assert np.array_equal(volume.array, HU)
    assert np.allclose(volume.affine[:3, 2], [0, -0.5, 2.5])
    assert volume.notes == (
        "the gantry was tilted by 11.3 degrees: the slices are taken as they lie, on a sheared grid; to have right "
        "angles, convert the series with dcm2niix, which corrects the shear",
    )
    write_labels(tmp_path / "out.nii", (HU > 0).astype(np.uint8), volume.native)
    out = nib.load(tmp_path / "out.nii")
    assert np.allclose(out.affine, volume.native.affine)
    assert int(out.header["qform_code"]) == 0


def test_positions_rounded_to_a_tenth_are_taken_as_even(tmp_path):
    series = slices(HU, spacing=(0.625, 0.8, 0.7))
    for one in series:
        one.ImagePositionPatient[2] = round(float(one.ImagePositionPatient[2]), 1)
    volume = read_image(write(tmp_path / "ct", series))
    assert volume.spacing_mm[0] == pytest.approx(0.625, abs=0.01)
    assert volume.notes == ("slices lie up to 0.057 mm off an even spacing; taken as even",)


def test_lossy_compression_is_remarked_on(tmp_path):
    volume = read_image(write(tmp_path / "ct", slices(HU, LossyImageCompression="01")))
    assert volume.notes == ("the images were compressed with loss: HU are near what was measured, not exactly that",)


def test_the_stamp_tells_a_changed_series(tmp_path):
    folder = write(tmp_path / "ct", slices(HU))
    before = stamp(folder, SERIES)
    assert before == stamp(folder, SERIES)
    assert before[:2] == [[SERIES], ["IM0000", *_size_and_time(folder / "IM0000")]]
    assert len(before) == 9
    assert stamp(folder, "1.2") != before
    os.utime(folder / "IM0005", ns=(1, 1))
    assert stamp(folder, SERIES) != before


def _size_and_time(path):
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def test_a_changed_file_is_read_again(tmp_path):
    folder = write(tmp_path / "ct", slices(HU))
    read_image(folder)
    write(folder, slices(HU, SeriesDescription="another one"))
    assert find(folder).series[SERIES].first.description == "another one"


def test_what_names_the_patient_is_not_read(tmp_path):
    folder = write(tmp_path / "ct", slices(HU))
    header = find(folder).series[SERIES].first
    said = f"{header} {read_image(folder)}"
    assert header.patient == "de650d61f5bd"  # of sha256("4711")
    for secret in ("Doe", "Jane", "4711", "19400101"):
        assert secret not in said
