"""Laws of the transforms over random models, by NumPy evaluation of the graphs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import odec
from odec.graph.function import Function
from odec.graph.node import input_node
from odec.ops.structure import concatenate, reshape, slice_
from odec.testing import models
from odec.transforms.jacobian import divergence, jacobian_values
from odec.transforms.jvp import jvp
from odec.transforms.sparsity import dependencies, hessian_pattern, jacobian_pattern
from odec.transforms.taylor import taylor
from odec.transforms.vjp import vjp

EVERY = models(depth=3)
SMOOTH = models(depth=3, smooth=True)
SEEDS = st.integers(0, 1000)
T = 0.3


class Point:
    """A model's graph at its point, with random directions."""

    def __init__(self, example, seed=0):
        system = example.model.bind(example.y0, example.params)
        self.f = system.graph
        self.y = system.y_structure.flatten(example.y0, "y0")
        self.p = system.p_structure.flatten(example.params, "params")
        self.at = (np.float64(T), self.y, self.p)
        rng = np.random.default_rng(seed)
        self.tangents = [rng.normal(size=np.shape(a)) for a in self.at]
        self.cotangent = rng.normal(size=self.y.shape)

    def __call__(self, t, y, p):
        return self.f.evaluate(t, y, p)["dydt"]


def value(function, *arrays):
    (result,) = function.evaluate(*arrays).values()
    return result


def close(a, b, rtol=1e-9):
    """Equal up to rounding on the scale of the largest element."""
    a, b = np.asarray(a), np.asarray(b)
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * (1 + np.max(np.abs(b), initial=0.0)))


def along(function, point, directions, h=2e-3):
    """The directional derivative by central differences of eighth order."""
    weights = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
    moved = lambda s: function(*(a + s * d for a, d in zip(point, directions, strict=True)))
    return sum(w * (moved(k * h) - moved(-k * h)) for k, w in enumerate(weights, 1)) / h


# ---- first derivatives ----------------------------------------------------------------------------------


@given(SMOOTH, SEEDS)
def test_jvp_is_the_directional_derivative(example, seed):
    x = Point(example, seed)
    close(value(jvp(x.f), *x.at, *x.tangents), along(x, x.at, x.tangents), 3e-7)


@given(EVERY, SEEDS)
def test_vjp_is_the_adjoint_of_jvp(example, seed):
    x = Point(example, seed)
    product = value(jvp(x.f), *x.at, *x.tangents)
    bars = vjp(x.f).evaluate(*x.at, x.cotangent).values()
    terms = [np.sum(b * d) for b, d in zip(bars, x.tangents, strict=True)]
    scale = np.abs(x.cotangent) @ np.abs(product) + np.sum(np.abs(terms))
    assert abs(x.cotangent @ product - sum(terms)) <= 1e-12 * (1 + scale)


@given(EVERY)
def test_coloured_jacobian_is_the_dense_one(example):
    x = Point(example)
    n = x.y.size
    f_y = jvp(x.f, ["y"])
    dense = np.stack([value(f_y, *x.at, e) for e in np.eye(n)], axis=1)
    rows, columns = jacobian_pattern(x.f, "y")
    sparse = np.zeros((n, n))
    sparse[rows, columns] = value(jacobian_values(x.f, "y"), *x.at)
    close(sparse, dense, 1e-12)
    close(value(divergence(x.f), *x.at), np.trace(dense), 1e-12)


@given(EVERY)
def test_coloured_jacobian_by_some_of_the_parameters(example):
    x = Point(example)
    rows, columns = jacobian_pattern(x.f, "p")
    some = columns >= 1
    f_p = jvp(x.f, ["p"])
    dense = np.stack([value(f_p, *x.at, e) for e in np.eye(x.p.size)], axis=1)
    values = value(jacobian_values(x.f, "p", (rows[some], columns[some])), *x.at)
    close(values, dense[rows[some], columns[some]], 1e-12)


@given(EVERY)
def test_pattern_covers_every_dependence(example):
    x = Point(example)
    (masks,) = dependencies(x.f, "y").values()
    reached = np.zeros((x.y.size, x.y.size), bool)
    for row, bits in enumerate(masks.ravel()):
        reached[row] = [bits >> j & 1 for j in range(x.y.size)]
    for j in range(x.y.size):
        moved = x.y.copy()
        moved[j] += 0.01
        changed = x(T, moved, x.p) != x(T, x.y, x.p)
        smooth = value(jvp(x.f, ["y"]), *x.at, np.eye(x.y.size)[j]) != 0
        assert not np.any(changed & smooth & ~reached[:, j])


