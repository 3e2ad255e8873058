"""The discrete adjoint: exact for the computed numbers, of every method, by every input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import odec
from odec.errors import ArgumentError, ShapeError, SolveError
from odec.gradients import backward as at
from odec.gradients.backward import Pulls, Tape, pull_back
from odec.gradients.replay import replay_function, step_jvp, step_vjp
from odec.solving import posed
from odec.steppers.methods import method_at, method_named
from odec.steppers.symplectic import SymplecticTableau
from odec.testing import models

P = (1.5, 1.0, 3.0, 1.0)
Y0 = np.array([1.0, 1.2])
METHODS = [m.name for m in odec.methods() if not isinstance(m, SymplecticTableau)]
SYMPLECTIC = [m.name for m in odec.methods() if isinstance(m, SymplecticTableau)]


@odec.dynamics
def driven(t, y, a, b, c, d):
    """Lotka and Volterra's, with prey that breed by season."""
    return [a * y[0] - b * y[0] * y[1] + 0.3 * np.sin(2 * t), -c * y[1] + d * y[0] * y[1]]


@odec.dynamics
def oscillator(t, y, stiffness):
    q, v = y
    return v, -stiffness * q**3 + 0.1 * np.cos(t)


@odec.dynamics
def network(t, y, first, second):
    joined = np.concatenate([y, np.full((y.shape[0], 1), t)], axis=1)
    return np.tanh(joined @ first) @ second


def along(f, x, direction, step=1e-3):
    """d/de f(x + e direction) at 0, of fourth order. Steps of vern6 round to 1e-10: its coefficients are large."""
    value = lambda e: f(x + e * step * direction)
    return (8 * (value(1) - value(-1)) - (value(2) - value(-2))) / (12 * step)


def without_work(kernel):
    """A kernel in Python as the loop calls it: with a workspace at the end, which small models do not have."""
    return lambda *arrays: kernel(*arrays[:-1])


def frozen(system, method, record, p, times, ahead):
    """(y, p) -> the state behind the last step and the rows (m, n) at `times`, on the recorded steps, by NumPy."""
    replay, starts = replay_function(system.graph, method, rows=True), list(record.t)

    def run(y, p):
        rows, left = [], list(times)
        for k, (t, h) in enumerate(record.marks):
            found = replay.evaluate(t, h, y, p)
            ends = starts[k + 1] if k + 1 < len(starts) else ahead * np.inf
            while left and (left[0] - ends) * ahead <= 0:
                theta, q = (left.pop(0) - t) / h, found["q"]
                inner = sum(q[m] * (2 * theta - 1) ** (m - 1) for m in range(1, len(q)))
                rows.append(y + theta * (q[0] + (1 - theta) * inner))
            y = found["y1"]
        return np.array([*rows, y])

    return run


# ---- laws


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("span", [(0.3, 1.5), (1.5, 0.4)], ids=["forwards", "backwards"])
def test_gradient_is_that_of_the_recorded_steps(name, span):
    times = span[0] + (span[1] - span[0]) * np.array([0.13, 0.131, 0.52, 0.9])
    ahead = np.sign(span[1] - span[0])
    how = {"method": name, "t_eval": times, "first_step": 0.11, "rtol": 1e-4}
    sol, pullback = odec.solve_vjp(driven, span, Y0, P, **how)
    rng = np.random.default_rng(1)
    w, dy, dp = rng.normal(size=sol.ys.shape), rng.normal(size=2), rng.normal(size=4)
    gradient = pullback(w)
    taken = posed(driven, span, Y0, P, records=True, **how).run().record
    run = frozen(driven.bind(Y0, P), method_at(name, how["rtol"]), taken, P, times, ahead)
    np.testing.assert_allclose(run(Y0, np.array(P))[:-1], sol.ys, rtol=1e-11)
    by_y = along(lambda y: (w * run(y, np.array(P))[:-1]).sum(), Y0, dy, 4e-3)
    by_p = along(lambda p: (w * run(Y0, p)[:-1]).sum(), np.array(P), dp, 4e-3)
    found = np.array([gradient.y0 @ dy, np.array(gradient.params) @ dp])
    np.testing.assert_allclose(found, [by_y, by_p], rtol=1e-8, atol=1e-8 * np.abs(found).max())


