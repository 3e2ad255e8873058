"""The loop over the orders gives the coefficients that the unrolled series has: Python text and machine code."""

import functools

import numpy as np
import pytest
import strategies
from hypothesis import example, given, settings
from hypothesis import strategies as st
from op_cases import ELEMENTWISE, STRUCTURAL, structural
from tracing import loaded

import odec
from odec.codegen.convolution import BLOCK, tiles_for
from odec.codegen.kernel import Allocate, Argument, Call, Element, Index, Kernel, Literal, Loop, Return
from odec.codegen.lower import lower
from odec.codegen.lower_series import VECTOR_BYTES, lower_series
from odec.codegen.print_python import convolve, print_python, python_function
from odec.graph.function import Function
from odec.graph.node import constant, input_node
from odec.graph.op import OPS
from odec.testing import RandomModel, models
from odec.transforms.orders import NoLoop, orders
from odec.transforms.taylor import taylor

T = 0.3
# Coefficients of one order are sums of at most 8 products of others, taken in another order: the largest difference
# that was seen is 3e-14 of the largest coefficient in float64.
TOLERANCE = {"float64": 1e-11, "float32": 2e-4}


def coefficients(run, jet, y, p):
    """What a kernel of a Jet writes, (order + 1, n)."""
    dtype = jet.inputs["y"].dtype
    out = np.full((jet.order + 1, jet.inputs["y"].size), np.nan, dtype)
    with np.errstate(all="ignore"):
        run(np.array([T]), np.ravel(y).astype(dtype), np.ravel(p).astype(dtype), out)
    return out


def check(run, jet, y, p):
    """The coefficients that a kernel finds are those of the unrolled series."""
    dtype = jet.inputs["y"].dtype
    expected = jet.evaluate(T, np.asarray(y, dtype), np.asarray(p, dtype))["coefficients"]
    expected = expected.reshape(jet.order + 1, -1)
    found, scale = coefficients(run, jet, y, p), TOLERANCE[dtype] * (1 + np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE[dtype], atol=scale)


def check_python(jet, y, p):
    check(python_function(lower(jet, "series", "array")), jet, y, p)


# ---- every op --------------------------------------------------------------------------------------------------

WIDTH, ARITY = 2, 3
DOMAINS = [domain for op, _ in ELEMENTWISE for domain in op.domain]
POINTS = st.tuples(*(strategies.arrays((WIDTH,), *domain) for domain in DOMAINS)).map(np.concatenate)
# What the arguments of an op are, one letter each: of y, of p, a constant array, or y and time together.
KINDS = ("yyy", "pyp", "ypc", "cyt", "tcy")


def part(x, k):
    return OPS["slice"](x, starts=(k * WIDTH,), steps=(1,), shape=(WIDTH,))


def argument(kind, t, y, p, k):
    if kind == "c":
        return constant(np.full(WIDTH, np.mean(DOMAINS[k])), "float64")
    if kind == "t":
        return part(y, k) + OPS["broadcast"](0.1 * t - 0.1 * T, shape=(WIDTH,))
    return part(y if kind == "y" else p, k)


@functools.cache
def every_op(kinds):
    """The Jet of dy/dt made of every elementwise op applied to arguments of some kinds."""
    size = WIDTH * len(DOMAINS)
    t, y, p = input_node("t", (), "float64"), input_node("y", (size,), "float64"), input_node("p", (size,), "float64")
    at, rates = 0, []
    for op, params in ELEMENTWISE:
        places = range(at, at + len(op.domain))
        value = op(*(argument(kinds[k - at], t, y, p, k) for k in places), **params)
        value = OPS["cast"](OPS["to_float"](value) if value.dtype == "bool" else value, dtype="float64")
        rates += [0.5 * value + (0.25 * (k - at + 1)) * part(y, k) for k in places]
        at += len(op.domain)
    return taylor(Function("every_op", {"t": t, "y": y, "p": p}, {"dydt": OPS["concatenate"](*rates, axis=0)}), 5)


@functools.cache
def loop_of_every_op(kinds):
    return python_function(lower_series(every_op(kinds), "series"))


