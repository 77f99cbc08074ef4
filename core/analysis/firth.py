"""Logistic regression with Firth's penalty: finite coefficients where events are few or separated."""

from __future__ import annotations

import numpy as np

MAX_STEP = 2.0
MAX_ITERATIONS = 60
_TOLERANCE = 1e-8
_SINGULAR = 1e10


def fit(design: np.ndarray, outcome: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Maximises ``sum w_i log p(y_i) + log|X' W X| / 2``, several weightings of the same rows at once.

    The penalty (Jeffreys' prior) takes off the first-order bias of maximum likelihood (Firth, Biometrika 80, 1993) and
    keeps coefficients finite under separation (Heinze and Schemper, Stat Med 21, 2002). Newton steps, at most
    `MAX_STEP` a coefficient, halved while the penalised likelihood falls.

    Args:
        design: ``[N, P]``, with a column of ones for the intercept; other columns best near a spread of 1.
        outcome: ``[N]``, 0 or 1.
        weights: ``[B, N]``, how often each row counts; None counts each once, ``B`` is then 1.

    Returns:
        Coefficients ``[B, P]`` and whether each fit converged ``[B]``; a singular one did not.
    """
    x, y = np.asarray(design, np.float64), np.asarray(outcome, np.float64)
    w = np.ones((1, len(y))) if weights is None else np.asarray(weights, np.float64)
    p = x.shape[1]
    products = (x[:, :, None] * x[:, None, :]).reshape(len(x), p * p)
    beta = np.zeros((len(w), p))
    usable = np.linalg.cond((w @ products).reshape(-1, p, p)) < _SINGULAR
    done = ~usable
    value = np.full(len(w), -np.inf)
    value[usable] = _penalised(x, y, w[usable], products, beta[usable])
    for _ in range(MAX_ITERATIONS):
        now = np.flatnonzero(~done)
        if not len(now):
            break
        mean, spread = _moments(x, beta[now])
        information = ((w[now] * spread) @ products).reshape(-1, p, p)
        inverse = np.linalg.pinv(information, hermitian=True)
        leverage = w[now] * spread * (inverse.reshape(-1, p * p) @ products.T)
        score = (w[now] * (y - mean) + leverage * (0.5 - mean)) @ x
        step = np.einsum("bij,bj->bi", inverse, score)
        step *= np.minimum(1, MAX_STEP / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))
        trial = beta[now] + step
        new = _penalised(x, y, w[now], products, trial)
        for _halving in range(10):
            worse = new < value[now] - 1e-10 * np.abs(value[now])
            if not worse.any():
                break
            step[worse] /= 2
            trial[worse] = beta[now][worse] + step[worse]
            new[worse] = _penalised(x, y, w[now][worse], products, trial[worse])
        beta[now], value[now] = trial, new
        done[now] = np.abs(step).max(axis=1) < _TOLERANCE
    return beta, done & usable


def _moments(x: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each row's outcome, ``[B, N]`` both."""
    mean = 1 / (1 + np.exp(-np.clip(beta @ x.T, -500, 500)))
    return mean, mean * (1 - mean)


def _penalised(x: np.ndarray, y: np.ndarray, w: np.ndarray, products: np.ndarray, beta: np.ndarray) -> np.ndarray:
    p = x.shape[1]
    linear = beta @ x.T
    likelihood = (w * (y * linear - np.logaddexp(0, linear))).sum(axis=1)
    information = ((w * _moments(x, beta)[1]) @ products).reshape(-1, p, p)
    return likelihood + np.linalg.slogdet(information)[1] / 2