@pytest.mark.parametrize("name", SYMPLECTIC)
def test_symplectic_steps_have_their_gradient(name):
    span, y0, how = (0.0, 1.0), (np.ones(2), np.array([0.0, 0.5])), {"first_step": 0.125, "method": name, "t_eval": []}
    _, pullback = odec.solve_vjp(oscillator, span, y0, (1.3,), **how)
    gradient = pullback((np.array([[1.0, 2.0]]), np.array([[0.5, -1.0]])))
    weighed = lambda s: s.y1[0] @ [1.0, 2.0] + s.y1[1] @ [0.5, -1.0]
    by_k = along(lambda k: weighed(odec.solve(oscillator, span, y0, (k,), **how)), 1.3, 1.0)
    by_q = along(
        lambda q: weighed(odec.solve(oscillator, span, (q, y0[1]), (1.3,), **how)), y0[0], np.array([1.0, 0.3])
    )
    np.testing.assert_allclose([gradient.params[0], gradient.y0[0] @ [1.0, 0.3]], [by_k, by_q], rtol=1e-9)


@pytest.mark.parametrize("name", ["rk4", "carpenter_kennedy54"])
@pytest.mark.parametrize("times", [[], None, np.array([0.33, 0.34, 1.13, 1.97]), np.array([0.0, 0.5, 2.02])])
def test_times_have_the_gradient_of_the_solver_itself(name, times):
    span, h = (0.0, 2.02), 0.05
    how = {"method": name, "first_step": h}
    sol, pullback = odec.solve_vjp(driven, span, Y0, P, t_eval=times, **how)
    w = np.random.default_rng(2).normal(size=sol.ys.shape)
    gradient = pullback(w)
    value = lambda span, times: (w * odec.solve(driven, span, Y0, P, t_eval=times, **how).ys).sum()
    if times is None or len(times) == 0:
        np.testing.assert_allclose(gradient.t0, along(lambda t: value((t, span[1]), times), span[0], 1.0), rtol=1e-8)
        np.testing.assert_allclose(gradient.t1, along(lambda t: value((span[0], t), times), span[1], 1.0), rtol=1e-8)
        assert gradient.t_eval is None
    else:
        inner = [i for i, t in enumerate(times) if span[0] < t < span[1]]
        moved = [along(lambda x, i=i: value(span, np.where(np.arange(len(times)) == i, x, times)), times[i], 1.0)
                 for i in inner]  # fmt: skip
        np.testing.assert_allclose(gradient.t_eval[inner], moved, rtol=1e-7)
        assert abs(gradient.t1) < 1e-4 * abs(gradient.t_eval[-1])  # a row keeps its time when the span grows


def test_start_moved_with_all_times_of_an_autonomous_model_changes_nothing():
    span, times = (0.0, 2.0), np.array([0.0, 0.7, 2.0])
    still = odec.dynamics(lambda t, y, k: [-k * y[0] ** 2, y[0]])
    _, pullback = odec.solve_vjp(still, span, [1.0, 0.0], (0.7,), t_eval=times)
    gradient = pullback(np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.25]]))
    np.testing.assert_allclose(gradient.t0 + gradient.t1 + gradient.t_eval.sum(), 0.0, atol=1e-12)


@given(
    models(depth=3, smooth=True), st.sampled_from(["euler", "rk4", "bs3", "tsit5", "carpenter_kennedy54"]), st.data()
)
@settings(max_examples=15)
def test_forward_and_reverse_of_a_step_agree(drawn, name, data):
    system, method = drawn.model.bind(drawn.y0, drawn.params), method_named(name)
    forward, reverse = step_jvp(system.graph, method, rows=True), step_vjp(system.graph, method, rows=True, timed=True)
    n, m = system.y_structure.size, system.p_structure.size
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    y, p = system.y_structure.flatten(drawn.y0, "y0"), system.p_structure.flatten(drawn.params, "params")
    t, h, tangents = 0.3, 0.01, [rng.normal(), rng.normal(), rng.normal(size=n), rng.normal(size=m)]
    pushed = forward.evaluate(t, h, y, p, *tangents)
    bars = [rng.normal(size=n), rng.normal(size=pushed["q_dot"].shape)]
    pulled = reverse.evaluate(t, h, y, p, *bars)
    terms = [x * v for x, v in zip((pulled["t_bar"], pulled["h_bar"]), tangents[:2])]
    terms += [pulled["y_bar"] @ tangents[2], pulled["p_bar"] @ tangents[3]]
    parts = [bars[0] * pushed["y1_dot"], bars[1] * pushed["q_dot"]]
    size = sum(np.abs(x).sum() for x in (*parts, pulled["y_bar"], pulled["p_bar"])) + 1.0
    if np.isfinite(size):
        np.testing.assert_allclose(sum(terms), sum(x.sum() for x in parts), rtol=1e-11, atol=1e-11 * size)


# ---- parity


