"""The discrete adjoint with the step sizes: exact for the computed numbers, which move the steps."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import odec
from odec.errors import ArgumentError
from odec.gradients import stepwise, tries
from odec.gradients.stepwise import Stepwise, first_size_function, try_function
from odec.gradients.tries import Tried
from odec.integrate import slots as at
from odec.integrate.advance import rules_of
from odec.solving import posed
from odec.steppers.methods import method_named
from odec.steppers.step import step_function
from odec.transforms.jvp import jvp

Y0, P = np.array([1.0, 1.2]), np.array([1.5, 1.0, 3.0, 1.0])
CONTROLLERS = ["I", "PI", "PID", "H211b", "H321"]
CONSTANT = 1e-3  # how much of what the steps add may differ: their logarithm has 20 bits, so that it moves by steps


@odec.dynamics
def driven(t, y, a, b, c, d):
    """Lotka and Volterra's, with prey that breed by season."""
    return [a * y[0] - b * y[0] * y[1] + 0.3 * np.sin(2 * t), -c * y[1] + d * y[0] * y[1]]


@odec.dynamics
def switched(t, y, a, b, c, d):
    """A spring that is pushed until t = 1, and then pulled."""
    return [y[1], -a * y[0] ** 3 - 0.2 * b * y[1] + np.where(t < 1.0, c, -0.3 * c) + 0.1 * d * np.cos(t)]


@odec.dynamics
def draining(t, y, k):
    """No number where y < 0."""
    return -k * np.sqrt(y)


@odec.dynamics
def network(t, y, first, second):
    joined = np.concatenate([y, np.full((y.shape[0], 1), t)], axis=1)
    return np.tanh(joined @ first) @ second


class Case:
    """A loss w . ys of a solve along a direction of all that it was given, and its gradients.

    moving, frozen : with the step sizes, and without, in the order y0, params, t0, t1, t_eval
    """

    def __init__(self, model, y0, params, span, times, seed=0, **how):
        self.model, self.times, self.how, self.sizes = model, times, how, (len(y0), len(params))
        self.x = np.concatenate([y0, params, span, [] if times is None else times])
        rng = np.random.default_rng(seed)
        self.direction = rng.normal(size=len(self.x))
        self.sol, pullback = self.solved(odec.solve_vjp, self.x, differentiate_steps=True)
        self.w = rng.normal(size=self.sol.ys.shape)
        _, plain = self.solved(odec.solve_vjp, self.x)
        self.moving, self.frozen = (flat(pull(self.w)) for pull in (pullback, plain))
        self.tolerance = CONSTANT * np.linalg.norm(self.moving - self.frozen) + 1e-7 * np.linalg.norm(self.moving)
        self.tolerance *= np.linalg.norm(self.direction)

    def solved(self, solve, x, **how):
        (n, m), times = self.sizes, self.times
        y0, params, span, moved = x[:n], tuple(x[n : n + m]), x[n + m : n + m + 2], x[n + m + 2 :]
        return solve(self.model, span, y0, params, t_eval=times if times is None else moved, **how, **self.how)

    def value(self, e):
        """The loss so far along the direction; nan where the tries are other ones."""
        sol = self.solved(odec.solve, self.x + e * self.direction)
        same = all(sol.stats[k] == self.sol.stats[k] for k in ("steps", "rejected"))
        return (self.w * sol.ys).sum() if same else np.nan

    def along(self, e):
        """d loss / d e by differences of fourth order."""
        value = self.value
        return (8 * (value(e) - value(-e)) - (value(2 * e) - value(-2 * e))) / (12 * e)

    def ahead(self, e):
        """d loss / d e by differences of third order to one side, that of e."""
        now, *further = (self.value(k * e) for k in range(4))
        return (-11 * now + 18 * further[0] - 9 * further[1] + 2 * further[2]) / (6 * e)

    @property
    def is_smooth(self):
        """Whether no kink of the controller lies nearby, nor here: differences agree on what they are."""
        if not abs(self.along(3e-4) - self.along(1e-4)) < self.tolerance:
            return False
        room = self.tolerance + 1e-6 * np.linalg.norm(self.moving) * np.linalg.norm(self.direction)
        return bool(abs(self.ahead(1e-4) - self.ahead(-1e-4)) < room)


