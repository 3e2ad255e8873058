"""The continuous adjoint over the stored solution: as the discrete one, where backsolve drifts, what it refuses."""

import tracemalloc
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


@pytest.mark.parametrize("t_eval", [None, [], [0.0, 0.5, 0.51, 1.9]], ids=["steps", "end", "rows"])
@pytest.mark.parametrize("checkpoints", [2, 3, 12, 60, 10**6, "file"])
def test_gradient_does_not_depend_on_the_memory_it_is_given(t_eval, checkpoints):
    def found(given):
        how = {"adjoint": "interpolating", "checkpoints": given, "t_eval": t_eval, "tstops": [1.0]}
        sol, pullback = odec.solve_vjp(forced, (0.0, 2.0), np.array([0.5, 1.0]), (2.0, 0.3), **how)
        bars = np.cos(np.arange(sol.ys.size)).reshape(sol.ys.shape)
        return [pullback(bars) for _ in range(2)]

    (whole, _), bounded = found(None), found(checkpoints)
    for gradient in bounded:
        for name in ("y0", "params", "t0", "t1"):
            np.testing.assert_array_equal(getattr(gradient, name), getattr(whole, name))
        assert (gradient.stats["again"] > 0) == (checkpoints in (2, 3, 12))
        assert gradient.stats["steps"] == whole.stats["steps"]


def test_memory_does_not_depend_on_the_number_of_forward_steps():
    def peak(steps, checkpoints):
        tracemalloc.start()
        _, pullback = odec.solve_vjp(
            forced, (0.0, 1.0), np.ones(2), (2.0, 0.3), method="rk4", first_step=1.0 / steps, t_eval=[],
            adjoint="interpolating", checkpoints=checkpoints,
        )  # fmt: skip
        pullback(np.ones((1, 2)))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(100, 100)  # compiled
    full, long = peak(5 * 10**3, 100), peak(5 * 10**4, 100)
    assert long < 1.1 * full + 10_000
    assert peak(5 * 10**4, None) > 5 * long


def test_polynomials_that_were_asked_for_stay():
    how = {"adjoint": "interpolating", "checkpoints": 4, "t_eval": []}
    sol, _ = odec.solve_vjp(forced, (0.0, 2.0), np.ones(2), (2.0, 0.3), dense_output=True, **how)
    assert sol(1.0).shape == (2,)
    sol, _ = odec.solve_vjp(forced, (0.0, 2.0), np.ones(2), (2.0, 0.3), **how)
    with pytest.raises(ArgumentError, match="dense_output=True"):
        sol(1.0)


def test_rows_without_cotangents_do_not_stop_the_way_back():
    every, _, bars = solved(forced, (0.0, 2.0), np.array([0.5, 1.0]), (2.0, 0.3), t_eval=None)
    bars[:-1] = 0.0
    end, _, _ = solved(forced, (0.0, 2.0), np.array([0.5, 1.0]), (2.0, 0.3))
    found, expected = every.pull(bars), end.pull(bars[-1:])
    np.testing.assert_array_equal(found.y, expected.y)
    np.testing.assert_array_equal(found.p, expected.p)


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
        solved(forced, (0.0, 1.0), np.ones(2), (2.0, 0.3), events=odec.Event(lambda t, y: y[0] - 2.0))


def test_backward_solve_that_stops_says_where():
    adjoint, _, bars = solved(lorenz, (0.0, 2.0), np.ones(3), rtol=1e-4)
    adjoint.problem = replace(adjoint.problem, max_steps=1)
    adjoint.tolerances = tuple(1e-6 * a for a in adjoint.tolerances)
    with pytest.raises(SolveError, match=r"lorenz: its adjoint, .* stopped at .*: took max_steps"):
        adjoint.pull(bars)