@pytest.mark.parametrize("kinds", KINDS)
@given(y=POINTS, p=POINTS)
@settings(max_examples=5)
def test_every_elementwise_op_in_a_loop_is_the_unrolled_series(kinds, y, p):
    check(loop_of_every_op(kinds), every_op(kinds), y, p)


def rate_of(graph, arrays):
    """dy/dt of a Function of arrays: y holds them all, the result goes round, p couples neighbours."""
    n = sum(a.size for a in arrays)
    t, y, p = input_node("t", (), "float64"), input_node("y", (n,), "float64"), input_node("p", (n,), "float64")
    at, parts = 0, []
    for a in arrays:
        piece = OPS["slice"](y, starts=(at,), steps=(1,), shape=(a.size,))
        parts.append(OPS["reshape"](piece, shape=a.shape))
        at += a.size
    (value,) = graph(*parts).values()
    round_ = OPS["take"](OPS["reshape"](value, shape=(value.size,)), index=np.arange(n) % value.size)
    neighbour = OPS["take"](y, index=(np.arange(n) + 1) % n)
    return Function("structural", {"t": t, "y": y, "p": p}, {"dydt": 0.3 * round_ + p * neighbour})


@pytest.mark.parametrize("name", STRUCTURAL)
@given(drawn=st.data())
@settings(max_examples=5)
def test_every_structural_op_in_a_loop_is_the_unrolled_series(name, drawn):
    graph, arrays = drawn.draw(structural(name))
    y = np.concatenate([a.ravel() for a in arrays])
    check_python(taylor(rate_of(graph, arrays), drawn.draw(st.integers(0, 5))), y, np.linspace(-0.5, 0.5, y.size))


# ---- models ----------------------------------------------------------------------------------------------------

THREE = np.array([0.4, -0.7, 0.2])


def falling(t, y, k, c):
    return -y * np.sum(np.ceil(y)) ** 2 + np.abs(np.copysign(k, y) * y)


@given(drawn=models(depth=3), order=st.integers(0, 8))
@example(drawn=RandomModel(odec.dynamics(falling), THREE, {"k": 0.5, "c": THREE}), order=4)
@settings(max_examples=15)
def test_random_models_in_a_loop_are_the_unrolled_series(drawn, order):
    system = drawn.model.bind(drawn.y0, drawn.params)
    y = system.y_structure.flatten(drawn.y0, "y0")
    check_python(taylor(system.graph, order), y, system.flat_parameters(tuple(drawn.params.values())))


def pendulum(t, y, length):
    return [y[1], -9.81 / length * np.sin(y[0]) + np.cos(t) * np.exp(-t)]


def network(t, y, w):
    return np.tanh(np.linspace(-1.0, 1.0, 15).reshape(3, 5) @ np.tanh(w @ y + 0.1) - t)


def riccati(t, y, a):
    z = y.reshape(3, 3)
    return (a @ z + z @ a.T - z @ z @ z.T + np.eye(3)).ravel()


def chosen(t, y, c):
    return np.where(y > c, np.maximum(y, t) ** 1.5, np.abs(y) / (1.0 + y * y)) + np.mod(y, 2.0) * y


def linear(t, y, a):
    return a @ y - y[::-1] + np.cumsum(y)


def forced(t, y, c):
    return np.sin(3.0 * t) * c + t * t


def still(t, y, c):
    return 0.0 * y


def scaled(t, y, c):
    return np.array([2.0, -1.0, 0.5]) * y * y[::-1] * np.array([1.0, 3.0, 1.0]) - y.reshape(1, 3)[0] ** 3 / c


def driven(t, y, c):
    return np.interp(t, [0.0, 0.5, 2.0], [1.0, 3.0, -1.0]) * y + c


def orbit(t, y, mass):
    r = np.hypot(y[0], y[1])
    return [y[2], y[3], -mass * y[0] / r**3, -mass * y[1] / r**3]


def mass_matrix(t, y, c):
    mass = np.stack([np.stack([c, np.cos(y[0])]), np.stack([np.cos(y[0]), 1.0 + y[1] ** 2])])
    return np.linalg.solve(mass, -np.sin(y)) * np.linalg.det(mass)


