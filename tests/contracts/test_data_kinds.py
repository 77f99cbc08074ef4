"""Sources, splits, data sets, inferers and hooks: what holds for any of them."""

import numpy as np
import pytest

import registry
from core.contracts import EVENTS, KINDS, Prediction
from core.data.volume import Native, Volume
from core.infer.geometry import Geometry
from core.values import IGNORE


@pytest.mark.parametrize("kind", ["source", "split", "dataset", "inferer", "hook"])
def test_has_what_its_contract_names(kind, build):
    wanted = [m for m in vars(KINDS[kind].contract) if not m.startswith("_")]
    for name in registry.names(kind):
        component = build(kind, name)
        assert [m for m in wanted if not hasattr(component, m)] == [], f"{kind} '{name}'"


@pytest.mark.parametrize("name", registry.names("split"))
def test_split_gives_the_same_three_parts_twice_and_no_case_twice(name, build):
    parts = build("split", name).parts()
    assert set(parts) == {"train", "val", "test"}
    assert parts == build("split", name).parts()
    cases = [case for part in parts.values() for case in part]
    assert len(cases) == len(set(cases))
    assert parts["train"]


@pytest.mark.parametrize("name", registry.names("dataset"))
def test_dataset_loads_every_record_as_a_sample_on_the_networks_grid(name, build, store):
    geometry = Geometry(channels=3)
    dataset = build("dataset", name, geometry=geometry)
    assert len(dataset.records) > 0
    assert {r.case for r in dataset.records} <= set(store.cases)
    for index, record in enumerate(dataset.records):
        sample = dataset.load(index, np.random.default_rng(index))
        again = dataset.load(index, np.random.default_rng(index))
        assert sample.image.dtype == np.int16
        assert sample.label.dtype == np.uint8
        assert sample.lesion.dtype == np.int32
        assert sample.image.shape == (geometry.images, *sample.label.shape)
        assert sample.label.ndim in (2, 3)
        assert sample.lesion.shape == sample.label.shape
        assert sample.index == index
        assert all(side % geometry.divisor == 0 for side in sample.label.shape[-2:])
        assert set(np.unique(sample.label)) <= {0, 1, 2, IGNORE}
        shown = bool((sample.label == 2).any())
        # Tumour may come into a patch that is anchored elsewhere.
        assert shown == (record.tumour_voxels > 0) or (sample.label.ndim == 3 and shown)
        assert set(record.lesions) <= set(np.unique(sample.lesion).tolist())
        assert len(record.diameters_mm) == len(record.lesions)
        for part in ("image", "label", "lesion"):
            assert np.array_equal(getattr(sample, part), getattr(again, part)), part


@pytest.mark.parametrize("name", registry.names("inferer"))
@pytest.mark.parametrize("shape", [(1, 20, 33), (7, 40, 32)])
def test_inferer_labels_every_voxel_of_the_volume(name, shape, build):
    array = np.random.default_rng(0).normal(50, 100, shape).astype(np.int16)
    volume = Volume(array, (2.5, 0.8, 0.8), np.eye(4), Native(("L", "P", "S"), shape[::-1], np.eye(4), 0))
    inferer = build("inferer", name)
    plain, full = inferer(volume), inferer(volume, probabilities=True)
    assert isinstance(plain, Prediction)
    assert plain.probabilities is None
    assert plain.labels.shape == shape
    assert plain.labels.dtype == np.uint8
    assert np.array_equal(plain.labels, full.labels)
    assert full.probabilities.shape == (3, *shape)
    assert np.allclose(full.probabilities.astype(np.float32).sum(0), 1, atol=0.01)


@pytest.mark.parametrize("name", registry.names("hook"))
def test_hook_listens_to_events_that_exist_and_gives_its_state_back(name, build):
    hook = build("hook", name)
    heard = [m for m in dir(hook) if m.startswith("on_")]
    assert heard
    assert {m[3:] for m in heard} <= set(EVENTS)
    assert hasattr(hook, "state_dict") == hasattr(hook, "load_state_dict")
    if hasattr(hook, "state_dict"):
        build("hook", name).load_state_dict(hook.state_dict())
