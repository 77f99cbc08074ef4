import h5py
import numpy as np
import pytest
from scans import make, run

from core.data.store import StoreError
from core.data.verify import verify


@pytest.fixture(params=[{}, {"spacing": (None, 1.6, 1.6), "crop": "liver", "margin_mm": 5.0}], ids=["own", "resampled"])
def root(request, tmp_path):
    cases = [make(tmp_path, "a", 0), make(tmp_path, "b", 1, labelled=False)]
    assert not run(cases, tmp_path / "store", **request.param).bad
    return tmp_path / "store"


def spoil(root, name, index, by=1):
    with h5py.File(root / "a.h5", "r+") as file:
        array = file[name][...]
        array[index] = array[index] + by
        file[name][...] = array


def test_a_store_as_it_was_written(root):
    found = verify(root, workers=1)
    assert found.table() == f"store {root}: 2 cases verified, all as they were written"
    assert found.problems == []


def test_a_changed_voxel_is_found(root):
    spoil(root, "image", (3, 4, 5))
    found = verify(root, workers=1)
    assert found.problems[0][0] == "a"
    assert found.problems[0][1].startswith("image: another content, its hash is ")
    lines = found.table().splitlines()
    assert lines[0] == f"store {root}: 1 of 2 cases are not as they were written:"
    assert lines[-1] == "delete the files of these cases and run tools/prepare.py again: it writes them anew"
    assert verify(root, only=["b"], workers=1).problems == []


def test_a_changed_label_id_or_table_is_found(root):
    spoil(root, "label", (1, 6, 6))
    texts = [text for _, text in verify(root, workers=1).problems]
    assert texts[0].startswith("label: another content, its hash is ")
    assert "slices: not what the arrays give" in texts
    assert any(text.startswith("liver_voxels, tumour_voxels: recorded ") for text in texts)


@pytest.mark.parametrize("name", ["lesion", "slice_lesions", "foreground_histogram"])
def test_a_changed_part_is_named(root, name):
    spoil(root, name, (0,) if name != "lesion" else (0, 0, 0))
    wanted = "not the components of the label" if name == "lesion" else "not what the arrays give"
    assert verify(root, workers=1).problems == [("a", f"{name}: {wanted}")]


def test_a_changed_fingerprint_or_native_label_is_named(tmp_path):
    own, resampled = tmp_path / "own", tmp_path / "resampled"
    run([make(tmp_path, "a", 0)], own)
    run([make(tmp_path, "a", 0)], resampled, spacing=(5.0, None, None))
    spoil(own, "fingerprint", (2, 3), by=4)
    assert verify(own, workers=1).problems == [("a", "fingerprint: not what the arrays give")]
    spoil(resampled, "native_label", (4, 14, 14), by=1)
    spoil(resampled, "native_label", (5, 14, 14), by=1)
    assert verify(resampled, workers=1).problems == [("a", "native_label: does not give the label on the stored grid")]


def test_damage_missing_files_and_wrong_names_are_named(root):
    data = bytearray((root / "a.h5").read_bytes())
    with h5py.File(root / "a.h5") as file:
        place = file["image"].id.get_chunk_info(5).byte_offset
    data[place + 20 : place + 60] = bytes(40)
    (root / "a.h5").write_bytes(data)
    (root / "b.h5").rename(root / "c.h5")
    problems = verify(root, workers=1).problems
    assert problems[-1] == ("c", "the file is of case 'b'")
    assert problems[0][1].startswith("image: ")  # cannot be unpacked, or unpacks to something else
    (root / "c.h5").write_bytes((root / "c.h5").read_bytes()[:500])
    assert verify(root, workers=1).problems[-1][1].startswith(f"{root}/c.h5: cut short or damaged (")
    (root / "c.h5").unlink()
    assert verify(root, workers=1).problems[-1] == ("store.json", "2 cases when it was written, 1 now")


def test_no_store_and_no_case_are_named(root, tmp_path):
    with pytest.raises(StoreError, match=r"there is no store here; write one with tools/prepare\.py EXPERIMENT"):
        verify(tmp_path / "no")
    with pytest.raises(StoreError, match=r"no case 'aa', did you mean 'a'\?"):
        verify(root, only=["aa"])


def test_numbers_that_differ_in_the_last_digit_alone_are_the_same(root):
    with h5py.File(root / "a.h5", "r+") as file:
        table = file["lesions"][...]
        table["contrast_hu"] = np.nextafter(table["contrast_hu"], 1000)
        file["lesions"][...] = table
    assert verify(root, workers=1).problems == []
