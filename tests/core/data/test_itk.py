import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from core.data.volume import VolumeError, read_image, read_label, same_grid, write_labels

LPS = np.eye(3)
TURN = np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]], float)  # axes of the file: P, I, L


def hu(shape=(4, 5, 6), seed=0):
    array = np.random.default_rng(seed).integers(-1000, 1200, shape).astype(np.int16)
    array.flat[0] = -1024
    return array


def save(path, array, direction=LPS, **given):
    """The array ``[k, j, i]`` as ITK writes it."""
    image = sitk.GetImageFromArray(array, **given)
    image.SetSpacing([0.7, 0.8, 2.5])
    image.SetOrigin([11.5, -20.25, 300])
    image.SetDirection(np.asarray(direction).ravel().tolist())
    sitk.WriteImage(image, str(path))
    return path


def refusal(path, read=read_image):
    with pytest.raises(VolumeError) as error:
        read(path)
    return str(error.value)


@pytest.mark.parametrize("direction", [np.eye(3), TURN, np.diag([-1, 1, -1])], ids=["LPS", "PIL", "RPI"])
@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd", ".nii.gz"])
def test_every_format_gives_the_same_volume_and_its_labels_overlay(tmp_path, suffix, direction):
    array = hu()
    volume = read_image(save(tmp_path / f"in{suffix}", array, direction))
    nifti = read_image(save(tmp_path / "plain.nii", array, direction))
    assert volume.array.dtype == np.int16
    assert volume.array.flags.c_contiguous
    assert np.array_equal(volume.array, nifti.array)
    assert same_grid(volume, nifti) is None
    assert volume.spacing_mm == pytest.approx(nifti.spacing_mm)
    assert volume.native.axcodes == nifti.native.axcodes
    assert volume.native.shape == (6, 5, 4)
    write_labels(tmp_path / "out.nii.gz", (volume.array > 0).astype(np.uint8), volume.native)
    written, scan = nib.load(tmp_path / "out.nii.gz"), nib.load(tmp_path / "plain.nii")
    assert np.allclose(written.affine, scan.affine, atol=1e-5)
    assert np.array_equal(np.asanyarray(written.dataobj), np.asanyarray(scan.dataobj) > 0)
    assert np.allclose(written.header.get_qform(), scan.affine, atol=1e-5)


def test_lps_of_the_file_becomes_ras(tmp_path):
    affine = read_image(save(tmp_path / "in.mha", hu())).affine
    assert np.allclose(affine, [[-0.7, 0, 0, -11.5], [0, -0.8, 0, 20.25], [0, 0, 2.5, 300], [0, 0, 0, 1]])


def test_labels_are_read_mapped_and_checked(tmp_path):
    label = np.array([0, 1, 2, 3], np.uint8).reshape(4, 1, 1)
    path = save(tmp_path / "label.nrrd", label)
    assert read_label(path, mapping=((3, 2), (2, 1))).array.ravel().tolist() == [0, 0, 1, 2]
    assert refusal(path, read_label) == (
        f"{path}: labels must be 0 (background), 1 (liver) and 2 (tumour); it also holds 3"
    )
    scan = read_image(save(tmp_path / "scan.nii", hu((4, 1, 1)), TURN))
    mended = read_label(path, affine=scan.native.affine, mapping=((3, 2),))
    assert same_grid(scan, mended) is None


def test_compressed_float_and_dropped_axes_give_the_same_hu(tmp_path):
    array = hu()
    image = sitk.GetImageFromArray(array.astype(np.float64))
    sitk.WriteImage(image, str(tmp_path / "in.nrrd"), useCompression=True)
    assert np.array_equal(read_image(tmp_path / "in.nrrd").array, array)
    four = sitk.GetImageFromArray(array[None], isVector=False)
    assert four.GetDimension() == 4
    sitk.WriteImage(four, str(tmp_path / "four.mha"))
    assert np.array_equal(read_image(tmp_path / "four.mha").array, array)


def test_what_is_no_volume_is_refused(tmp_path):
    two = tmp_path / "two.mha"
    sitk.WriteImage(sitk.GetImageFromArray(hu()[0]), str(two))
    assert refusal(two) == f"{two}: 2-D of shape (6, 5); want one 3-D volume"
    four = tmp_path / "four.mha"
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([hu(), hu()]), isVector=False), str(four))
    assert refusal(four) == f"{four}: 4-D of shape (6, 5, 4, 2); want one 3-D volume"
    vectors = save(tmp_path / "rgb.nrrd", np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
    assert refusal(vectors) == f"{vectors}: 3 values a voxel (colour or vectors); want one"
    text = tmp_path / "text.nrrd"
    text.write_text("patient;date\n" * 20)
    assert refusal(text) == f"{text}: not an NRRD file"
    text = tmp_path / "text.mhd"
    text.write_bytes(gzip.compress(b"neither is this" * 50))
    assert refusal(text) == f"{text}: not a MetaImage file"
    assert refusal(tmp_path / "no.mha") == f"{tmp_path}/no.mha: no such file"
    grey = save(tmp_path / "grey.mha", (hu() % 200 + 1).astype(np.uint8))
    assert refusal(grey).startswith(f"{grey}: all intensities lie within [")


def test_a_header_without_spacing_is_refused_and_not_taken_for_1_mm(tmp_path):
    path = save(tmp_path / "in.nhdr", hu())
    lines = [line for line in path.read_text().splitlines() if not line.startswith(("space", "kinds"))]
    path.write_text("\n".join(lines) + "\n")
    assert refusal(path) == (
        f"{path}: the header has no 'space directions' nor 'spacings': the voxels' size is unknown; save it anew with "
        f"it"
    )
    path = save(tmp_path / "in.mhd", hu())
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "Spacing" not in line))
    assert refusal(path) == (
        f"{path}: the header has no 'ElementSpacing': the voxels' size is unknown; save it anew with it"
    )


def test_a_file_cut_short_is_refused_in_one_line_and_itk_prints_nothing(tmp_path, capfd):
    path = save(tmp_path / "in.mha", hu((10, 30, 30)))
    whole = path.read_bytes()
    path.write_bytes(whole[:-5000])
    assert refusal(path) == (
        f"{path}: cut short: its header promises {len(whole)} bytes, the file has {len(whole) - 5000}; copy it again"
    )
    path = save(tmp_path / "in.mhd", hu((10, 30, 30)))
    (tmp_path / "in.raw").write_bytes(bytes(17_000))
    assert refusal(path) == (f"{path}: cut short: its header promises 18000 bytes, the file has 17000; copy it again")
    path = save(tmp_path / "in.nrrd", hu((10, 30, 30)))
    path.write_bytes(path.read_bytes()[:-5000])
    assert refusal(path).startswith(f"{path}: unreadable or cut short (")
    assert "\n" not in refusal(path)
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_a_header_whose_voxels_are_missing_is_refused(tmp_path):
    path = save(tmp_path / "in.mhd", hu())
    (tmp_path / "in.raw").unlink()
    assert refusal(path) == f"{path}: its voxels should be in {tmp_path}/in.raw, which is missing"
