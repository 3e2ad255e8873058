"""The continuous adjoint: against closed forms and references, its options, what it refuses."""

import json
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import expm, expm_frechet

import odec
from odec.errors import ArgumentError, SolveError
from odec.gradients.continuous import AS_FORWARD, Backsolve, Backward, adjoint_dynamics, adjoint_system
from odec.solving import posed

TIGHT = {"rtol": 1e-12, "atol": 1e-13}
REFERENCES = json.loads((Path(__file__).parents[1] / "problems" / "nonstiff.json").read_text())["problems"]


def solved(model, span, y0, params=(), how=AS_FORWARD, **options):
    """The Backsolve of a solve, and its Outcome."""
    given = posed(model, span, y0, params, **{**TIGHT, "t_eval": [], **options})
    start = given.problem.y.copy()
    out = given.run()
    return Backsolve(given.system, given.record, given.problem, out, start, how), out


def gradient(model, span, y0, params=(), weights=None, how=AS_FORWARD, **options):
    """The gradient of sum_i weights_i . y(t_i), and the Outcome; weights None weighs each row by ones."""
    adjoint, out = solved(model, span, y0, params, how, **options)
    bars = np.ones_like(out.ys) if weights is None else np.reshape(weights, out.ys.shape).astype(out.ys.dtype)
    return adjoint.pull(bars), out


@odec.dynamics
def linear(t, y, a):
    return a @ y


@odec.dynamics
def growth(t, y, rate, unused):
    return rate * t * y


@odec.dynamics
def lotka_volterra(t, y, a, b, c, d):
    return [a * y[0] - b * y[0] * y[1], d * y[0] * y[1] - c * y[1]]


@odec.dynamics
def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
    return [sigma * (y[1] - y[0]), y[0] * (rho - y[2]) - y[1], y[0] * y[1] - beta * y[2]]


@odec.dynamics
def network(t, y, w1, b1, w2):
    return np.tanh(y @ w1 + b1) @ w2


def weights_of_network(rng, n=2, hidden=20):
    return rng.normal(size=(n, hidden)), rng.normal(size=hidden), rng.normal(size=(hidden, n)) / hidden


# ---- numbers


def test_linear_system_has_the_gradient_of_the_matrix_exponential():
    a, y0, w, t = np.array([[-0.3, 1.2], [-0.9, 0.1]]), np.array([1.0, -0.5]), np.array([0.7, 2.0]), 3.0
    found, _ = gradient(linear, (0.0, t), y0, (a,), w)
    np.testing.assert_allclose(found.y, expm(a * t).T @ w, rtol=1e-10)
    by_a = expm_frechet(a.T * t, t * np.outer(w, y0), compute_expm=False)
    np.testing.assert_allclose(found.p.reshape(2, 2), by_a, rtol=1e-10)


@pytest.mark.parametrize("span", [(0.5, 2.0), (2.0, -1.0)], ids=["forwards", "backwards"])
@pytest.mark.parametrize("seminorm", [True, False])
def test_rows_and_times_have_the_gradient_of_the_closed_form(span, seminorm):
    rate, y0, (t0, t1) = -0.4, np.array([1.5, -2.0]), span
    times = np.linspace(t0, t1, 7)[:-1]  # the start is a row, the end is none
    w = np.random.default_rng(0).normal(size=(6, 2))
    found, _ = gradient(growth, span, y0, (rate, 3.0), w, Backward(seminorm=seminorm), t_eval=times)
    grown = w * y0 * np.exp(rate * (times**2 - t0**2) / 2)[:, None]
    np.testing.assert_allclose(found.y, grown.sum(0) / y0, rtol=1e-9)
    np.testing.assert_allclose(found.p, [(grown.sum(1) * (times**2 - t0**2) / 2).sum(), 0.0], rtol=1e-9)
    np.testing.assert_allclose(found.times, rate * times * grown.sum(1), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.t0, -rate * t0 * grown.sum(), rtol=1e-9)
    assert found.drift < 100


