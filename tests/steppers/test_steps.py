"""One step as a graph: its orders as measured, its derivative, and no operation too many."""

import functools

import mpmath
import numpy as np
import pytest
from fixed_steps import FixedSteps

import odec
from odec import ButcherTableau
from odec.graph.node import CONSTANT, scalar_value
from odec.steppers.step import dense_function, step_function
from odec.transforms.jvp import jvp
from odec.transforms.scalar import operation_count
from odec.transforms.vjp import vjp

METHODS = [m for m in odec.methods() if isinstance(m, ButcherTableau)]
ADAPTIVE = [m for m in METHODS if m.adaptive]
SOME = [m for m in METHODS if m.name in ("euler", "rk4", "bs3", "tsit5", "dop853", "vern7")]


def by_name(method):
    return method.name


@odec.dynamics
def closed(t, y, a, b):
    """Three components with closed forms: exp(a sin t), 1 / (1 + b t), and t² exp(-t)."""
    return [a * y[0] * np.cos(t), -b * y[1] ** 2, -y[2] + 2 * t * np.exp(-t)]


P = np.array([1.5, 0.7])
SYSTEM = closed.bind(np.ones(3), tuple(P))


def slope(t, y, of=np):
    return np.array([P[0] * y[0] * of.cos(t), -P[1] * y[1] ** 2, -y[2] + 2 * t * of.exp(-t)])


def solution(t, of=np):
    return np.array([of.exp(P[0] * of.sin(t)), 1 / (1 + P[1] * t), t * t * of.exp(-t)])


def coupled_slope(t, y, of):
    """Four coupled equations, for the order conditions that vanish where equations do not meet."""
    rate = 2 * t
    return rate * np.array([of.exp(of.log(y[1]) / 5) * y[3], 5 * of.exp(5 * (y[2] - 1)) * y[3], y[3], -of.log(y[0])])


def coupled_solution(t, of):
    s = of.sin(t * t)
    return np.array([of.exp(s), of.exp(5 * s), s + 1, of.cos(t * t)])


class Definition:
    """A method written out as its record defines it, in numbers of mpmath."""

    def __init__(self, method, slope=slope):
        self.method, self.slope = method, lambda t, y: slope(t, y, mpmath)

    def number(self, x):
        return mpmath.mpf(x.numerator) / x.denominator

    def sum(self, row, slopes):
        return sum((self.number(x) * k for x, k in zip(row, slopes) if x), 0 * slopes[0] if slopes else 0)

    def step(self, t, h, y):
        """(y1, the slopes of all stages)."""
        slopes = []
        for c, row in zip(self.method.c, self.method.a):
            slopes.append(self.slope(t + self.number(c) * h, y + h * self.sum(row, slopes)))
        return y + h * self.sum(self.method.b, slopes), slopes

    def interpolant(self, t, h, y):
        """theta -> the dense output, from the powers of theta or the cubic of Hermite."""
        y1, slopes = self.step(t, h, y)
        last = self.slope(t + h, y1)
        if self.method.dense is None:
            return lambda x: (
                (1 - x) * y + x * y1 + x * (x - 1) * ((1 - 2 * x) * (y1 - y) + (x - 1) * h * slopes[0] + x * h * last)
            )
        if not self.method.fsal:
            slopes.append(last)
        for c, row in zip(self.method.extra_c, self.method.extra_a):
            slopes.append(self.slope(t + self.number(c) * h, y + h * self.sum(row, slopes)))
        powers = [self.sum(column, slopes) for column in zip(*self.method.dense)]
        return lambda x: y + h * sum(x ** (m + 1) * p for m, p in enumerate(powers))


@pytest.fixture(autouse=True)
def sixty_digits():
    with mpmath.workdps(60):
        yield


def measured_order(error_at, sizes):
    """The slope of log error over log size."""
    logs = np.array([[float(mpmath.log(x)) for x in (size, error_at(size))] for size in sizes])
    return np.polyfit(*logs.T, 1)[0]


