"""The neural ODEs whose gradients are timed: z' = tanh([z t] w1 + b1) w2 + b2, in the sizes of the peers' examples."""

from __future__ import annotations

import functools

import numpy as np

import odec

WEIGHTS = "w1", "b1", "w2", "b2"
SIZES = {  # state, hidden, batch, rtol, atol
    "small": (2, 50, 20, 1e-6, 1e-8), "flow": (2, 64, 512, 1e-6, 1e-8), "mnist": (784, 100, 100, 1e-5, 1e-5),
    "digits": (64, 64, 100, 1e-5, 1e-5),
}  # fmt: skip
CALLS = {"small": 20, "flow": 5, "mnist": 3, "digits": 5}  # one after another in a turn, as in training


@odec.dynamics
def network(t, z, w1, b1, w2, b2):
    joined = np.concatenate([z, np.full((z.shape[0], 1), t)], axis=1)
    return np.tanh(joined @ w1 + b1) @ w2 + b2


@functools.cache
def given_network(case):
    """(y0, weights, rtol, atol)"""
    state, hidden, batch, rtol, atol = SIZES[case]
    rng, scale = np.random.default_rng(0), 0.1 if state > 10 else 0.5
    w1, w2 = scale * rng.normal(size=(state + 1, hidden)), scale * rng.normal(size=(hidden, state))
    return rng.normal(size=(batch, state)), (w1, np.zeros(hidden), w2, np.zeros(state)), rtol, atol


def save_networks(cases, folder):
    """Files of what is given, for peers to read: CASE.npz."""
    for case in cases:
        y0, weights, rtol, atol = given_network(case)
        named = dict(zip(WEIGHTS, weights, strict=True))
        np.savez(f"{folder}/{case}.npz", y0=y0, tolerances=np.array([rtol, atol]), **named)


def distance(found, exact):
    """The largest |difference| of any parameter's gradient, relative to its largest entry."""
    return max(float(np.max(np.abs(f - e)) / np.max(np.abs(e))) for f, e in zip(found, exact, strict=True))