def flat(gradient):
    times = [] if gradient.t_eval is None else gradient.t_eval
    return np.concatenate([gradient.y0, gradient.params, [gradient.t0, gradient.t1], times])


# ---- laws


@pytest.mark.parametrize("method", ["bs3", "tsit5", "cash_karp"])
@pytest.mark.parametrize("model", [driven, switched], ids=lambda m: m.name)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_gradient_is_that_of_the_solver_itself(model, method, data):
    number = lambda low, high: data.draw(st.floats(low, high))
    how = {"method": method, "controller": data.draw(st.sampled_from(CONTROLLERS)), "atol": 1e-4}
    how |= {"rtol": 10 ** number(-4, -2), "tstops": [1.0] if model is switched else []}
    if data.draw(st.booleans()):
        how["first_step"] = number(0.1, 1.0)
    times = data.draw(st.sampled_from([None, np.array([]), np.array([0.2, 0.7, 1.25])]))
    y0, p = Y0 * [number(0.6, 1.5) for _ in Y0], P * [number(0.6, 1.5) for _ in P]
    case = Case(model, y0, p, (0.0, number(1.4, 3.0)), times, data.draw(st.integers(0, 99)), **how)
    assume(case.is_smooth)
    np.testing.assert_allclose(case.moving @ case.direction, case.along(1e-4), rtol=0, atol=2 * case.tolerance)


