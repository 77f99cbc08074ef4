import nibabel as nib
import numpy as np
import pytest

import registry
from core.contracts import Case
from core.data.prepare import prepare
from core.data.store import Store
from core.infer.geometry import Geometry
from core.values import AIR_HU, IGNORE

Slices = registry.get("dataset", "slices").target
DEPTH = 60


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slices")
    cases = []
    for i in range(3):
        image = np.random.default_rng(i).integers(-1000, 1000, (40, 30, DEPTH)).astype(np.int16)
        label = np.zeros(image.shape, np.uint8)
        label[5:25, 5:25, 20:40] = 1  # 20 of 60 slices
        label[8:12, 8:12, 25:28] = 2
        label[16:18, 8:12, 27:30] = 2
        paths = folder / f"v-{i}.nii", folder / f"s-{i}.nii"
        for path, array in zip(paths, (image, label), strict=True):
            nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1, 2, 1])), path)  # LPS: the array transposed is canonical
        cases.append(Case(f"v-{i}", f"p-{i}", paths[0], paths[1] if i < 2 else None))

    class Source:
        def cases(self):
            return cases

    assert prepare(Source(), folder / "store", workers=1, source_config={}).bad == []
    return Store(folder / "store")


def load(dataset, index):
    return dataset.load(index, np.random.default_rng(0))


@pytest.mark.parametrize(("ratio", "empties"), [(0.0, 0), (0.1, 2), (0.5, 10), (9.0, 40)])
def test_empty_slices_are_a_share_of_the_foreground_ones_and_spread_over_the_scan(store, ratio, empties):
    dataset = Slices(store, ["v-0", "v-1"], Geometry(), empty_ratio=ratio)
    for case in ("v-0", "v-1"):
        zs = [r.z for r in dataset.records if r.case == case]
        assert zs == sorted(set(zs))
        assert [z for z in zs if 20 <= z < 40] == list(range(20, 40))
        empty = [z for z in zs if not 20 <= z < 40]
        assert len(empty) == empties
        assert sum(z < 20 for z in empty) == empties / 2
    again = Slices(store, ["v-0", "v-1"], Geometry(), empty_ratio=ratio)
    assert again.records == dataset.records


def test_all_keeps_every_slice(store):
    assert [r.z for r in Slices(store, ["v-1"], Geometry(), keep="all").records] == list(range(DEPTH))


def test_records_say_what_is_on_the_slice(store):
    dataset = Slices(store, ["v-0"], Geometry(), keep="all")
    label, lesion = store.label("v-0"), store.lesion("v-0")
    for record in dataset.records:
        assert record.patient == "p-0"
        assert record.liver_voxels == (label[record.z] > 0).sum()
        assert record.tumour_voxels == (label[record.z] == 2).sum()
        assert set(record.lesions) == set(np.unique(lesion[record.z]).tolist()) - {0}
    assert len(dataset.records[27].lesions) == 2


def test_sample_is_the_slice_padded(store):
    dataset = Slices(store, ["v-0"], Geometry(divisor=32), keep="all")
    sample = load(dataset, 27)
    assert sample.index == 27
    assert (sample.image.dtype, sample.label.dtype, sample.lesion.dtype) == (np.int16, np.uint8, np.int32)
    assert (sample.image.shape, sample.label.shape, sample.lesion.shape) == ((1, 32, 64), (32, 64), (32, 64))
    assert np.array_equal(sample.image[0, :30, :40], store.image("v-0", [27])[0])
    assert np.array_equal(sample.label[:30, :40], store.label("v-0", [27])[0])
    assert np.array_equal(sample.lesion[:30, :40], store.lesion("v-0", [27])[0])
    assert (sample.image[0, 30:] == AIR_HU).all()
    assert (sample.label[:, 40:] == IGNORE).all()
    assert (sample.lesion[30:] == 0).all()


def test_neighbours_are_channels_and_the_end_slice_is_repeated(store):
    dataset = Slices(store, ["v-0"], Geometry(context=2, divisor=1), keep="all")
    assert np.array_equal(load(dataset, 30).image, store.image("v-0", [28, 29, 30, 31, 32]))
    assert np.array_equal(load(dataset, 0).image, store.image("v-0", [0, 0, 0, 1, 2]))
    assert np.array_equal(load(dataset, 59).image, store.image("v-0", [57, 58, 59, 59, 59]))
    assert np.array_equal(load(dataset, 59).label, store.label("v-0", [59])[0])


def test_slices_are_resampled_to_the_asked_size(store):
    sample = load(Slices(store, ["v-0"], Geometry(size=20, divisor=8)), 7)
    assert sample.image.shape == (1, 24, 24)
    assert set(np.unique(sample.label)) <= {0, 1, 2, IGNORE}


def test_bad_values_are_refused(store):
    with pytest.raises(ValueError, match=r"^empty_ratio must not be negative, got -1$"):
        Slices(store, ["v-0"], Geometry(), empty_ratio=-1)
    with pytest.raises(ValueError, match=r"^case 'v-2' has no label, so it cannot be trained on$"):
        Slices(store, ["v-2"], Geometry())
