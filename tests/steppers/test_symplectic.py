"""Symplectic methods: orders, what they conserve, which models they take."""

import dataclasses
import functools
import pickle
from fractions import Fraction as F
from typing import Any, NamedTuple

import mpmath
import numpy as np
import pytest
from fixed_steps import FixedSteps
from hypothesis import given
from hypothesis import strategies as st
from test_steps import largest, measured_order
from tracing import python_of

import odec
from odec import SymplecticTableau
from odec.steppers.rooted_trees import density, nodes_of
from odec.steppers.step import dense_function, step_function
from odec.steppers.symplectic import conditions, parts
from odec.transforms.jvp import jvp

RUTH3 = SymplecticTableau(
    "ruth3_here", 3, kicks=("7/24", "3/4", "-1/24", "0"), drifts=("2/3", "-2/3", "1"),
    source="Ruth, IEEE Trans. Nucl. Sci. 30 (1983) 2669",
)  # fmt: skip
METHODS = [*(m for m in odec.methods() if isinstance(m, SymplecticTableau)), RUTH3]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


@pytest.fixture(autouse=True)
def sixty_digits():
    with mpmath.workdps(60):
        yield


# ---- a separable problem that depends on time in both parts, with a closed form --------------------------------


def position(t, of=np):
    return np.array([of.exp(of.sin(t)), 1 + of.cos(2 * t) / 2])


def velocity(t, of=np):
    return np.array([of.sin(3 * t), 1 / (1 + t * t)])


def drift(t, v, of=np):
    """dq/dt, which no function of v alone gives."""
    end, moving = velocity(t, of), np.array([of.cos(t) * of.exp(of.sin(t)), -of.sin(2 * t)])
    return moving + np.array([v[0] * v[1] - end[0] * end[1], of.sin(v[0]) - of.sin(end[0])])


def kick(t, q, of=np):
    end, moving = position(t, of), np.array([3 * of.cos(3 * t), -2 * t / (1 + t * t) ** 2])
    return moving + np.array([of.exp(-q[1]) - of.exp(-end[1]), q[0] * q[1] - end[0] * end[1]])


@odec.dynamics
def driven(t, y):
    q, v = y
    return drift(t, v), kick(t, q)


SYSTEM = driven.bind((position(0.4), velocity(0.4)))


def solution(t, of=np):
    return np.concatenate([position(t, of), velocity(t, of)])


def exact_step(method, t, h, y):
    """A step as the record defines it, in numbers of mpmath."""
    number = lambda x: mpmath.mpf(x.numerator) / x.denominator
    kicks, drifts = ([number(x) for x in row] for row in (method.kicks, method.drifts))
    q, v, by_drifts, by_kicks = y[:2], y[2:], mpmath.mpf(0), mpmath.mpf(0)
    for b, d in zip(kicks, [*drifts, mpmath.mpf(0)]):
        v, by_kicks = v + b * h * kick(t + by_drifts * h, q, mpmath), by_kicks + b
        q, by_drifts = q + d * h * drift(t + by_kicks * h, v, mpmath), by_drifts + d
    return np.concatenate([q, v])


# ---- orders ----------------------------------------------------------------------------------------------------


@every_method
def test_order_conditions_hold_up_to_the_claim_and_fail_beyond(method):
    largest_of = {}
    for _, tree, found in conditions(method, method.order + 1):
        n = nodes_of(tree)
        largest_of[n] = max(largest_of.get(n, F(0)), abs(found - F(1, density(tree))))
    beyond = largest_of.pop(method.order + 1)
    assert max(largest_of.values()) <= (F(1, 10**40) if "blanes_moan" in method.name else 0)
    assert beyond > 1e-5


