import io

import pytest
import torch

import registry

NAMES = registry.names("sampler")


@pytest.fixture(params=NAMES)
def make(request, build):
    return lambda: build("sampler", request.param)


def test_same_seed_and_epoch_give_the_same_order_in_a_fresh_sampler(make):
    assert list(make().order(3, 2)) == list(make().order(3, 2))


def test_order_does_not_depend_on_the_orders_asked_for_before(make):
    used = make()
    for epoch in (0, 1, 7):
        used.order(3, epoch)
    assert list(used.order(3, 2)) == list(make().order(3, 2))


def test_another_epoch_and_another_seed_give_another_order(make):
    first = list(make().order(3, 0))
    assert list(make().order(3, 1)) != first
    assert list(make().order(4, 0)) != first


def test_length_is_the_same_in_every_epoch(make):
    sampler = make()
    lengths = {len(sampler.order(seed, epoch)) for seed in (0, 1) for epoch in range(5)}
    assert len(lengths) == 1
    assert lengths.pop() > 0


def test_losses_change_neither_the_length_nor_the_range_of_positions(make, records):
    sampler, length = make(), len(make().order(0, 0))
    if not hasattr(sampler, "observe"):
        return  # it does not follow the loss
    for epoch in range(4):
        order = [int(i) for i in sampler.order(0, epoch)]
        assert len(order) == length
        assert set(order) <= set(range(len(records)))
        # A run may stop in an epoch, and losses that are not finite are left out.
        sampler.observe(order[epoch:], [float(i * epoch % 5) for i in order[epoch:]])


def test_positions_are_within_the_records(make, records):
    order = [int(i) for i in make().order(0, 0)]
    assert min(order) >= 0
    assert max(order) < len(records)


def test_does_not_touch_global_generators(make):
    import random

    import numpy as np
    import torch

    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    make().order(0, 0)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_state_survives_a_round_trip_where_there_is_one(make):
    sampler, order = make(), list(make().order(0, 1))
    if hasattr(sampler, "observe"):
        sampler.observe(order, [float(i % 7) for i in range(len(order))])
        file = io.BytesIO()
        torch.save(sampler.state_dict(), file)
        wanted = list(sampler.order(0, 2))
        assert wanted == list(sampler.order(0, 2)), "an order depends on seed, epoch and state alone"
        sampler.observe(order[:3], [100.0, 0.0, 50.0])  # a state that was given out does not follow
        file.seek(0)
        fresh = make()
        fresh.load_state_dict(torch.load(file, weights_only=True))
        assert list(fresh.order(0, 2)) == wanted
    else:
        assert not hasattr(sampler, "state_dict"), "a sampler without observe has nothing to save"