# ---- Taylor coefficients ----------------------------------------------------------------------------------


def next_coefficient(function, rate, k):
    """(d c/dt + dc/dy f) / k of the last row c of a Function of (t, y, p), at a point."""

    def evaluate(t, y, p):
        (output,) = jvp(function, ["t", "y"]).evaluate(t, y, p, np.float64(1.0), rate(t, y, p)).values()
        return output[-1] / k

    return evaluate


@given(EVERY)
def test_taylor_is_nested_jvp(example):
    x = Point(example)
    order = 4
    found = value(taylor(x.f, order), *x.at)
    close(found[0], x.y, 0)
    close(found[1], x(*x.at), 1e-13)
    for k in range(2, order + 1):
        close(found[k], next_coefficient(taylor(x.f, k - 1), x, k)(*x.at), 1e-10)


# ---- compositions -----------------------------------------------------------------------------------------


def gradient_of(function, x):
    """y -> J^T w at the point's cotangent, by the VJP graph."""
    graph = vjp(function, ["y"])
    return lambda t, y, p, w: value(graph, t, y, p, w)


@given(SMOOTH, SEEDS)
def test_hessian_vector_product_is_the_jvp_of_a_vjp(example, seed):
    x = Point(example, seed)
    gradient = vjp(x.f, ["y"])
    product = value(jvp(gradient, ["y"]), *x.at, x.cotangent, x.tangents[1])
    still = np.zeros
    directions = [np.float64(0), x.tangents[1], still(x.p.shape), still(x.cotangent.shape)]
    close(product, along(gradient_of(x.f, x), (*x.at, x.cotangent), directions), 3e-6)


@given(EVERY, SEEDS)
def test_hessian_is_symmetric_and_its_pattern_covers_it(example, seed):
    x = Point(example, seed)
    n = x.y.size
    second = jvp(vjp(x.f, ["y"]), ["y"])
    hessian = np.stack([value(second, *x.at, x.cotangent, e) for e in np.eye(n)], axis=1)
    close(hessian, hessian.T, 1e-10)
    rows, columns = hessian_pattern(x.f, "y")
    covered = np.zeros((n, n), bool)
    covered[rows, columns] = True
    assert not np.any((hessian != 0) & ~covered)


@settings(max_examples=10)
@given(SMOOTH, SEEDS)
def test_vjp_of_the_fourth_taylor_coefficient(example, seed):
    x = Point(example, seed)
    coefficients = taylor(x.f, 4)
    (rows,) = coefficients.outputs.values()
    n = x.y.size
    last = reshape(slice_(rows, starts=(4, 0), steps=(1, 1), shape=(1, n)), shape=(n,))
    fourth = Function("fourth", coefficients.inputs, {"c": last})
    bars = vjp(fourth).evaluate(*x.at, x.cotangent).values()
    product = value(jvp(fourth), *x.at, *x.tangents)
    terms = [np.sum(b * d) for b, d in zip(bars, x.tangents, strict=True)]
    scale = np.abs(x.cotangent) @ np.abs(product) + np.sum(np.abs(terms))
    assert abs(x.cotangent @ product - sum(terms)) <= 1e-10 * (1 + scale)
    close(product, along(lambda *a: value(fourth, *a), x.at, x.tangents), 1e-4)


@given(EVERY, SEEDS)
def test_jvp_of_a_vjp_is_linear_in_the_cotangent(example, seed):
    x = Point(example, seed)
    gradient = vjp(x.f, ["p"])
    by_bar = value(jvp(gradient, ["dydt_bar"]), *x.at, x.cotangent, x.tangents[1])
    close(by_bar, value(gradient, *x.at, x.tangents[1]), 1e-12)


def augmented(f):
    """The variational equation: state (y, v), v' = J v, as one Function of t, (y, v), p."""
    n, tangent = f.inputs["y"].size, jvp(f, ["y"])
    t, p = (input_node(name, f.inputs[name].shape, "float64") for name in ("t", "p"))
    state = input_node("y", (2 * n,), "float64")
    y, v = (slice_(state, starts=(k,), steps=(1,), shape=(n,)) for k in (0, n))
    rates = f(t, y, p)["dydt"], tangent(t, y, p, v)["dydt_dot"]
    return Function("variational", {"t": t, "y": state, "p": p}, {"dydt": concatenate(*rates, axis=0)})