def largest(vector):
    return max(abs(x) for x in vector)


def step_error(method, f, y, direction, size):
    """The largest error of steps from exact data at some times."""
    step, h = Definition(method, f).step, direction * size
    return max(largest(step(t, h, y(t, mpmath))[0] - y(t + h, mpmath)) for t in map(mpmath.mpf, ("0.2", "0.3", "0.45")))


@pytest.mark.parametrize("direction", [1, -1], ids=["forward", "backward"])
@pytest.mark.parametrize("method", METHODS, ids=by_name)
def test_observed_order_of_a_step_is_the_claim(method, direction):
    """The error of one step from exact data falls as h^(order + 1)."""
    orders = []
    for f, y in ((slope, solution), (coupled_slope, coupled_solution)):
        error = functools.partial(step_error, method, f, y, direction)
        orders.append(measured_order(error, [mpmath.mpf(2) ** -k for k in (8, 9, 10)]))
    assert min(orders) == pytest.approx(method.order + 1, abs=0.2)


@pytest.mark.parametrize("span", [(0.0, 2.0), (2.0, 0.5)], ids=["forward", "backward"])
@pytest.mark.parametrize("method", [m for m in METHODS if m.order < 6], ids=by_name)
def test_observed_order_of_a_solve_in_doubles_is_the_claim(method, span):
    steps = FixedSteps(SYSTEM, method)
    error = lambda m: largest(steps.run(*span, solution(span[0]), P, m) - solution(span[1]))
    finest = {1: 4000, 2: 1600, 3: 500, 4: 160, 5: 120}[method.order]
    sizes = [1 / round(finest / 1.25**k) for k in range(5)]
    assert measured_order(lambda h: error(round(1 / h)), sizes) == pytest.approx(method.order, abs=0.2)


@pytest.mark.parametrize("method", METHODS, ids=by_name)
def test_observed_order_of_dense_output_within_a_step(method):
    """The error of the interpolant inside one step from exact data falls as h^(dense order + 1)."""
    steps, t, thetas = Definition(method), mpmath.mpf("0.4"), [mpmath.mpf(x) / 10 for x in range(1, 10)]

    def error(h):
        dense = steps.interpolant(t, h, solution(t, mpmath))
        return max(largest(dense(x) - solution(t + x * h, mpmath)) for x in thetas)

    sizes = [mpmath.mpf(2) ** -k for k in (6, 7, 8, 9)]
    assert measured_order(error, sizes) == pytest.approx(method.dense_order + 1, abs=0.3)


@pytest.mark.parametrize("method", METHODS, ids=by_name)
def test_generated_steps_are_the_definition_of_the_method(method):
    """Step, stages and dense output in doubles, against the record in sixty digits."""
    steps, definition, y, t, h = FixedSteps(SYSTEM, method), Definition(method), solution(0.4), 0.4, 0.1
    noise = 4e-16 * max([1.0, *(abs(float(x)) for row in (*method.a, *method.extra_a) for x in row)])
    exact = [mpmath.mpf(x) for x in (t, h)]
    expected, slopes = definition.step(*exact, y * mpmath.mpf(1))
    y1, f1, k, squared = steps.one(t, h, y, P)
    assert y1 == pytest.approx(expected.astype(float), rel=noise)
    assert f1 == pytest.approx(steps.slope(t + h, y1, P), rel=1e-14)
    for found, i in zip(k, method.kept, strict=True):
        assert found == pytest.approx(slopes[i].astype(float), rel=20 * noise)
    if not method.adaptive:
        assert squared == 0.0
    dense, wanted = steps.interpolated(t, h, y, P), definition.interpolant(*exact, y * mpmath.mpf(1))
    for theta in (0.1, 0.5, 0.93):
        assert dense(theta) == pytest.approx(wanted(mpmath.mpf(theta)).astype(float), rel=20 * noise)


