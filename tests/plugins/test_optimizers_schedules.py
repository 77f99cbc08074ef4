import math

import pytest
import torch

from plugins.optimizer.adamw import adamw
from plugins.optimizer.sgd import sgd
from plugins.schedule.cosine import Cosine
from plugins.schedule.plateau import Plateau
from plugins.schedule.poly import Poly


def model():
    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 2, 1))


def test_adamw_spares_norms_and_biases_from_decay():
    net = model()
    decayed, spared = adamw(net, lr=1e-3, weight_decay=0.1).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert [id(p) for p in decayed["params"]] == [id(net[0].weight), id(net[2].weight)]
    assert [id(p) for p in spared["params"]] == [id(p) for p in (net[0].bias, net[1].weight, net[1].bias, net[2].bias)]


def test_sgd_decays_everything_as_nnunet_does():
    (group,) = sgd(model()).param_groups
    assert (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) == (0.01, 0.99, True, 3e-5)
    assert len(group["params"]) == 6


def test_sgd_refuses_nesterov_without_momentum():
    with pytest.raises(ValueError, match=r"^nesterov wants momentum above 0; set nesterov: false or a momentum such"):
        sgd(model(), momentum=0.0)


def test_cosine_by_hand():
    schedule = Cosine(100, 10)
    assert schedule(0) == 1
    assert schedule(25) == pytest.approx(0.5 + math.sqrt(0.5) / 2)
    assert schedule(50) == pytest.approx(0.5)
    assert schedule(100) == pytest.approx(0)


def test_cosine_warms_up_to_1_and_ends_at_its_minimum():
    schedule = Cosine(100, 10, warmup_epochs=0.4, min_factor=0.1)
    assert [schedule(s) for s in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert schedule(52) == pytest.approx(0.55)
    assert schedule(100) == pytest.approx(0.1)
    assert schedule(1000) == pytest.approx(0.1)


def test_poly_by_hand():
    schedule = Poly(100, 10, power=0.9)
    assert schedule(0) == 1
    assert schedule(50) == pytest.approx(0.5**0.9)
    assert schedule(100) == 0
    warm = Poly(100, 10, power=1.0, warmup_epochs=1)
    assert warm(10) == 1
    assert warm(55) == pytest.approx(0.5)


@pytest.mark.parametrize("kind", [Cosine, Poly])
def test_training_shorter_than_its_warm_up_only_rises(kind):
    schedule = kind(10, 10, warmup_epochs=3)
    factors = [schedule(s) for s in range(10)]
    assert factors == sorted(factors)
    assert factors[-1] == pytest.approx(10 / 31)


def test_plateau_lowers_after_patience_and_waits_anew():
    schedule = Plateau(factor=0.5, patience=2, min_factor=0.2, threshold=0.01)
    seen = []
    for value in [1.0, 0.995, 0.98, 0.98, 0.99, float("nan"), 0.98, 0.98, 0.98, 0.98, 0.98, 0.98, 0.5]:
        schedule.observe(value)
        seen.append(schedule(0))
    # 0.995 is within the threshold of 1.0; 0.98 is not. Three without improvement lower it, twice, down to the minimum.
    assert seen == [1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2, 0.2]


def test_plateau_works_on_values_below_0():
    schedule = Plateau(patience=0, threshold=0.01)
    for value in (-0.5, -0.6, -0.7):
        schedule.observe(value)
    assert schedule(0) == 1
    schedule.observe(-0.65)
    assert schedule(0) == 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cosine(10, 5, warmup_epochs=-1), "warmup_epochs must not be negative, got -1"),
        (lambda: Cosine(10, 5, min_factor=2), "min_factor must be from 0 to 1, got 2"),
        (lambda: Poly(10, 5, power=0), "power must be greater than 0, got 0"),
        (lambda: Poly(10, 5, warmup_epochs=-1), "warmup_epochs must not be negative, got -1"),
        (lambda: Plateau(factor=1.0), "factor must be above 0 and below 1, got 1.0"),
        (lambda: Plateau(patience=-1), "patience must not be negative, got -1"),
        (lambda: Plateau(min_factor=-1), "min_factor must be from 0 to 1, got -1"),
        (lambda: Plateau(threshold=-1), "threshold must not be negative, got -1"),
    ],
)
def test_bad_values_are_refused(make, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the whole text is compared)
        make()
    assert str(caught.value) == message