@settings(max_examples=10)
@given(EVERY, SEEDS)
def test_taylor_of_a_jvp_is_the_jvp_of_taylor(example, seed):
    """Coefficients of the variational equation are the derivative of the coefficients by y."""
    x = Point(example, seed)
    n, v = x.y.size, x.tangents[1]
    found = value(taylor(augmented(x.f), 3), np.float64(T), np.concatenate([x.y, v]), x.p)
    expected = value(jvp(taylor(x.f, 3), ["y"]), *x.at, v)
    close(found[:, n:], expected, 1e-9)


# ---- examples ---------------------------------------------------------------------------------------------


def pendulum(t, y, p):
    return {"angle": y["rate"], "rate": -p["g"] / p["length"] * np.sin(y["angle"]) + np.cos(t)}


def test_structured_pendulum_to_second_order():
    system = odec.dynamics(pendulum).bind({"angle": 0.1, "rate": 0.0}, ({"g": 9.81, "length": 2.0},))
    rows = value(taylor(system.graph, 2), np.float64(0.5), np.array([0.1, 0.0]), np.array([9.81, 2.0]))
    rate = -9.81 / 2 * np.sin(0.1) + np.cos(0.5)
    close(rows, [[0.1, 0.0], [0.0, rate], [rate / 2, -np.sin(0.5) / 2]], 1e-15)


def test_a_constant_right_hand_side_has_an_empty_jacobian():
    f = odec.dynamics(lambda t, y: np.ones(3)).bind(np.zeros(3)).graph
    assert value(jacobian_values(f, "y"), 0.0, np.zeros(3), np.zeros(0)).shape == (0,)
    assert value(vjp(f, ["y"]), 0.0, np.zeros(3), np.zeros(0), np.ones(3)).tolist() == [0.0, 0.0, 0.0]
    assert hessian_pattern(f, "y")[0].size == 0


def test_heat_equation_is_tridiagonal_with_three_colours():
    def heat(t, u):
        du = np.zeros_like(u)
        du[1:-1] = u[2:] - 2 * u[1:-1] + u[:-2]
        return du

    f = odec.dynamics(heat).bind(np.zeros(50)).graph
    rows, columns = jacobian_pattern(f, "y")
    assert rows.size == 3 * 48 and np.max(np.abs(rows - columns)) == 1
    expected = np.where(rows == columns, -2.0, 1.0)
    close(value(jacobian_values(f, "y"), 0.0, np.zeros(50), np.zeros(0)), expected, 0)


def test_one_node_as_two_outputs_collects_both_cotangents():
    x = input_node("x", (2,), "float64")
    f = Function("twice", {"x": x}, {"a": x, "b": x})
    bars = vjp(f).evaluate(np.zeros(2), np.array([1.0, 2.0]), np.array([10.0, 20.0]))
    assert bars["x_bar"].tolist() == [11.0, 22.0]


@pytest.mark.parametrize("order", [0, 1])
def test_low_orders_of_taylor(order):
    f = odec.dynamics(lambda t, y: -y).bind(np.ones(2)).graph
    assert value(taylor(f, order), 0.0, np.ones(2), np.zeros(0)).tolist() == [[1.0, 1.0], [-1.0, -1.0]][: order + 1]


@pytest.mark.parametrize(
    "matrix", [np.zeros((1, 1)), np.ones((2, 2)), np.diag([1.0, 0.0]), np.arange(9.0).reshape(3, 3)]
)
def test_determinants_of_singular_matrices_have_derivatives(matrix):
    f = odec.dynamics(lambda t, a: np.linalg.det(a) * np.ones_like(a)).bind(matrix).graph
    point, n = (0.0, matrix.ravel(), np.zeros(0)), matrix.size
    minor = lambda i, j: np.linalg.det(np.delete(np.delete(matrix, i, 0), j, 1))
    slope = [minor(i, j) * (-1) ** (i + j) for i, j in np.ndindex(*matrix.shape)]
    close(value(jvp(f, ["y"]), *point, np.eye(n)[n - 1])[0], slope[-1], 1e-14)
    close(value(vjp(f, ["y"]), *point, np.eye(n)[0]), slope, 1e-14)
    close(value(jacobian_values(f, "y"), *point)[:n], slope, 1e-14)
