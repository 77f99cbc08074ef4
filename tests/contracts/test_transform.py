import copy
import random

import numpy as np
import pytest
import torch

import registry
from core.values import IGNORE

NAMES = registry.names("transform")
DRAWS = range(12)


@pytest.fixture(params=NAMES)
def transform(request, build, example):
    plan = example("transform", request.param)
    # Always applied, so that what is tested is the change and not its absence.
    if "p" in plan.args:
        from core.build import build as build_plan

        plan.args["p"] = 1.0
        return build_plan(plan)
    return build("transform", request.param)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_keeps_types_and_moves_image_label_and_lesion_together(transform, sample, channels):
    for seed in DRAWS:
        before = sample(channels)
        after = transform(before, np.random.default_rng(seed))
        assert after.image.dtype == np.int16
        assert after.label.dtype == np.uint8
        assert after.lesion.dtype == np.int32
        assert after.image.shape == (channels, *after.label.shape)
        assert after.lesion.shape == after.label.shape
        assert after.index == before.index
        assert set(np.unique(after.label)) <= {0, 1, 2, IGNORE}
        assert set(np.unique(after.lesion)) <= {0, 3}
        assert ((after.lesion > 0) <= (after.label == 2)).all()


def test_is_pure_given_its_generator(transform, sample):
    for seed in DRAWS:
        before = sample()
        kept = copy.deepcopy(before)
        first = transform(before, np.random.default_rng(seed))
        again = transform(sample(), np.random.default_rng(seed))
        for field in ("image", "label", "lesion"):
            assert np.array_equal(getattr(first, field), getattr(again, field))
            assert np.array_equal(getattr(before, field), getattr(kept, field)), "the sample was changed in place"


def test_another_generator_gives_another_sample(request, build, sample, transform):
    transform = build("transform", request.node.callspec.params["transform"])  # with the example's own p
    images = {transform(sample(), np.random.default_rng(seed)).image.tobytes() for seed in DRAWS}
    assert len(images) > 1


def test_does_not_touch_global_generators(transform, sample):
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    transform(sample(), np.random.default_rng(0))
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_never_applied_with_p_0(request, sample, example, transform):
    from core.build import build as build_plan

    plan = example("transform", request.node.callspec.params["transform"])
    if "p" not in plan.args:
        return  # it is always applied, and says so by having no p
    plan.args["p"] = 0.0
    after = build_plan(plan)(sample(), np.random.default_rng(0))
    assert np.array_equal(after.image, sample().image)
    assert np.array_equal(after.label, sample().label)
