"""Taylor maps: closed forms, differences of maps of lower order, orders of the error, structures, bad input."""

import functools
import re
import warnings

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

import odec
from odec import ArgumentError, ShapeError, SolveError
from odec.gradients.polynomial import exponents, term_count, with_polynomials
from odec.graph.function import Function
from odec.graph.node import constant, input_node
from odec.testing import models
from odec.transforms.taylor import Series


@odec.dynamics
def logistic(t, y, rate):
    return [rate * y[0] * (1.0 - y[0])]


@odec.dynamics
def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
    x, v, z = y
    return [sigma * (v - x), x * (rho - z) - v, x * v - beta * z]


@odec.dynamics
def kepler(t, y):
    cube = (y[0] ** 2 + y[1] ** 2) ** 1.5
    return [y[2], y[3], -y[0] / cube, -y[1] / cube]


@odec.dynamics
def spring(t, y, mass, unused):
    force = -mass["stiffness"] * y["place"] ** 3 + np.sin(t)
    return {"place": y["speed"], "speed": force / mass["mass"]}


SPRING0 = {"place": np.array([1.0, 0.5]), "speed": np.array([0.0, -0.2])}
MASS = {"stiffness": np.array([2.0, 3.0]), "mass": 1.5}
A = np.array([[0.0, 1.0, 0.2], [-2.0, -0.3, 0.0], [0.1, 0.0, -1.0]])


@odec.dynamics
def linear(t, y):
    return A @ y


# ---- closed forms -----------------------------------------------------------------------------------------


def test_the_map_of_a_linear_model_is_the_matrix_exponential():
    found = odec.taylor_map(linear, (0.0, 2.0), [1.0, -1.0, 0.5], order=3)
    assert found.jacobian == pytest.approx(expm(2.0 * A), rel=1e-12, abs=1e-13)
    assert found.coefficients[:, 0] == pytest.approx(expm(2.0 * A) @ [1.0, -1.0, 0.5], rel=1e-12)
    assert not found.coefficients[:, 4:].any()


@functools.cache
def closed_form(degree):
    """Coefficients of the logistic curve at (y0, rate, t), by SymPy."""
    y0, rate, t = sympy.symbols("y0 rate t")
    end = y0 * sympy.exp(rate * t) / (1 + y0 * (sympy.exp(rate * t) - 1))
    terms = [
        sympy.diff(end, y0, i, rate, j) / (sympy.factorial(i) * sympy.factorial(j)) for i, j in exponents(2, degree)
    ]
    return sympy.lambdify((y0, rate, t), terms, "mpmath")


@given(st.floats(0.1, 0.9), st.floats(0.3, 2.0), st.floats(0.2, 2.0))
def test_a_closed_form_has_these_coefficients(y0, rate, end):
    found = odec.taylor_map(logistic, (0.0, end), [y0], (rate,), order=4, wrt=("y0", "rate"))
    expected = np.array([closed_form(4)(y0, rate, end)], float)
    assert np.max(np.abs(found.coefficients - expected)) <= 1e-11 * np.max(np.abs(expected))
    assert found.variables == ("y0[0]", "rate") and found.center == pytest.approx([y0, rate])
    assert found.exponents.tolist()[:6] == [[0, 0], [1, 0], [0, 1], [2, 0], [1, 1], [0, 2]] and found.degree == 4


# ---- laws -------------------------------------------------------------------------------------------------


def test_each_degree_is_the_derivative_of_the_one_below():
    y0, span, options = np.array([1.0, 2.0, 20.0]), (0.0, 0.5), dict(order=3, wrt=("y0", "rho"))

    def at(x):
        return odec.taylor_map(lorenz, span, x[:3], {"rho": x[3]}, **options)

    center = np.array([*y0, 28.0])
    here, width = at(center), 1e-3
    place = {tuple(m): k for k, m in enumerate(here.exponents)}
    for v in range(4):
        step = width * np.eye(4)[v]
        near, far = (at(center + s * step).coefficients - at(center - s * step).coefficients for s in (1, 2))
        slopes = (8.0 * near - far) / (12.0 * width)
        for m, k in place.items():
            if sum(m) < 3:
                above = here.coefficients[:, place[tuple(np.add(m, np.eye(4, dtype=int)[v]))]]
                assert (m[v] + 1) * above == pytest.approx(slopes[:, k], rel=1e-7, abs=1e-7)
    first = odec.sensitivities(
        lorenz, span, y0, wrt=("y0", "rho"), method="vern9", rtol=1e-12, atol=1e-12, error_control=True, t_eval=[0.5]
    )
    expected = np.column_stack([first.sensitivities["y0"][0], first.sensitivities["rho"][0]])
    assert here.jacobian == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_error_falls_with_the_order_after_the_degree():
    y0, change = np.array([1.0, 0.0, 0.0, 1.1]), np.array([0.3, -0.5, 0.6, 0.4])
    found = odec.taylor_map(kepler, (0.0, 3.0), y0, order=4)
    sizes = 0.04 * 0.5 ** np.arange(4)
    errors = [np.max(np.abs(found(s * change) - end_of(kepler, (0.0, 3.0), y0 + s * change))) for s in sizes]
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert np.abs(orders[-1] - 5.0) <= 0.3, orders


