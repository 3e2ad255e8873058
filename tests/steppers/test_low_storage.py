"""Methods in two registers: their orders, the methods that they are, what is refused."""

import math
import pickle
import tracemalloc
from fractions import Fraction as F

import mpmath
import numpy as np
import pytest
from fixed_steps import FixedSteps
from test_steps import (
    SYSTEM,
    Definition,
    P,
    closed,
    coupled_slope,
    coupled_solution,
    largest,
    measured_order,
    slope,
    solution,
    step_error,
)

import odec
from odec import LowStorageTableau
from odec.steppers.rooted_trees import density, elementary_weights, nodes_of
from odec.steppers.step import dense_function, step_function
from odec.transforms.jvp import jvp

WILLIAMSON3 = LowStorageTableau(
    "williamson3_here", 3, a=("0", "-5/9", "-153/128"), b=("1/3", "15/16", "8/15"),
    source="Williamson, J. Comput. Phys. 35 (1980) 48",
)  # fmt: skip
METHODS = [*(m for m in odec.methods() if isinstance(m, LowStorageTableau)), WILLIAMSON3]
DIGITS = {"carpenter_kennedy54": 25}  # to which a table that is not exact is known
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


@pytest.fixture(autouse=True)
def sixty_digits():
    with mpmath.workdps(60):
        yield


def in_two_registers(method, f, t, h, y):
    """A step as the record defines it, in numbers of mpmath."""
    number, du = lambda x: mpmath.mpf(x.numerator) / x.denominator, 0 * y
    for a, b, c in zip(method.a, method.b, method.c):
        du = number(a) * du + f(t + number(c) * h, y, mpmath)
        y = y + h * number(b) * du
    return y


# ---- laws ------------------------------------------------------------------------------------------------


@every_method
def test_order_conditions_hold_up_to_the_claim_and_fail_beyond(method):
    weights, defects = elementary_weights(method.butcher.matrix(object), method.order + 1), {}
    for tree, weight in weights.items():
        found = abs(sum(b * w for b, w in zip(method.butcher.b, weight)) - F(1, density(tree)))
        defects[nodes_of(tree)] = max(defects.get(nodes_of(tree), F(0)), found)
    beyond = defects.pop(method.order + 1)
    assert max(defects.values()) <= (F(1, 10 ** DIGITS[method.name]) if method.name in DIGITS else 0)
    assert beyond > 1e-3


@every_method
def test_the_two_registers_are_the_butcher_tableau(method):
    t, h, y = mpmath.mpf("0.4"), mpmath.mpf("0.1"), solution(mpmath.mpf("0.4"), mpmath)
    whole, _ = Definition(method.butcher).step(t, h, y)
    assert largest(in_two_registers(method, slope, t, h, y) - whole) < 1e-55
    assert method.c == method.butcher.c and method.stages == method.butcher.stages


@pytest.mark.parametrize("direction", [1, -1], ids=["forward", "backward"])
@every_method
def test_observed_order_of_a_step_is_the_claim(method, direction):
    orders = [
        measured_order(
            lambda h, f=f, y=y: step_error(method.butcher, f, y, direction, h), [mpmath.mpf(2) ** -k for k in (8, 9)]
        )
        for f, y in ((slope, solution), (coupled_slope, coupled_solution))
    ]
    assert min(orders) == pytest.approx(method.order + 1, abs=0.2)


@every_method
def test_generated_steps_are_the_definition_of_the_method(method):
    steps, y = FixedSteps(SYSTEM, method), solution(0.4)
    expected = in_two_registers(method, slope, mpmath.mpf(0.4), mpmath.mpf(0.1), y * mpmath.mpf(1))
    y1, f1, k, squared = steps.one(0.4, 0.1, y, P)
    assert y1 == pytest.approx(expected.astype(float), rel=1e-15)
    assert f1.size == k.size == 0 and squared == 0.0


@every_method
def test_observed_order_of_a_solve_is_the_claim(method):
    def error(h):
        sol = odec.solve(closed, (0.0, 2.0), solution(0.0), tuple(P), method=method, first_step=h, t_eval=[])
        assert sol.stats["nfev"] == 1 + method.evaluations * sol.stats["steps"]
        return np.abs(sol.y1 - solution(2.0)).max()

    assert measured_order(error, [2 / n for n in (100, 140, 200, 280)]) == pytest.approx(method.order, abs=0.2)


@every_method
def test_observed_order_of_dense_output_is_the_claim(method):
    steps = FixedSteps(SYSTEM, method)

    def error(h):
        dense = steps.interpolated(0.4, h, solution(0.4), P)
        return max(np.abs(dense(x) - solution(0.4 + x * h)).max() for x in (0.2, 0.5, 0.9))

    assert method.dense_order == 3
    assert measured_order(error, [0.2, 0.1, 0.05, 0.025]) == pytest.approx(method.dense_order + 1, abs=0.3)


@every_method
def test_evaluations_are_as_many_as_the_record_says(method):
    graph = odec.dynamics(lambda t, y: [np.tanh(y[0])]).bind([1.0]).graph
    counted = lambda function: sum(n.op.name == "tanh" for n in function.nodes)
    assert counted(step_function(graph, method)) == method.evaluations == method.stages
    assert counted(dense_function(graph, method)) == method.dense_evaluations == 2