@pytest.mark.parametrize("method", METHODS, ids=by_name)
def test_dense_output_ends_at_the_new_state(method):
    steps, y = FixedSteps(SYSTEM, method), solution(0.4)
    dense = steps.interpolated(0.4, 0.1, y, P)
    assert dense(0.0) == pytest.approx(y, rel=1e-15)
    assert dense(1.0) == pytest.approx(steps.one(0.4, 0.1, y, P)[0], rel=1e-14)


def estimates(method, h):
    """The error estimates (first, second or None) of a step of exact data, without tolerances."""
    definition, t = Definition(method), mpmath.mpf("0.4")
    slopes = definition.step(t, h, solution(t, mpmath))[1]
    rows = (method.b_error, method.b_error_second)
    return [None if row is None else h * definition.sum(row, slopes) for row in rows]


@pytest.mark.parametrize("method", ADAPTIVE, ids=by_name)
def test_error_estimate_falls_with_the_error_order(method):
    def error(h):
        first, second = (None if e is None else sum(x * x for x in e) for e in estimates(method, h))
        return mpmath.sqrt(first if second is None else first**2 / (first + second / 100))

    assert measured_order(error, [mpmath.mpf(2) ** -k for k in (6, 7, 8)]) == pytest.approx(
        method.error_exponent, abs=0.2
    )


@pytest.mark.parametrize("method", ADAPTIVE, ids=by_name)
def test_a_step_to_where_the_slope_is_not_finite_is_refused(method):
    """The error sees every slope, that at the new point too."""
    system = odec.dynamics(lambda t, y: [np.where(t < 1.0, y[0], np.nan)]).bind([1.0])
    steps = FixedSteps(system, method)
    assert np.isnan(steps.one(0.5, 0.5, np.ones(1), np.empty(0))[3])
    assert np.isfinite(steps.one(0.5, 0.4, np.ones(1), np.empty(0))[3])


@pytest.mark.parametrize("method", ADAPTIVE, ids=by_name)
def test_error_is_the_mean_square_in_units_of_the_tolerance(method):
    steps, y, h = FixedSteps(SYSTEM, method), solution(0.4), 0.5
    steps.rtol, steps.atol = np.array([1e-3, 1e-5, 1e-7]), np.array([1e-9, 1e-6, 1e-3])
    y1, _, _, squared = steps.one(0.4, h, y, P)
    scale = steps.atol + steps.rtol * np.maximum(abs(y), abs(y1))
    first, second = (None if e is None else float(sum((e / scale) ** 2)) for e in estimates(method, mpmath.mpf(h)))
    expected = first if second is None else first**2 / (first + 0.01 * second)
    assert squared == pytest.approx(expected / 3, rel=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=by_name)
def test_zero_coefficients_leave_no_operation(method):
    graph = step_function(odec.dynamics(lambda t, y: [y[0] * y[0]]).bind([1.0]).graph, method)
    zeros = [n for n in graph.nodes if n.op is CONSTANT and scalar_value(n) == 0.0]
    unseen = not method.fsal or (method.adaptive and method.b_error[-1] == 0)
    watched = 2 if unseen else 0  # a product with zero and a sum see that the last slope is finite
    second = method.b_error_second is not None
    assert len(zeros) <= bool(watched) + second
    rows = [*method.a[1:], *([] if method.fsal else [method.b])]
    sums = [sum(x != 0 for x in row) for row in rows]  # m terms: m products, m sums, h twice or once
    errors = sum(x != 0 for row in (method.b_error, method.b_error_second) for x in row or ())
    slopes = len(rows)  # one product each; the first is given
    most = sum(2 * m + (2 if m > 1 else 1) for m in sums) + slopes + 2 * errors + 12 + watched + 12 * second
    times = sum(
        n.op.name in ("add", "multiply") and n.shape == () and n.inputs[0] is graph.inputs["t"] for n in graph.nodes
    )
    assert operation_count(graph) <= most + 2 * times


