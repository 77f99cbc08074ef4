import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from core.contracts import Case
from core.data import store as stores
from core.data.prepare import prepare
from core.data.store import Store, StoreError, natural

SHAPE = (24, 20, 9)  # x, y, z
AFFINE = np.array([[0, -0.8, 0, 5.0], [0.7, 0, 0, -3], [0, 0, 2.5, 100], [0, 0, 0, 1]])


class Listed:
    def __init__(self, cases):
        self._cases = cases

    def cases(self):
        return self._cases


def make_case(folder, name, seed, labelled=True):
    rng = np.random.default_rng(seed)
    image = rng.integers(-1000, 1000, SHAPE).astype(np.int16)
    label = np.zeros(SHAPE, np.uint8)
    label[4:18, 4:16, 1:8] = 1
    label[6:9, 6:9, 2:4] = 2
    label[12:14, 8:12, 3:6] = 2
    paths = folder / f"{name}.nii", folder / f"{name}-label.nii"
    for path, array in zip(paths, (image, label), strict=True):
        nib.save(nib.Nifti1Image(array, AFFINE), path)
    return Case(name, f"patient of {name}", paths[0], paths[1] if labelled else None, origin="test")


@pytest.fixture(scope="module", params=["bitshuffle-lz4", "none"])
def written(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    cases = [make_case(folder, "c-10", 0), make_case(folder, "c-9", 1), make_case(folder, "c-11", 2, labelled=False)]
    root = folder / "store"
    report = prepare(Listed(cases), root, compression=request.param, workers=1, source_config={"name": "test"})
    assert report.bad == []
    return root, cases


def canonical(path):
    return nib.as_closest_canonical(nib.load(path)).get_fdata()[::-1, ::-1].T  # RAS -> LPS, [Z,Y,X]


def test_arrays_come_back_as_they_were(written):
    root, cases = written
    store = Store(root)
    assert store.cases == ("c-9", "c-10", "c-11")
    for case in cases:
        image = canonical(case.image)
        assert store.image(case.id).dtype == np.int16
        assert np.array_equal(store.image(case.id), image)
        assert np.array_equal(store.image(case.id, [0, 0, 5, 8, 2]), image[[0, 0, 5, 8, 2]])
    label = canonical(cases[0].label)
    assert np.array_equal(store.label("c-10"), label)
    assert store.label("c-10", [3]).dtype == np.uint8
    lesion = store.lesion("c-10")
    assert lesion.dtype == np.int32
    assert np.array_equal(lesion > 0, label == 2)
    assert np.array_equal(store.lesion("c-10", [3, 4]), lesion[[3, 4]])


def test_tables_and_description_agree_with_the_label(written):
    root, _ = written
    store = Store(root)
    label, lesion = store.label("c-10"), store.lesion("c-10")
    info, table, lesions = store.info("c-10"), store.slices("c-10"), store.lesions("c-10")
    assert (info.shape, info.patient, info.origin, info.labelled) == ((9, 24, 20), "patient of c-10", "test", True)
    assert info.spacing_mm == pytest.approx((2.5, 0.7, 0.8))
    assert (info.liver_voxels, info.tumour_voxels) == ((label > 0).sum(), (label == 2).sum())
    assert table["z"].tolist() == list(range(9))
    assert table["liver_voxels"].tolist() == (label > 0).sum((1, 2)).tolist()
    assert table["tumour_voxels"].tolist() == (label == 2).sum((1, 2)).tolist()
    assert table["lesions"].tolist() == [0, 0, 1, 2, 1, 1, 0, 0, 0]
    assert [set(ids) for ids in store.slice_lesions("c-10")] == [set(np.unique(p)) - {0} for p in lesion]
    assert sorted(lesions["voxels"].tolist()) == [18, 24]
    for row in lesions:
        zs = np.flatnonzero((lesion == row["id"]).any((1, 2)))
        assert (row["z_first"], row["z_last"]) == (zs[0], zs[-1])
        volume = row["voxels"] * 2.5 * 0.7 * 0.8
        assert row["volume_ml"] == pytest.approx(volume / 1000)
        assert row["diameter_mm"] == pytest.approx((6 * volume / np.pi) ** (1 / 3))


def test_volume_carries_the_way_back(written):
    root, cases = written
    store = Store(root)
    volume = store.volume("c-9")
    file = nib.load(cases[1].image)
    assert volume.native.axcodes == nib.aff2axcodes(file.affine)
    assert np.array_equal(volume.native.affine, file.affine)
    assert volume.native.shape == file.shape
    assert volume.native.xyzt_units == file.header["xyzt_units"]
    assert volume.native.header["sform_code"] == file.header["sform_code"]
    assert np.array_equal(volume.native.header["srow_x"], file.header["srow_x"])


def test_case_without_label_says_so(written):
    root, _ = written
    store = Store(root)
    assert not store.info("c-11").labelled
    assert store.slices("c-11")["liver_voxels"].sum() == 0
    assert len(store.lesions("c-11")) == 0
    with pytest.raises(StoreError) as error:
        store.label("c-11")
    assert str(error.value) == f"{root}/c-11.h5: case 'c-11' has no label (it came without a label file)"


def test_unknown_case_and_slice_are_named(written):
    root, _ = written
    store = Store(root)
    with pytest.raises(StoreError) as error:
        store.image("c-12")
    assert str(error.value).startswith(f"{root}: no case 'c-12', did you mean 'c-1")
    with pytest.raises(IndexError, match="case 'c-9' has slices 0 to 8, asked for 9"):
        store.image("c-9", [9])
    with pytest.raises(IndexError, match="asked for -1"):
        store.image("c-9", [-1])


def _sums(store):
    return [int(store.image(case, [z]).sum()) for case in store.cases for z in (1, 7)]


def _sums_of_inherited():
    return _sums(_inherited)


_inherited = None


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_store_works_in_processes_however_they_start(written, method):
    root, _ = written
    store = Store(root)
    want = _sums(store)  # so its files are open when the processes start
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        assert list(pool.map(_sums, [store] * 4)) == [want] * 4
    assert _sums(store) == want


def test_store_inherited_by_fork_opens_files_of_its_own(written):
    global _inherited
    _inherited = Store(written[0])
    want = _sums(_inherited)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        results = [pool.submit(_sums_of_inherited) for _ in range(4)]
        assert [r.result() for r in results] == [want] * 4
    assert _sums(_inherited) == want


def test_handles_are_not_pickled(written):
    store = Store(written[0])
    fresh = len(pickle.dumps(store))
    want = _sums(store)
    assert len(pickle.dumps(store)) == fresh
    again = pickle.loads(pickle.dumps(store))
    assert again._files == {}
    assert again.info("c-9") == store.info("c-9")
    assert _sums(again) == want


def test_few_files_stay_open(written, monkeypatch):
    monkeypatch.setattr(stores, "_OPEN_FILES", 2)
    store = Store(written[0])
    want = [int(store.image(c).sum()) for c in store.cases]
    assert len(store._files) == 2
    assert [int(store.image(c).sum()) for c in store.cases] == want
    store.close()
    assert [int(store.image(c).sum()) for c in store.cases] == want


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.99])
def test_file_cut_short_is_named_with_what_to_do_and_prepare_writes_it_anew(tmp_path, keep):
    case = make_case(tmp_path, "c-1", 0)
    root = tmp_path / "store"
    prepare(Listed([case]), root, workers=1, source_config={})
    path = root / "c-1.h5"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if keep < 1 else keep])
    with pytest.raises(StoreError) as error:
        Store(root)
    assert str(error.value).startswith(f"{path}: cut short or damaged (")
    assert str(error.value).endswith("); delete it and run tools/prepare.py again")
    assert prepare(Listed([case]), root, workers=1, source_config={}).stored == ["c-1"]
    assert np.array_equal(Store(root).image("c-1"), canonical(case.image))