def test_coefficients_are_the_published_ones():
    published = {
        "blanes_moan4": ([0.0792036964311957, 0.353172906049774, -0.0420650803577195],
                         [0.209515106613362, -0.143851773179818]),
        "blanes_moan6": ([0.0502627644003922, 0.413514300428344, 0.0450798897943977, -0.188054853819569,
                          0.541960678450780],
                         [0.148816447901042, -0.132385865767784, 0.067307604692185, 0.432666402578175]),
    }  # fmt: skip
    for method in METHODS:
        for row, printed in zip((method.kicks, method.drifts), published.get(method.name, ())):
            assert [float(x) for x in row[: len(printed)]] == pytest.approx(printed, abs=1.5e-15)


@pytest.mark.parametrize("direction", [1, -1], ids=["forward", "backward"])
@every_method
def test_observed_order_of_a_step_is_the_claim(method, direction):
    """With forces and velocities that depend on time."""

    def error(size):
        h = direction * size
        return max(
            largest(exact_step(method, t, h, solution(t, mpmath)) - solution(t + h, mpmath))
            for t in map(mpmath.mpf, ("0.2", "0.3", "0.45"))
        )

    assert measured_order(error, [mpmath.mpf(2) ** -k for k in (8, 9)]) == pytest.approx(method.order + 1, abs=0.2)


@every_method
def test_generated_steps_are_the_definition_of_the_method(method):
    steps, y = FixedSteps(SYSTEM, method), solution(0.4)
    expected = exact_step(method, mpmath.mpf(0.4), mpmath.mpf(0.1), y * mpmath.mpf(1)).astype(float)
    y1, f1, k, squared = steps.one(0.4, 0.1, y, np.empty(0))
    assert y1 == pytest.approx(expected, rel=1e-14)
    assert f1 == pytest.approx(steps.slope(0.5, y1, np.empty(0)), rel=1e-14)
    assert k.size == 0 and squared == 0.0


@every_method
def test_observed_order_of_a_solve_is_the_claim(method):
    def error(h):
        y0 = position(0.2), velocity(0.2)
        sol = odec.solve(driven, (0.2, 1.7), y0, method=method, first_step=h, t_eval=[])
        assert sol.stats["nfev"] == 1 + method.evaluations * sol.stats["steps"]
        return max(np.abs(sol.y1[0] - position(1.7)).max(), np.abs(sol.y1[1] - velocity(1.7)).max())

    coarsest = {1: 400, 2: 200, 3: 60, 4: 40, 6: 8}[method.order]
    sizes = [1.5 / round(coarsest * 1.25**k) for k in range(5)]
    assert measured_order(error, sizes) == pytest.approx(method.order, abs=0.2)


@every_method
def test_observed_order_of_dense_output_is_the_claim(method):
    steps = FixedSteps(SYSTEM, method)

    def error(h):
        dense = steps.interpolated(0.4, h, solution(0.4), np.empty(0))
        return max(np.abs(dense(x) - solution(0.4 + x * h)).max() for x in (0.2, 0.5, 0.9))

    assert method.dense_order == min(3, method.order)
    sizes = [0.1 / 2**k for k in range(4)] if method.order > 1 else [0.01 / 2**k for k in range(4)]
    assert measured_order(error, sizes) == pytest.approx(method.dense_order + 1, abs=0.3)


# ---- what is conserved -----------------------------------------------------------------------------------------


@odec.dynamics
def relativistic(t, y, k=1.3):
    """A particle with a speed limit in the potential of Hénon and Heiles."""
    q, p = y
    speed = p / np.sqrt(1.0 + p @ p)
    force = np.stack([-k * q[0] - 2 * q[0] * q[1], -k * q[1] - q[0] ** 2 + q[1] ** 2])
    return speed, force


RELATIVISTIC = relativistic.bind((np.zeros(2), np.zeros(2)))
OMEGA = np.kron([[0, 1], [-1, 0]], np.eye(2))
small = st.floats(-1.0, 1.0, allow_subnormal=False)


def stepped(graph, y, h):
    """y1 after one step."""
    rate = RELATIVISTIC.graph.evaluate(0.0, y, np.array([1.3]))["dydt"]
    return graph.evaluate(0.0, h, y, np.array([1.3]), rate, *(np.empty(0),) * 2)["y1"]