def end_of(model, span, y0, params=()):
    return odec.solve(model, span, y0, params, method="vern9", rtol=1e-13, atol=1e-13, t_eval=[]).y1


def test_the_way_back_undoes_the_way_there():
    y0, change = np.array([1.0, 2.0, 20.0]), np.array([0.5, -1.0, 0.8])
    there = odec.taylor_map(lorenz, (0.0, 0.5), y0, order=3, wrt=("y0", "rho"))
    back = odec.taylor_map(lorenz, (0.5, 0.0), there(), order=3, wrt=("y0", "rho"))
    assert back() == pytest.approx(y0, rel=1e-10)
    errors = [
        np.max(np.abs(back(there(s * change, {"rho": s}) - there(), {"rho": s}) - y0 - s * change))
        for s in (2e-2, 1e-2)
    ]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4.0, abs=0.3)


MATRIX = np.random.default_rng(1).normal(size=(3, 3))
WIDE = np.random.default_rng(2).normal(size=(60, 60)) / 8.0


def formulas(t, y, k):
    a, b, c = y
    system = np.stack([np.stack([3.0 + a, b]), np.stack([c, 4.0 + a * b])])
    x = np.linalg.solve(system, np.stack([k[0], c]))
    return [
        np.exp(a * b) / (2.0 + c) + np.tanh(k[1] * c) + np.linalg.det(system),
        np.log(3.0 + b) * np.sqrt(2.0 + a) + (2.0 + c) ** k[0] + np.cos(t + a),
        x[0] - np.arctan2(a, 2.0 + x[1]) + np.where(a < 5.0, b**3, c) / np.abs(c - 9.0) + np.maximum(a, -8.0) ** -2,
    ]


def network(t, y, k):
    return np.tanh(WIDE @ y) * k[0] - np.linalg.norm(y) * k[1] * y


@pytest.mark.parametrize(("rule", "n"), [(formulas, 3), (network, 60)])
def test_along_each_ray_coefficients_are_those_of_a_curve(rule, n):
    y = np.random.default_rng(3).uniform(-0.5, 0.5, n)
    check_along_a_ray(odec.dynamics(rule).bind(y, (np.ones(2),)), y, np.array([0.7, 1.2]), 3)


@settings(max_examples=20)
@given(models(depth=3), st.integers(0, 99))
def test_along_each_ray_of_random_models(drawn, seed):
    system = drawn.model.bind(drawn.y0, drawn.params)
    check_along_a_ray(system, system.y_structure.flatten(drawn.y0, "y0"), system.flat_parameters(drawn.params), seed)


def check_along_a_ray(system, y, p, seed):
    """All terms of degree k along a direction are the k-th coefficient of a curve, of rates as of states."""
    degree, places, rng = 3, (None, 0, 1), np.random.default_rng(seed)
    f, powers = system.graph, exponents(3, degree)
    states, d = rng.uniform(-0.5, 0.5, (y.size, len(powers))), rng.uniform(-1.0, 1.0, 3)
    states[:, 0] = y
    (rates,) = with_polynomials(f, places, degree).evaluate(0.3, states.ravel(), p).values()
    weights, degrees = np.prod(d ** np.array(powers), axis=1), np.sum(powers, axis=1)
    curve, found = (
        np.array([(rows * weights)[:, degrees == k].sum(axis=1) for k in range(degree + 1)])
        for rows in (states, rates.reshape(y.size, -1))
    )
    dp = np.zeros(p.size)
    dp[:2] = d[1:]
    expected = along_a_curve(f, 0.3, curve, [p, dp])
    scale = 1e-11 * (1.0 + np.max(np.abs(expected)))
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=scale)