def test_missing_empty_and_foreign_stores_are_named(tmp_path):
    with pytest.raises(StoreError) as error:
        Store(tmp_path / "no")
    assert str(error.value) == f"{tmp_path}/no: there is no store here; write one with tools/prepare.py EXPERIMENT"
    with pytest.raises(StoreError) as error:
        Store(tmp_path)
    assert str(error.value) == f"{tmp_path}: the store holds no case; write it with tools/prepare.py EXPERIMENT"
    import h5py

    for schema, text in (
        (
            99,
            "store schema 99 is of a later version, this one reads 2; bring Hepar up to date, or prepare another store "
            "with store=...",
        ),
        (
            1,
            "store schema 1, this version reads 2; tools/prepare.py EXPERIMENT --migrate brings the store to it from "
            "its own arrays, without the raw scans",
        ),
        (None, "no file of a store (it names no schema); take it out of this folder"),
    ):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            if schema is not None:
                file.attrs["schema"] = schema
        with pytest.raises(StoreError) as error:
            Store(tmp_path)
        assert str(error.value) == f"{tmp_path}/a.h5: {text}"


def test_one_chunk_a_slice_or_none(written):
    import h5py

    root, _ = written
    with h5py.File(root / "c-9.h5") as file:
        packed = file.attrs["compression"] == "bitshuffle-lz4"
        for name, dtype in (("image", "<i2"), ("label", "u1"), ("lesion", "<u2")):
            assert file[name].dtype == dtype
            assert file[name].chunks == ((1, 24, 20) if packed else None)


def test_documented_lines_read_a_case(written):
    """The five lines of docs/data.md, run as they stand there."""
    root, _ = written
    page = (Path(__file__).resolve().parents[3] / "docs" / "data.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    assert 'h5py.File("data/lits/volume-4.h5")' in code
    code = code.replace("data/lits/volume-4.h5", str(root / "c-9.h5")).replace("[40]", "[3]")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "(9, 24, 20)" in done.stdout


def test_natural_order():
    names = ["volume-10", "volume-9", "a", "volume-9b", "2", "10"]
    assert sorted(names, key=natural) == ["2", "10", "a", "volume-9", "volume-9b", "volume-10"]
