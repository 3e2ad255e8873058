"""The Taylor method: its orders, its steps, its dense output, and that every option of a solve holds."""

import mpmath
import numpy as np
import pytest
from test_steps import measured_order

import odec
from odec import Status
from odec.errors import SolveError
from odec.steppers.methods import method_at
from odec.steppers.taylor import TaylorMethod

EPS = float(np.finfo(float).eps)
EIGHT = TaylorMethod(8)
FINE = {"method": "taylor", "rtol": EPS, "atol": EPS}


@odec.dynamics
def pendulum(t, y, g):
    angle, rate = y
    return rate, -g * np.sin(angle) + 0.1 * np.cos(t)


@odec.dynamics
def growth(t, y):
    return y


@odec.dynamics
def logistic(t, y):
    return y * (1.0 - y)


PENDULUM = pendulum.bind((1.0, 0.0), (9.81,))
START = (1.0, 0.3)


def swung(**options):
    """The pendulum over three units of time by the method of order 8."""
    options = {"method": EIGHT, "rtol": 1e-9, "atol": 1e-9, "t_span": (0.0, 3.0)} | options
    return odec.solve(PENDULUM, options.pop("t_span"), START, (9.81,), **options)


# ---- orders ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rtol, order", [(0.5, 2), (1e-3, 5), (1e-6, 8), (1e-9, 12), (1e-12, 15), (EPS, 20)])
def test_the_tolerance_sets_the_order_as_published(rtol, order):
    """p = ceil(1 - ln(rtol) / 2) [jorba2005, 3.2]; of a vector of tolerances the least one."""
    assert method_at("taylor", rtol).known_order == order
    assert method_at("taylor", np.array([0.1, rtol])).known_order == max(order, 3)


def test_an_order_that_is_given_holds_at_every_tolerance():
    assert [method_at(EIGHT, rtol).known_order for rtol in (1e-3, EPS)] == [8, 8]
    assert swung().stats["steps"] < swung(method=TaylorMethod(6)).stats["steps"]


@pytest.mark.parametrize("order", [2, 3, 5])
def test_errors_of_steps_of_one_size_fall_with_the_order(order):
    def error(size):
        sol = odec.solve(
            logistic, (0.0, 2.0), [0.2], method=TaylorMethod(order), rtol=1e-3, atol=1e12, max_step=size,
            first_step=size,
        )  # fmt: skip
        assert len(sol.ts) == 1 + round(2.0 / size)
        return abs(mpmath.mpf(float(sol.y1[0])) - 1 / (1 + 4 * mpmath.exp(-2)))

    assert measured_order(error, [2.0**-k for k in (3, 4, 5)]) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("order", [30, 60])
def test_high_orders_take_long_steps_to_the_last_digit(order):
    sol = odec.solve(logistic, (0.0, 10.0), [0.2], method=TaylorMethod(order), rtol=EPS, atol=EPS)
    assert sol.y1[0] == pytest.approx(1 / (1 + 4 * np.exp(-10.0)), rel=4 * EPS)
    assert sol.stats["steps"] < odec.solve(logistic, (0.0, 10.0), [0.2], **FINE).stats["steps"]


# ---- solutions with closed forms -------------------------------------------------------------------------------


@odec.dynamics
def powers(t, y):
    """(1 + t)^4 / 4 and (1 + t)^2, polynomials."""
    return [(1.0 + t) ** 3, 2.0 * y[1] / (1.0 + t)]


def test_polynomial_solutions_below_the_order_are_exact():
    sol = odec.solve(powers, (0.0, 7.0), [0.25, 1.0], **FINE)
    assert sol.ys == pytest.approx(np.stack([(1 + sol.ts) ** 4 / 4, (1 + sol.ts) ** 2], axis=1), rel=4 * EPS)


@pytest.mark.parametrize("span", [(0.0, 5.0), (5.0, 0.0)])
def test_a_state_that_rests_stays_in_few_steps(span):
    sol = odec.solve(odec.dynamics(lambda t, y: 0.0 * y), span, [1.0, -2.5], **FINE)
    assert sol.y1.tolist() == [1.0, -2.5] and sol.ts[-1] == span[1] and sol.stats["steps"] <= 20


@pytest.mark.parametrize("span", [(0.0, 5.0), (5.0, -5.0)])
def test_the_exponential_function_to_the_last_digits(span):
    sol = odec.solve(growth, span, [1.0, -3.0], **FINE)
    assert sol.y1 == pytest.approx(np.exp(span[1] - span[0]) * np.array([1.0, -3.0]), rel=8 * EPS)


def test_a_way_there_and_back_ends_where_it_began():
    there = swung(**FINE)
    back = odec.solve(PENDULUM, (3.0, 0.0), there.y1, (9.81,), **FINE)
    assert back.y1 == pytest.approx(START, rel=1e-13)


