import copy
import math

import pytest
import torch

from plugins.optimizer.adamw import adamw
from plugins.optimizer.sgd import sgd
from plugins.schedule.constant import Constant
from plugins.schedule.cosine import Cosine
from plugins.schedule.one_cycle import OneCycle
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


FUSED = [pytest.param(adamw, id="adamw"), pytest.param(sgd, id="sgd")]


def update(net, optimizer, *, masked=False, seed=0):
    """One update, or one whose gradients are no numbers and that is left out on the device, as the trainer does it."""
    optimizer.zero_grad()
    net(torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(seed))).square().mean().backward()
    if masked:
        for parameter in net.parameters():
            parameter.grad.fill_(float("nan"))
    optimizer.found_inf, optimizer.grad_scale = torch.tensor(float(masked)), None
    optimizer.step()


def all_of(net, optimizer):
    state = [v for s in optimizer.state_dict()["state"].values() for v in s.values()]
    return [t.detach().clone() for t in [*net.parameters(), *state]]


def equal(first, second):
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("make", FUSED)
def test_an_update_that_is_left_out_on_the_device_changes_nothing(make):
    net = model()
    optimizer = make(net, lr=0.1)
    assert all(group["fused"] for group in optimizer.param_groups)
    assert optimizer._step_supports_amp_scaling
    for seed in range(2):
        update(net, optimizer, seed=seed)
    before = all_of(net, optimizer)
    assert len(before) > len(list(net.parameters()))
    update(net, optimizer, masked=True)
    assert equal(before, all_of(net, optimizer))


@pytest.mark.parametrize("make", FUSED)
def test_a_first_update_that_is_left_out_leaves_no_trace(make):
    def run(masked):
        torch.manual_seed(0)
        net = model()
        optimizer = make(net, lr=0.1)
        if masked:
            update(net, optimizer, masked=True)
        for seed in range(3):
            update(net, optimizer, seed=seed)
        return all_of(net, optimizer)

    assert equal(run(masked=True), run(masked=False))


@pytest.mark.parametrize("make", FUSED)
def test_fused_updates_are_torchs_plain_ones(make):
    torch.manual_seed(0)
    net = model()
    other = copy.deepcopy(net)
    optimizer = make(net)
    groups = [{**g, "fused": None, "params": []} for g in optimizer.param_groups]
    twins = dict(zip(net.parameters(), other.parameters(), strict=True))
    for mine, theirs in zip(optimizer.param_groups, groups, strict=True):
        theirs["params"] = [twins[p] for p in mine["params"]]
    plain = type(optimizer)(groups, foreach=False)
    for seed in range(5):
        update(net, optimizer, seed=seed)
        plain.zero_grad()
        other(torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(seed))).square().mean().backward()
        plain.step()
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("make", FUSED)
def test_a_state_of_an_unfused_optimizer_goes_on_fused(make):
    first, second = model(), model()
    unfused = type(make(first))([{**g, "fused": None} for g in make(first).param_groups], foreach=False)
    first(torch.ones(1, 1, 6, 6)).sum().backward()
    unfused.step()
    optimizer = make(second)
    second.load_state_dict(first.state_dict())
    optimizer.load_state_dict(copy.deepcopy(unfused.state_dict()))
    assert all(group["fused"] for group in optimizer.param_groups)
    before = all_of(second, optimizer)
    update(second, optimizer, masked=True)
    assert equal(before, all_of(second, optimizer))
    update(second, optimizer)
    assert not equal(before, all_of(second, optimizer))


@pytest.mark.parametrize("make", FUSED)
def test_parameters_without_fused_kernels_are_trained_as_torch_chooses(make):
    net = model().to("meta")
    assert [group["fused"] for group in make(net).param_groups] == [None] * len(make(net).param_groups)
    with pytest.raises(ValueError, match="parameter group"):
        make(model()).load_state_dict({"state": {}, "param_groups": []})


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


