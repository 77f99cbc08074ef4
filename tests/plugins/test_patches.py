import dataclasses
import re

import nibabel as nib
import numpy as np
import pytest

from core.contracts import Case
from core.data.prepare import prepare
from core.data.store import Store
from core.infer.geometry import Geometry
from core.values import AIR_HU, IGNORE
from plugins.dataset.patches import Patches

GRID = Geometry(divisor=4)
SMALL, LARGE = 1, 2


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """v-0: a liver with a lesion of 2 voxels and one of 64 on unequal slices; v-1: no lesion; v-2: no label."""
    folder = tmp_path_factory.mktemp("patches")
    cases = []
    for i in range(3):
        image = np.random.default_rng(i).integers(-1000, 1000, (40, 30, 12)).astype(np.int16)
        label = np.zeros(image.shape, np.uint8)
        label[5:35, 5:25, 2:10] = 1
        if i == 0:
            label[8:10, 8, 3] = 2
            label[20:28, 10:17, 6] = 2  # 56 voxels, and 8 on the next slice
            label[20:28, 10, 7] = 2
        paths = folder / f"v-{i}.nii", folder / f"s-{i}.nii"
        for path, array in zip(paths, (image, label), strict=True):
            nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1, 2, 1])), path)  # LPS: the array transposed is canonical
        cases.append(Case(f"v-{i}", f"p-{i}", paths[0], paths[1] if i < 2 else None))

    class Source:
        def cases(self):
            return cases

    assert prepare(Source(), folder / "store", workers=1, source_config={}).bad == []
    return Store(folder / "store")


def draw(dataset, index, count=200):
    return [dataset.load(index, np.random.default_rng([index, i])) for i in range(count)]


def anchors(dataset, index, count=200):
    return [dataset._anchor(index, np.random.default_rng([index, i])) for i in range(count)]


def test_each_lesion_has_a_record_and_each_region_so_many(store):
    dataset = Patches(store, ["v-0", "v-1"], GRID, patch=(4, 8, 8), liver=2, elsewhere=1)
    rows = [(r.case, r.patient, r.z, r.tumour_voxels, r.lesions) for r in dataset.records]
    assert rows == [
        ("v-0", "p-0", 3, 2, (SMALL,)),
        ("v-0", "p-0", 6, 64, (LARGE,)),
        *[("v-0", "p-0", 5, 0, ())] * 2,  # the slice of the voxel in the middle
        ("v-0", "p-0", 6, 0, ()),
        *[("v-1", "p-1", 6, 0, ())] * 2,
        ("v-1", "p-1", 6, 0, ()),
    ]
    liver = 30 * 20 * 8
    assert [r.liver_voxels for r in dataset.records] == [liver] * 4 + [0] + [liver] * 2 + [0]
    assert [r.diameters_mm for r in dataset.records[:2]] == [
        (pytest.approx((6 * voxels * 2 / np.pi) ** (1 / 3)),) for voxels in (2, 64)
    ]
    assert dataset.records[2].diameters_mm == ()


def test_anchors_are_drawn_evenly_from_the_lesions_voxels(store):
    dataset = Patches(store, ["v-0"], GRID, patch=(4, 8, 8))
    ids = store.lesion("v-0")
    assert set(anchors(dataset, 0)) == {tuple(v) for v in np.argwhere(ids == SMALL).tolist()}
    found = anchors(dataset, 1, 640)
    assert {ids[at] for at in found} == {LARGE}
    assert len(set(found)) == 64
    # 8 of its 64 voxels lie on slice 7; twice the standard deviation of so many draws is 17.
    assert abs(sum(z == 7 for z, *_ in found) - 80) < 26


def test_anchors_of_regions_lie_in_them(store):
    dataset = Patches(store, ["v-0"], GRID, patch=(4, 8, 8), liver=1, elsewhere=1)
    label = store.label("v-0")
    for index, value in ((2, 1), (3, 0)):
        found = anchors(dataset, index)
        assert {int(label[at]) for at in found} == {value}
        assert {z for z, *_ in found} == set(np.flatnonzero((label == value).any(axis=(1, 2))).tolist())


