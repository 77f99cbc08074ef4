import copy
import dataclasses

import pytest
import torch

import registry
from core.build import build as build_plan
from core.contracts import Batch
from core.values import IGNORE

SEEDS = range(12)


def batch(count=3, channels=1):
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (count, 32, 48), generator=generator, dtype=torch.uint8)
    lesion = (label == 2).int() * 3
    label[:, -2:], lesion[:, -2:] = IGNORE, 0
    image = torch.randint(-1000, 400, (count, channels, 32, 48), generator=generator, dtype=torch.int16)
    return Batch(image, label, lesion, list(range(count)), list(range(count)))


@pytest.fixture(params=registry.names("augment"))
def component(request, build, example):
    plan = example("augment", request.param)
    # Always applied, so that what is tested is the change and not its absence.
    if "p" in plan.args:
        plan.args["p"] = 1.0
        return build_plan(plan)
    return build("augment", request.param)


@pytest.fixture
def augment(component):
    return lambda one, seeds: component(copy.deepcopy(one), torch.tensor(seeds, dtype=torch.int64))


@pytest.mark.parametrize("channels", [1, 3])
def test_keeps_types_and_labels(augment, channels):
    for seed in SEEDS:
        before, after = batch(channels=channels), augment(batch(channels=channels), [seed, seed + 100, seed + 200])
        assert after.image.shape[:2] == before.image.shape[:2]
        assert after.image.dtype in (torch.int16, torch.float32)
        assert after.image.isfinite().all()
        assert after.label.dtype == before.label.dtype
        assert after.label.shape == (3, *after.image.shape[2:])
        assert after.lesion.dtype == before.lesion.dtype
        assert after.lesion.shape == after.label.shape
        assert set(after.label.unique().tolist()) <= {0, 1, 2, IGNORE}
        assert set(after.lesion.unique().tolist()) <= {0, 3}
        assert ((after.lesion > 0) <= (after.label == 2)).all()
        assert (after.indices, after.positions) == (before.indices, before.positions)


def test_each_sample_depends_on_its_own_seed_alone(augment):
    seeds = [5, 2**62 + 1, 9]
    together, alone = augment(batch(), seeds), [augment(_one(i), [seeds[i]]) for i in range(3)]
    for i, one in enumerate(alone):
        assert torch.equal(together.image[i], one.image[0])
        assert torch.equal(together.label[i], one.label[0])
        assert torch.equal(together.lesion[i], one.lesion[0])


def test_same_seeds_give_the_same_and_others_another_batch(request, build, augment):
    assert torch.equal(augment(batch(), [1, 2, 3]).image, augment(batch(), [1, 2, 3]).image)
    own_p = build("augment", request.node.callspec.params["component"])  # the example's: a flip with p 1 is one flip
    images = {own_p(batch(), torch.tensor([s, s + 100, s + 200])).image.numpy().tobytes() for s in SEEDS}
    assert len(images) > 1


def test_does_not_touch_the_global_generator(augment):
    before = torch.get_rng_state()
    augment(batch(), [1, 2, 3])
    assert torch.equal(torch.get_rng_state(), before)


def test_does_not_write_into_the_tensors_it_gets(component):
    given, seeds = batch(), torch.tensor([1, 2, 3])
    image, label, lesion = given.image, given.label, given.lesion
    component(given, seeds)
    kept = batch()
    for got, want in (
        (image, kept.image),
        (label, kept.label),
        (lesion, kept.lesion),
        (seeds, torch.tensor([1, 2, 3])),
    ):
        assert torch.equal(got, want)


def test_works_without_lesion_ids_and_with_labels_that_are_all_ignored(augment):
    before = dataclasses.replace(batch(), lesion=None)
    before.label[:] = IGNORE
    after = augment(before, [1, 2, 3])
    assert after.lesion is None
    # What comes in from outside the slice is background.
    assert set(after.label.unique().tolist()) <= {0, IGNORE}


def test_takes_what_another_augment_gives(augment):
    """Types change once: HU that are float32 already stay float32."""
    before = batch()
    before.image = before.image.float() + 0.25
    after = augment(before, [1, 2, 3])
    assert after.image.dtype == torch.float32


def test_never_makes_the_host_wait_for_a_value_on_the_device(component):
    # Tensors of the device "meta" have no values: whoever asks for one (.item(), .tolist(), x[mask], `if x.any()`)
    # fails here, and on a GPU would hold up the whole step.
    one = batch()
    fields = {name: getattr(one, name).to("meta") for name in ("image", "label", "lesion")}
    after = component(dataclasses.replace(one, **fields), torch.zeros(3, dtype=torch.int64, device="meta"))
    assert after.image.shape[:2] == one.image.shape[:2]


def _one(i):
    whole = batch()
    return Batch(whole.image[i : i + 1], whole.label[i : i + 1], whole.lesion[i : i + 1], [i], [i])