@given(st.sampled_from(["bs3", "tsit5", "cash_karp"]), st.floats(0.01, 1.0), st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_forward_and_reverse_of_a_try_agree(name, h, seed):
    system, method, rng = driven.bind(Y0, tuple(P)), method_named(name), np.random.default_rng(seed)
    forward = jvp(try_function(system.graph, method, rows=True), stepwise.WRT)
    reverse = stepwise.advance_vjp(system.graph, method, rows=True)
    now, task = np.zeros(at.NOWS), np.zeros(at.TASKS)
    now[[at.T, at.H, at.LOG1, at.RATIO1, at.MOST_GROWTH]], task[at.STOP] = (0.3, h, -3.0, 0.1, at.FREE), 1.0
    where = now, task, Y0, P, np.full(2, 1e-3), np.full(2, 1e-4), some_rules(method)
    tangents = [rng.normal(size=x.shape) for x in where[:4]]
    pushed = forward.evaluate(*where, *tangents)
    bars = {name: rng.normal(size=pushed[f"{name}_dot"].shape) for name in ("then", "y1", "q")}
    pulled = reverse.evaluate(*where, *bars.values())
    left = [bars[k] * pushed[f"{k}_dot"] for k in bars]
    right = [pulled[f"{k}_bar"] * x for k, x in zip(stepwise.WRT, tangents, strict=True)]
    size = sum(np.abs(x).sum() for x in (*left, *right))
    slope = system.graph.evaluate(0.3, Y0, P)["dydt"]
    error = step_function(system.graph, method).evaluate(0.3, h, Y0, P, slope, *where[4:6])["error"]
    cancelled = 1 / (1e-4 * np.sqrt(error))  # the size of what the error is a difference of, over its own
    bound = (1e-11 + 4 * np.finfo(float).eps * cancelled) * size
    np.testing.assert_allclose(sum(x.sum() for x in left), sum(x.sum() for x in right), rtol=0, atol=bound)


def some_rules(method, **how):
    given_ = posed(driven, (0.0, 2.0), Y0, tuple(P), method=method, **how)
    return rules_of(method, given_.problem)


@given(
    st.tuples(*[st.floats(-2.0, 2.0)] * 2), st.floats(-9.0, 1.0), st.floats(-3.0, 3.0), st.floats(1e-3, 20.0),
    st.sampled_from([{}, {"max_step": 1e-3}, {"min_step": 0.3}]), st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_first_size_as_a_graph_is_that_of_the_loop(y0, power, t0, length, bounds, is_zero):
    y0, span = (np.zeros(2) if is_zero else 10.0**power * np.array(y0)), (t0, t0 + length)
    given_ = posed(driven, span, y0, tuple(P), rtol=1e-5, t_eval=[], max_steps=1, **bounds)
    problem, solver = given_.problem, given_.solver
    out, start = given_.run(), y0.copy()
    log, rules, rtol, atol = stepwise.logged(solver, problem, start, out.steps + out.rejected)
    first = first_size_function(given_.system.graph, given_.record)
    found = first.evaluate(*span, y0, P, rtol, atol, rules)["h"]
    np.testing.assert_allclose(found, log.now[at.H], rtol=1e-6)


@pytest.mark.parametrize("moves", [True, False])
def test_both_gradients_approach_the_true_one(moves):
    decay = odec.dynamics(lambda t, y, k: -k * y)
    for rtol in (1e-3, 1e-5, 1e-7, 1e-9):
        how = {"t_eval": [], "rtol": rtol, "atol": 1e-3 * rtol, "differentiate_steps": moves}
        _, pullback = odec.solve_vjp(decay, (0.0, 2.0), [1.0], (1.5,), **how)
        gradient = pullback([[1.0]])
        found = gradient.y0[0], gradient.params[0], gradient.t0, gradient.t1
        np.testing.assert_allclose(found, np.exp(-3.0) * np.array([1.0, -2.0, 1.5, -1.5]), rtol=300 * rtol)


# ---- parity


def test_plain_python_goes_back_as_compiled_code_does():
    times, how = np.array([0.0, 0.4, 1.1, 2.0]), {"rtol": 1e-4, "first_step": 0.9, "tstops": [1.0]}
    given_ = posed(switched, (0.0, 2.0), Y0, tuple(P), t_eval=times, **how)
    out, w = given_.run(), np.random.default_rng(3).normal(size=(4, 2))
    adjoint = Stepwise(given_.system, given_.record, given_.problem, out, Y0, given_.solver)
    compiled, run = adjoint.pull(w), stepwise._Run(adjoint, w)
    python = lambda kernel, **how: without_work(given_.system.compile(kernel, target="python", **how))
    kernels = Tried(
        python("advance_vjp", method="tsit5"), python("advance_vjp", method="tsit5", rows=True), python("size_vjp"),
        python("rhs"),
    )  # fmt: skip
    run.count[[tries.backward.FIRST, tries.backward.LAST]] = 0, adjoint.tries - 1
    assert out.rejected > 0
    tape = run.tape._replace(rows_bar=w.ravel())
    assert tries.go_back(kernels, adjoint.log, run.bars, tape, run.real, run.count) == out.steps + out.rejected
    np.testing.assert_allclose(run.tape.p_sum, compiled.p, rtol=1e-12)
    np.testing.assert_allclose(run.tape.y1_bar + w[0], compiled.y, rtol=1e-12)


def without_work(kernel):
    """A kernel in Python as the loop calls it: with a workspace at the end, which small models do not have."""
    return lambda *arrays: kernel(*arrays[:-1])


# ---- examples


def test_start_end_and_output_times_move_the_steps():
    case = Case(driven, Y0, P, (2.0, 0.1), np.array([1.7, 0.6, 0.2]), rtol=1e-3, atol=1e-4, controller="H321",
                tstops=[1.1, 0.5], max_step=0.4)  # fmt: skip
    for i in range(len(case.x)):
        case.direction = np.eye(len(case.x))[i]
        np.testing.assert_allclose(case.moving[i], case.along(1e-3), rtol=0, atol=case.tolerance)
    assert abs(case.moving - case.frozen).max() > 10 * case.tolerance


def test_tries_that_end_in_no_number_are_in_the_gradient():
    value = lambda k: odec.solve(draining, (0.0, 1.0), [1.0], (k,), t_eval=[], first_step=1.0, rtol=1e-3)
    sol, pullback = odec.solve_vjp(
        draining, (0.0, 1.0), [1.0], (1.9,), t_eval=[], first_step=1.0, rtol=1e-3, differentiate_steps=True
    )
    assert sol.stats["rejected"] > 0 and pullback._adjoint.log.now[at.NOWS + at.BROKEN] == 1.0
    slope = (value(1.9 + 1e-4).ys[-1, 0] - value(1.9 - 1e-4).ys[-1, 0]) / 2e-4
    np.testing.assert_allclose(pullback([[1.0]]).params[0], slope, rtol=1e-5)


@pytest.mark.parametrize("moves", [True, False])
def test_rows_at_stops_are_the_ends_of_steps(moves):
    how = {"rtol": 1e-4, "first_step": 0.1, "differentiate_steps": moves}
    sol, pullback = odec.solve_vjp(driven, (0.0, 1.6), Y0, tuple(P), tstops=[1.0], **how)
    _, alone = odec.solve_vjp(driven, (0.0, 1.0), Y0, tuple(P), t_eval=[], **how)
    gradient, expected = pullback(np.where(sol.ts == 1.0, 1.0, 0.0)[:, None] * [[1.0, 2.0]]), alone([[1.0, 2.0]])
    np.testing.assert_allclose(gradient.y0, expected.y0, rtol=1e-8)
    np.testing.assert_allclose(gradient.params, expected.params, rtol=1e-8)


def test_network_has_the_gradient_of_its_loops():
    rng = np.random.default_rng(4)
    y0, p = rng.normal(size=(8, 2)), (rng.normal(size=(3, 20)), rng.normal(size=(20, 2)))
    how = {"t_eval": [0.3, 0.8], "rtol": 1e-2, "atol": 1e-3, "first_step": 0.7, "method": "bs3"}
    sol, pullback = odec.solve_vjp(network, (0.0, 1.0), y0, p, differentiate_steps=True, **how)
    _, plain = odec.solve_vjp(network, (0.0, 1.0), y0, p, **how)
    w, dy = rng.normal(size=(2, 8, 2)), rng.normal(size=y0.shape)
    value = lambda e: (w * odec.solve(network, (0.0, 1.0), y0 + e * dy, p, **how).ys).sum()
    found, frozen = ((pull(w).y0 * dy).sum() for pull in (pullback, plain))
    slope = (value(1e-4) - value(-1e-4)) / 2e-4
    assert sol.stats["rejected"] > 0
    assert abs(found - slope) < 1e-2 * abs(frozen - slope)


def test_float32_gradient_is_float32():
    how = {"t_eval": [], "rtol": 1e-3, "first_step": 0.1, "differentiate_steps": True}
    _, pullback = odec.solve_vjp(driven, (0.0, 1.0), Y0.astype(np.float32), tuple(P), **how)
    _, double = odec.solve_vjp(driven, (0.0, 1.0), Y0, tuple(P), **how)
    gradient, expected = pullback(np.ones((1, 2))), double(np.ones((1, 2)))
    assert gradient.y0.dtype == np.float32
    np.testing.assert_allclose(gradient.y0, expected.y0, rtol=1e-3)


def test_fixed_steps_are_not_moved():
    how = {"t_eval": [0.5, 1.0], "method": "rk4", "first_step": 0.1}
    both = [odec.solve_vjp(driven, (0.0, 1.0), Y0, tuple(P), **how, **more)[1](np.ones((2, 2)))
            for more in ({}, {"differentiate_steps": True})]  # fmt: skip
    np.testing.assert_array_equal(flat(both[0]), flat(both[1]))


def test_what_was_reached_can_be_pulled_back():
    how = {"max_steps": 5, "throw": False, "differentiate_steps": True}
    sol, pullback = odec.solve_vjp(driven, (0.0, 10.0), Y0, tuple(P), **how)
    gradient = pullback(np.ones_like(sol.ys))
    assert np.isfinite(flat(gradient)).all() and gradient.t1 == 0.0
    assert gradient.stats["again"] == 5


def test_polynomials_can_be_kept_as_well():
    how = {"t_eval": [0.4, 1.0], "differentiate_steps": True}
    both = [odec.solve_vjp(driven, (0.0, 1.0), Y0, tuple(P), dense_output=dense, **how)[1](np.ones((2, 2)))
            for dense in (False, True)]  # fmt: skip
    np.testing.assert_array_equal(flat(both[0]), flat(both[1]))


def test_what_the_steps_cannot_be_moved_with_is_refused():
    for more, what in (
        ({"adjoint": "backsolve"}, "adjoint is 'backsolve'"), ({"checkpoints": 8}, "checkpoints is 8"),
        ({"events": lambda t, y: y[0] - 1.1}, "events are watched"),
    ):  # fmt: skip
        with pytest.raises(ArgumentError, match=f"driven: differentiate_steps=True, but {what}; the discrete adjoint"):
            odec.solve_vjp(driven, (0.0, 1.0), Y0, tuple(P), differentiate_steps=True, **more)
    with pytest.raises(ArgumentError, match="driven: differentiate_steps is 'no'; True or False is needed"):
        odec.solve_vjp(driven, (0.0, 1.0), Y0, tuple(P), differentiate_steps="no")