@pytest.mark.parametrize("method", ["tsit5", "dop853"])
@pytest.mark.parametrize("component", [0, 1])
def test_lotka_volterra_meets_its_reference(method, component):
    (record,) = (r for r in REFERENCES if r["name"] == "lotka_volterra")
    truth = record["sensitivity"]
    found, _ = gradient(
        lotka_volterra, (record["t0"], record["t1"]), np.array(record["y0"]), tuple(record["params"].values()),
        np.eye(2)[component], method=method,
    )  # fmt: skip
    np.testing.assert_allclose(found.y, np.array(truth["dy_dy0"][component], float), rtol=1e-8)
    np.testing.assert_allclose(found.p, np.array(truth["dy_dp"][component], float), rtol=1e-8)


def test_every_step_as_a_row_gives_the_same_gradient_as_its_last_row():
    y0, p = np.array([1.0, 1.0]), (1.5, 1.0, 3.0, 1.0)
    end, _ = gradient(lotka_volterra, (0.0, 5.0), y0, p)
    steps = posed(lotka_volterra, (0.0, 5.0), y0, p, **TIGHT).run().ts
    last = np.zeros((len(steps), 2))
    last[-1] = 1.0
    found, _ = gradient(lotka_volterra, (0.0, 5.0), y0, p, last, t_eval=None)
    np.testing.assert_allclose(found.y, end.y, rtol=1e-9)
    np.testing.assert_allclose(found.p, end.p, rtol=1e-9)


def test_row_given_twice_counts_twice():
    y0, p = np.array([1.0, 2.0]), (-0.5, 0.0)
    once, _ = gradient(growth, (0.0, 1.0), y0, p, [[2.0, 2.0]], t_eval=[0.7])
    twice, _ = gradient(growth, (0.0, 1.0), y0, p, np.ones((2, 2)), t_eval=[0.7, 0.7])
    np.testing.assert_array_equal(twice.y, once.y)
    np.testing.assert_array_equal(twice.p, once.p)


def test_model_without_parameters_has_an_empty_gradient_by_them():
    decay = odec.dynamics(lambda t, y: -y)
    found, _ = gradient(decay, (0.0, 1.0), np.ones(3))
    assert found.p.shape == (0,)
    np.testing.assert_allclose(found.y, np.exp(-1.0), rtol=1e-10)


def test_float32_solve_has_a_float32_gradient():
    found, _ = gradient(growth, (0.0, 1.0), np.ones(2, np.float32), (-0.5, 0.0), rtol=1e-5, atol=1e-6)
    assert found.y.dtype == found.p.dtype == np.float32
    np.testing.assert_allclose(found.y, np.exp(-0.25), rtol=1e-4)
    np.testing.assert_allclose(found.p, [np.exp(-0.25), 0.0], rtol=1e-4)


def test_large_state_keeps_what_it_was_given():
    decay = odec.dynamics(lambda t, y, k: -k * y)
    y0 = np.full(70_000, 2.0)
    found, out = gradient(decay, (0.0, 1.0), y0, (0.5,), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found.y, np.exp(-0.5), rtol=1e-6)
    np.testing.assert_allclose(found.p, [-2.0 * 70_000 * np.exp(-0.5)], rtol=1e-6)
    np.testing.assert_allclose(out.ys, 2.0 * np.exp(-0.5), rtol=1e-6)


def test_fixed_steps_go_backwards_at_the_same_size():
    a, y0 = np.array([[-0.3, 1.2], [-0.9, 0.1]]), np.array([1.0, -0.5])
    found, out = gradient(linear, (0.0, 2.0), y0, (a,), method="rk4", first_step=0.01)
    assert found.steps == out.steps
    np.testing.assert_allclose(found.y, expm(2.0 * a).T @ np.ones(2), rtol=1e-8)


# ---- cost