@functools.cache
def tangent_of_a_step(method):
    """The tangent of y1 as a function of (t, h, y, p, f0, rtol, atol) and the tangents of y and f0, as Python."""
    linear = jvp(step_function(RELATIVISTIC.graph, method), ("y", "f0"))
    run, place = python_of(linear), list(linear.outputs).index("y1_dot")
    return lambda *arrays: run(*arrays)[place]


SLOPE = python_of(RELATIVISTIC.graph)
TANGENT_OF_SLOPE = python_of(jvp(RELATIVISTIC.graph, ("y",)))


@every_method
@given(state=st.tuples(small, small, small, small), h=st.floats(-0.5, 0.5))
def test_the_jacobian_of_a_step_is_symplectic(method, state, h):
    """J^T Omega J = Omega, J by forward mode through the step and the slope that it starts from."""
    y, p = np.array(state), np.array([1.3])
    (rate,), columns = SLOPE(0.0, y, p), []
    for e in np.eye(4):
        (turned,) = TANGENT_OF_SLOPE(0.0, y, p, e)
        columns.append(tangent_of_a_step(method)(0.0, h, y, p, rate, *(np.empty(0),) * 2, e, turned))
    jacobian = np.array(columns).T
    size = 1e-14 * max(1.0, np.abs(jacobian).max() ** 2)
    assert jacobian.T @ OMEGA @ jacobian == pytest.approx(OMEGA, abs=10 * size)


@every_method
def test_a_step_back_undoes_a_step_of_a_symmetric_method(method):
    y, step = np.array([0.3, -0.2, 0.4, 0.1]), step_function(RELATIVISTIC.graph, method)
    there_and_back = stepped(step, stepped(step, y, 0.3), -0.3)
    assert method.symmetric == (method.order in (2, 4, 6))
    assert (np.abs(there_and_back - y).max() < 1e-15) == method.symmetric


@odec.dynamics
def kepler(t, y):
    q, v = y
    return v, -q / np.sqrt(q @ q) ** 3


def perihelion(e):
    return np.array([1.0 - e, 0.0]), np.array([0.0, np.sqrt((1.0 + e) / (1.0 - e))])


@pytest.mark.parametrize(
    ("method", "bound"), [("semi_implicit_euler", 3e-2), ("velocity_verlet", 2e-3), ("blanes_moan4", 1e-7),
                          ("blanes_moan6", 1e-9)],
)  # fmt: skip
def test_energy_error_stays_bounded_over_many_periods(method, bound):
    """The error of the last tenth of 400 Kepler orbits is that of the first; rk4's grows with every orbit."""
    steps = 100

    def energies(method):
        span = (0.0, 400 * 2 * np.pi)
        sol = odec.solve(kepler, span, perihelion(0.2), method=method, first_step=2 * np.pi / steps)
        q, v = sol.ys
        off = np.abs((v * v).sum(axis=1) / 2 - 1 / np.sqrt((q * q).sum(axis=1)) + 0.5)
        tenth = len(off) // 10
        return off[:tenth].max(), off[-tenth:].max()

    first, last = energies(method)
    assert last < 1.2 * first + 1e-12 and first < bound
    first, last = energies("rk4")
    assert last > 8 * first


# ---- what is evaluated -----------------------------------------------------------------------------------------


def operations(function, *names):
    return [sum(n.op.name == name for n in function.nodes) for name in names]


@every_method
def test_nothing_is_evaluated_twice(method):
    system = odec.dynamics(lambda t, y: (np.arctan(y[1]), -np.tanh(y[0]))).bind((1.0, 0.0))
    speeds = method.stages + (method.kicks[-1] != 0)  # one for the slope at the end, unless the last drift had it
    assert operations(step_function(system.graph, method), "tanh", "arctan") == [method.stages, speeds]
    assert method.evaluations == method.stages == len(method.drifts)
    assert (
        operations(dense_function(system.graph, method), "tanh", "arctan") == [0, 0] == [method.dense_evaluations] * 2
    )


