"""The fastest rate of a model near its solution is found from differences of slopes."""

import math

import numpy as np
import pytest

from odec.integrate.stiffness import PRODUCTS, fastest_rate


def rate_of(f, y, t=0.0, dtype=float):
    """The estimate for f(t, y) at a state, and how often f was evaluated for it."""
    y, calls = np.array(y, dtype), []

    def rhs(t, y, p, out):
        calls.append(t)
        out[:] = f(t[0], y)

    return fastest_rate(rhs, t, y, np.empty(0)), len(calls)


def van_der_pol(t, y, mu=1e3):
    return [y[1], mu * ((1 - y[0] ** 2) * y[1]) - y[0]]


def robertson(t, y):
    slow, fast, square = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
    return [-slow + fast, slow - fast - square, square]


def heat(t, y):
    padded = np.concatenate([[0.0], y, [0.0]])
    return len(y) ** 2 * (padded[2:] - 2 * y + padded[:-2])


@pytest.mark.parametrize(
    ("f", "y", "rate", "within"),
    [
        (lambda t, y: -50.0 * y, [1.0], 50.0, 1e-6),
        (lambda t, y: 3.0 * y, [0.0], 3.0, 1e-6),
        (lambda t, y: [y[1], -100.0 * y[0]], [1.0, 0.0], 10.0, 1e-3),
        (lambda t, y: [y[1], -1e8 * y[0]], [1.0, 1e4], 1e4, 0.05),
        (van_der_pol, [2.0, -2 / 3000], 3000.0, 0.01),
        (robertson, [0.7158, 9.185e-6, 0.2842], 3400.0, 0.01),
        (heat, np.sin(np.linspace(0, 3, 50)), 1e4, 0.15),
        (heat, np.zeros(50), 1e4, 0.15),
        (lambda t, y: -np.array([1e3, 1.0, 1e-3]) * (y - np.cos(t)), [1.0, 1.0, 1.0], 1e3, 1e-3),
    ],
)
def test_the_rate_is_the_spectral_radius(f, y, rate, within):
    found, calls = rate_of(f, y)
    assert found == pytest.approx(rate, rel=within)
    assert calls <= PRODUCTS + 1


@pytest.mark.parametrize("y", [[1e-200, 1.0], [1e200, -1e200], [1e-8, 1e8]])
def test_scales_of_components_do_not_matter(y):
    assert rate_of(lambda t, y: [-2.0 * y[0], -5.0 * y[1]], y)[0] == pytest.approx(5.0, rel=0.02)


def test_a_float32_state_is_perturbed_by_what_it_resolves():
    assert rate_of(lambda t, y: np.float32(-50.0) * y, [1.0, 2.0], dtype=np.float32)[0] == pytest.approx(50.0, rel=1e-2)


@pytest.mark.parametrize("y", [[0.0], [1.0], [0.0, 0.0]])
def test_a_slope_that_does_not_depend_on_the_state_has_no_rate(y):
    assert rate_of(lambda t, y: np.ones_like(y), y)[0] == 0.0


@pytest.mark.parametrize("f", [lambda t, y: np.log(y), lambda t, y: 1e308 * y**3, lambda t, y: np.nan * y])
def test_no_number_where_slopes_are_not_finite(f):
    assert math.isnan(rate_of(f, [0.0, 1e200])[0])
