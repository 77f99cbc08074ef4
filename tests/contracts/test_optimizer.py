import copy

import pytest
import torch

import registry


@pytest.fixture(params=registry.names("optimizer"))
def make(request, build):
    return lambda model: build("optimizer", request.param, model=model)


def small():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 1))


def train(model, optimizer, steps):
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    values = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    return values


def test_holds_every_trained_parameter_once_and_no_frozen_one(make):
    model = small()
    model[0].weight.requires_grad_(False)
    optimizer = make(model)
    assert isinstance(optimizer, torch.optim.Optimizer)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_lowers_a_simple_loss(make):
    model = small()
    values = train(model, make(model), 60)
    assert values[-1] < values[0]


def test_state_survives_a_round_trip(make):
    first, second = small(), small()
    a, b = make(first), make(second)
    train(first, a, 3)
    # Copies: state dicts hold the tensors themselves, and `a` goes on changing its own.
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    b.load_state_dict(copy.deepcopy(a.state_dict()))
    assert train(first, a, 3) == train(second, b, 3)
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters(), strict=True))


def test_every_group_has_a_learning_rate_that_a_schedule_can_scale(make):
    assert all(group["lr"] > 0 for group in make(small()).param_groups)