A = np.array([[0.2, 0.5, -0.3], [0.1, -0.4, 0.6], [0.3, 0.2, -0.1]])
MODELS = {
    function.__name__: (function, y0, parameter)
    for function, y0, parameter in (
        (pendulum, THREE[:2], 2.0), (network, THREE, np.ones((5, 3)) / 3), (riccati, A.ravel(), A),
        (chosen, np.array([0.3, 0.9, -0.5, 1.7, -2.1]), 0.5), (linear, THREE, A), (forced, THREE, THREE),
        (still, THREE, THREE), (scaled, THREE, 2.0), (driven, THREE, 0.3),
        (orbit, np.array([1.0, 0.2, -0.1, 0.9]), 1.5), (mass_matrix, THREE[:2], 3.0),
    )
}  # fmt: skip
KEYS = [(name, "float64") for name in MODELS] + [(name, "float32") for name in ("network", "chosen", "orbit")]
every_model = pytest.mark.parametrize("key", KEYS, ids="-".join)
HIGHEST = 8


@functools.cache
def graph(name, dtype="float64"):
    function, y0, parameter = MODELS[name]
    return odec.dynamics(function).bind(y0.astype(dtype), (parameter,)).graph


def point(name, seed=0):
    """(y, p) near the model's own."""
    _, y0, parameter = MODELS[name]
    random = np.random.default_rng(seed)
    return y0 + 0.1 * random.normal(size=y0.shape), np.ravel(parameter) * random.uniform(0.8, 1.2)


@pytest.mark.parametrize("order", [0, 1, 2, HIGHEST])
@every_model
def test_python_text_of_a_model_gives_the_unrolled_series(key, order):
    check_python(taylor(graph(*key), order), *point(key[0]))


@functools.cache
def machine_code():
    """{key: (jet, function)} of all models, compiled together."""
    jets = {key: taylor(graph(*key), HIGHEST) for key in KEYS}
    code = loaded([lower(jet, "_".join(key), "array") for key, jet in jets.items()])
    return {key: (jet, code["_".join(key)]) for key, jet in jets.items()}


@every_model
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=5)
def test_machine_code_of_a_model_gives_the_unrolled_series(key, seed):
    jet, run = machine_code()[key]
    check(run, jet, *point(key[0], seed))


def test_coefficients_are_divided_by_their_order():
    """A product by a rounded 1 / (k + 1) errs the same way in every step, and the energy of an orbit drifts."""
    y = np.linspace(0.5, 3.0, 64)
    jet = taylor(odec.dynamics(lambda t, y: -y).bind(y).graph, 12)
    found = coefficients(loaded([lower(jet, "decay", "array")])["decay"], jet, y, [])
    assert all(np.array_equal(found[k + 1], -found[k] / (k + 1)) for k in range(12))


def test_models_without_products_have_no_convolutions():
    parts = {name: orders(graph(name)) for name in ("linear", "still", "driven", "riccati")}
    counts = {name: (len(found.convolutions), len(found.histories)) for name, found in parts.items()}
    assert counts["linear"] == counts["still"] == (0, 0)
    assert counts["driven"][0] == 1 and counts["riccati"][0] == 2


def test_numbers_that_are_repeated_along_rows_are_kept_once():
    weights = np.arange(1.0, 21.0)[:, None]
    system = odec.dynamics(lambda t, y, p: weights * np.sin(y) * p[:, None]).bind(np.ones((20, 3)), (np.ones(20),))
    parts = orders(system.graph)
    values = {name: node.size for name, node in parts.start.outputs.items() if name not in parts.histories}
    assert values == {"dydt": 60, "value_1": 20}  # a column of p; the weights are a table


def test_a_product_that_occurs_twice_is_one_convolution():
    @odec.dynamics
    def twice(t, y):
        x, v = y
        return [np.sin(x * v) + x * v, np.cos(x * v)]

    found = orders(twice.bind([0.1, 0.2]).graph)
    assert sum(c.size for c in found.convolutions) == 3  # x v, and the derivatives of the sine and of the cosine


def test_linear_systems_and_determinants_have_no_loop():
    with pytest.raises(NoLoop):
        orders(graph("mass_matrix"))
    kernel = lower(taylor(graph("mass_matrix"), 3), "series", "array")
    assert not any(isinstance(statement, Call) and statement.function == "convolve" for statement in kernel.body)


