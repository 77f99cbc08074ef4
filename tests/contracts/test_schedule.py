import math

import pytest

import registry

TOTALS = [(50, 10), (7, 10), (1, 1)]


@pytest.fixture(params=registry.names("schedule"))
def make(request, build):
    def schedule(total_steps=50, steps_per_epoch=10):
        return build("schedule", request.param, total_steps=total_steps, steps_per_epoch=steps_per_epoch)

    return schedule


@pytest.mark.parametrize(("total", "per_epoch"), TOTALS)
def test_factor_is_finite_and_never_negative(make, total, per_epoch):
    schedule = make(total, per_epoch)
    factors = [schedule(step) for step in range(total + 1)]
    assert all(isinstance(f, float) and math.isfinite(f) and f >= 0 for f in factors)
    assert max(factors[:total]) > 0


def test_factor_depends_on_the_step_alone_between_validations(make):
    forth, back = make(), make()
    assert [forth(s) for s in range(50)] == [back(s) for s in reversed(range(50))][::-1]


def test_state_survives_a_round_trip(make):
    used, fresh = make(), make()
    if not hasattr(used, "observe"):
        assert not hasattr(used, "state_dict"), "a schedule without observe has nothing to save"
        return
    for value in [1.0, 0.9, float("nan"), *[0.95] * 9]:
        used.observe(value)
    fresh.load_state_dict(used.state_dict())
    for value in [0.9] * 20:
        assert [used(s) for s in range(50)] == [fresh(s) for s in range(50)]
        used.observe(value)
        fresh.observe(value)