@every_method
def test_jvp_of_the_step_is_its_derivative(method):
    graph, e = step_function(SYSTEM.graph, method), 1e-6
    point = [np.array(0.4), np.array(0.1), solution(0.4), P, *(np.empty(0),) * 3]
    v = np.array([0.3, -1.2, 0.5])
    moved = [graph.evaluate(*point[:2], point[2] + s * e * v, *point[3:])["y1"] for s in (1, -1)]
    tangent = jvp(graph, ("y",)).evaluate(*point, v)["y1_dot"]
    assert tangent == pytest.approx((moved[0] - moved[1]) / (2 * e), rel=1e-8)


# ---- large models --------------------------------------------------------------------------------------------


@odec.dynamics
def heat(t, y, rate=1.0):
    """Diffusion on a ring, with a source that comes and goes."""
    return rate * (np.roll(y, 1) - 2 * y + np.roll(y, -1)) + np.cos(t) * np.sin(y)


def test_a_large_model_takes_the_same_steps_through_calls():
    y0 = np.cos(np.linspace(0.0, 6.0, 400)) + 2.0
    (method,) = (m for m in METHODS if m.name == "carpenter_kennedy54")
    ends = [
        odec.solve(heat, (0.0, 1.0), y0, (0.3,), method=m, first_step=0.05).y1
        for m in (method, method.butcher, "vern9")
    ]
    assert ends[0] == pytest.approx(ends[1], rel=1e-13)
    assert ends[0] == pytest.approx(ends[2], rel=1e-6)
    step = step_function(heat.bind(y0, (0.3,)).graph, method)
    names = [node.params["function"].name for node in step.nodes if node.op.name == "call"]
    assert names == ["rhs"] + 4 * ["rhs_accumulated"]


@pytest.mark.parametrize(
    ("method", "vectors"),
    [("carpenter_kennedy54", 4), ("rk4", 6)],  # y, the new y, du and the next du; rk4: both slopes, k2 to k4, a stage
)
def test_a_solve_for_the_end_holds_few_vectors(method, vectors):
    """The peak of a solve beyond y0, in vectors of the length of y."""
    y0 = np.cos(np.linspace(0.0, 6.0, 200_000)) + 2.0
    how = {"method": method, "first_step": 0.05, "t_eval": []}
    before, first = y0.copy(), odec.solve(heat, (0.0, 0.3), y0, **how)
    tracemalloc.start()
    again = odec.solve(heat, (0.0, 0.3), y0, **how)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / y0.nbytes == pytest.approx(vectors, abs=0.1)
    assert (y0 == before).all() and (again.y1 == first.y1).all() and (again.ys[-1] == again.y1).all()
    assert not np.shares_memory(again.y1, y0)


# ---- in the loop ---------------------------------------------------------------------------------------------


@every_method
def test_output_times_events_and_stops_lie_on_the_solution(method):
    times = np.linspace(0.0, 2.0, 41)
    half = odec.Event(lambda t, y, a, b: y[1] - 0.5)
    sol = odec.solve(
        closed, (0.0, 2.0), solution(0.0), tuple(P), method=method, first_step=0.01, t_eval=times, events=half,
        tstops=[0.7777], dense_output=True,
    )  # fmt: skip
    assert sol.ys == pytest.approx(np.array([solution(t) for t in times]), abs=1e-6)
    assert sol.t_events[0] == pytest.approx([1 / P[1]], abs=1e-6)
    assert sol(1.2345) == pytest.approx(solution(1.2345), abs=1e-6)


def test_a_slope_that_is_not_finite_is_found():
    cube = odec.dynamics(lambda t, y: y**3)
    sol = odec.solve(cube, (0.0, 2.0), [1.0], method="carpenter_kennedy54", first_step=0.05, throw=False)
    assert not sol.success and 0.5 <= sol.ts[-1] < 1.0 and np.isfinite(sol.ys).all()


# ---- records and refusals ------------------------------------------------------------------------------------

VALID = {"name": "mine", "order": 3, "a": ("0", "-5/9", "-153/128"), "b": ("1/3", "15/16", "8/15")}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"a": ("0", "-5/9")}, ("a has 2 entries, b 3", "one for each stage")),
        ({"a": ("1/2", "-5/9", "-153/128")}, ("a[0] is 0.5", "before the first stage", "give 0")),
        ({"a": (), "b": ()}, ("b is empty",)),
        ({"b": ("1/3", "15/16", "1/2")}, ("b sums to", "must sum to 1")),
        ({"order": 4}, ("order is 4", "of order 4 gives")),
        ({"order": 0}, ("order is 0", "integer of at least 1")),
        ({"order": "3"}, ("order is '3'",)),
        ({"a": (0, math.nan, 1)}, ("a has nan", "finite numbers")),
        ({"b": ("x", 1, 1)}, ("b has 'x'", "fractions")),
    ],
)
def test_tableaus_that_are_no_methods_are_refused(change, words):
    with pytest.raises(odec.ArgumentError) as raised:
        LowStorageTableau(**VALID | change)
    message = str(raised.value)
    assert message.startswith("tableau mine: ") and message.endswith(".")
    assert all(word in message for word in words), message


def test_fixed_steps_need_their_size():
    with pytest.raises(odec.ArgumentError, match=r"carpenter_kennedy54 takes fixed steps.*first_step=0.01"):
        odec.solve(closed, (0.0, 1.0), solution(0.0), tuple(P), method="carpenter_kennedy54")


def test_records_of_equal_coefficients_share_their_kernels():
    again = pickle.loads(pickle.dumps(WILLIAMSON3))
    assert again.digest == WILLIAMSON3.digest == LowStorageTableau(**VALID).digest
    assert again.digest != WILLIAMSON3.butcher.digest
    assert repr(WILLIAMSON3) == "<LowStorageTableau williamson3_here: order 3, 3 stages>"
