import nibabel as nib
import numpy as np
import pytest
from test_volume import affine_of, hu, save

from core.data.volume import Native, VolumeError, read_image, read_label, write_labels


def test_too_few_bytes_an_empty_file_and_a_closed_one_are_said_plainly(tmp_path):
    def message(path):
        with pytest.raises(VolumeError) as error:
            read_image(path)
        return str(error.value)

    path = save(tmp_path / "in.nii", hu((30, 30, 10)))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert message(path) == (
        f"{path}: cut short: its header promises {len(whole)} bytes, the file has {len(whole) - 1}; copy it again"
    )
    path.write_bytes(whole[:100])
    assert message(path) == f"{path}: cut short: its header promises 348 bytes, the file has 100; copy it again"
    path.write_bytes(b"")
    assert message(path) == f"{path}: an empty file (0 bytes); copy it again"


def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    path = save(tmp_path / "in.nii", hu())

    def forbidden(*_):  # the tests may run as root, who may read anything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", forbidden)
    with pytest.raises(VolumeError) as error:
        read_image(path)
    assert str(error.value) == f"{path}: no permission to read it"


def test_a_zero_spacing_is_refused_and_not_taken_for_1_mm(tmp_path):
    path = save(tmp_path / "in.nii", hu(), qform_code=1, sform_code=0)
    raw = bytearray(path.read_bytes())
    raw[88:92] = bytes(4)  # pixdim of the third axis
    path.write_bytes(bytes(raw))
    with pytest.raises(VolumeError) as error:
        read_image(path)
    assert str(error.value).startswith(f"{path}: the affine is not usable (zero or non-finite spacing): pixdim is [0.")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_mapped_labels_get_their_meaning_and_the_rest_is_background(tmp_path, dtype):
    path = save(tmp_path / "in.nii", np.array([0, 1, 5, 7, 6], dtype).reshape(-1, 1, 1), affine_of("LPS"))
    label = read_label(path, mapping=((5, 1), (7, 2)))
    assert label.array.dtype == np.uint8
    assert label.array.ravel().tolist() == [0, 0, 1, 2, 0]


def test_mapped_labels_must_be_whole_numbers(tmp_path):
    path = save(tmp_path / "in.nii", np.array([0, 1.5, np.nan], np.float32).reshape(-1, 1, 1))
    with pytest.raises(VolumeError) as error:
        read_label(path, mapping=((1, 1),))
    assert str(error.value) == f"{path}: labels must be whole numbers; it also holds 1.5, nan"


def test_a_sheared_grid_without_a_header_is_written_with_its_sform_alone(tmp_path):
    affine = affine_of("LPS")
    affine[1, 2] = 1.0
    write_labels(tmp_path / "out.nii", np.zeros((4, 5, 6), np.uint8), Native(("L", "P", "S"), (6, 5, 4), affine))
    out = nib.load(tmp_path / "out.nii")
    assert np.allclose(out.affine, affine)
    assert (int(out.header["sform_code"]), int(out.header["qform_code"])) == (1, 0)