def test_plain_python_goes_back_as_compiled_code_does():
    span, times = (0.0, 2.0), np.array([0.0, 0.4, 1.1, 2.0])
    how = {"t_eval": times, "rtol": 1e-5}
    sol, pullback = odec.solve_vjp(driven, span, Y0, P, **how)
    w = np.random.default_rng(3).normal(size=sol.ys.shape)
    gradient = pullback(w)
    system, given_ = driven.bind(Y0, P), posed(driven, span, Y0, P, records=True, **how)
    out = given_.run()
    python = lambda kernel, **how: without_work(system.compile(kernel, target="python", **how))
    pulls = Pulls(
        python("step_vjp", method="tsit5"), python("step_vjp", method="tsit5", rows=True, timed=True), python("rhs")
    )
    p_sum, times_bar, y1_bar, taken = np.zeros(4), np.zeros(4), np.zeros(2), out.record
    tape = Tape(
        taken.marks.ravel(), taken.y.ravel(), out.y.copy(), given_.problem.p, times, w.ravel(), times_bar, y1_bar,
        np.empty(2), np.empty(4), p_sum, np.empty(8), np.empty(8), np.empty(1), np.empty(1), np.empty(2),
        np.empty(4096), np.empty(0),
    )  # fmt: skip
    real, count = np.zeros(at.REALS), np.zeros(at.COUNTS, np.int64)
    real[at.DIRECTION], real[at.END] = 1.0, out.t
    count[[at.N, at.M, at.DEGREE, at.LAST, at.ROW, at.CUT, at.INSIDE]] = 2, 4, 4, len(taken.t) - 1, 3, 1, 1
    assert pull_back(pulls, None, tape, real, count) == len(taken.t)
    np.testing.assert_allclose(p_sum, gradient.params, rtol=1e-12)
    np.testing.assert_allclose(y1_bar + w[0], gradient.y0, rtol=1e-12)
    np.testing.assert_allclose(times_bar[1:], gradient.t_eval[1:], rtol=1e-11)


def test_network_has_the_gradient_of_its_loops():
    rng = np.random.default_rng(4)
    y0, p = rng.normal(size=(20, 2)), (0.5 * rng.normal(size=(3, 50)), 0.5 * rng.normal(size=(50, 2)))
    how = {"method": "rk4", "first_step": 0.1, "t_eval": []}
    _, pullback = odec.solve_vjp(network, (0.0, 1.0), y0, p, **how)
    w = rng.normal(size=(1, 20, 2))
    gradient = pullback(w)
    value = lambda y, first: (w * odec.solve(network, (0.0, 1.0), y, (first, p[1]), **how).ys).sum()
    dy, dp = rng.normal(size=y0.shape), rng.normal(size=p[0].shape)
    np.testing.assert_allclose((gradient.y0 * dy).sum(), along(lambda y: value(y, p[0]), y0, dy), rtol=1e-9)
    np.testing.assert_allclose((gradient.params[0] * dp).sum(), along(lambda f: value(y0, f), p[0], dp), rtol=1e-9)
    assert gradient.params[1].shape == (50, 2)


# ---- examples


def test_gradient_has_the_structures_of_what_was_given():
    model = odec.dynamics(lambda t, y, k: {"a": -k["u"] * y["a"], "b": k["v"].sum() * y["a"][:2]})
    y0, params = {"a": np.ones(3), "b": np.zeros(2)}, {"k": {"u": 0.5, "v": np.ones((2, 2)), "unused": 3.0}}
    sol, pullback = odec.solve_vjp(model, (0.0, 1.0), y0, params, t_eval=[])
    gradient = pullback({"a": np.ones((1, 3)), "b": np.ones((1, 2))})
    assert gradient.y0["a"].shape == (3,) and gradient.params["k"]["v"].shape == (2, 2)
    assert gradient.params["k"]["unused"] == 0.0 and gradient.stats["steps"] == sol.stats["steps"]
    assert isinstance(gradient.params, dict)


def test_pullback_can_be_called_again():
    sol, pullback = odec.solve_vjp(driven, (0.0, 2.0), Y0, P, t_eval=np.linspace(0.0, 2.0, 5))
    first, second = pullback(np.ones((5, 2))), pullback(np.ones((5, 2)))
    np.testing.assert_array_equal(first.y0, second.y0)
    np.testing.assert_array_equal(first.params, second.params)
    np.testing.assert_allclose(pullback(2 * np.ones((5, 2))).y0, 2 * first.y0, rtol=1e-14)
    assert repr(pullback) == f"<pullback of driven over {sol.stats['steps']} steps>"


def test_stops_are_data():
    kicked = odec.dynamics(lambda t, y, k: -k * y + np.where(t > 0.5, 1.0, 0.0))
    how = {"t_eval": [0.25, 0.5, 1.0], "tstops": [0.5], "rtol": 1e-10, "atol": 1e-12}
    _, pullback = odec.solve_vjp(kicked, (0.0, 1.0), [1.0], (2.0,), **how)
    gradient = pullback(np.array([[0.0], [0.0], [1.0]]))
    by_k = along(lambda k: odec.solve(kicked, (0.0, 1.0), [1.0], (k,), **how).ys[-1, 0], 2.0, 1.0)
    np.testing.assert_allclose([gradient.y0[0], gradient.params[0]], [np.exp(-2.0), by_k], rtol=1e-8)
    # with fixed f on both sides the start moves the first part alone
    np.testing.assert_allclose(gradient.t0, 2.0 * np.exp(-2.0), rtol=1e-8)


