"""The Taylor method whose order changes from step to step."""

import math
import pickle

import numpy as np
import pytest
from tracing import loaded

import odec
from odec import TaylorMethod
from odec.codegen import targets
from odec.codegen.lower import lower
from odec.codegen.print_llvm import print_llvm
from odec.codegen.print_python import print_python, python_function
from odec.errors import ArgumentError, CompileError, SolveError
from odec.integrate import slots as at
from odec.integrate.advance import rules_of
from odec.integrate.problem import Problem
from odec.steppers.methods import method_at
from odec.transforms.taylor import taylor

EPS = float(np.finfo(float).eps)
ADAPTED = TaylorMethod(order="adaptive")


@odec.dynamics
def pendulum(t, y, g):
    angle, rate = y
    return [rate, -g * np.sin(angle) + 0.1 * np.cos(t)]


@odec.dynamics
def oscillator(t, y, rate):
    return [rate * y[1], -rate * y[0]]


OSCILLATOR = oscillator.bind([1.0, 0.0], (1.0,))


# ---- coefficients up to an order that the kernel is told -----------------------------------------------------------


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-13), ("float32", 1e-5)])
def test_coefficients_end_at_the_order_that_a_kernel_is_told(dtype, tolerance):
    y, p = np.array([1.0, 0.3], dtype), np.array([9.81], dtype)
    graph = pendulum.bind(y, (p[0],)).graph
    whole, jet = taylor(graph, 11).evaluate(0.3, y, p)["coefficients"], taylor(graph, 11, told=True)
    kernel = lower(jet, f"told_{dtype}")
    for function in (python_function(kernel), loaded([kernel])[kernel.name]):
        for last in (2, 3, 7, 11):
            expected = np.where(np.arange(12)[:, None] <= last, whole, 0.0)
            np.testing.assert_array_equal(jet.evaluate(0.3, y, p, last)["coefficients"], expected)
            found = np.full((12, 2), np.nan, dtype)
            function(np.array([0.3]), y, p, np.array([float(last)]), found)
            np.testing.assert_allclose(found, expected, rtol=tolerance)
            assert not found[last + 1 :].any()


def test_a_kernel_that_is_told_its_order_takes_one_trajectory_at_a_time():
    """The orders of neighbouring lanes differ, also where no sum of products refuses lanes."""
    kernel = lower(taylor(OSCILLATOR.graph, 8, told=True), "told")
    assert "for order in range(int(count)):" in print_python(kernel)
    assert "fptosi" in print_llvm([kernel], targets.CUDA)
    with pytest.raises(CompileError, match="lanes=1"):
        print_llvm([kernel], targets.CUDA, lanes=4)


def test_products_by_constants_cost_the_same_for_each_order():
    matrix = np.arange(9.0).reshape(3, 3)
    linear = taylor(odec.dynamics(lambda t, y, a: a @ y).bind(np.ones(3), (matrix,)).graph, 20)
    assert linear.costs == (18, 0.0) and linear.operations == 18 * 21


# ---- the record ------------------------------------------------------------------------------------------------------


def test_the_order_of_every_method_is_a_number():
    """That of the default tolerance, 1e-6, where the tolerance sets it."""
    assert "taylor" in [m.name for m in odec.methods() if m.order >= 7]
    assert TaylorMethod().order == TaylorMethod(order=None).order == ADAPTED.order == 8
    assert TaylorMethod(order=9).order == 9 and TaylorMethod() != TaylorMethod(8)
    assert [method_at(ADAPTED, rtol).order for rtol in (0.5, 1e-6, EPS)] == [2, 8, 20]
    assert repr(ADAPTED) == "<TaylorMethod: order adaptive>" and pickle.loads(pickle.dumps(ADAPTED)) == ADAPTED


@pytest.mark.parametrize("order", ["adaptiv", "high", 1, 101, 8.0, True, [3]])
def test_orders_that_are_none_are_refused_with_what_is_possible(order):
    with pytest.raises(ArgumentError, match=r"adaptive|from 2 to 100"):
        TaylorMethod(order=order)


# ---- which orders are taken ------------------------------------------------------------------------------------------


