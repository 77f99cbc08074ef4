import re

import nibabel as nib
import numpy as np
import pytest

import registry
from core.contracts import Case
from core.data.prepare import prepare
from core.data.store import Store
from core.errors import UserError
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
        cases.append(Case(f"v-{i}", f"p-{i}", paths[0], paths[1] if i < 2 else None, spacing_trusted=i == 0))

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
    assert str(again.records) == str(dataset.records)  # sizes that are not numbers are not equal


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
    sizes = dict(zip(store.lesions("v-0")["id"].tolist(), store.lesions("v-0")["diameter_mm"].tolist(), strict=True))
    assert dataset.records[27].diameters_mm == tuple(sizes[i] for i in dataset.records[27].lesions)
    assert dataset.records[27].diameters_mm[0] == pytest.approx((6 * 48 * 2 / np.pi) ** (1 / 3))
    assert np.isnan(Slices(store, ["v-1"], Geometry(), keep="all").records[27].diameters_mm).all()


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


def test_neighbours_at_a_distance_in_mm_need_a_spacing_that_can_be_trusted(store):
    geometry = Geometry(context=1, context_mm=6.0, ends="mirror", divisor=1)
    dataset = Slices(store, ["v-0"], geometry, keep="all")
    assert np.array_equal(load(dataset, 30).image, store.image("v-0", [27, 30, 33]))  # slices are 2 mm apart
    assert np.array_equal(load(dataset, 1).image, store.image("v-0", [2, 1, 4]))
    with pytest.raises(UserError, match=r"^case 'v-1': its spacing cannot be trusted, so no slice"):
        Slices(store, ["v-0", "v-1"], geometry)


GRID = Geometry(divisor=4)


@pytest.mark.parametrize("size", [None, (40, 60)])  # the slices are 30 x 40
def test_a_crop_lies_around_the_livers_box_on_the_networks_grid(store, size):
    geometry = Geometry(divisor=4, size=size)
    whole = load(Slices(store, ["v-0"], geometry, keep="all"), 27)
    dataset = Slices(store, ["v-0"], geometry, keep="all", crop="liver", crop_size=(16, 20))
    assert not dataset.draws
    sample = load(dataset, 27)
    assert (sample.image.shape, sample.label.shape, sample.lesion.shape) == ((1, 16, 20), (16, 20), (16, 20))
    # The liver fills 5 to 25 of both axes: its middle, 15, is that of the crop.
    y, x = (15, 15) if size is None else (20, 22)
    at = (slice(y - 8, y + 8), slice(x - 10, x + 10))
    assert np.array_equal(sample.image[0], whole.image[0][at])
    assert np.array_equal(sample.label, whole.label[at])
    assert np.array_equal(sample.lesion, whole.lesion[at])
    assert np.array_equal(load(dataset, 3).image[0], load(Slices(store, ["v-0"], geometry, keep="all"), 3).image[0][at])


def test_jitter_draws_where_the_crop_lies_and_moves_it_back_into_the_slice(store):
    dataset = Slices(store, ["v-0"], GRID, keep="all", crop="liver", crop_size=(16, 20), jitter=0.5)
    assert dataset.draws
    image, starts = store.image("v-0", [27])[0], set()
    windows = np.lib.stride_tricks.sliding_window_view(image, (16, 20))
    for i in range(150):
        sample = dataset.load(27, np.random.default_rng(i))
        again = dataset.load(27, np.random.default_rng(i))
        assert np.array_equal(sample.image, again.image)
        (start,) = np.argwhere((windows == sample.image[0]).all(axis=(-2, -1))).tolist()
        starts.add(tuple(start))
    # 7 +- 4 along y; 5 +- 5 along x.
    assert {y for y, _ in starts} == set(range(3, 12))
    assert {x for _, x in starts} == set(range(11))


def test_a_crop_larger_than_the_slice_is_padded_on_both_sides(store):
    sample = load(Slices(store, ["v-0"], GRID, keep="all", crop="liver", crop_size=(36, 48)), 27)
    inside = (slice(3, 33), slice(4, 44))
    assert np.array_equal(sample.image[0][inside], store.image("v-0", [27])[0])
    outside = np.ones((36, 48), bool)
    outside[inside] = False
    assert set(sample.image[0][outside].tolist()) == {AIR_HU}
    assert set(sample.label[outside].tolist()) == {IGNORE}
    assert not sample.lesion[outside].any()


def test_a_crop_around_the_body_reads_some_slices_and_no_label(store, monkeypatch):
    body = np.full((DEPTH, 30, 40), -1000, np.int16)
    body[:, 4:28, 16:40] = 50
    read = []

    def image(case, zs, out=None):
        read.append(len(zs))
        return body[list(zs)]

    monkeypatch.setattr(store, "image", image)
    dataset = Slices(store, ["v-0"], GRID, keep="all", crop="body", crop_size=8)
    assert (load(dataset, 27).image == 50).all()
    assert dataset._centres["v-0"] == pytest.approx((16, 28), abs=2)  # to the step that the body is found with
    load(dataset, 28)
    assert sorted(read) == [1, 1, 32]


def test_bad_values_are_refused(store):
    for given, message in (
        ({"crop_size": 16}, "crop_size needs to know around what to crop: set crop to body or liver"),
        ({"crop": "liver"}, "crop: liver needs a crop_size, e.g. crop_size: 256"),
        ({"crop": "liver", "crop_size": 18}, "crop_size must be a multiple of divisor (4), got 18"),
        ({"crop": "liver", "crop_size": (16, 0)}, "crop_size must be a multiple of divisor (4), got (16, 0)"),
        ({"crop": "liver", "crop_size": 16, "jitter": 1.5}, "jitter must be from 0 to 1, got 1.5"),
        ({"jitter": 0.5}, "jitter 0.5 needs a crop: set crop to body or liver"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            Slices(store, ["v-0"], GRID, **given)
    with pytest.raises(ValueError, match=r"^empty_ratio must not be negative, got -1$"):
        Slices(store, ["v-0"], Geometry(), empty_ratio=-1)
    with pytest.raises(ValueError, match=r"^case 'v-2' has no label, so it cannot be trained on$"):
        Slices(store, ["v-2"], Geometry())
