import numpy as np
import pytest

from core.errors import UserError
from core.report.tables import make_folder, read_csv, write_csv


def test_a_table_is_read_back_as_it_was_written(tmp_path):
    rows = [
        {"case": "007", "patient": "1", "structure": "liver", "dice": 0.5, "voxels_ref": 3, "covered": True},
        {"case": "8", "patient": "", "structure": "tumour", "dice": None, "voxels_ref": np.int64(0), "mine": "a,b"},
    ]
    write_csv(tmp_path / "cases.csv", "cases", rows)
    first, second = read_csv(tmp_path / "cases.csv")
    assert first == {
        **{"case": "007", "patient": "1", "structure": "liver", "dice": 0.5, "voxels_ref": 3, "covered": 1},
        "mine": None,
    }
    assert (second["patient"], second["dice"], second["voxels_ref"], second["mine"]) == ("", None, 0, "a,b")
    assert isinstance(first["voxels_ref"], int)


def test_lists_of_ids_stay_text(tmp_path):
    write_csv(
        tmp_path / "candidates.csv", "candidates", [{"case": "1", "candidate": 2, "score_mean": 1.0, "hits": "3"}]
    )
    assert read_csv(tmp_path / "candidates.csv") == [
        {"case": "1", "candidate": 2, "score_mean": 1, "hits": "3"},
    ]


def test_an_empty_table_is_no_rows_and_a_missing_one_an_error(tmp_path):
    write_csv(tmp_path / "slices.csv", "slices", [])
    assert (tmp_path / "slices.csv").read_text() == "case,z,structure,dice,iou\n"
    assert read_csv(tmp_path / "slices.csv") == []
    with pytest.raises(UserError) as error:
        read_csv(tmp_path / "absent.csv")
    assert str(error.value) == f"{tmp_path / 'absent.csv'}: no such file"


def test_a_file_in_the_place_of_a_folder_is_the_users_error(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError) as error:
        make_folder(tmp_path / "out", "name another folder with -o")
    assert str(error.value) == f"{tmp_path / 'out'}: cannot be written to: it is a file; name another folder with -o"
    assert (tmp_path / "out").read_text() == "mine"


def test_a_table_of_a_metric_stays_in_its_folder(tmp_path):
    with pytest.raises(UserError, match=r"a metric gives a table '\.\./evil': want letters, digits and _ alone"):
        write_csv(tmp_path / "inside" / "../evil.csv", "../evil", [{"case": "c", "x": 1}])
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_too_long_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="cannot be written: File name too long"):
        write_csv(tmp_path / f"{'x' * 250}.csv", "cases", [])
