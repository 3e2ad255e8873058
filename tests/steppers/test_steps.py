"""One step as a graph: its orders as measured, its derivative, and no operation too many."""

import numpy as np
import pytest
from fixed_steps import BS3, HEUN_EULER, FixedSteps

import odec
from odec.graph.node import CONSTANT, scalar_value
from odec.steppers.runge_kutta import runge_kutta_step
from odec.steppers.tableaus import TABLEAUS
from odec.transforms.jvp import jvp
from odec.transforms.scalar import operation_count
from odec.transforms.vjp import vjp

METHODS = [*TABLEAUS.values(), HEUN_EULER, BS3]


def by_name(tableau):
    return tableau.name


@odec.dynamics
def closed(t, y, a, b):
    """Three components with closed forms: exp(a sin t), 1 / (1 + b t), and t² exp(-t)."""
    return [a * y[0] * np.cos(t), -b * y[1] ** 2, -y[2] + 2 * t * np.exp(-t)]


P = np.array([1.5, 0.7])


def solution(t):
    return np.array([np.exp(P[0] * np.sin(t)), 1 / (1 + P[1] * t), t * t * np.exp(-t)])


def slope_of(sizes, errors):
    return np.polyfit(np.log(sizes), np.log(errors), 1)[0]


@pytest.mark.parametrize("tableau", METHODS, ids=by_name)
def test_observed_order_is_the_claim(tableau):
    steps = FixedSteps(closed.bind(np.ones(3), tuple(P)), tableau)
    counts = np.array([30, 40, 60, 90]) if tableau.order > 3 else np.array([80, 160, 320, 640])
    errors = [np.abs(steps.run(0.0, 2.0, solution(0.0), P, m) - solution(2.0)).max() for m in counts]
    assert min(errors) > 1e-13  # above rounding
    assert slope_of(1 / counts, errors) == pytest.approx(tableau.order, abs=0.2)


@pytest.mark.parametrize("tableau", METHODS, ids=by_name)
def test_observed_order_backward_in_time(tableau):
    steps = FixedSteps(closed.bind(np.ones(3), tuple(P)), tableau)
    counts = np.array([40, 50, 60, 80]) if tableau.order > 3 else np.array([80, 160, 320, 640])
    errors = [np.abs(steps.run(2.0, 0.5, solution(2.0), P, m) - solution(0.5)).max() for m in counts]
    assert slope_of(1 / counts, errors) == pytest.approx(tableau.order, abs=0.2)


@pytest.mark.parametrize("tableau", METHODS, ids=by_name)
def test_observed_order_of_dense_output_within_a_step(tableau):
    """The error of the interpolant inside one step from exact data falls as h^(dense order + 1)."""
    steps = FixedSteps(closed.bind(np.ones(3), tuple(P)), tableau)
    sizes = np.array([0.16, 0.08, 0.04, 0.02])
    thetas = np.linspace(0.1, 0.9, 9)
    errors = []
    for h in sizes:
        y = solution(0.4)
        _, k, _ = steps.one(0.4, h, y, P)
        errors.append(max(np.abs(steps.interpolated(x, h, y, k) - solution(0.4 + x * h)).max() for x in thetas))
    assert slope_of(sizes, errors) == pytest.approx(tableau.dense_order + 1, abs=0.3)


@pytest.mark.parametrize("tableau", METHODS, ids=by_name)
def test_dense_output_ends_at_the_new_state(tableau):
    steps = FixedSteps(closed.bind(np.ones(3), tuple(P)), tableau)
    y = solution(0.4)
    y1, k, _ = steps.one(0.4, 0.1, y, P)
    assert steps.interpolated(0.0, 0.1, y, k) == pytest.approx(y, rel=1e-15)
    assert steps.interpolated(1.0, 0.1, y, k) == pytest.approx(y1, rel=1e-14)


@pytest.mark.parametrize("tableau", METHODS, ids=by_name)
def test_error_estimate_falls_with_the_error_order(tableau):
    steps = FixedSteps(closed.bind(np.ones(3), tuple(P)), tableau)
    sizes = np.array([0.16, 0.08, 0.04, 0.02])
    norms = [steps.one(0.4, h, solution(0.4), P)[2] ** 0.5 for h in sizes]
    assert slope_of(sizes, norms) == pytest.approx(tableau.error_order + 1, abs=0.3)


@pytest.mark.parametrize("tableau", METHODS, ids=by_name)
def test_error_is_the_mean_square_in_units_of_the_tolerance(tableau):
    steps = FixedSteps(closed.bind(np.ones(3), tuple(P)), tableau)
    steps.rtol, steps.atol = np.array([1e-3, 1e-5, 1e-7]), np.array([1e-9, 1e-6, 1e-3])
    y, h = solution(0.4), 0.1
    y1, k, squared = steps.one(0.4, h, y, P)
    weights = [float(x) for x in tableau.b_error] + [0.0] * (len(k) - tableau.stages)
    error = h * np.array(weights) @ k
    scale = steps.atol + steps.rtol * np.maximum(abs(y), abs(y1))
    assert squared == pytest.approx(np.mean((error / scale) ** 2), rel=1e-9)