def test_kicks_that_are_not_made_leave_no_operation():
    (euler,) = (m for m in METHODS if m.name == "semi_implicit_euler")
    graph = step_function(odec.dynamics(lambda t, y: (y[1], -y[0])).bind((1.0, 0.0)).graph, euler)
    assert operations(graph, "mul", "add") == [2 + 1, 2]  # kick and drift; the look at the new slope


@odec.dynamics
def chain(t, y, k=1.0):
    """Masses between springs that stiffen, the last one shaken."""
    q, v = y
    left, right = q - np.roll(q, 1), np.roll(q, -1) - q
    return np.sinh(v), k * (right - left) + right**3 - left**3 + np.cos(t)


def test_parts_of_a_large_model_have_kernels_of_their_own():
    n = 300
    y0 = np.sin(np.arange(n) * 0.3), np.zeros(n)
    system = chain.bind(y0, (1.0,))
    speed, force = parts(system.graph)
    assert list(speed.inputs) == ["t", "v", "p"] and list(force.inputs) == ["t", "q", "p"]
    assert operations(speed, "sinh", "cos") == [1, 0] and operations(force, "sinh", "cos") == [0, 1]
    step = step_function(system.graph, METHODS[1])
    called = [n.params["function"].name for n in step.nodes if n.op.name == "call"]
    assert sorted(called) == ["rhs_dq", "rhs_dq", "rhs_dv"]
    sizes = [np.abs(np.concatenate(_end(chain, y0, (1.0,), "velocity_verlet", h)) - _reference(y0)).max()
             for h in (0.02, 0.01)]  # fmt: skip
    assert sizes[0] / sizes[1] == pytest.approx(4.0, rel=0.1)


def _end(model, y0, params, method, h):
    return odec.solve(model, (0.0, 1.0), y0, params, method=method, first_step=h, t_eval=[]).y1


def _reference(y0):
    return np.concatenate(odec.solve(chain, (0.0, 1.0), y0, (1.0,), method="vern9", rtol=1e-12, atol=1e-12).y1)


# ---- in the loop -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["velocity_verlet", "blanes_moan4", "blanes_moan6"])
def test_output_times_events_and_stops_lie_on_the_solution(method):
    times, y0 = np.linspace(0.2, 1.7, 31), (position(0.2), velocity(0.2))
    falls = odec.Event(lambda t, y: y[1][1] - 0.5)
    sol = odec.solve(
        driven, (0.2, 1.7), y0, method=method, first_step=1e-3, t_eval=times, events=falls, tstops=[0.77777],
        dense_output=True,
    )  # fmt: skip
    assert sol.ys[0] == pytest.approx(np.array([position(t) for t in times]), abs=1e-4)
    assert sol.t_events[0] == pytest.approx([1.0], abs=1e-4)
    assert sol(1.2345)[1] == pytest.approx(velocity(1.2345), abs=1e-4)
    backward = odec.solve(driven, (1.7, 0.2), sol.y1, method=method, first_step=1e-3)
    assert backward.y1[0] == pytest.approx(position(0.2), abs=1e-9)


def test_a_bouncing_ball_keeps_its_height():
    ball = odec.dynamics(lambda t, y: (y[1], -9.81))
    bounce = odec.Event(lambda t, y: y[0], direction=-1, reset=lambda t, y: (y[0], -y[1]))
    sol = odec.solve(ball, (0.0, 20.0), (1.0, 0.0), method="velocity_verlet", first_step=0.01, events=bounce)
    falling = np.sqrt(2 / 9.81)
    assert sol.t_events[0] == pytest.approx(falling * np.arange(1, 2 * len(sol.t_events[0]), 2), rel=1e-9)
    assert (sol.ys[1] ** 2 / 2 + 9.81 * sol.ys[0]) == pytest.approx(9.81, rel=1e-9)


