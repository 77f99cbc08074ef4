import numpy as np
import pytest

from core.errors import UserError
from core.train.lr_range import Curve, Suggestion, check, smooth, suggest

RATES = np.geomspace(1e-6, 1.0, 61)  # ten steps a decade


def curve(losses, *, exploded=False):
    losses = np.asarray(losses, float)
    return Curve(RATES[: len(losses)], losses, np.ones(len(losses)), smooth(losses, 2.0), exploded)


def fall(middle, *, depth=1.0, width=0.3):
    """From 2 down by `depth`, fastest at `middle`."""
    return 2 - depth / (1 + np.exp(-(np.log10(RATES) - np.log10(middle)) / width))


def rise(start):
    return 3.0 * np.maximum(np.log10(RATES) - np.log10(start), 0)


def test_the_suggestion_is_where_the_loss_falls_fastest():
    assert suggest(curve(fall(1e-3))) == Suggestion(1e-3, pytest.approx(1e-3), None)


def test_at_most_a_tenth_of_where_the_loss_is_above_its_beginning():
    found = suggest(curve(fall(1e-2) + rise(10**-1.5)))
    assert found.steepest == pytest.approx(1e-2, rel=0.3)
    assert 0.05 < found.diverged < 0.1
    assert found.rate == float(f"{found.diverged / 10:.1e}") < found.steepest


def test_a_fall_after_a_rise_is_no_suggestion():
    losses = fall(1e-4)
    losses[45:50] += np.array([1, 3, 6, 3, 1]) * 0.3  # a spike at 1e-1.5, falling steeply behind it
    assert suggest(curve(losses)).rate == pytest.approx(1e-4, rel=0.3)


@pytest.mark.parametrize("seed", range(5))
def test_noise_moves_it_little(seed):
    losses = fall(1e-3) + np.random.default_rng(seed).normal(0, 0.04, len(RATES))
    assert 2e-4 < suggest(curve(losses)).rate < 5e-3


def test_an_explosion_at_the_end_is_where_it_diverges():
    losses = [*fall(1e-3)[:45], np.nan]
    assert suggest(curve(losses, exploded=True)).diverged == pytest.approx(RATES[45])
    # Nor does it blur into the steps before it.
    huge = fall(1e-3)
    huge[50:] = 1e9
    assert suggest(curve(huge)).steepest == pytest.approx(1e-3)


@pytest.mark.parametrize("losses", [np.linspace(1, 2, 61), np.ones(61), [1.0, np.nan], [np.nan]])
def test_no_suggestion_where_the_loss_never_falls(losses):
    assert suggest(curve(losses)).rate is None


def test_smoothing_keeps_straight_lines_and_length():
    line = np.linspace(2, 1, 40)
    assert smooth(line, 2.0)[6:-6] == pytest.approx(line[6:-6])
    assert smooth(np.ones(3), 10.0) == pytest.approx([1, 1, 1])
    assert np.isnan(smooth(np.array([1.0, 1.0, np.nan]), 1.0)).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((1e-2, 1e-3, 100), "--low and --high: want 0 < low < high, got 0.01 and 0.001"),
        ((0.0, 1.0, 100), "--low and --high: want 0 < low < high, got 0 and 1"),
        ((1e-5, float("nan"), 100), "--low and --high: want 0 < low < high, got 1e-05 and nan"),
        ((1e-5, 1.0, 9), "--steps: want at least 10, got 9"),
    ],
)
def test_a_range_that_cannot_be_tested_is_refused(given, message):
    with pytest.raises(UserError) as caught:
        check(*given)
    assert str(caught.value) == message