@pytest.mark.parametrize("tableau", METHODS, ids=by_name)
def test_last_stage_is_the_slope_at_the_new_state(tableau):
    steps = FixedSteps(closed.bind(np.ones(3), tuple(P)), tableau)
    y1, k, _ = steps.one(0.4, 0.1, solution(0.4), P)
    assert k[-1] == pytest.approx(steps.slope(0.5, y1, P), rel=1e-14)


@pytest.mark.parametrize("tableau", METHODS, ids=by_name)
def test_zero_coefficients_leave_no_operation(tableau):
    graph = runge_kutta_step(odec.dynamics(lambda t, y: [y[0] * y[0]]).bind([1.0]).graph, tableau).function
    zeros = [n for n in graph.nodes if n.op is CONSTANT and scalar_value(n) == 0.0]
    assert zeros == []
    rows = [*tableau.a[1:], *([] if tableau.fsal else [tableau.b])]
    sums = [sum(x != 0 for x in row) for row in rows]  # m terms: m products, m sums, h twice or once
    errors = sum(x != 0 for x in tableau.b_error)
    slopes = len(rows)  # one product each; the first is given
    most = sum(2 * m + (2 if m > 1 else 1) for m in sums) + slopes + 2 * errors + 12
    times = sum(
        n.op.name in ("add", "multiply") and n.shape == () and n.inputs[0] is graph.inputs["t"] for n in graph.nodes
    )
    assert operation_count(graph) <= most + 2 * times


def test_a_method_of_zeros_does_not_evaluate_more_than_it_needs():
    """FSAL falls out: a step of s stages evaluates the right-hand side s - 1 times."""
    model = odec.dynamics(lambda t, y: [np.tanh(y[0])])
    for tableau in METHODS:
        graph = runge_kutta_step(model.bind([1.0]).graph, tableau).function
        evaluations = sum(n.op.name == "tanh" for n in graph.nodes)
        assert evaluations == tableau.stages - tableau.fsal


@pytest.mark.parametrize("tableau", METHODS, ids=by_name)
def test_jvp_of_the_step_is_its_derivative(tableau):
    """Tangent-linear model against central differences, and the adjoint against both."""
    graph = runge_kutta_step(closed.bind(np.ones(3), tuple(P)).graph, tableau).function
    generator = np.random.default_rng(3)
    names = ("t", "h", "y", "p", "f0")
    point = [
        np.array(0.4), np.array(0.1), solution(0.4), P, generator.normal(size=3), np.full(3, 1e-2), np.full(3, 1e-2),
    ]  # fmt: skip
    tangents = [generator.normal(size=np.shape(x)) for x in point[:5]]
    primal = list(graph.evaluate(*point))
    linear = list(jvp(graph, names).evaluate(*point, *tangents).values())
    e = 1e-6
    sides = [
        graph.evaluate(*[x + s * e * v for x, v in zip(point, tangents)], *point[5:]) for s in (1, -1)
    ]  # fmt: skip
    for name, tangent in zip(primal, linear, strict=True):
        difference = (sides[0][name] - sides[1][name]) / (2 * e)
        assert tangent == pytest.approx(difference, rel=1e-6, abs=1e-7)
    bars = [generator.normal(size=np.shape(v)) for v in linear]
    pulled = list(vjp(graph).evaluate(*point, *bars).values())
    left = sum(np.sum(b * v) for b, v in zip(bars, linear))
    right = sum(np.sum(b * v) for b, v in zip(pulled[:5], tangents))
    assert left == pytest.approx(right, rel=1e-12)


@pytest.mark.parametrize("tableau", [HEUN_EULER, BS3], ids=by_name)
def test_a_users_own_tableau_solves(tableau):
    ends = []
    for tolerance in (1e-4, 1e-6):
        sol = odec.solve(closed, (0.0, 2.0), solution(0.0), tuple(P), method=tableau, rtol=tolerance, atol=tolerance)
        assert sol.stats["nfev"] == 2 + (sol.stats["steps"] + sol.stats["rejected"]) * (tableau.stages - tableau.fsal)
        ends.append(np.abs(sol.y1 - solution(2.0)).max())
    assert ends[1] < ends[0] / 20 and ends[1] < 1e-4
    kept = odec.solve(
        closed, (0.0, 2.0), solution(0.0), tuple(P), method=tableau, rtol=1e-6, atol=1e-6, t_eval=np.linspace(0, 2, 77)
    )
    assert kept.ys == pytest.approx(np.array([solution(t) for t in kept.ts]), abs=1e-4)


def test_a_step_in_single_precision_keeps_time_in_double():
    graph = runge_kutta_step(closed.bind(np.ones(3, np.float32), tuple(P)).graph, TABLEAUS["tsit5"]).function
    assert {n: x.dtype for n, x in graph.inputs.items()} == dict(
        t="float64", h="float64", y="float32", p="float32", f0="float32", rtol="float32", atol="float32"
    )
    assert {n: x.dtype for n, x in graph.outputs.items()} == dict(y1="float32", k="float32", error="float64")
