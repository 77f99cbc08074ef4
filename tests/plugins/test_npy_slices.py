"""Dataset `npy_slices` gives the samples of `slices` on the store that was exported."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import registry
from core.contracts import Sample
from core.data.export import export
from core.data.store import Store
from core.infer.geometry import Geometry

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "core" / "data"))
from scans import make, run


def build(name, store, geometry, lesions=True, cases=("a", "b"), **args):
    return registry.get("dataset", name).target(store, cases, geometry, lesions, **args)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("npy")
    cases = [make(folder, "a", 0, (64, 64, 12)), make(folder, "b", 1, (64, 64, 12))]
    assert not run(cases, folder / "store").bad
    export(Store(folder / "store"), folder / "out", lesions=True, workers=1)
    export(Store(folder / "store"), folder / "bare", workers=1)
    return folder


@pytest.mark.parametrize(
    ("geometry", "args"),
    [
        (Geometry(channels=3), {}),
        (Geometry(context=1), {"keep": "all"}),
        (Geometry(size=48, divisor=16), {"empty_ratio": 0.5}),
        (Geometry(divisor=16), {"crop": "liver", "crop_size": 32, "jitter": 0.5}),
    ],
    ids=["whole", "context", "resized", "crops"],
)
def test_same_records_and_samples_bit_for_bit(folder, geometry, args):
    store = Store(folder / "store")
    plain, ours = (
        build("slices", store, geometry, **args),
        build("npy_slices", store, geometry, root=folder / "out", **args),
    )
    assert ours.records == plain.records
    assert ours.draws == plain.draws
    for index in range(len(plain.records)):
        one, two = (d.load(index, np.random.default_rng(index)) for d in (plain, ours))
        for name in ("image", "label", "lesion"):
            a, b = getattr(one, name), getattr(two, name)
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)
    one, two = (
        Sample(s.image * 0, s.label * 0, s.lesion * 0, 0) for s in [plain.load(3, np.random.default_rng(3))] * 2
    )
    assert plain.load_into(3, one) == ours.load_into(3, two)
    assert np.array_equal(one.image, two.image)
    assert np.array_equal(one.lesion, two.lesion)


def test_without_lesion_ids_it_trains_if_no_loss_asks(folder):
    store = Store(folder / "store")
    data = build("npy_slices", store, Geometry(), lesions=False, root=folder / "bare")
    assert data.load(0, np.random.default_rng(0)).lesion is None
    text = (
        f"{folder}/bare: lesion ids were not exported; run tools/prepare.py EXPERIMENT --export npy "
        f"--out {folder}/bare --lesions"
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        build("npy_slices", store, Geometry(), root=folder / "bare")


def test_an_export_of_another_content_is_refused(folder, tmp_path):
    other = [make(tmp_path, "a", 7, (64, 64, 12)), make(tmp_path, "b", 8, (64, 64, 12))]
    run(other, tmp_path / "store")
    text = f"{folder}/out: case 'a' is not as in the store {tmp_path}/store; export it again"
    with pytest.raises(ValueError, match=re.escape(text)):
        build("npy_slices", Store(tmp_path / "store"), Geometry(), root=folder / "out")
