import io
import re
from collections import Counter

import numpy as np
import pytest
import torch

from core.contracts import Record
from plugins.sampler.hard_examples import HardExamples

COUNT = 40
RECORDS = [Record("c", "p", z, 9, 0) for z in range(COUNT)]


def sampler(**given):
    """One that has seen a loss of every record, the last the greatest."""
    made = HardExamples(RECORDS, **given)
    made.observe(range(COUNT), [float(i) for i in range(COUNT)])
    return made


def test_before_the_first_losses_all_are_drawn_alike():
    fresh = HardExamples(RECORDS, length=60)
    drawn = [i for epoch in range(4) for i in fresh.order(1, epoch)]
    assert set(Counter(drawn).values()) == {6}


def test_the_chance_falls_exponentially_with_the_rank():
    made = sampler(pressure=100.0, uniform_fraction=0.0)
    chance = made._probabilities()
    assert chance[-1] == pytest.approx(1)
    assert chance[0] == pytest.approx(0.01)
    assert np.allclose(chance[1:] / chance[:-1], 100 ** (1 / 39))
    count = Counter(i for epoch in range(50) for i in made.order(0, epoch))
    expected = 50 * COUNT * chance / chance.sum()
    # Equal steps from a random point: within one of what is expected in each epoch, so far closer than by chance.
    assert max(abs(count[i] - expected[i]) for i in range(COUNT)) < 20
    assert count[COUNT - 1] > 5 * count[0]


def test_only_ranks_count_and_not_how_large_a_loss_is():
    first, second = sampler(), HardExamples(RECORDS)
    second.observe(range(COUNT), [float(10**i) for i in range(COUNT)])
    assert list(first.order(0, 1)) == list(second.order(0, 1))


def test_equal_losses_have_equal_chances():
    made = HardExamples(RECORDS, uniform_fraction=0.0)
    made.observe(range(COUNT), [1.0] * COUNT)
    assert len(set(made._probabilities().tolist())) == 1
    assert set(Counter(made.order(0, 0)).values()) == {1}


def test_records_never_drawn_come_first():
    made = HardExamples(RECORDS)
    made.observe(range(COUNT - 2), [float(i) for i in range(COUNT - 2)])
    chance = made._probabilities()
    assert chance[-1] == chance[-2] > chance[:-2].max()


def test_a_uniform_share_forgets_none():
    made = sampler(pressure=1e9, uniform_fraction=0.25)
    drawn = [i for epoch in range(4) for i in made.order(0, epoch)]
    assert set(drawn) == set(range(COUNT))
    assert len(drawn) == 4 * COUNT
    never = sampler(pressure=1e9, uniform_fraction=0.0)
    assert len({i for epoch in range(4) for i in never.order(0, epoch)}) < COUNT


def test_a_loss_is_smoothed_over_the_epochs_in_which_its_sample_was_drawn():
    made = HardExamples(RECORDS, smoothing=0.75)
    made.observe([3, 3, 5], [2.0, 4.0, 8.0])  # a sample that came twice counts with its mean
    made.observe([3], [7.0])
    assert made.losses[3] == pytest.approx(0.75 * 3 + 0.25 * 7)
    assert made.losses[5] == 8
    assert np.isnan(made.losses[[0, 4, 39]]).all()


def test_an_order_is_that_of_seed_epoch_and_state_and_survives_a_checkpoint():
    made, file = sampler(), io.BytesIO()
    torch.save(made.state_dict(), file)
    orders = [list(made.order(2, epoch)) for epoch in (4, 5)]
    made.observe([0], [1000.0])
    file.seek(0)
    again = HardExamples(RECORDS)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert [list(again.order(2, epoch)) for epoch in (4, 5)] == orders
    assert orders[0] != orders[1]
    assert list(made.order(2, 4)) != orders[0]


def test_what_has_been_given_out_as_state_does_not_change():
    made = sampler()
    state = made.state_dict()
    made.observe([0], [1000.0])
    assert float(state["losses"][0]) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HardExamples([]), "there are no training samples to draw from; check `dataset` (keep) and `split`"),
        (lambda: HardExamples(RECORDS, pressure=0.5), "pressure must be at least 1, got 0.5"),
        (lambda: HardExamples(RECORDS, uniform_fraction=2.0), "uniform_fraction must be from 0 to 1, got 2.0"),
        (lambda: HardExamples(RECORDS, smoothing=1.0), "smoothing must be from 0 to below 1, got 1"),
        (lambda: HardExamples(RECORDS, length=0), "length must be at least 1, got 0"),
        (
            lambda: HardExamples(RECORDS[:7]).load_state_dict(sampler().state_dict()),
            "the sampler's state holds 40 losses and there are 7 training samples; data set or split are not those of "
            "the run",
        ),
    ],
)
def test_bad_values_are_refused(make, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()