def test_rows_without_cotangents_cost_nothing():
    y0, times = np.array([1.0, 1.0]), np.linspace(0.0, 10.0, 11)
    w = np.zeros((11, 2))
    found, _ = gradient(lotka_volterra, (0.0, 10.0), y0, (1.5, 1.0, 3.0, 1.0), w, t_eval=times)
    assert (found.nfev, found.t0) == (0, 0.0)
    assert not found.y.any() and not found.p.any() and not found.times.any()
    w[2] = 1.0
    early, _ = gradient(lotka_volterra, (0.0, 10.0), y0, (1.5, 1.0, 3.0, 1.0), w, t_eval=times)
    w[10] = 1.0
    late, _ = gradient(lotka_volterra, (0.0, 10.0), y0, (1.5, 1.0, 3.0, 1.0), w, t_eval=times)
    assert 0 < early.nfev < 0.4 * late.nfev


def test_first_step_of_a_piece_goes_on_from_the_piece_before():
    times = np.linspace(0.0, 1.0, 101)
    found, _ = gradient(growth, (0.0, 1.0), np.ones(2), (-0.5, 0.0), t_eval=times, rtol=1e-6, atol=1e-9)
    assert found.steps < 110


def test_seminorm_takes_fewer_evaluations_for_the_same_accuracy():
    rng = np.random.default_rng(3)
    p, y0 = weights_of_network(rng), rng.normal(size=(5, 2))
    loose = {"rtol": 1e-6, "atol": 1e-8}
    exact, _ = gradient(network, (0.0, 4.0), y0, p)
    with_it, _ = gradient(network, (0.0, 4.0), y0, p, **loose)
    without, _ = gradient(network, (0.0, 4.0), y0, p, how=Backward(seminorm=False), **loose)
    assert with_it.nfev < without.nfev
    for found in (with_it, without):
        np.testing.assert_allclose(found.p, exact.p, atol=1e-4 * np.abs(exact.p).max())


def test_own_tolerances_and_method_are_the_backward_ones():
    y0, p = np.array([1.0, 1.0]), (1.5, 1.0, 3.0, 1.0)
    same, _ = gradient(lotka_volterra, (0.0, 10.0), y0, p)
    loose, _ = gradient(lotka_volterra, (0.0, 10.0), y0, p, how=Backward(1e-6, np.array([1e-9, 1e-8])))
    high, _ = gradient(lotka_volterra, (0.0, 10.0), y0, p, how=Backward(method="dop853"))
    assert loose.steps < 0.2 * same.steps and high.steps < 0.2 * same.steps
    np.testing.assert_allclose(loose.y, same.y, rtol=1e-3)
    np.testing.assert_allclose(high.y, same.y, rtol=1e-9)


def peak_of_pull(steps):
    adjoint, out = solved(growth, (0.0, 1.0), np.ones(2), (-0.5, 0.0), method="rk4", first_step=1.0 / steps,
                          t_eval=[0.3, 1.0], max_steps=10**7)  # fmt: skip
    bars = np.ones_like(out.ys)
    adjoint.pull(bars)  # what is compiled and kept stays out of the count
    tracemalloc.start()
    found = adjoint.pull(bars)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert abs(found.steps - steps) <= 2
    return peak


def test_memory_does_not_depend_on_the_number_of_steps():
    assert peak_of_pull(10**6) <= peak_of_pull(10**3) + 4_096


def test_nothing_is_left_to_compile_for_the_way_back():
    adjoint, out = solved(growth, (0.0, 1.0), np.ones(2), (-0.5, 0.0))
    made = dict(adjoint.solver._kernels)
    adjoint.pull(np.ones_like(out.ys))
    assert made == adjoint.solver._kernels and made


def test_arrays_of_a_large_model_stay_arrays():
    rng = np.random.default_rng(0)
    sizes = [len(adjoint_dynamics(network.bind(np.ones((4, 2)), weights_of_network(rng, hidden=h)).graph).nodes)
             for h in (10, 100)]  # fmt: skip
    assert sizes[0] == sizes[1] < 60