def along_a_curve(f, t, states, values):
    """(degree + 1, n): coefficients of f along a curve of (y, p)."""
    _, y, p = f.inputs.values()
    curve = {
        node: [node, *(input_node(f"{name}_{k}", node.shape, node.dtype) for k in range(1, len(rows)))]
        for name, node, rows in (("y", y, states), ("p", p, values))
    }
    series, (rate,) = Series(curve), f.outputs.values()
    zero = constant(0.0, rate.dtype, rate.shape)
    made = [
        [series(node, k) for node in f.nodes] and (zero if (c := series(rate, k)) is None else c)
        for k in range(len(states))
    ]
    inputs = {node.params["name"]: node for node in (*f.inputs.values(), *curve[y][1:], *curve[p][1:])}
    whole = Function("curve", inputs, {str(k): node for k, node in enumerate(made)})
    return np.array(list(whole.evaluate(t, states[0], values[0], *states[1:], *values[1:]).values()))


def test_there_are_as_many_exponents_as_terms():
    for variables, degree in ((1, 6), (3, 2), (5, 3)):
        powers = exponents(variables, degree)
        assert len(set(powers)) == len(powers) == term_count(variables, degree)
        assert [sum(m) for m in powers] == sorted(sum(m) for m in powers)


# ---- what it is called with, and what it gives ------------------------------------------------------------


def test_structures_keep_their_form():
    params = {"mass": MASS, "unused": np.ones(2)}
    found = odec.taylor_map(spring, (0.0, 1.0), SPRING0, params, order=2, wrt=("mass", "y0", "unused"))
    assert found.variables == (
        "mass['stiffness'][0]", "mass['stiffness'][1]", "mass['mass']", "y0['place'][0]", "y0['place'][1]",
        "y0['speed'][0]", "y0['speed'][1]", "unused[0]", "unused[1]",
    )  # fmt: skip
    assert not found.jacobian[:, -2:].any()
    errors = []
    for s in (1e-2, 5e-3):
        dy0 = {"place": np.array([s, -s]), "speed": np.array([0.5 * s, s])}
        heavier = {"stiffness": MASS["stiffness"] + [2 * s, s], "mass": MASS["mass"] + s}
        value = found(dy0, {"mass": {"stiffness": np.array([2 * s, s]), "mass": s}})
        expected = end_of(spring, (0.0, 1.0), {k: SPRING0[k] + dy0[k] for k in dy0}, (heavier, np.ones(2)))
        errors.append(max(np.max(np.abs(value[k] - expected[k])) for k in expected))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(3.0, abs=0.3)
    many = found({k: np.stack([v, 0 * v, v]) for k, v in dy0.items()}, {"unused": np.ones(2)}, batched="y0")
    one = found(dy0)
    assert many["place"].shape == (3, 2) and many["speed"][2] == pytest.approx(one["speed"])
    assert many["place"][1] == pytest.approx(found.solution.y1["place"])
    by_order = found(None, (None, np.zeros(2)))
    assert by_order["place"] == pytest.approx(found.solution.y1["place"]) and by_order["speed"].shape == (2,)


def test_it_prints_as_a_polynomial():
    found = odec.taylor_map(logistic, (0.0, 1e-6), [0.5], (1.0,), order=4, wrt=("y0", "rate"))
    assert str(found).startswith("y[0] = 0.5 + 1 dy0[0] + 2.5e-07 drate - 1e-06 dy0[0]^2")
    wide = odec.taylor_map(lorenz, (0.0, 0.5), [1.0, 2.0, 20.0], order=3, wrt=("y0", "rho"))
    lines = str(wide).split("\n")
    assert len(lines) == 3 and all(len(line) <= 120 and line.endswith(" + ...") for line in lines)
    assert repr(wide) == "<TaylorMap of lorenz: degree 3 in y0[0], y0[1], y0[2], rho, 35 terms>"