class Steps:
    """Tries one by one: their orders, sizes, and whether they were accepted; y the state at the end."""

    def __init__(self, system, method, span, y, p, rtol, atol, stops=(), **how):
        n, (t0, t1) = len(y), span
        problem = Problem(span, np.array(y), np.array(p), rtol=np.full(n, rtol), atol=np.full(n, atol), **how)
        kernel, rules = system.compiled("advance", method=method), rules_of(method, problem)
        now, self.y, lost, taken = np.zeros(at.NOWS), np.array(y), np.zeros(n), []
        now[at.T], now[at.H], now[at.ORDER] = t0, t1 - t0, at.FREE
        for stop in (*stops, t1):
            task = np.array([stop, 0.0, np.sign(t1 - t0) * np.inf, 1.0])
            while now[at.T] != stop:
                then, y1, f1, k = np.zeros(at.NOWS), np.zeros(n), np.zeros(n), np.zeros((len(method.kept), n))
                kernel.run(now, task, self.y, problem.p, lost, problem.rtol, problem.atol, rules, then, y1, f1, k)
                taken.append((np.flatnonzero(k.any(axis=1))[-1], then[at.TRIED], then[at.ACCEPTED]))
                now, self.y, lost = then, y1, f1
        self.orders, self.sizes, self.accepted = (np.array(column) for column in zip(*taken, strict=True))


def oscillating(rtol, atol=None, span=(0.0, 100.0), method=ADAPTED, **how):
    """Steps of the oscillator, whose series is that of an entire function."""
    method = method_at(method, rtol)
    return Steps(OSCILLATOR, method, span, [1.0, 0.0], [1.0], rtol, rtol if atol is None else atol, **how)


@pytest.mark.parametrize("rtol", [1e-6, 1e-10, 1e-15])
def test_the_order_rises_where_terms_fall_ever_faster(rtol):
    found, fixed = oscillating(rtol), oscillating(rtol, method="taylor")
    start = method_at("taylor", rtol).order
    assert found.orders[0] == start and np.all(found.orders[3:-2] > 1.4 * start)
    assert len(found.orders) < len(fixed.orders) / 2 and np.sum(found.orders) < np.sum(fixed.orders)
    for steps in (found, fixed):
        assert steps.y == pytest.approx([np.cos(100.0), -np.sin(100.0)], abs=50 * rtol)


def test_terms_stay_small_enough_for_their_roundings():
    """|y_k| h^k of the oscillator is h^k / k!, at most about e^h / sqrt(2 pi h)."""
    h = oscillating(EPS).sizes.max()
    assert h > 2.0 and np.exp(h) / np.sqrt(2 * np.pi * h) < 10.0


def test_the_order_falls_where_atol_is_loose():
    system, method = pendulum.bind([1.0, 0.3], (9.81,)), method_at(ADAPTED, 1e-14)
    tight, loose = (Steps(system, method, (0.0, 10.0), [1.0, 0.3], [9.81], 1e-14, atol) for atol in (1e-14, 1e-4))
    assert np.median(loose.orders) < 18 == loose.orders[0] == tight.orders[0] < np.median(tight.orders)
    assert loose.y == pytest.approx(tight.y, abs=1e-2)


@pytest.mark.parametrize("how", [{"stops": np.arange(0.1, 10.0, 0.1)}, {"max_step": 0.1}], ids=["stops", "max_step"])
def test_short_steps_take_as_few_orders_as_they_need(how):
    steps = oscillating(1e-12, span=(0.0, 10.0), **how)
    k = np.median(steps.orders)
    assert np.all(steps.accepted) and len(steps.orders) <= 102 and steps.orders[0] == 15
    assert 0.1**k / math.factorial(int(k)) < 1e-12 and k <= 10
    assert steps.y == pytest.approx([np.cos(10.0), -np.sin(10.0)], abs=1e-10)


def test_the_order_comes_back_when_steps_need_not_be_short():
    steps = oscillating(1e-12, span=(0.0, 40.0), stops=np.arange(0.1, 10.0, 0.1))
    assert np.median(steps.orders[50:90]) < 11 and np.median(steps.orders[-8:-1]) > 20


# ---- whether a step is good ------------------------------------------------------------------------------------------


@odec.dynamics
def pushed(t, y, g):
    angle, rate = y
    return [rate, -g * angle + np.where(t < 0.4, 1.0, -np.abs(rate))]


@odec.dynamics
def late(t, y):
    return 31.0 * t**30 + 0.0 * y


def test_steps_over_a_kink_are_rejected_and_shortened():
    method = method_at(ADAPTED, 1e-9)
    steps = Steps(pushed.bind([1.0, 0.3], (9.81,)), method, (0.0, 1.0), [1.0, 0.3], [9.81], 1e-9, 1e-9)
    refused = np.flatnonzero(steps.accepted == 0.0)
    assert refused.size and np.all(steps.sizes[refused + 1] <= 0.25 * steps.sizes[refused])
    assert np.all(steps.orders[refused + 1] <= steps.orders[refused])


