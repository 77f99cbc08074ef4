import copy

import pytest
import torch

import registry
from core.contracts import Batch
from core.values import IGNORE


def batch(count=3):
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (count, 32, 48), generator=generator, dtype=torch.uint8)
    lesion = (label == 2).int() * 3
    label[:, -2:] = IGNORE
    image = torch.randint(-1000, 400, (count, 1, 32, 48), generator=generator, dtype=torch.int16)
    return Batch(image, label, lesion, list(range(count)), list(range(count)))


@pytest.fixture(params=registry.names("augment"))
def augment(request, build):
    component = build("augment", request.param)
    return lambda one, seeds: component(copy.deepcopy(one), torch.tensor(seeds, dtype=torch.int64))


def test_keeps_types_and_labels(augment):
    before, after = batch(), augment(batch(), [1, 2, 3])
    assert after.image.shape[:2] == before.image.shape[:2]
    assert after.image.dtype in (torch.int16, torch.float32)
    assert after.image.isfinite().all()
    assert after.label.dtype == before.label.dtype
    assert after.label.shape == (3, *after.image.shape[2:])
    assert after.lesion.shape == after.label.shape
    assert set(after.label.unique().tolist()) <= {0, 1, 2, IGNORE}
    assert (after.indices, after.positions) == (before.indices, before.positions)


def test_each_sample_depends_on_its_own_seed_alone(augment):
    seeds = [5, 2**62 + 1, 9]
    together, alone = augment(batch(), seeds), [augment(_one(i), [seeds[i]]) for i in range(3)]
    for i, one in enumerate(alone):
        assert torch.equal(together.image[i], one.image[0])
        assert torch.equal(together.label[i], one.label[0])


def test_same_seeds_give_the_same_and_others_another_batch(augment):
    assert torch.equal(augment(batch(), [1, 2, 3]).image, augment(batch(), [1, 2, 3]).image)
    images = {augment(batch(), [s, s + 100, s + 200]).image.numpy().tobytes() for s in range(12)}
    assert len(images) > 1


def test_does_not_touch_the_global_generator(augment):
    before = torch.get_rng_state()
    augment(batch(), [1, 2, 3])
    assert torch.equal(torch.get_rng_state(), before)


def _one(i):
    whole = batch()
    return Batch(whole.image[i : i + 1], whole.label[i : i + 1], whole.lesion[i : i + 1], [i], [i])