def test_rows_of_the_state_can_be_kept():
    times = [0.0, 1.0, 2.0]
    found = odec.taylor_map(linear, (0.0, 2.0), [1.0, -1.0, 0.5], order=3, t_eval=times)
    assert found.solution.ts.tolist() == times and found.solution.ys.shape == (3, 3)
    alone = odec.taylor_map(linear, (0.0, 2.0), [1.0, -1.0, 0.5], order=3, error_control=False, rtol=1e-9)
    assert alone.coefficients == pytest.approx(found.coefficients, rel=1e-6, abs=1e-6)


# ---- what has no map --------------------------------------------------------------------------------------


@odec.dynamics
def bouncing(t, y, limit):
    return [y[1], np.where(t < limit, -2.0, -1.0) * np.abs(y[0])]


def test_a_condition_that_changes_on_the_way_is_told_with_its_line():
    with pytest.warns(
        RuntimeWarning, match=r"bouncing \(test_taylor_map.py:\d+\): a condition changes before t = 1\.\d"
    ):
        odec.taylor_map(bouncing, (0.0, 2.0), [1.0, 0.0], (5.0,), order=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        odec.taylor_map(bouncing, (0.0, 1.0), [1.0, 0.0], (0.5,), order=1, tstops=[0.5])


@odec.dynamics
def draining(t, y, k):
    return [-k * np.sqrt(y[0])]


def test_a_derivative_that_is_not_finite_is_told_with_its_line():
    with pytest.raises(SolveError, match=r"draining \(test_taylor_map.py:\d+\): a derivative of this line is -?inf"):
        odec.taylor_map(draining, (0.0, 1.0), [0.0], (2.0,), order=1)


REFUSED = [
    (dict(order=0), ArgumentError, ("lorenz: order is 0", "positive integer")),
    (dict(order=1.5), ArgumentError, ("lorenz: order is 1.5", "positive integer")),
    (dict(order=True), ArgumentError, ("lorenz: order is True",)),
    (dict(order=40, wrt=("y0", "rho")), ArgumentError, ("order 40", "407,253 states", "lower order")),
    (dict(wrt="roh"), ArgumentError, ("wrt 'roh'", "'rho'")),
    (dict(wrt=()), ArgumentError, ("names are needed",)),
    (dict(wrt="t0"), ArgumentError, ("'t0'", "odec.sensitivities")),
    (dict(wrt="rho", params={"rho": np.int64(28)}), ArgumentError, ("'rho'", "int64", "floats")),
    (dict(events=[lambda t, y: y[0]]), ArgumentError, ("events have no Taylor map", "end t_span")),
    (dict(rtol=-1.0), ArgumentError, ("rtol is -1.0",)),
    (dict(oder=2), TypeError, ("taylor_map() has no keyword 'oder'",)),
]


@pytest.mark.parametrize(("options", "kind", "words"), REFUSED)
def test_arguments_that_cannot_be_used_are_refused(options, kind, words):
    with pytest.raises(kind) as raised:
        odec.taylor_map(lorenz, (0.0, 1.0), [1.0, 1.0, 1.0], **options)
    for word in words:
        assert word in str(raised.value), raised.value
    assert re.search(r"[.?]$", str(raised.value))


def test_a_parameter_that_is_named_as_the_state_is_refused():
    model = odec.dynamics(lambda t, y, y0: y0 * y)
    with pytest.raises(ArgumentError, match="'y0' in wrt is the state, but also a parameter; rename"):
        odec.taylor_map(model, (0.0, 1.0), [1.0], (2.0,))


def test_changes_that_are_not_in_the_map_are_refused():
    found = odec.taylor_map(lorenz, (0.0, 0.5), [1.0, 2.0, 20.0], order=3, wrt=("y0", "rho"))
    with pytest.raises(ArgumentError, match="sigma changes, but this map is one of y0, rho; make one with 'sigma'"):
        found(None, {"sigma": 0.1})
    with pytest.raises(ArgumentError, match="has no parameter 'roh'"):
        found(None, {"roh": 0.1})
    with pytest.raises(ShapeError, match=r"change of y0 has shape \(2,\)"):
        found([0.1, 0.2])
    with pytest.raises(ArgumentError, match="batched has 'rho', of which no change is given"):
        found([0.1, 0.2, 0.3], batched=("rho",))
    with pytest.raises(ArgumentError, match="change of y0 has 2 members along its first axis, but change of rho has 3"):
        found(np.zeros((2, 3)), {"rho": np.zeros(3)}, batched=("y0", "rho"))
    assert found(None, {"sigma": 0.0}) == pytest.approx(found())
