"""The order of samples, shards, resuming, overfitting, and what is refused."""

import numpy as np
import pytest
import torch
from loading import assert_same, epochs, loader, odd_plugins, plan, write_store

import registry
from core.build import build
from core.contracts import Record, Sample
from core.data.feed import _one_ahead
from core.data.store import Store
from core.data.workers import choose
from core.errors import UserError
from core.infer.geometry import Geometry
from core.train.assemble import _missing


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("loader"))


@pytest.fixture(scope="module", autouse=True)
def _odd(tmp_path_factory):
    with odd_plugins(tmp_path_factory.mktemp("plugins")):
        yield


FLIPS = ("{name: flip}", "{name: noise, p: 1.0}")


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_each_batch_in_contiguous_blocks(store, world):
    one = loader(store, batch=6, transforms=FLIPS)
    parts = [loader(store, batch=6, transforms=FLIPS, rank=r, world=world) for r in range(world)]
    for whole, *shares in zip(one.epoch(1), *(p.epoch(1) for p in parts), strict=True):
        batches = [b for share in shares for b in share]
        assert [len(b.indices) for b in batches] == [6 // world] * world
        assert [p for b in batches for p in b.positions] == whole[0].positions
        assert torch.equal(torch.cat([b.image for b in batches]), whole[0].image)
        assert torch.equal(torch.cat([b.label for b in batches]), whole[0].label)


def test_a_step_is_micro_batches_of_the_same_samples(store):
    whole = loader(store, batch=6, transforms=FLIPS)
    split = loader(store, batch=6, micro_batch=2, transforms=FLIPS)
    assert (whole.accumulate, split.accumulate, split.micro) == (1, 3, 2)
    for (batch,), micro in zip(whole.epoch(0), split.epoch(0), strict=True):
        assert len(micro) == 3
        assert torch.equal(torch.cat([b.image for b in micro]), batch.image)


def test_batches_follow_the_order_and_hold_what_the_store_holds(store):
    found = loader(store, batch=5, lesions=True, geometry=Geometry(channels=3, divisor=4, context=1))
    cases = Store(store)
    assert found.steps_per_epoch == 24 // 5
    for step, (batch,) in enumerate(found.epoch(2)):
        assert batch.positions == list(range(5 * step, 5 * step + 5))
        assert batch.indices == [found.order(2)[p] for p in batch.positions]
        for row, index in enumerate(batch.indices):
            record = found.records[index]
            near = [max(record.z - 1, 0), record.z, min(record.z + 1, cases.info(record.case).shape[0] - 1)]
            assert np.array_equal(batch.image[row], cases.image(record.case, near))
            assert np.array_equal(batch.label[row], cases.label(record.case, [record.z])[0])
            assert np.array_equal(batch.lesion[row], cases.lesion(record.case, [record.z])[0])
    assert (batch.image.dtype, batch.label.dtype, batch.lesion.dtype) == (torch.int16, torch.uint8, torch.int32)


@pytest.mark.parametrize("geometry", [Geometry(divisor=32), Geometry(size=16, divisor=8), Geometry(divisor=4)])
@pytest.mark.parametrize("compression", ["bitshuffle-lz4", "none"])
def test_reading_into_the_batch_gives_what_load_gives(tmp_path, geometry, compression):
    found = loader(write_store(tmp_path, compression=compression), geometry=geometry, lesions=True)
    for (batch,) in found.epoch(0):
        for row, index in enumerate(batch.indices):
            sample = found.samples.dataset.load(index, np.random.default_rng(0))
            assert np.array_equal(batch.image[row], sample.image)
            assert np.array_equal(batch.label[row], sample.label)
            assert np.array_equal(batch.lesion[row], sample.lesion)


def test_an_epoch_goes_on_from_any_step(store):
    found = loader(store, transforms=FLIPS, micro_batch=2)
    whole = epochs(found, (1, 0))
    assert_same(epochs(found, (1, 2)), whole[4:])
    assert epochs(found, (1, found.steps_per_epoch)) == []


def test_first_is_the_first_step_of_the_first_epoch(store):
    found = loader(store, transforms=FLIPS, micro_batch=2)
    assert_same(found.first(), next(iter(found.epoch(0))))


def test_without_a_loss_that_asks_there_are_no_lesion_ids(store):
    assert loader(store).first()[0].lesion is None
    assert loader(store).samples.dataset.load(0, np.random.default_rng(0)).lesion is None


def test_overfit_is_the_first_batches_again_and_again_untransformed(store):
    plain = epochs(loader(store), (0, 0))[:2]
    found = loader(store, overfit=2, transforms=FLIPS)
    assert found.steps_per_epoch == 2
    assert found.order(0) == found.order(7)
    assert len(found.order(0)) == 8
    for epoch in (0, 1, 5):
        assert_same(epochs(found, (epoch, 0)), plain)
    assert_same(epochs(found, (3, 1)), plain[1:])
    assert_same(found.first(), plain[:1])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"dataset": "{name: odd_slices, how: empty}"},
            "the training set is empty: dataset 'odd_slices' keeps no slice of 3 training cases",
        ),
        (
            {"batch": 25},
            "train.batch is 25, but an epoch of sampler 'uniform' has only 24 samples; set train.batch to at most 24",
        ),
        (
            {"overfit": 7},
            "train.overfit is 7, but an epoch of sampler 'uniform' has only 6 batches; set train.overfit to at most 6",
        ),
        ({"batch": 5, "world": 2}, "train.batch 5 is not divisible by 2 ranks; try 4"),
        (
            {"batch": 6, "micro_batch": 2, "world": 2},
            "train.batch 6 is not a multiple of train.micro_batch 2 x 2 ranks, "
            "so gradients cannot be accumulated exactly",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_at_once(store, options, text):
    with pytest.raises(UserError) as error:
        loader(store, **options)
    assert str(error.value) == text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"dataset": "{name: odd_slices, how: smaller}", "sampler": "{name: in_order}"},
            "samples of one batch differ in shape: (1, 16, 24), (1, 20, 24); "
            "set dataset.size, or crop in the last transform",
        ),
        (
            {"dataset": "{name: odd_slices, how: no lesions}", "lesions": True},
            "a loss asks for lesion ids, but the data set's samples have none",
        ),
        (
            {"sampler": "{name: in_order, odd_epoch: 1}"},
            "sampler 'in_order' gave 24 positions between 24 and 24 in epoch 1; "
            "want 24 (as in epoch 0) between 0 and 23",
        ),
    ],
)
def test_what_only_shows_while_loading_is_named(store, options, text):
    found = loader(store, **options)
    with pytest.raises(UserError) as error:
        epochs(found, (0, 0), (1, 0))
    assert str(error.value) == text


