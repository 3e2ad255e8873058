"""What the Taylor series method says where it has no series to step along, and what it refuses."""

import re

import numpy as np
import pytest

import odec
from odec import ArgumentError, SolveError, Status

BESIDE = "Start beside that point, or take a method that needs no derivatives, such as dop853."


def failure(model, t_span, y0, *args, **options):
    """(message, partial solution) of a Taylor solve that must stop early."""
    with pytest.raises(SolveError) as raised:
        odec.solve(odec.dynamics(model), t_span, y0, *args, **{"method": "taylor", **options})
    return str(raised.value), raised.value.solution


def line_of(model, below=1):
    return f"test_taylor_failures.py:{model.__code__.co_firstlineno + below}"


def root(t, y):
    return np.sqrt(y)


def half_power(t, y):
    return 1 + y**0.5


def power(t, y):
    x, v = y
    return [v, 1 + x**0.3]


def angle(t, y):
    return [1 + np.arctan2(y[0], y[1]), 1.0]


def distance(t, y):
    return [1 + np.hypot(y[0], y[1]), y[0]]


def reciprocal(t, y):
    return 1 / (1 + 1 / y)


@pytest.mark.parametrize(
    ("model", "y0", "operation", "below", "where"),
    [
        (root, [0.0], "np.sqrt(0)", 1, "(in the equation of y[0])"),
        (root, [1.0, 4.0, 0.0], "np.sqrt(0)", 1, "at index [2] (in the equation of y[2])"),
        (half_power, [0.0], "np.sqrt(0)", 1, "(in the equation of y[0])"),
        (power, [0.0, 1.0], "0 ** 0.3", 2, "(in the equation of y[1])"),
        (angle, [0.0, 0.0], "np.arctan2(0, 0)", 1, "(in the equation of y[0])"),
        (distance, [0.0, 0.0], "np.hypot(0, 0)", 1, "(in the equation of y[0])"),
        (reciprocal, [0.0], "1 / 0", 1, "(in the equation of y[0])"),
    ],
)
def test_a_branch_point_at_the_start_names_the_operation_and_the_line(model, y0, operation, below, where):
    """The right-hand side is finite there, its derivatives are not."""
    text, sol = failure(model, (0.0, 1.0), y0)
    assert text.startswith(
        f"{model.__name__}: the Taylor series of the solution is not finite at t = 0 after 0 steps ("
    )
    assert f"; {operation} at {line_of(model, below)} (" in text and "has no Taylor series there" in text
    assert where in text and text.endswith(f". {BESIDE}")
    assert sol.status in (Status.NON_FINITE, Status.STEP_UNDERFLOW) and np.array_equal(sol.y1, y0)


def test_a_branch_point_in_full():
    text, _ = failure(root, (0.0, 1.0), [0.0])
    assert re.sub(r"\(\d+ rejected\)", "(...)", text) == (
        "root: the Taylor series of the solution is not finite at t = 0 after 0 steps (...); np.sqrt(0) at "
        f'{line_of(root)} ("return np.sqrt(y)") has no Taylor series there (in the equation of y[0]). {BESIDE}'
    )


def test_a_start_beside_the_branch_point_or_another_method_is_the_cure():
    model = odec.dynamics(root)
    beside = odec.solve(model, (0.0, 2.0), [1e-12], method="taylor", rtol=1e-10, atol=1e-12)
    assert beside.y1 == pytest.approx([(1.0 + 1e-6) ** 2], rel=1e-8)
    assert odec.solve(model, (0.0, 1.0), [0.0], method="dop853").success


MIXING = np.linspace(-1.0, 1.0, 3600).reshape(60, 60) / 60


def large(t, y):
    mixed = MIXING @ np.tanh(MIXING @ y)
    return mixed + np.sqrt(y)


def test_a_large_model_whose_series_is_a_loop_over_the_orders():
    text, _ = failure(large, (0.0, 1.0), np.r_[np.ones(59), 0.0], rtol=1e-10)
    assert f"np.sqrt(0) at {line_of(large, 2)} (" in text and "at index [59] (in the equation of y[59])" in text


def chosen(t, y):
    return np.where(y[:1] > 0.5, np.sqrt(np.abs(y[1:])), y[:1]) + np.zeros(2)


def test_a_branch_that_is_not_taken_is_not_blamed():
    model = odec.dynamics(chosen)
    assert odec.solve(model, (0.0, 0.1), [0.25, 0.0], method="taylor").y1[0] == pytest.approx(0.25 * np.exp(0.1))
    assert "np.sqrt(0) at " in failure(chosen, (0.0, 1.0), [0.75, 0.0])[0]