def test_the_text_of_a_loop_shows_the_lines_of_the_model():
    jet = taylor(graph("pendulum"), 4)
    text = print_python(lower_series(jet, "series"))
    for function in ("series_start", "series_order"):
        body = text[text.index(f"def {function}") :]
        body = body[: body.find("\ndef ", 1)] if "\ndef " in body[1:] else body
        assert "return [y[1], -9.81 / length * np.sin(y[0])" in body, function


# ---- large models ----------------------------------------------------------------------------------------------


@odec.dynamics
def bodies(t, y, gm):
    """n bodies at x (n, 3) that attract each other."""
    x, v = y
    apart = x[None, :, :] - x[:, None, :]
    square = np.sum(apart * apart, axis=-1) + np.eye(len(x))
    return v, np.sum((gm / (square * np.sqrt(square)))[:, :, None] * apart, axis=1)


def series_of_bodies(y, gm, order):
    """Their coefficients by NumPy; of w = s^(-3/2): k s_0 w_k = sum_{j=1..k} (-3 j/2 - (k - j)) s_j w_{k-j}."""
    x, v, apart, square, weight = [y[0]], [y[1]], [], [], []
    for k in range(order):
        apart.append(x[k][None] - x[k][:, None])
        square.append(sum((apart[j] * apart[k - j]).sum(axis=-1) for j in range(k + 1)) + (k == 0) * np.eye(len(gm)))
        terms = ((-1.5 * j - (k - j)) * square[j] * weight[k - j] for j in range(1, k + 1))
        weight.append(sum(terms) / (k * square[0]) if k else square[0] ** -1.5)
        pulls = sum(((gm * weight[j])[:, :, None] * apart[k - j]).sum(axis=1) for j in range(k + 1))
        x.append(v[k] / (k + 1))
        v.append(pulls / (k + 1))
    return np.stack(x), np.stack(v)


@odec.dynamics
def chain(t, y, alpha):
    """The Fermi-Pasta-Ulam chain: springs with a quadratic part between fixed ends."""
    x, v = y
    stretch = np.diff(np.concatenate([[0.0], x, [0.0]]))
    force = stretch + alpha * stretch**2
    return v, force[1:] - force[:-1]


def series_of_chain(y, alpha, order):
    x, v, stretch = [y[0]], [y[1]], []
    for k in range(order):
        stretch.append(np.diff(np.concatenate([[0.0], x[k], [0.0]])))
        force = stretch[k] + alpha * sum(stretch[j] * stretch[k - j] for j in range(k + 1))
        x.append(v[k] / (k + 1))
        v.append((force[1:] - force[:-1]) / (k + 1))
    return np.stack(x), np.stack(v)


@odec.dynamics
def layers(t, y, first, second):
    return second @ np.tanh(first @ y + 0.3)


def series_of_layers(y, weights, order):
    y, sums, values, slopes = [y], [], [], []
    for k in range(order):
        sums.append(weights[0] @ y[k] + 0.3 * (k == 0))
        terms = (j * sums[j] * slopes[k - j] for j in range(1, k + 1))
        values.append(sum(terms) / k if k else np.tanh(sums[0]))
        slopes.append((k == 0) - sum(values[j] * values[k - j] for j in range(k + 1)))
        y.append(weights[1] @ values[k] / (k + 1))
    return np.stack(y)


def check_rows(found, expected, tolerance):
    """Each order to its own size: the largest difference over the largest coefficient."""
    for k, (row, right) in enumerate(zip(found, expected, strict=True)):
        assert np.abs(row - right).max() <= tolerance * np.abs(right).max(), k


def test_hundred_bodies_to_order_20():
    random = np.random.default_rng(1)
    y, gm = (3.0 * random.normal(size=(100, 3)), random.normal(size=(100, 3))), random.uniform(0.5, 1.0, 100)
    found = bodies.bind(y, (gm,)).taylor(0.0, y, gm, order=20)
    for part, right in zip(found, series_of_bodies(y, gm, 20), strict=True):
        check_rows(part, right, 1e-13)