def test_constant_stays_after_its_warm_up():
    schedule = Constant(10, warmup_epochs=0.3)
    assert [schedule(s) for s in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert {Constant(10)(s) for s in (0, 1, 1000)} == {1}


@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize("total", [1, 2, 7, 30, 100])
@pytest.mark.parametrize(("share", "div", "final"), [(0.3, 25.0, 1e4), (0.15, 10.0, 100.0), (0.9, 1.0, 1.0)])
def test_one_cycle_is_torchs_one_cycle(anneal, total, share, div, final):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    shape = {"pct_start": share, "div_factor": div, "final_div_factor": final, "anneal_strategy": anneal}
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.4, total, cycle_momentum=False, **shape)
    expected = []
    for _ in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(expected) < total:
            theirs.step()
    schedule = OneCycle(total, pct_start=share, div_factor=div, final_div_factor=final, anneal=anneal)
    assert [0.4 * schedule(s) for s in range(total)] == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_one_cycle_by_hand():
    schedule = OneCycle(101, pct_start=51 / 101, div_factor=10.0, final_div_factor=10.0)
    assert [schedule(s) for s in (0, 25, 50, 75, 100)] == pytest.approx([0.1, 0.55, 1.0, 0.505, 0.01])
    assert schedule(1000) == pytest.approx(0.01)
    # Here torch divides 0 by 0: a rise of a single update.
    assert OneCycle(10, pct_start=0.1)(0) == 1


@pytest.mark.parametrize("make", [lambda: Cosine(40, 10, warmup_epochs=1), lambda: Poly(40, 10, warmup_epochs=1)])
def test_warm_up_ends_and_decay_begins_on_the_step(make):
    schedule = make()
    assert schedule(9) == pytest.approx(10 / 11)
    assert schedule(10) == 1
    assert 0 < schedule(39) < schedule(38) < 1
    assert schedule(40) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kind", [Cosine, Poly])
def test_training_shorter_than_its_warm_up_only_rises(kind):
    schedule = kind(10, 10, warmup_epochs=3)
    factors = [schedule(s) for s in range(10)]
    assert factors == sorted(factors)
    assert factors[-1] == pytest.approx(10 / 31)


def test_plateau_lowers_after_patience_and_waits_anew():
    schedule = Plateau(10, factor=0.5, patience=2, min_factor=0.2, threshold=0.01)
    seen = []
    for value in [1.0, 0.995, 0.98, 0.98, 0.99, float("nan"), 0.98, 0.98, 0.98, 0.98, 0.98, 0.98, 0.5]:
        schedule.observe(value)
        seen.append(schedule(0))
    # 0.995 is within the threshold of 1.0; 0.98 is not. Three without improvement lower it, twice, down to the minimum.
    assert seen == [1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2, 0.2]


def test_plateau_warms_up():
    schedule = Plateau(2, patience=0, warmup_epochs=2)
    assert [schedule(s) for s in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    schedule.observe(1.0)
    schedule.observe(1.0)
    assert [schedule(s) for s in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


def test_plateau_works_on_values_below_0():
    schedule = Plateau(10, patience=0, threshold=0.01)
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
        (lambda: Constant(5, warmup_epochs=float("nan")), "warmup_epochs must not be negative, got nan"),
        (lambda: OneCycle(10, pct_start=0), "pct_start must be between 0 and 1, got 0"),
        (lambda: OneCycle(10, pct_start=1.0), "pct_start must be between 0 and 1, got 1.0"),
        (lambda: OneCycle(10, div_factor=0), "div_factor must be greater than 0, got 0"),
        (lambda: OneCycle(10, final_div_factor=-1.0), "final_div_factor must be greater than 0, got -1.0"),
        (lambda: Plateau(5, warmup_epochs=-1), "warmup_epochs must not be negative, got -1"),
        (lambda: Plateau(5, factor=1.0), "factor must be above 0 and below 1, got 1.0"),
        (lambda: Plateau(5, patience=-1), "patience must not be negative, got -1"),
        (lambda: Plateau(5, min_factor=-1), "min_factor must be from 0 to 1, got -1"),
        (lambda: Plateau(5, threshold=-1), "threshold must not be negative, got -1"),
    ],
)
def test_bad_values_are_refused(make, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the whole text is compared)
        make()
    assert str(caught.value) == message