@pytest.mark.parametrize(
    ("method", "where"),
    [("velocity_verlet", "at the end of the step at t = 1.4"), ("blanes_moan4", "in stage 4 of 6 at t = 1.35")],
)
def test_a_force_that_is_not_finite_is_found(method, where):
    falling = odec.dynamics(lambda t, y: (y[1], -1 / np.sqrt(y[0])))
    sol = odec.solve(falling, (0.0, 10.0), (1.0, 0.0), method=method, first_step=0.1, throw=False)
    assert not sol.success and sol.ts[-1] == pytest.approx(1.3)
    assert "np.sqrt(-" in sol.message and where in sol.message and "lower first_step" in sol.message


def test_steps_that_run_out_are_advised_to_be_longer():
    sol = odec.solve(
        kepler, (0.0, 9.0), perihelion(0.2), method="blanes_moan4", first_step=0.1, max_steps=5, throw=False
    )
    assert "Raise max_steps, raise first_step, or shorten t_span." in sol.message


# ---- states (q, v) ---------------------------------------------------------------------------------------------


class Phase(NamedTuple):
    q: Any
    v: Any


@dataclasses.dataclass
class Body:
    place: Any
    speed: Any


STATES = [
    ((1.0, 0.0), lambda t, y: (y[1], -y[0])),
    ([np.array([1.0]), np.array([0.0])], lambda t, y: [y[1], -y[0]]),
    ({"angle": 1.0, "rate": 0.0}, lambda t, y: {"angle": y["rate"], "rate": -y["angle"]}),
    (Phase(np.ones(2), np.zeros(2)), lambda t, y: Phase(y.v, -y.q)),
    (Body(np.ones((2, 2)), np.zeros((2, 2))), lambda t, y: Body(y.speed, -y.place)),
    (({"a": 1.0, "b": np.ones(2)}, {"a": 0.0, "b": np.zeros(2)}),
     lambda t, y: (y[1], {"a": -y[0]["a"], "b": -y[0]["b"]})),
]  # fmt: skip


@pytest.mark.parametrize(("y0", "rates"), STATES, ids=["numbers", "list", "dict", "namedtuple", "dataclass", "nested"])
def test_states_of_every_kind_are_taken(y0, rates):
    sol = odec.solve(odec.dynamics(rates), (0.0, 1.0), y0, method="blanes_moan6", first_step=0.05, t_eval=[])
    flat = odec.dynamics(rates).bind(y0).y_structure.flatten(sol.y1, "y1")
    half = flat.size // 2
    assert flat[:half] == pytest.approx(np.cos(1.0), abs=1e-10)
    assert flat[half:] == pytest.approx(-np.sin(1.0), abs=1e-10)


def test_single_precision_states_are_taken():
    y0 = np.ones(2, np.float32), np.zeros(2, np.float32)
    sol = odec.solve(odec.dynamics(lambda t, y: (y[1], -y[0])), (0.0, 1.0), y0, method="blanes_moan4", first_step=0.05)
    assert sol.y1[0].dtype == np.float32 and sol.y1[0] == pytest.approx(np.cos(1.0), abs=1e-5)


# ---- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y0", "found"),
    [
        (np.ones(4), "y is shape (4,)"),
        (1.0, "y is a number"),
        ((1.0, 2.0, 3.0), "y is a tuple of"),
        ((np.ones(3), np.ones(2)), "0: shape (3,), 1: shape (2,)"),
        ((np.ones((2, 3)), np.ones((3, 2))), "0: shape (2, 3), 1: shape (3, 2)"),
        ((1.0, np.ones(1)), "0: a number, 1: shape (1,)"),
        ({"q": np.ones(2), "v": {"x": np.ones(2), "y": 1.0}}, "v: a dict of"),
    ],
)
@pytest.mark.parametrize("method", ["semi_implicit_euler", "blanes_moan4"])
def test_other_states_are_refused(method, y0, found):
    @odec.dynamics
    def at_rest(t, y):
        return y

    with pytest.raises(odec.ArgumentError) as raised:
        odec.solve(at_rest, (0.0, 1.0), y0, method=method, first_step=0.1)
    message = str(raised.value)
    assert message.startswith("at_rest: ") and found in message and method in message
    assert "two parts of the same shape" in message and "(q, v)" in message