def test_a_patch_is_a_piece_of_the_volume_with_its_anchor_in_it(store):
    dataset = Patches(store, ["v-0"], GRID, patch=(4, 8, 8))
    whole, label, ids = store.image("v-0"), store.label("v-0"), store.lesion("v-0")
    windows = np.lib.stride_tricks.sliding_window_view(whole, (4, 8, 8))
    for index in (0, 1):
        for sample in draw(dataset, index, 12):
            assert (sample.image.shape, sample.label.shape, sample.lesion.shape) == ((1, 4, 8, 8), *[(4, 8, 8)] * 2)
            assert (sample.image.dtype, sample.label.dtype, sample.lesion.dtype) == (np.int16, np.uint8, np.int32)
            (start,) = np.argwhere((windows == sample.image[0]).all(axis=(-3, -2, -1)))
            at = tuple(slice(s, s + n) for s, n in zip(start, (4, 8, 8), strict=True))
            assert np.array_equal(sample.label, label[at])
            assert np.array_equal(sample.lesion, ids[at])
            assert (sample.lesion == dataset.records[index].lesions[0]).any()


@pytest.mark.parametrize(("jitter", "low", "high"), [(0.0, 4, 4), (0.5, 2, 6), (1.0, 0, 7)])
def test_the_anchor_lies_anywhere_in_the_inner_part_of_the_patch(store, jitter, low, high):
    dataset = Patches(store, ["v-0"], GRID, patch=(1, 8, 8), jitter=jitter)
    # The lesion of two voxels, 8 voxels from the borders, so that no patch has to be moved back.
    anchor = anchors(dataset, 0, 1)[0]
    dataset._anchor = lambda index, rng: anchor
    places = set()
    for sample in draw(dataset, 0, 300):
        (place,) = np.argwhere(sample.image[0, 0] == store.image("v-0", [3])[0][anchor[1:]])[:1].tolist()
        places.add(tuple(place))
    assert {y for y, _ in places} == {x for _, x in places} == set(range(low, high + 1))


def test_a_patch_at_the_end_is_moved_into_the_volume(store):
    dataset = Patches(store, ["v-0"], GRID, patch=(4, 8, 8))
    dataset._anchor = lambda index, rng: (0, 0, 39)
    for sample in draw(dataset, 0, 20):
        assert np.array_equal(sample.image[0], store.image("v-0")[:4, :8, 32:])
        assert (sample.label != IGNORE).all()


def test_a_volume_smaller_than_the_patch_lies_in_its_middle(store):
    dataset = Patches(store, ["v-0"], GRID, patch=(16, 32, 48))
    (sample,) = draw(dataset, 1, 1)
    inside = (slice(2, 14), slice(1, 31), slice(4, 44))
    assert np.array_equal(sample.image[0][inside], store.image("v-0"))
    assert np.array_equal(sample.label[inside], store.label("v-0"))
    assert np.array_equal(sample.lesion[inside], store.lesion("v-0"))
    outside = np.ones(sample.label.shape, bool)
    outside[inside] = False
    assert set(sample.image[0][outside].tolist()) == {AIR_HU}
    assert set(sample.label[outside].tolist()) == {IGNORE}
    assert not sample.lesion[outside].any()


def test_only_the_slices_of_the_patch_are_read(store, monkeypatch):
    dataset = Patches(store, ["v-0"], GRID, lesions=False, patch=(4, 8, 8))
    dataset.load(0, np.random.default_rng(0))  # finds how the lesions lie, once
    read = []

    def note(name):
        real = getattr(store, name)
        monkeypatch.setattr(store, name, lambda case, zs, *out: read.append((name, *zs)) or real(case, zs, *out))

    for name in ("image", "label", "lesion"):
        note(name)
    sample = dataset.load(1, np.random.default_rng(1))
    assert sample.lesion is None
    assert sorted(name for name, *_ in read) == ["image"] * 4 + ["label"] * 4 + ["lesion"]  # to find the anchor


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"patch": (4, 8, 6)}, "patch must be positive, and along y and x a multiple of divisor (4), got [4, 8, 6]"),
        ({"patch": (0, 8, 8)}, "patch must be positive, and along y and x a multiple of divisor (4), got [0, 8, 8]"),
        ({"liver": -1}, "liver and elsewhere must not be negative, got -1 and 1"),
        ({"jitter": 1.1}, "jitter must be from 0 to 1, got 1.1"),
    ],
)
def test_bad_values_are_refused(store, given, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Patches(store, ["v-0"], GRID, **{"patch": (4, 8, 8), **given})


@pytest.mark.parametrize("given", [{"context": 1}, {"size": 16}])
def test_what_only_slices_have_is_refused(store, given):
    message = (
        "dataset 'patches' works on volumes: set dataset.context=0 and dataset.size=null (prepare.spacing resamples)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Patches(store, ["v-0"], dataclasses.replace(GRID, **given), patch=(4, 8, 8))


def test_a_case_without_a_label_is_refused(store):
    with pytest.raises(ValueError, match=r"^case 'v-2' has no label, so it cannot be trained on$"):
        Patches(store, ["v-2"], GRID, patch=(4, 8, 8))