def test_a_data_set_that_draws_although_it_says_not_is_caught(store):
    found = loader(store, dataset="{name: odd_slices, how: draws}")
    with pytest.raises(TypeError, match=r"^the data set says `draws = False`, yet its load\(\) asks rng for random$"):
        found.first()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        # 1 x 20 x 24 of int16 and of uint8 are 1440 bytes, 4 of them a micro-batch.
        ({}, "no batch ahead, 5.6 kB"),
        ({"workers": 2, "worker_start": "thread", "prefetch": 3}, "6 micro-batches ahead, 33.8 kB"),
        ({"workers": 2, "prefetch": 6, "worker_start": "fork", "micro_batch": 1}, "12 micro-batches ahead, 16.9 kB"),
        ({"lesions": True}, "no batch ahead, 13.1 kB"),
        ({"cache": "ram"}, "24 samples kept in memory, 33.8 kB; no batch ahead, 5.6 kB"),
        ({"cache": "device"}, "24 samples kept on the device, 33.8 kB; no batch ahead, 5.6 kB"),
    ],
)
def test_memory_is_estimated(store, options, text):
    found = loader(store, **options)
    assert found.memory() == text
    found.close()


@pytest.mark.parametrize(
    ("cores", "ranks", "given", "transforms", "quick", "want"),
    [
        (2, 1, ("auto", "auto"), True, False, (1, "fork")),
        (16, 1, ("auto", "auto"), True, False, (8, "fork")),
        (16, 4, ("auto", "auto"), True, True, (3, "fork")),
        (16, 1, ("auto", "auto"), False, False, (4, "thread")),
        (16, 1, ("auto", "auto"), False, True, (2, "thread")),
        (1, 1, ("auto", "auto"), True, False, (0, "fork")),
        (16, 1, (5, "auto"), False, True, (5, "thread")),
        (16, 1, (0, "spawn"), True, False, (0, "spawn")),
        (16, 1, ("auto", "spawn"), True, False, (8, "spawn")),
    ],
)
def test_auto_takes_threads_for_reading_and_processes_for_transforms(
    monkeypatch, cores, ranks, given, transforms, quick, want
):
    monkeypatch.setattr("core.data.workers.cpus", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert choose(*given, transforms=transforms, quick=quick) == want


@pytest.mark.parametrize("name", [n for n in registry.names("transform") if n != "spoil"])
def test_transforms_do_the_same_without_lesion_ids(store, name):
    transform = build(plan("transform", f"{{name: {name}, p: 1.0}}"), records=[], store=Store(store))
    rng = np.random.default_rng(0)
    image, label = rng.integers(-200, 300, (1, 32, 32)).astype(np.int16), rng.integers(0, 3, (32, 32)).astype(np.uint8)
    with_ids = transform(Sample(image, label, label.astype(np.int32), 0), np.random.default_rng(1))
    without = transform(Sample(image, label, None, 0), np.random.default_rng(1))
    assert without.lesion is None
    assert np.array_equal(without.image, with_ids.image)
    assert np.array_equal(without.label, with_ids.label)
    assert without.label.dtype == np.uint8


def test_the_next_step_is_taken_before_one_is_given_and_its_error_waits_for_its_turn():
    taken = []

    def steps():
        for step in range(3):
            taken.append(step)
            yield step
        raise ZeroDivisionError

    ahead = _one_ahead(steps())
    assert next(ahead) == 0
    assert taken == [0, 1]
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(ZeroDivisionError):
        next(ahead)
    assert list(_one_ahead(iter([]))) == []


@pytest.mark.parametrize(
    ("voxels", "missing"), [([(9, 0), (0, 0)], ["tumour"]), ([(5, 5)], ["liver"]), ([(0, 0)], ["liver", "tumour"])]
)
def test_classes_without_a_voxel_are_named(voxels, missing):
    assert _missing([Record("c", "p", z, liver, tumour) for z, (liver, tumour) in enumerate(voxels)]) == missing
    assert _missing([Record("c", "p", 0, 9, 4)]) == []
