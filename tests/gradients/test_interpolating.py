"""The continuous adjoint over the stored solution: as the discrete one, where backsolve drifts, what it refuses."""

from dataclasses import replace

import numpy as np
import pytest

import odec
from odec.errors import ArgumentError, SolveError
from odec.gradients import interpolating
from odec.gradients.continuous import AS_FORWARD, Backward
from odec.gradients.interpolating import Interpolating
from odec.solving import posed

TIGHT = {"rtol": 1e-10, "atol": 1e-12}


@odec.dynamics
def forced(t, y, a, b):
    return [y[1], -a * np.sin(y[0]) - b * y[1] + np.cos(2.0 * t)]


@odec.dynamics
def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
    return [sigma * (y[1] - y[0]), y[0] * (rho - y[2]) - y[1], y[0] * y[1] - beta * y[2]]


def solved(model, span, y0, params=(), how=AS_FORWARD, **options):
    """The Interpolating of a solve, its Outcome, and cotangents of its rows."""
    given = posed(model, span, y0, params, dense_output=True, **{**TIGHT, "t_eval": [], **options})
    start = given.problem.y.copy()
    out = given.run()
    bars = np.random.default_rng(1).normal(size=out.ys.shape).astype(out.ys.dtype)
    return Interpolating(given.system, given.record, given.problem, out, start, how), out, bars


@pytest.mark.parametrize(
    "t_eval", [None, [], [0.0, 0.5, 0.51, 1.9], [0.7, 2.0]], ids=["steps", "end", "rows", "to end"]
)
@pytest.mark.parametrize("t1", [2.0, -2.0], ids=["forwards", "backwards"])
def test_gradient_is_the_discrete_one_to_the_tolerance(t_eval, t1):
    times = t_eval if t_eval is None else np.sign(t1) * np.array(t_eval)
    y0, p = np.array([0.5, 1.0]), (2.0, 0.3)
    adjoint, _, bars = solved(forced, (0.0, t1), y0, p, t_eval=times)
    _, pullback = odec.solve_vjp(forced, (0.0, t1), y0, p, t_eval=times, **TIGHT)
    found, known = adjoint.pull(bars), pullback(bars)
    np.testing.assert_allclose(found.y, known.y0, rtol=1e-6)
    np.testing.assert_allclose(found.p, known.params, rtol=1e-6)
    np.testing.assert_allclose([found.t0, found.t1], [known.t0, known.t1], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.times, [] if known.t_eval is None else known.t_eval, rtol=1e-6, atol=1e-6)
    assert found.drift == 0.0


def test_lorenz_has_the_gradient_that_backsolve_cannot_have():
    adjoint, _, bars = solved(lorenz, (0.0, 8.0), np.ones(3))
    _, pullback = odec.solve_vjp(lorenz, (0.0, 8.0), np.ones(3), t_eval=[], **TIGHT)
    found, known = adjoint.pull(bars), pullback(bars)
    np.testing.assert_allclose(found.y, known.y0, rtol=1e-3)
    np.testing.assert_allclose(found.p, known.params, rtol=1e-3)


def test_many_forward_steps_are_taken_in_stretches(monkeypatch):
    once, _, bars = solved(lorenz, (0.0, 2.0), np.ones(3))
    expected = once.pull(bars)
    monkeypatch.setattr(interpolating, "AT_ONCE", 60)
    found = once.pull(bars)
    np.testing.assert_allclose(found.y, expected.y, rtol=1e-6)
    assert found.steps >= expected.steps


def test_seminorm_takes_fewer_steps():
    y0, p = np.array([0.5, 1.0]), (2.0, 0.3)
    steps = [solved(forced, (0.0, 20.0), y0, p, Backward(seminorm=s), rtol=1e-6)[0].pull(np.array([[1.0, 0.5]])).steps
             for s in (True, False)]  # fmt: skip
    assert steps[0] <= steps[1]


def test_model_without_parameters_and_float32():
    decay = odec.dynamics(lambda t, y: -t * y)
    adjoint, _, _ = solved(decay, (0.0, 1.0), np.ones(3, np.float32), rtol=1e-5, atol=1e-6)
    found = adjoint.pull(np.ones((1, 3), np.float32))
    assert found.p.shape == (0,) and found.y.dtype == np.float32
    np.testing.assert_allclose(found.y, np.exp(-0.5), rtol=1e-4)


def test_fixed_steps_go_back_over_the_same_steps():
    adjoint, out, bars = solved(forced, (0.0, 2.0), np.array([0.5, 1.0]), (2.0, 0.3), method="rk4", first_step=0.01)
    _, pullback = odec.solve_vjp(forced, (0.0, 2.0), np.array([0.5, 1.0]), (2.0, 0.3), t_eval=[], **TIGHT)
    found = adjoint.pull(bars)
    assert found.steps == out.steps
    np.testing.assert_allclose(found.y, pullback(bars).y0, rtol=1e-4)


def test_what_is_not_smooth_is_refused():
    with pytest.raises(ArgumentError, match='adjoint="interpolating" takes smooth solutions'):
        solved(forced, (0.0, 1.0), np.ones(2), (2.0, 0.3), tstops=[0.5])


def test_backward_solve_that_stops_says_where():
    adjoint, _, bars = solved(lorenz, (0.0, 2.0), np.ones(3), rtol=1e-4)
    adjoint.problem = replace(adjoint.problem, max_steps=1)
    adjoint.tolerances = tuple(1e-6 * a for a in adjoint.tolerances)
    with pytest.raises(SolveError, match=r"lorenz: its adjoint, .* stopped at .*: took max_steps"):
        adjoint.pull(bars)
