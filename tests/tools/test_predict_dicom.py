import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_run import call, forgotten, make_run, scan

from core.errors import UserError

sys.path.append(str(Path(__file__).parents[1] / "core" / "data"))
from dicom_files import AFFINE, UID, slices, write


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with forgotten():
        yield make_run(tmp_path_factory.mktemp("tiny"))


def hu(number=21):
    return np.ascontiguousarray(scan(number)[0].T)


def test_series_folders_and_other_formats_are_predicted_each_on_its_own_grid(run, tmp_path, capsys):
    folder = tmp_path / "in"
    write(folder / "one", slices(hu(), spacing=(2.5, 0.8, 0.7)))
    write(folder / "two" / "ST0" / "SE0", slices(hu(22), series=f"{UID}.11"))
    nib.save(nib.Nifti1Image(hu(23).T, AFFINE), folder / "three.nii")
    (folder / "notes").mkdir()
    (folder / "notes" / "readme").write_text("no scan")
    assert call("predict", run, folder, "-o", tmp_path / "out") == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["one.nii.gz", "three.nii.gz", "two.nii.gz"]
    for name, number in (("one", 21), ("two", 22), ("three", 23)):
        out = nib.load(tmp_path / "out" / f"{name}.nii.gz")
        assert np.allclose(out.affine, AFFINE, atol=1e-5)
        assert (np.asanyarray(out.dataobj) == scan(number)[1]).mean() > 0.95
    assert "3 label maps written to" in capsys.readouterr().out


def test_a_folder_that_is_a_series_is_one_scan(run, tmp_path):
    write(tmp_path / "scan.v2", slices(hu()))
    (tmp_path / "scan.v2" / "DICOMDIR").write_text("")
    call("predict", run, tmp_path / "scan.v2", "-o", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["scan.v2.nii.gz"]


def test_a_bad_series_is_reported_and_the_rest_goes_on(run, tmp_path, capsys):
    write(tmp_path / "in" / "good", slices(hu()))
    write(tmp_path / "in" / "bad", slices(hu(22), Modality="MR"))
    assert call("predict", run, tmp_path / "in", "-o", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert f"1 of 2 failed:\n  {tmp_path}/in/bad: series {UID}.7 ('Portal 2.5', 6 slices) is of modality MR" in said
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.nii.gz"]


def test_label_maps_never_land_among_a_series_files(run, tmp_path):
    folder = write(tmp_path / "in", slices(hu()))
    with pytest.raises(UserError) as error:
        call("predict", run, folder, "-o", folder)
    assert str(error.value) == (
        f"-o {folder} is the folder of {folder}: label maps must not land among the scans; name another"
    )
