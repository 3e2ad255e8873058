"""The stability interval read off the step graph is the one of the exact coefficients."""

from fractions import Fraction as F

import numpy as np
import pytest

from odec.steppers.methods import methods
from odec.steppers.stability import growth, real_stability_interval
from odec.steppers.tableaus import ButcherTableau
from odec.steppers.taylor import TaylorMethod

METHODS = [m for m in methods() if isinstance(m, ButcherTableau)]
EULER = ButcherTableau("euler_here", 1, ("0",), ((),), ("1",))
CLASSICAL = ButcherTableau(
    "rk4_here", 4, ("0", "1/2", "1/2", "1"), ((), ("1/2",), ("0", "1/2"), ("0", "0", "1")), ("1/6", "1/3", "1/3", "1/6")
)


def polynomial(tableau):
    """R(z) = 1 + sum_k z^k b A^(k-1) 1, lowest power first, in exact arithmetic."""
    powers, coefficients = [F(1)] * tableau.stages, [F(1)]
    for _ in range(tableau.stages):
        coefficients.append(sum(b * x for b, x in zip(tableau.b, powers)))
        powers = [sum(a * x for a, x in zip(row, powers)) for row in tableau.a]
    return coefficients


@pytest.mark.parametrize(  # [hairer1996, IV.2]
    ("tableau", "known"),
    [
        (EULER, 2.0),
        (CLASSICAL, 2.785293563405282),
        (TaylorMethod(3), 2.512745326618329),
        (TaylorMethod(4), 2.785293563405282),
    ],
    ids=("euler", "rk4", "taylor3", "taylor4"),
)
def test_intervals_known_from_the_literature(tableau, known):
    assert real_stability_interval(tableau) == pytest.approx(known, rel=1e-6)


@pytest.mark.parametrize("method", [*METHODS, EULER, CLASSICAL], ids=lambda m: m.name)
def test_growth_is_the_stability_polynomial(method):
    """To the rounding of the coefficients, which counts twice where stages follow each other."""
    z = np.linspace(-1.2 * real_stability_interval(method), 0.0, 50)
    noise = max(1e-8, 1e-11 * max(float(abs(x)) for row in (*method.a, method.b) for x in row) ** 2)
    exact = [float(sum(c * F(x) ** k for k, c in enumerate(polynomial(method)))) for x in z]
    assert growth(method, z) == pytest.approx(exact, rel=noise, abs=noise)


@pytest.mark.parametrize("method", [*METHODS, EULER, CLASSICAL], ids=lambda m: m.name)
def test_steps_within_the_interval_are_stable_and_the_next_one_is_not(method):
    x = real_stability_interval(method)
    assert 0 < x < 100
    assert np.all(np.abs(growth(method, np.linspace(-x, 0.0, 1000))) <= 1.0 + 1e-6)
    assert abs(growth(method, [-x * (1 + 1e-5)])[0]) > 1.0