def test_a_chain_of_thousand_oscillators_to_order_20():
    random = np.random.default_rng(2)
    y = 0.5 * random.normal(size=1000), random.normal(size=1000)
    for part, right in zip(chain.bind(y, (0.25,)).taylor(0.0, y, 0.25, order=20), series_of_chain(y, 0.25, 20)):
        check_rows(part, right, 1e-14)


def test_a_neural_network_to_order_40():
    random = np.random.default_rng(3)
    weights, y = (random.normal(size=(64, 16)) / 4, random.normal(size=(16, 64)) / 8), random.normal(size=16)
    check_rows(layers.bind(y, weights).taylor(0.0, y, *weights, order=40), series_of_layers(y, weights, 40), 1e-12)


# ---- convolutions ----------------------------------------------------------------------------------------------

SIZES = {"float64": (1, 2, 3, 5, 8, 13, 16, 33, 65, 70), "float32": (1, 3, 7, 16, 31, 70)}
WEIGHTS = {"product": (0.0, -0.7), "square": (0.0, 1.0), "weighted": (2.5, -1.0)}
BLOCKED = (5, 31, 33, 70)  # sizes of which sums come in blocks of orders too
TERMS = 25  # orders up to which sums are taken


def tiles_of(n, dtype):
    return tiles_for(n, TERMS + 1, VECTOR_BYTES // np.dtype(dtype).itemsize)


def convolution_kernel(name, n, weights, square, dtype, blocks):
    """(a, b) of TERMS rows in tiles -> the convolutions for k = 1 .. TERMS, a row each."""
    tiles = tiles_of(n, dtype)
    row, size = tiles.count * tiles.width, (tiles.count, tiles.width, tiles.rows)
    rows = lambda buffer, stride=0: Element(buffer, Index(0, (("k", stride),) if stride else ()))
    weights = [Literal(w, dtype) for w in weights]
    a, b = rows("a"), rows("a" if square else "b")
    ahead = [rows("ahead")] if blocks else []
    call = Call("convolve", (Index(1, (("k", 1),)), *size, *weights, a, b, rows("c", row), *ahead))
    arguments = [Argument(x, tiles.size, dtype) for x in "ab"]
    body = [Allocate("ahead", (BLOCK - 1) * row, 0, dtype), Loop("k", TERMS, [call]), Return()]
    outputs = Argument("c", TERMS * row, dtype, True)
    return Kernel(name, (*arguments, outputs), body, dtype, work_size=(BLOCK - 1) * row if blocks else 0)


CONVOLUTIONS = {
    f"{kind}_{n}_{dtype}{'_blocks' * blocks}": (n, weights, kind == "square", dtype, blocks)
    for dtype, sizes in SIZES.items() for n in sizes for kind, weights in WEIGHTS.items()
    for blocks in (False, *([True] if n in BLOCKED else []))
} | {"derivative_5_float64": (5, (1.0, 0.0), False, "float64", False)}  # shares the code of weighted_5  # fmt: skip


@functools.cache
def convolutions():
    return loaded([convolution_kernel(name, *case) for name, case in CONVOLUTIONS.items()])


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=5)
def test_convolutions_in_machine_code_are_those_of_the_python_routine(seed):
    random = np.random.default_rng(seed)
    for name, (n, weights, square, dtype, _) in CONVOLUTIONS.items():
        tiles = tiles_of(n, dtype)
        row = tiles.count * tiles.width
        a, b = (random.normal(size=(tiles.count, tiles.rows, tiles.width)).astype(dtype) for _ in "ab")
        found, expected = np.full((TERMS + 2, row), np.nan, dtype), np.empty((TERMS, row), dtype)
        convolutions()[name](a.reshape(-1), b.reshape(-1), found[:TERMS].reshape(-1))
        for k in range(1, TERMS + 1):
            size = tiles.count, tiles.width, tiles.rows
            convolve(k, *size, *weights, a.ravel(), (a if square else b).ravel(), expected[k - 1])
        np.testing.assert_allclose(found[:TERMS], expected, atol=100 * TERMS * np.finfo(dtype).eps, err_msg=name)
        assert np.isnan(found[TERMS:]).all(), name  # nothing is written behind the rows