def test_adjoint_dynamics_are_the_products_with_the_transposed_jacobians():
    system = lorenz.bind(np.ones(3))
    y, a, p = np.array([1.0, 2.0, 3.0]), np.array([0.5, -1.0, 2.0]), (10.0, 28.0, 2.5)
    (rate,) = adjoint_dynamics(system.graph).evaluate(0.0, np.concatenate([y, a, np.zeros(3)]), p).values()
    _, y_bar, p_bar = system.vjp(0.0, y, *p, cotangent=a)
    np.testing.assert_allclose(rate, np.concatenate([system.rhs(0.0, y, *p), -y_bar, np.negative(p_bar)]))


def test_adjoint_of_a_system_is_made_once():
    system = lorenz.bind(np.ones(3))
    assert adjoint_system(system) is adjoint_system(system)


# ---- what it says


def test_drift_is_measured_and_warned_of():
    with pytest.warns(RuntimeWarning, match=r'lorenz: .* tolerances from .* adjoint="discrete"'):
        found, _ = gradient(lorenz, (0.0, 20.0), np.ones(3), (), np.ones((16, 3)), t_eval=np.arange(1.25, 20.1, 1.25),
                            rtol=1e-6, atol=1e-9)  # fmt: skip
    assert found.drift > 1e5


def test_state_that_grows_without_bound_backwards_is_an_error():
    with pytest.raises(SolveError, match=r"lorenz: its adjoint, .* What decays forwards grows backwards"):
        gradient(lorenz, (0.0, 20.0), np.ones(3), rtol=1e-6, atol=1e-9, max_steps=10_000)


def test_rows_on_the_way_hold_the_drift_down():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, _ = gradient(lorenz, (0.0, 5.0), np.ones(3), t_eval=np.linspace(0, 5, 51), rtol=1e-8, atol=1e-10)
    assert found.drift < 1e3


def test_what_is_not_smooth_is_refused():
    with pytest.raises(ArgumentError, match=r'growth: the solve has events; .*adjoint="discrete"'):
        gradient(growth, (0.0, 1.0), np.ones(2), (-0.5, 0.0), events=odec.Event(lambda t, y: y[0] - 2.0))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_cotangent_that_is_not_finite_is_refused(bad):
    with pytest.raises(ArgumentError, match="cotangent of row 1 is not finite"):
        gradient(growth, (0.0, 1.0), np.ones(2), (0.5, 0.0), [[1.0, 1.0], [1.0, bad]], t_eval=[0.5, 1.0])


def test_fixed_steps_backwards_need_a_size():
    with pytest.raises(ArgumentError, match="adjoint_method rk4 takes fixed steps, and the solve has no first_step"):
        gradient(growth, (0.0, 1.0), np.ones(2), (0.5, 0.0), how=Backward(method="rk4"))


def test_method_that_does_not_suit_the_adjoint_is_named():
    spring = odec.dynamics(lambda t, y, k: (y[1], -k * y[0]))
    with pytest.raises(ArgumentError, match="name another adjoint_method"):
        gradient(spring, (0.0, 1.0), (1.0, 0.0), (2.0,), method="velocity_verlet", first_step=0.01)


def test_backward_solve_that_stops_says_where():
    adjoint, out = solved(lorenz, (0.0, 5.0), np.ones(3))
    adjoint.problem = replace(adjoint.problem, max_steps=10)
    with pytest.raises(SolveError, match=r"lorenz: its adjoint, .* after \d+ steps: took max_steps"):
        adjoint.pull(np.ones_like(out.ys))


# ---- beside the discrete adjoint


@odec.dynamics
def forced(t, y, a, b):
    return [y[1], -a * np.sin(y[0]) - b * y[1] + np.cos(2.0 * t)]