@pytest.mark.parametrize("method", METHODS, ids=by_name)
def test_evaluations_are_as_many_as_the_record_says(method):
    """First same as last falls out: such a step of s stages evaluates the right-hand side s - 1 times."""
    system = odec.dynamics(lambda t, y: [np.tanh(y[0])]).bind([1.0])
    counted = lambda graph: sum(n.op.name == "tanh" for n in graph.nodes)
    assert counted(step_function(system.graph, method)) == method.evaluations == method.stages - method.fsal
    assert counted(dense_function(system.graph, method)) == method.dense_evaluations


@pytest.mark.parametrize("kind", ["step", "dense"])
@pytest.mark.parametrize("method", SOME, ids=by_name)
def test_jvp_of_the_step_is_its_derivative(method, kind):
    """Tangent-linear model against central differences, and the adjoint against both."""
    graph = {"step": step_function, "dense": dense_function}[kind](SYSTEM.graph, method)
    generator = np.random.default_rng(3)
    names = [n for n in graph.inputs if n not in ("rtol", "atol")]
    given = {"t": np.array(0.4), "h": np.array(0.1), "y": solution(0.4), "p": P}
    draw = lambda node: (
        np.full(node.shape, 1e-2) if node.params["name"] in ("rtol", "atol") else generator.normal(size=node.shape)
    )
    point = [given.get(name, draw(node)) for name, node in graph.inputs.items()]
    tangents = [generator.normal(size=np.shape(x)) for x in point[: len(names)]]
    primal = list(graph.evaluate(*point))
    linear = list(jvp(graph, tuple(names)).evaluate(*point, *tangents).values())
    e = 1e-6
    sides = [
        graph.evaluate(*[x + s * e * v for x, v in zip(point, tangents)], *point[len(names) :]) for s in (1, -1)
    ]  # fmt: skip
    for name, tangent in zip(primal, linear, strict=True):
        difference = (sides[0][name] - sides[1][name]) / (2 * e)
        assert tangent == pytest.approx(difference, rel=1e-6, abs=1e-7)
    bars = [generator.normal(size=np.shape(v)) for v in linear]
    pulled = list(vjp(graph).evaluate(*point, *bars).values())
    left = sum(np.sum(b * v) for b, v in zip(bars, linear))
    right = sum(np.sum(b * v) for b, v in zip(pulled[: len(names)], tangents))
    assert left == pytest.approx(right, rel=1e-12)


def test_a_users_own_tableau_solves():
    own = ButcherTableau(
        name="heun_euler_own", order=2, error_order=1, c=(0, 1), a=[[0, 0], [1, 0]], b=("1/2", "1/2"),
        b_error=("-1/2", "1/2"), dense=((1, "-1/2"), (0, "1/2")), dense_order=2, source="Heun 1900",
    )  # fmt: skip
    ends = []
    for tolerance in (1e-4, 1e-6):
        sol = odec.solve(closed, (0.0, 2.0), solution(0.0), tuple(P), method=own, rtol=tolerance, atol=tolerance)
        assert sol.stats["nfev"] == 2 + (sol.stats["steps"] + sol.stats["rejected"]) * 2
        ends.append(np.abs(sol.y1 - solution(2.0)).max())
    assert ends[1] < ends[0] / 20 and ends[1] < 1e-4
    kept = odec.solve(
        closed, (0.0, 2.0), solution(0.0), tuple(P), method=own, rtol=1e-6, atol=1e-6, t_eval=np.linspace(0, 2, 77)
    )
    assert kept.ys == pytest.approx(np.array([solution(t) for t in kept.ts]), abs=1e-4)


def test_a_step_in_single_precision_keeps_time_in_double():
    graph = step_function(closed.bind(np.ones(3, np.float32), tuple(P)).graph, METHODS[-1])
    single = dict.fromkeys(("y", "p", "f0", "rtol", "atol"), "float32")
    assert {n: x.dtype for n, x in graph.inputs.items()} == {"t": "float64", "h": "float64", **single}
    assert {n: x.dtype for n, x in graph.outputs.items()} == dict(
        y1="float32", f1="float32", k="float32", error="float64"
    )