def test_coefficients_that_vanish_at_the_start_are_no_reason_to_trust_a_step():
    sol = odec.solve(late, (0.0, 1.0), [1.0], method=ADAPTED, rtol=1e-10, atol=1e-10)
    assert sol.stats["rejected"] > 0 and sol.y1[0] == pytest.approx(2.0, rel=1e-9)
    trusting = odec.solve(late, (0.0, 1.0), [1.0], method="taylor", rtol=1e-10, atol=1e-10)
    assert abs(trusting.y1[0] - 2.0) > 1e-6


@odec.dynamics
def shaken(t, y):
    """With a kink at a speed that is never reached, so that each step is checked at a fixed order too."""
    return [y[1], -y[0] + np.cos(50.0 * t) + np.maximum(np.abs(y[1]), 10.0) - 10.0]


@pytest.mark.parametrize("method", ["taylor", ADAPTED], ids=str)
def test_roundings_of_late_times_reject_no_step(method):
    """At t = 1e8 the double next to 50 t is off by 4e-7, and cos(50 t) with it."""
    for start in (1e3, 1e8):
        sol = odec.solve(shaken, (start, start + 5.0), [1.0, 0.0], method=method, rtol=EPS, atol=EPS, t_eval=[])
        assert sol.stats["rejected"] == 0 and sol.stats["steps"] < 250


def test_a_solution_that_blows_up_ends_with_the_reason():
    with pytest.raises(SolveError, match="may blow up"):
        odec.solve(odec.dynamics(lambda t, y: y * y), (0.0, 2.0), [1.0], method=ADAPTED, rtol=1e-10, atol=1e-10)


# ---- solves ----------------------------------------------------------------------------------------------------------


def solved(span=(0.0, 20.0), tolerance=1e-12, **options):
    options = {"method": ADAPTED, "rtol": tolerance, "atol": tolerance} | options
    return odec.solve(oscillator, span, [1.0, 0.0], (1.0,), **options)


@pytest.mark.parametrize("span", [(0.0, 20.0), (20.0, 0.0)])
def test_output_between_the_steps_is_the_series(span):
    times = np.linspace(*span, 41)
    kept, sol = solved(span, t_eval=times), solved(span, dense_output=True)
    exact = np.stack([np.cos(times - span[0]), -np.sin(times - span[0])], axis=1)
    np.testing.assert_allclose(kept.ys, exact, rtol=0, atol=1e-12)
    np.testing.assert_allclose(sol(times), exact, rtol=0, atol=1e-12)
    assert kept.stats["steps"] == sol.stats["steps"] < 12


def test_all_events_within_long_steps_are_found():
    sol = solved(events=odec.Event(lambda t, y: y[0]), t_eval=[])
    (found,) = sol.t_events
    assert found == pytest.approx(np.pi * (np.arange(6) + 0.5), abs=1e-11) and sol.stats["steps"] < 12


def test_single_precision():
    sol = solved(tolerance=2e-6, dtype="float32")
    assert sol.y1.dtype == "float32" and sol.y1 == pytest.approx([np.cos(20.0), -np.sin(20.0)], abs=1e-4)


def test_an_ensemble_takes_the_steps_of_single_solves():
    rates = np.linspace(0.5, 3.0, 5)
    options = {"method": ADAPTED, "rtol": 1e-10, "atol": 1e-10, "t_eval": []}
    ens = odec.solve_ensemble(oscillator, (0.0, 5.0), [1.0, 0.0], {"rate": rates}, batched="rate", **options)
    one = [odec.solve(oscillator, (0.0, 5.0), [1.0, 0.0], (rate,), **options) for rate in rates]
    assert np.array_equal(ens.y1, [sol.y1 for sol in one])


@pytest.mark.parametrize("adjoint", ["discrete", "backsolve", "interpolating"])
def test_gradients_to_the_tolerance(adjoint):
    times, rate = np.array([1.0, 5.0]), 1.3
    options = {"method": ADAPTED, "rtol": 1e-10, "atol": 1e-10, "t_eval": times, "adjoint": adjoint}
    _, pullback = odec.solve_vjp(oscillator, (0.0, 5.0), [1.0, 0.0], (rate,), **options)
    found, (c, s) = pullback(np.ones((2, 2))), (np.cos(rate * times), np.sin(rate * times))
    assert found.params[0] == pytest.approx(np.sum(-times * (s + c)), rel=1e-8)
    assert found.y0 == pytest.approx([np.sum(c - s), np.sum(c + s)], rel=1e-8)