def test_components_go_by_their_names_and_float32_fails_alike():
    named = odec.dynamics(state=("x", "v"))(power)
    with pytest.raises(SolveError, match=re.escape("(in the equation of v). ")):
        odec.solve(named, (0.0, 1.0), np.array([0.0, 1.0], np.float32), method="taylor", rtol=1e-4)


def explosion(t, y):
    return y * y


def test_coefficients_that_overflow_are_told_from_a_branch_point():
    text, sol = failure(explosion, (0.0, 1.0), [1e20], rtol=1e-10)
    assert re.search(r"; the coefficient of order \d+ of [\d.e+]+ \* [\d.e+]+ at ", text) and "overflowed (in" in text
    assert line_of(explosion) in text and "may blow up in finite time" in text
    assert sol.ts[-1] == pytest.approx(1e-20, rel=0.1)


def singular(t, y):
    return [1.0, 1 / y[0]]


def test_a_division_by_zero_at_the_start_is_that_of_the_slope():
    text, sol = failure(singular, (0.0, 1.0), [0.0, 1.0])
    assert sol.status is Status.NON_FINITE_START
    assert f'1 / 0 at {line_of(singular)} ("return [1.0, 1 / y[0]]") gave inf first' in text


def test_the_members_of_an_ensemble_fail_alone():
    ens = odec.solve_ensemble(odec.dynamics(root), (0.0, 1.0), np.array([[1.0], [0.0]]), batched="y0", method="taylor")
    assert ens.status[0] == Status.SUCCESS and ens.y1[0] == pytest.approx(2.25)
    assert ens.status[1] in (Status.NON_FINITE, Status.STEP_UNDERFLOW)
    assert "np.sqrt(0) at " in ens.message(1) and "has no Taylor series there" in ens.message(1)


@pytest.mark.parametrize(
    ("dtype", "rtol", "least"), [(np.float64, 1e-16, "2.2e-16"), (np.float32, 1e-8, "1.2e-07")], ids=["double", "float"]
)
def test_a_tolerance_below_rounding_says_the_least(dtype, rtol, least):
    model, y0 = odec.dynamics(explosion), np.ones(2, dtype)
    how = {"method": "taylor", "rtol": [1e-3, rtol]}
    for solve in (odec.solve, odec.solve_vjp):
        with pytest.raises(ArgumentError) as raised:
            solve(model, (0.0, 0.5), y0, **how)
        text = str(raised.value)
        assert text.startswith(f"explosion: rtol is {rtol:g}, but {np.dtype(dtype)} numbers are rounded to ")
        assert text.endswith(f"raise rtol to {least} or more.")
    with pytest.raises(ArgumentError, match="no Taylor series is better"):
        odec.solve_ensemble(model, (0.0, 0.5), y0[None], batched="y0", **how)
    assert odec.solve(model, (0.0, 0.5), y0, method="taylor", rtol=float(least)).y1 == pytest.approx(2.0, rel=4e-7)
    assert odec.solve(model, (0.0, 0.5), y0, method="tsit5", rtol=rtol, atol=1e-4).success


@pytest.mark.parametrize("order", [1, 0, -3, 101, 2.5, True, "8"])
def test_orders_outside_their_range_are_refused(order):
    with pytest.raises(ArgumentError, match=r"^taylor: order is .*(is needed\.|It is a number from 2 to 100, .*)$"):
        odec.TaylorMethod(order=order)


def van_der_pol(t, y, mu=1e3):
    return [y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]]


def test_a_stiff_problem_stops_with_the_hint():
    text, sol = failure(van_der_pol, (0.0, 2000.0), [2.0, 0.0], max_steps=1000)
    assert sol.status is Status.STEP_LIMIT
    assert "is at taylor's limit of " in text and "the problem is stiff for an explicit method" in text


def test_gradients_refuse_what_they_cannot_do():
    model, how = odec.dynamics(explosion), {"method": "taylor", "adjoint": "backsolve"}
    with pytest.raises(ArgumentError, match=r"explosion: adjoint_rtol is 1e-18, but float64 numbers are rounded to"):
        odec.solve_vjp(model, (0.0, 0.5), [1.0, 1.0], adjoint_rtol=1e-18, **how)
    with pytest.raises(ArgumentError, match=r"the steps of taylor follow from its coefficients; a method with a"):
        odec.solve_vjp(model, (0.0, 0.5), [1.0, 1.0], method="taylor", differentiate_steps=True)