def test_steps_that_end_at_stops_have_the_gradient_of_the_solver_itself():
    how = {"tstops": [0.7, 1.3], "method": "rk4", "first_step": 0.05}
    sol, pullback = odec.solve_vjp(driven, (0.0, 2.02), Y0, P, **how)
    w = np.random.default_rng(6).normal(size=sol.ys.shape)
    value = lambda p: (w * odec.solve(driven, (0.0, 2.02), Y0, tuple(p), **how).ys).sum()
    moved = [along(value, np.array(P), direction) for direction in np.eye(4)]
    np.testing.assert_allclose(pullback(w).params, moved, rtol=1e-8)


def test_float32_gradient_is_float32():
    y0 = Y0.astype(np.float32)
    _, pullback = odec.solve_vjp(driven, (0.0, 1.0), y0, P, t_eval=[], rtol=1e-4)
    gradient = pullback(np.ones((1, 2)))
    _, exact = odec.solve_vjp(driven, (0.0, 1.0), Y0, P, t_eval=[], rtol=1e-8)
    assert gradient.y0.dtype == np.float32
    np.testing.assert_allclose(gradient.y0, exact(np.ones((1, 2))).y0, rtol=1e-3)


def test_model_without_parameters_has_an_empty_gradient_by_them():
    decay = odec.dynamics(lambda t, y: -y)
    _, pullback = odec.solve_vjp(decay, (0.0, 1.0), 2.0, t_eval=[])
    assert pullback([1.0]).params == ()


def test_what_cannot_be_pulled_back_is_said():
    _, pullback = odec.solve_vjp(driven, (0.0, 1.0), Y0, P, t_eval=[0.5, 1.0])
    with pytest.raises(ArgumentError, match=r"driven: ys_bar\[1\] of row 0 is nan; finite numbers are needed"):
        pullback([[0.0, np.nan], [0.0, 0.0]])
    with pytest.raises(ShapeError, match="ys_bar has shape"):
        pullback(np.ones(2))
    with pytest.raises(ArgumentError, match="adjoint 'discret' is not known; did you mean 'discrete'"):
        odec.solve_vjp(driven, (0.0, 1.0), Y0, P, adjoint="discret")
    with pytest.raises(ArgumentError, match="t_eval has 3"):
        odec.solve_vjp(driven, (0.0, 1.0), Y0, P, t_eval=[3.0])


@pytest.mark.parametrize("adjoint", ["backsolve", "interpolating"])
@pytest.mark.parametrize("times", [[], None, [0.0, 0.5, 2.0]])
def test_continuous_adjoints_agree_with_the_discrete_one(adjoint, times):
    how = {"t_eval": times, "rtol": 1e-10, "atol": 1e-12}
    sol, exact = odec.solve_vjp(driven, (0.0, 2.0), Y0, P, **how)
    _, pullback = odec.solve_vjp(driven, (0.0, 2.0), Y0, P, adjoint=adjoint, seminorm=times is None, **how)
    expected, found = exact(np.ones_like(sol.ys)), pullback(np.ones_like(sol.ys))
    for name in ("y0", "params", "t0", "t1"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6, atol=1e-7)
    assert (found.t_eval is None) == (expected.t_eval is None)
    assert found.stats["drift"] < 1000 and found.stats["nfev"] > 0


def test_options_of_another_adjoint_are_refused():
    with pytest.raises(ArgumentError, match="discrete adjoint solves nothing; leave adjoint_rtol"):
        odec.solve_vjp(driven, (0.0, 1.0), Y0, P, adjoint_rtol=1e-8)
    with pytest.raises(ArgumentError, match="checkpoints is 8, but adjoint is 'backsolve', which has none"):
        odec.solve_vjp(driven, (0.0, 1.0), Y0, P, adjoint="backsolve", checkpoints=8)
    with pytest.raises(ArgumentError, match="adjoint_atol is -1; a positive finite number is needed"):
        odec.solve_vjp(driven, (0.0, 1.0), Y0, P, adjoint="backsolve", adjoint_atol=-1)


def test_what_was_reached_can_be_pulled_back():
    with pytest.raises(SolveError, match="max_steps"):
        odec.solve_vjp(driven, (0.0, 10.0), Y0, P, max_steps=5)
    sol, pullback = odec.solve_vjp(driven, (0.0, 10.0), Y0, P, max_steps=5, throw=False)
    assert np.isfinite(pullback(np.ones_like(sol.ys)).y0).all()