@pytest.mark.parametrize("t_eval", [None, [], [0.0, 0.5, 1.9], [0.7, 2.0]], ids=["steps", "end", "rows", "to the end"])
def test_gradient_is_the_discrete_one_to_the_tolerance(t_eval):
    y0, p = np.array([0.5, 1.0]), (2.0, 0.3)
    adjoint, out = solved(forced, (0.0, 2.0), y0, p, t_eval=t_eval, method="dop853")
    bars = np.random.default_rng(1).normal(size=out.ys.shape)
    _, pullback = odec.solve_vjp(forced, (0.0, 2.0), y0, p, t_eval=t_eval, method="dop853", **TIGHT)
    found, known = adjoint.pull(bars), pullback(bars)
    np.testing.assert_allclose(found.y, known.y0, rtol=1e-8)
    np.testing.assert_allclose(found.p, known.params, rtol=1e-8)
    np.testing.assert_allclose([found.t0, found.t1], [known.t0, known.t1], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.times, [] if known.t_eval is None else known.t_eval, rtol=1e-8, atol=1e-8)


# ---- stops


@odec.dynamics
def dosed(t, y, absorbed, cleared, dose):
    rate = np.where((t > 1.0) & (t < 1.5), dose, 0.0) + np.where(t >= 3.0, 0.5 * dose * t, 0.0)
    return [rate - absorbed * y[0], absorbed * y[0] - cleared * np.sin(y[1])]


@pytest.mark.parametrize("adjoint", ["backsolve", "interpolating"])
@pytest.mark.parametrize("span", [(0.0, 4.0), (4.0, 0.5), (1.2, 3.5)])
@pytest.mark.parametrize(
    "times", [None, [], [1.0, 1.25, 1.5, 3.0], [2.0, 2.2]], ids=["steps", "end", "at stops", "off"]
)
def test_jumps_of_the_model_at_stops_are_as_the_discrete_adjoint_has_them(adjoint, span, times):
    low, high = sorted(span)
    inside = times and sorted((t for t in times if low < t < high), reverse=span[1] < span[0])
    how = {"t_eval": inside if times else times, "tstops": [s for s in (1.0, 1.5, 3.0) if low < s < high]}
    y0, p = np.array([0.6, 0.3]), (1.1, 0.7, 2.0)
    sol, exact = odec.solve_vjp(dosed, span, y0, p, rtol=1e-11, atol=1e-13, **how)
    _, pullback = odec.solve_vjp(dosed, span, y0, p, adjoint=adjoint, rtol=1e-11, atol=1e-13, **how)
    bars = np.cos(np.arange(sol.ys.size)).reshape(sol.ys.shape)
    known, found = exact(bars), pullback(bars)
    size = np.abs(known.params).max()
    for name in ("y0", "params", "t0", "t1", "t_eval"):
        if getattr(known, name) is not None:
            np.testing.assert_allclose(getattr(found, name), getattr(known, name), rtol=1e-7, atol=1e-8 * size)


def test_fixed_steps_meet_a_jump_at_a_stop():
    how = {"t_eval": [], "tstops": [1.0], "method": "rk4", "first_step": 0.07, "adjoint": "backsolve"}
    step = odec.dynamics(lambda t, y, k: k * np.where(t < 1.0, 1.0, 3.0) * y)
    _, pullback = odec.solve_vjp(step, (0.0, 2.0), [1.0], (0.5,), **how)
    np.testing.assert_allclose(pullback([[1.0]]).params[0], 4.0 * np.exp(2.0), rtol=1e-5)


def test_a_stop_beside_another_is_kept_apart():
    near = 1.0 + 40 * np.spacing(1.0)
    _, pullback = odec.solve_vjp(dosed, (0.0, 2.0), [0.6, 0.3], (1.1, 0.7, 2.0), tstops=[1.0, near], t_eval=[1.0, near],
                                 adjoint="backsolve", rtol=1e-9)  # fmt: skip
    _, plain = odec.solve_vjp(
        dosed, (0.0, 2.0), [0.6, 0.3], (1.1, 0.7, 2.0), tstops=[1.0], t_eval=[1.0, 1.0], rtol=1e-9
    )
    np.testing.assert_allclose(pullback(np.ones((2, 2))).params, plain(np.ones((2, 2))).params, rtol=1e-6, atol=1e-9)
