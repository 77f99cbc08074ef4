from collections import Counter

import numpy as np
import pytest

from core.contracts import Record
from plugins.sampler.tumour_focused import TumourFocused
from plugins.sampler.uniform import Uniform


def records(tumour, other):
    """The tumour slices first."""
    return [Record("c", "p", z, 10, 5 if z < tumour else 0) for z in range(tumour + other)]


def test_uniform_draws_every_slice_once():
    assert sorted(Uniform(records(3, 17)).order(0, 4)) == list(range(20))


@pytest.mark.parametrize("fraction", [0.1, 0.25, 1 / 3, 0.5, 0.7, 0.9])
def test_every_stretch_has_the_tumour_fraction(fraction):
    order = np.array(TumourFocused(records(6, 94), tumour_fraction=fraction).order(1, 2))
    assert len(order) == 100
    running = np.concatenate([[0], np.cumsum(order < 6)])
    for stretch in (1, 2, 8, 16, 32, 100):
        counts = running[stretch:] - running[:-stretch]
        assert np.abs(counts - fraction * stretch).max() < 1 + 1e-9


def test_half_of_every_batch_is_tumour_and_neighbours_alternate():
    order = np.array(TumourFocused(records(6, 94)).order(0, 0))
    assert ((order < 6).reshape(-1, 2).sum(1) == 1).all()


def test_no_slice_comes_up_again_before_its_group_is_through():
    # 10 of each a epoch: the 4 tumour slices come 2.5 times an epoch, the 16 others once in 1.6 epochs.
    sampler = TumourFocused(records(4, 16))
    drawn = np.concatenate([sampler.order(3, epoch) for epoch in range(8)])
    tumour, other = drawn[drawn < 4], drawn[drawn >= 4]
    assert set(Counter(tumour.tolist()).values()) == {20}
    assert set(Counter(other.tolist()).values()) == {5}
    for block in tumour.reshape(-1, 4):
        assert sorted(block) == [0, 1, 2, 3]
    for block in other.reshape(-1, 16):
        assert sorted(block) == list(range(4, 20))


def test_shuffles_differ():
    sampler = TumourFocused(records(4, 16))
    tumour = [i for i in sampler.order(0, 0) if i < 4] + [i for i in sampler.order(0, 1) if i < 4]
    assert len({tuple(tumour[i : i + 4]) for i in range(0, 20, 4)}) > 1


def test_length_may_be_given():
    assert len(TumourFocused(records(4, 16), length=7).order(0, 0)) == 7
    assert len(TumourFocused(records(4, 16), length=700).order(0, 0)) == 700


def test_extreme_fractions_draw_from_one_group():
    assert set(TumourFocused(records(4, 0), tumour_fraction=1.0).order(0, 0)) == {0, 1, 2, 3}
    assert set(TumourFocused(records(0, 4), tumour_fraction=0.0).order(0, 0)) == {0, 1, 2, 3}


EMPTY = "there are no training samples to draw from; check `dataset` (keep) and `split`"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform([]), EMPTY),
        (lambda: TumourFocused([]), EMPTY),
        (
            lambda: TumourFocused(records(0, 9)),
            "none of the 9 training samples has tumour; use the sampler 'uniform', "
            "or a split with tumour-bearing cases in training",
        ),
        (
            lambda: TumourFocused(records(9, 0)),
            "all 9 training samples have tumour; set tumour_fraction: 1, or keep slices without tumour in `dataset`",
        ),
        (lambda: TumourFocused(records(2, 2), tumour_fraction=1.5), "tumour_fraction must be from 0 to 1, got 1.5"),
        (lambda: TumourFocused(records(2, 2), length=0), "length must be at least 1, got 0"),
    ],
)
def test_bad_values_are_refused(make, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the whole text is compared)
        make()
    assert str(caught.value) == message
