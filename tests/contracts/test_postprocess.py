import numpy as np
import pytest

import registry
from core.infer.evaluate import apply_postprocess

SPACING = (2.5, 0.8, 0.8)


def volumes():
    busy = np.zeros((6, 24, 20), np.uint8)
    busy[1:5, 3:18, 3:15] = 1
    busy[2:4, 6:10, 6:10] = 2
    busy[3, 14, 12] = 2
    busy[5, 22, 18] = 1
    return {
        "busy": busy,
        "empty": np.zeros_like(busy),
        "liver_only": np.minimum(busy, 1),
        "tumour_only": np.where(busy == 2, busy, 0).astype(np.uint8),
        "full": np.ones_like(busy),
        "one_slice": busy[2:3].copy(),
    }


@pytest.fixture(params=registry.names("postprocess"))
def clean(request, build):
    component = build("postprocess", request.param)

    def call(labels):
        rng = np.random.default_rng(0)
        image = rng.normal(50, 20, labels.shape).astype(np.int16)
        hot = np.stack([labels == k for k in range(3)])
        probabilities = (0.1 + 0.7 * hot).astype(np.float16)
        return apply_postprocess([component], labels, SPACING, probabilities=probabilities, image=image)

    call.doc = registry.get("postprocess", request.param).doc
    return call


@pytest.mark.parametrize("which", list(volumes()))
def test_keeps_shape_type_and_labels_and_leaves_its_input_alone(clean, which):
    labels = volumes()[which]
    before = labels.copy()
    after = clean(labels)
    assert after.shape == labels.shape
    assert after.dtype == labels.dtype
    assert set(np.unique(after)) <= {0, 1, 2}
    assert np.array_equal(labels, before)
    assert np.array_equal(after, clean(labels)), "the same input gave two results"


@pytest.mark.parametrize("which", list(volumes()))
def test_is_idempotent_where_it_says_so(clean, which):
    once = clean(volumes()[which])
    if "idempotent" in clean.doc.lower():
        assert np.array_equal(clean(once), once)


def test_works_on_arrays_that_are_not_contiguous(clean):
    labels = volumes()["busy"]
    assert np.array_equal(clean(np.asfortranarray(labels)), clean(labels))