@odec.dynamics
def in_parts(t, y, rate):
    return {"x": y["v"], "v": -rate * rate * y["x"], "table": -t * y["table"]}


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-14), ("float32", 1e-6)])
def test_structured_states_and_both_precisions(dtype, tolerance):
    y0 = {"x": 1.0, "v": 0.0, "table": np.array([[1.0, 2.0], [-1.0, 0.5]])}
    eps = float(np.finfo(dtype).eps)
    sol = odec.solve(in_parts, (0.0, 2.0), y0, (3.0,), method="taylor", rtol=eps, atol=eps, dtype=dtype)
    assert sol.y1["table"].dtype == dtype
    assert sol.y1["x"] == pytest.approx(np.cos(6.0), rel=4 * tolerance)
    assert sol.y1["table"] == pytest.approx(np.exp(-2.0) * y0["table"], rel=tolerance)


# ---- dense output ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", [(0.0, 3.0), (3.0, 0.0)])
@pytest.mark.parametrize("method", [EIGHT, "taylor"], ids=["order 8", "order 20"])
def test_dense_output_is_the_series(span, method):
    sol = swung(method=method, rtol=EPS if method == "taylor" else 1e-9, t_span=span, dense_output=True)
    order = method_at(method, EPS).known_order
    for i in np.linspace(0, len(sol.ts) - 2, 7).astype(int):
        y = tuple(part[i] for part in sol.ys)
        rows = np.stack(PENDULUM.taylor(sol.ts[i], y, 9.81, order=order), axis=1)
        times = np.linspace(sol.ts[i], sol.ts[i + 1], 9)
        series = np.stack([np.polyval(rows[::-1, j], times - sol.ts[i]) for j in range(2)])
        # Times are known to their spacing, slopes are at most 10.
        np.testing.assert_allclose(np.stack(sol(times)), series, rtol=0, atol=50 * EPS)


def test_times_to_keep_are_met_from_the_series():
    times = np.linspace(0.0, 3.0, 50)
    kept, sol = swung(t_eval=times), swung(dense_output=True)
    assert kept.ts.tolist() == times.tolist() and kept.stats["steps"] == sol.stats["steps"]
    np.testing.assert_allclose(np.stack(kept.ys), np.stack(sol(times)), rtol=0, atol=4 * EPS * 4)


# ---- options ---------------------------------------------------------------------------------------------------


def test_steps_stay_below_max_step():
    sol = swung(max_step=0.01)
    assert np.diff(sol.ts).max() <= 0.01 + 4 * EPS and sol.stats["steps"] == 300


def test_first_step_bounds_the_first_step_alone():
    free, sol = swung(), swung(first_step=1e-3)
    assert sol.ts[1] == 1e-3 and sol.ts[2] - sol.ts[1] > 5e-3
    assert np.stack(sol.y1) == pytest.approx(np.stack(free.y1), rel=1e-7)


def test_too_many_steps_and_too_small_ones_end_with_a_status():
    limited = swung(max_steps=5, throw=False)
    assert limited.status is Status.STEP_LIMIT and limited.stats["steps"] == 5
    with pytest.raises(SolveError, match="min_step"):
        swung(min_step=2.0)


def test_steps_end_at_tstops_and_none_sees_beyond():
    @odec.dynamics
    def pushed(t, y):
        return np.where(t < 1.0, 1.0, -2.0) * y

    sol = odec.solve(pushed, (0.0, 2.0), [1.0], tstops=[1.0], **FINE)
    assert 1.0 in sol.ts and sol.stats["rejected"] == 0
    assert sol.y1[0] == pytest.approx(np.exp(-1.0), rel=8 * EPS)


def test_stats_count_steps_and_evaluations():
    sol = swung()
    assert sol.stats["steps"] == len(sol.ts) - 1 and sol.stats["rejected"] == 0
    assert sol.stats["nfev"] - sol.stats["steps"] in (1, 2)  # the first slope


@pytest.mark.parametrize("name", ["where", "abs", "maximum", "interp"])
def test_kinks_in_a_model_cost_rejected_steps_but_no_digits(name):
    rates = {
        "where": lambda t, y: np.where(t < 0.7, 1.0, -2.0) + 0.0 * y,
        "abs": lambda t, y: np.abs(t - 0.7) + 0.0 * y,
        "maximum": lambda t, y: np.maximum(t, 0.7) * y,
        "interp": lambda t, y: np.interp(t, [0.0, 0.7, 2.0], [1.0, 3.0, -1.0]) * y,
    }
    exact = {
        "where": 1.0 + 0.7 - 2.0 * 1.3, "abs": 1.0 + (0.7**2 + 1.3**2) / 2, "maximum": np.exp(0.49 + (4.0 - 0.49) / 2),
        "interp": np.exp(0.7 * 2.0 + 1.3 * 1.0),
    }  # fmt: skip
    sol = odec.solve(odec.dynamics(rates[name]), (0.0, 2.0), [1.0], method="taylor", rtol=1e-10, atol=1e-10)
    assert sol.y1[0] == pytest.approx(exact[name], rel=1e-8)
    assert sol.stats["rejected"] > 0