@pytest.mark.parametrize(
    ("rates", "found"),
    [
        (lambda t, y: (y[1], -y[0] - 0.1 * y[1]), "dy[1][0]/dt depends on y[1][0]"),
        (lambda t, y: (y[1] + 0.1 * y[0], -y[0]), "dy[0][0]/dt depends on y[0][0]"),
        (lambda t, y: (y[1], np.stack([y[0][0], y[0][1] * y[1][1], y[0][2]])), "dy[1][1]/dt depends on y[1][1]"),
        (lambda t, y: (y[1], -y[0] * np.sum(y[1][1:])), "dy[1][0]/dt depends on y[1][1]"),
    ],
)
def test_models_that_are_not_separable_are_refused(rates, found):
    y0 = np.ones(3), np.ones(3)
    with pytest.raises(odec.ArgumentError) as raised:
        odec.solve(odec.dynamics(rates), (0.0, 1.0), y0, method="velocity_verlet", first_step=0.1)
    message = str(raised.value)
    assert found in message and "velocity_verlet needs a separable model" in message and "vern7" in message


def test_components_are_named_as_the_user_names_them():
    damped = odec.dynamics(lambda t, y: (y[1], -y[0] - y[1]), state=("angle", "rate"))
    with pytest.raises(odec.ArgumentError, match="drate/dt depends on rate"):
        odec.solve(damped, (0.0, 1.0), (1.0, 0.0), method="blanes_moan4", first_step=0.1)


def test_a_refusal_does_not_depend_on_what_was_compiled_before():
    """A flat model may have the very graph of a structured one that was solved."""
    system = odec.dynamics(lambda t, y: (y[1], -y[0])).bind((np.ones(2), np.zeros(2)))
    odec.solve(system, (0.0, 1.0), (np.ones(2), np.zeros(2)), method="velocity_verlet", first_step=0.1)
    flat = odec.dynamics(lambda t, y: np.concatenate([y[2:], -y[:2]]))
    for use in (
        lambda: odec.solve(flat, (0.0, 1.0), np.ones(4), method="velocity_verlet", first_step=0.1),
        lambda: flat.bind(np.ones(4)).source("step", method="velocity_verlet"),
        lambda: flat.bind(np.ones(4)).compiled("dense", method="velocity_verlet"),
        lambda: flat.bind(np.ones(4)).compile("step", method="velocity_verlet"),
    ):
        with pytest.raises(odec.ArgumentError, match="two parts of the same shape"):
            use()


VALID = {"name": "mine", "order": 2, "kicks": ("1/2", "1/2"), "drifts": (1,)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kicks": (1,)}, ("1 kicks and 1 drifts", "one kick more")),
        ({"kicks": (), "drifts": ()}, ("0 kicks and 0 drifts",)),
        ({"kicks": ("1/2", "1/4")}, ("the kicks sum to 0.75", "must sum to 1")),
        ({"drifts": (2,)}, ("the drifts sum to 2.0",)),
        ({"order": 3}, ("order is 3", "of order 3 on the kicks", "instead of")),
        ({"kicks": (1, 0)}, ("order is 2", "of order 2")),
        ({"order": 0}, ("order is 0",)),
        ({"order": "2"}, ("order is '2'",)),
        ({"drifts": ("x",)}, ("drifts has 'x'",)),
        ({"kicks": (float("inf"), 1)}, ("kicks has inf",)),
    ],
)
def test_tableaus_that_are_no_methods_are_refused(change, words):
    with pytest.raises(odec.ArgumentError) as raised:
        SymplecticTableau(**VALID | change)
    message = str(raised.value)
    assert message.startswith("tableau mine: ") and message.endswith(".")
    assert all(word in message for word in words), message


def test_records_of_equal_coefficients_share_their_kernels():
    again = pickle.loads(pickle.dumps(RUTH3))
    assert again.digest == RUTH3.digest
    assert SymplecticTableau(**VALID).digest == next(m for m in METHODS if m.name == "velocity_verlet").digest
    assert repr(RUTH3) == "<SymplecticTableau ruth3_here: order 3, 3 stages>"
