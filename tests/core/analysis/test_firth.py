import numpy as np
import pytest
from scipy.optimize import minimize

from core.analysis import firth


def negative(beta, x, y):
    linear = x @ beta
    mean = 1 / (1 + np.exp(-linear))
    information = x.T @ (x * (mean * (1 - mean))[:, None])
    return -(y @ linear - np.logaddexp(0, linear).sum() + np.linalg.slogdet(information)[1] / 2)


@pytest.mark.parametrize("spread", [1.0, 0.0], ids=["noisy", "separated"])
def test_agrees_with_a_general_optimiser_separated_or_not(spread):
    rng = np.random.default_rng(1)
    x = np.column_stack([np.ones(40), rng.normal(size=(40, 2))])
    y = (x[:, 1] + spread * rng.normal(size=40) > 0.5).astype(float)
    got, converged = firth.fit(x, y)
    assert converged.all()
    wanted = minimize(negative, np.zeros(3), (x, y), method="BFGS", options={"gtol": 1e-8})
    assert got[0] == pytest.approx(wanted.x, abs=2e-4)
    assert np.abs(got).max() < 20  # maximum likelihood has none under separation


def test_a_table_of_two_by_two_gets_half_an_event_in_each_cell():
    # Saturated: Firth's estimate is the odds ratio with 1/2 added to each cell (Haldane 1956), here with an empty cell.
    x = np.column_stack([np.ones(20), np.repeat([0, 1], (8, 12))])
    y = np.r_[np.ones(3), np.zeros(5), np.ones(12)]
    got, converged = firth.fit(x, y)
    assert converged.all()
    assert got[0] == pytest.approx([np.log(3.5 / 5.5), np.log(12.5 / 0.5) - np.log(3.5 / 5.5)], abs=1e-6)


def test_weights_repeat_rows_and_singular_weightings_say_so():
    rng = np.random.default_rng(2)
    x = np.column_stack([np.ones(30), rng.normal(size=30), np.arange(30) < 5])
    y = rng.integers(0, 2, 30).astype(float)
    weights = np.stack([rng.integers(0, 3, 30), np.ones(30, int), np.where(np.arange(30) < 5, 0, 1)])
    got, converged = firth.fit(x, y, weights)
    assert converged.tolist() == [True, True, False]
    repeated, _ = firth.fit(np.repeat(x, weights[0], axis=0), np.repeat(y, weights[0]))
    assert got[0] == pytest.approx(repeated[0], abs=1e-6)
    assert got[1] == pytest.approx(firth.fit(x, y)[0][0], abs=1e-6)
