"""Gradients through events and resets: central differences of the solver itself, closed forms, bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import odec
from odec.errors import ArgumentError, ShapeError


@odec.dynamics
def ball(t, y, gravity, bounce, drag):
    return [y[1], -gravity - drag * y[1]]


@odec.dynamics
def tank(t, y, inflow, k, goal):
    return [inflow * (1 + 0.2 * np.sin(t)) - k * y[0] * y[1], 0.3 * y[0] - 0.1 * y[1] ** 2]


def thinner(t, y, inflow, k, goal):
    return [0.5 * y[0] + 0.1 * t, y[1] + 0.1 * k], {"k": 1.2 * k - 0.05 * y[1], "goal": goal + 0.1 * inflow}


FLOOR = odec.Event(lambda t, y: y[0], direction=-1, reset=lambda t, y, bounce: [-y[0], -bounce * y[1]])
APEX = odec.Event(lambda t, y: y[1], direction=-1)
FULL = odec.Event(lambda t, y, goal: y[0] - goal, reset=thinner)
SEEN = odec.Event(lambda t, y, k: y[1] - 0.4 * k - 0.02 * t)
THIRD = odec.Event(lambda t, y, goal: y[0] - 0.9 * goal, terminal=3, direction=1)
LANDED = [
    odec.Event(lambda t, y: y[0], direction=-1),
    FLOOR,
    odec.Event(lambda t, y: y[0], terminal=3, direction=-1),
    odec.Event(lambda t, y: y[0], direction=-1, reset=lambda t, y, drag: ([y[0], 0.9 * y[1]], {"drag": 1.1 * drag})),
]
BALL = [1.0, 0.5], (9.81, 0.8, 0.1)
TANK = [0.6, 0.3], (1.1, 0.4, 1.4)
FIXED = {"method": "rk4", "first_step": 0.05}
CASES = {
    "end": (ball, (0.0, 2.0), BALL, {"t_eval": [], "events": FLOOR}),
    "steps": (ball, (0.0, 2.0), BALL, {"events": [APEX, FLOOR]}),
    "rows": (ball, (0.0, 2.0), BALL, {"t_eval": [0.0, 0.11, 0.3, 0.9, 1.2, 1.7, 2.0], "events": [APEX, FLOOR]}),
    "backwards": (ball, (2.0, 0.0), ([1.0, -0.5], BALL[1]), {"t_eval": [2.0, 1.1, 0.5], "events": FLOOR}),
    "parameters": (tank, (0.0, 6.0), TANK, {"t_eval": [1.0, 4.5, 6.0], "events": [SEEN, FULL]}),
    "count": (tank, (0.0, 9.0), TANK, {"t_eval": [], "events": [THIRD, FULL]}),
    "count, steps": (tank, (0.0, 9.0), TANK, {"events": [FULL, SEEN, THIRD]}),
    "count, rows": (tank, (0.0, 9.0), TANK, {"t_eval": [0.5, 2.0, 8.9], "events": [FULL, SEEN, THIRD]}),
    "stops": (tank, (0.0, 6.0), TANK, {"t_eval": [1.0, 4.5], "events": [SEEN, FULL], "tstops": [1.23, 2.0, 5.1]}),
    "stops backwards": (tank, (5.0, 1.03), TANK, {"events": [SEEN, FULL], "tstops": [3.31, 1.2]}),
    "at once": (ball, (0.0, 2.0), BALL, {"t_eval": [], "events": LANDED}),
    "at once, steps": (ball, (0.0, 2.0), BALL, {"events": LANDED, "tstops": [0.2, 1.01]}),
    "polynomials": (ball, (0.0, 1.5), BALL, {"events": FLOOR, "dense_output": True}),
}


def central(run, x, width=1e-5):
    """d run / dx by differences of fourth order."""
    found = []
    for j in range(len(x)):
        step = np.zeros(len(x))
        step[j] = width * max(1.0, abs(x[j]))
        near, far = run(x + step) - run(x - step), run(x + 2 * step) - run(x - 2 * step)
        found.append((8.0 * near - far) / (12.0 * step[j]))
    return np.array(found)


def weights(sol):
    """Cotangents of the rows, of the times and of the states of events."""
    rng = np.random.default_rng(5)
    like = lambda arrays: [rng.normal(size=a.shape) for a in arrays]
    return rng.normal(size=sol.ys.shape), like(sol.t_events), like(sol.y_events)


def weighed(sol, bars):
    ys_bar, t_bar, y_bar = bars
    parts = [(w * x).sum() for ws, xs in ((t_bar, sol.t_events), (y_bar, sol.y_events)) for w, x in zip(ws, xs)]
    return (ys_bar * sol.ys).sum() + sum(parts)


def flat(gradient):
    return np.array([*gradient.y0, *gradient.params])


# ---- laws


@pytest.mark.parametrize("case", CASES)
def test_gradient_is_that_of_the_solver_itself(case):
    model, span, (y0, p), options = CASES[case]
    sol, pullback = odec.solve_vjp(model, span, y0, p, **FIXED, **options)
    bars = weights(sol)
    assert sum(map(len, sol.t_events)) > 1
    x = np.array([*y0, *p])
    value = lambda x: weighed(odec.solve(model, span, x[:2], tuple(x[2:]), **FIXED, **options), bars)
    found, expected = pullback(*bars), central(value, x)
    np.testing.assert_allclose(flat(found), expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("case", ["end", "steps", "stops backwards", "count", "count, steps"])
def test_start_and_end_have_the_gradient_of_the_solver_itself(case):
    model, span, (y0, p), options = CASES[case]
    sol, pullback = odec.solve_vjp(model, span, y0, p, **FIXED, **options)
    bars = weights(sol)
    value = lambda x: weighed(odec.solve(model, tuple(x), y0, p, **FIXED, **options), bars)
    found, expected = pullback(*bars), central(value, np.array(span))
    terminated = sol.status == odec.Status.TERMINATED
    np.testing.assert_allclose([found.t0, found.t1], expected, rtol=1e-7, atol=1e-3 if terminated else 1e-7)
    assert found.t1 == 0.0 or not terminated


def test_output_times_have_the_gradient_of_the_solver_itself():
    model, span, (y0, p), options = CASES["rows"]
    sol, pullback = odec.solve_vjp(model, span, y0, p, **FIXED, **options)
    bars = weights(sol)
    inner = slice(1, -1)

    def value(times):
        moved = options | {"t_eval": [span[0], *times, span[1]]}
        return weighed(odec.solve(model, span, y0, p, **FIXED, **moved), bars)

    expected = central(value, np.array(options["t_eval"][inner]))
    np.testing.assert_allclose(pullback(*bars).t_eval[inner], expected, rtol=1e-7)


FINE = {"method": "vern9", "rtol": 1e-6, "atol": 1e-6, "first_step": 0.1, "max_step": 0.1}
near = st.floats(0.9, 1.1)


@given(st.tuples(near, near, near, near, near), st.integers(0, 2**32), st.sampled_from(["rows", "end"]))
@settings(max_examples=15)
def test_forward_and_reverse_agree_with_differences(factors, seed, kept):
    """Of steps that leave no error to speak of, so that the three discretisations are one."""
    x = np.array([0.6, 0.3, 1.1, 0.4, 1.4]) * factors
    how = FINE | {
        "t_eval": [0.7, 2.9, 6.1, 8.3] if kept == "rows" else [],
        "events": [SEEN, FULL, THIRD][: 1 + seed % 3],
    }
    sol, pullback = odec.solve_vjp(tank, (0.0, 8.3), x[:2], tuple(x[2:]), **how)
    rng = np.random.default_rng(seed)
    like = lambda arrays: [rng.normal(size=a.shape) for a in arrays]
    at_end = kept == "end" and sol.status == odec.Status.TERMINATED  # forwards, the end is at a fixed time
    bars = np.zeros_like(sol.ys) if at_end else rng.normal(size=sol.ys.shape), like(sol.t_events), like(sol.y_events)
    found = flat(pullback(*bars))
    names = ("y0", "inflow", "k", "goal")
    forward = odec.sensitivities(tank, (0.0, 8.3), x[:2], tuple(x[2:]), wrt=names, **how)
    total = np.zeros(5)
    of_events = zip(*bars[1:], forward.t_event_sensitivities, forward.y_event_sensitivities, strict=True)
    for t_bar, y_bar, by_time, by_state in of_events:
        total += np.concatenate([t_bar @ by_time["y0"], [t_bar @ by_time[k] for k in names[1:]]])
        total += np.concatenate(
            [np.einsum("ki,kij", y_bar, by_state["y0"]), [(y_bar * by_state[k]).sum() for k in names[1:]]]
        )
    by = forward.sensitivities
    total += np.concatenate([np.einsum("ki,kij", bars[0], by["y0"]), [(bars[0] * by[k]).sum() for k in names[1:]]])
    size = np.abs(found).max()
    np.testing.assert_allclose(found, total, atol=1e-9 * size)
    value = lambda x: weighed(odec.solve(tank, (0.0, 8.3), x[:2], tuple(x[2:]), **how), bars)
    np.testing.assert_allclose(found, central(value, x), atol=1e-7 * size)


# ---- closed forms


def bounces(h0, e, g, k):
    """The time of the k-th bounce of a ball let fall from h0."""
    fall = np.sqrt(2 * h0 / g)
    return fall + 2 * fall * sum(e**j for j in range(1, k))


def test_bounces_of_a_ball_have_their_closed_form():
    free = odec.dynamics(lambda t, y, g, e: [y[1], -g])
    floor = odec.Event(lambda t, y: y[0], direction=-1, reset=lambda t, y, e: [0.0, -e * y[1]])
    sol, pullback = odec.solve_vjp(free, (0.0, 3.4), [1.0, 0.0], (9.81, 0.8), events=floor, t_eval=[])
    h0, e, g = 1.0, 0.8, 9.81
    fall = np.sqrt(2 * h0 / g)
    assert len(sol.t_events[0]) == 8
    for k in range(1, 9):
        t_bar = np.zeros(8)
        t_bar[k - 1] = 1.0
        found = pullback(None, [t_bar])
        time = bounces(h0, e, g, k)
        by_e = 2 * fall * sum(j * e ** (j - 1) for j in range(1, k))
        np.testing.assert_allclose(sol.t_events[0][k - 1], time, rtol=1e-9)
        np.testing.assert_allclose(found.y0[0], time / (2 * h0), rtol=1e-8)
        np.testing.assert_allclose(found.params, [-time / (2 * g), by_e], rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose([found.t0, found.t1], [1.0, 0.0], atol=1e-9)


def test_time_of_a_terminal_event_has_its_closed_form():
    decay = odec.dynamics(lambda t, y, k, half: -k * y)
    low = odec.Event(lambda t, y, half: y - half, terminal=True)
    how = {"events": low, "rtol": 1e-11, "atol": 1e-13}
    for t_eval in ([], None, [0.1, 20.0]):
        sol, pullback = odec.solve_vjp(decay, (0.0, 30.0), 2.0, (0.5, 0.3), t_eval=t_eval, **how)
        found = pullback(None, [[1.0]])  # of log(y0 / half) / k
        np.testing.assert_allclose(sol.t_events[0], np.log(2.0 / 0.3) / 0.5, rtol=1e-9)
        expected = [1 / (2.0 * 0.5), -np.log(2.0 / 0.3) / 0.5**2, -1 / (0.3 * 0.5)]
        np.testing.assert_allclose([found.y0, *found.params], expected, rtol=1e-7)
        assert found.t1 == 0.0 and (found.t_eval is None or len(found.t_eval) == 1)
        ends = pullback(np.eye(1, len(sol.ts), len(sol.ts) - 1)[0] if t_eval != [0.1, 20.0] else None, None, [[2.0]])
        # the end lies at half, whatever else is given
        weight = 2.0 if t_eval == [0.1, 20.0] else 3.0
        np.testing.assert_allclose([ends.y0, *ends.params], [0.0, 0.0, weight], atol=1e-8)


def test_no_output_time_before_a_terminal_event_leaves_its_gradient():
    decay = odec.dynamics(lambda t, y, k: -k * y)
    low = odec.Event(lambda t, y: y - 0.3, terminal=True)
    sol, pullback = odec.solve_vjp(decay, (0.0, 30.0), 2.0, (0.5,), t_eval=[20.0], events=low)
    found = pullback(np.empty(0), [[1.0]])
    assert len(sol.ts) == 0 and len(found.t_eval) == 0
    np.testing.assert_allclose(found.params, [-np.log(2.0 / 0.3) / 0.5**2], rtol=1e-5)


def test_doses_have_their_closed_form():
    """Doses at times t_i into a compartment that empties at the rate k: sum_i dose exp(-k (t - t_i))."""
    body = odec.dynamics(lambda t, y, k, dose, first, second: -k * y)
    given_at = lambda place: odec.Event(
        (lambda t, y, first: t - first) if place == "first" else (lambda t, y, second: t - second),
        reset=lambda t, y, dose: y + dose,
    )
    times, p = (2.0, 5.0), (0.4, 3.0, 2.0, 5.0)
    how = {"events": [given_at("first"), given_at("second")], "tstops": times, "rtol": 1e-11, "atol": 1e-13}
    sol, pullback = odec.solve_vjp(body, (0.0, 8.0), 1.0, p, t_eval=[1.0, 2.0, 6.0, 8.0], **how)
    found = pullback([0.0, 0.0, 0.0, 1.0])
    parts = np.array([np.exp(-0.4 * 8.0), 3.0 * np.exp(-0.4 * 6.0), 3.0 * np.exp(-0.4 * 3.0)])
    np.testing.assert_allclose(sol.ys[-1], parts.sum(), rtol=1e-9)
    expected = [-(parts @ [8.0, 6.0, 3.0]), parts[1:].sum() / 3.0, 0.4 * parts[1], 0.4 * parts[2]]
    np.testing.assert_allclose([found.y0, *found.params], [parts[0], *expected], rtol=1e-8)
    np.testing.assert_allclose(pullback([0.0, 1.0, 0.0, 0.0]).params[1:], 0.0, atol=1e-10)  # a row before the dose


def test_resets_at_once_each_have_their_own_time():
    """A ball that comes into a corner: each coordinate is |x0 - v t|."""
    corner = odec.dynamics(lambda t, y, drag: [y[2], y[3], 0.0 * drag, 0.0])
    walls = [
        odec.Event(lambda t, y: y[0], reset=lambda t, y: [y[0], y[1], -y[2], y[3]]),
        odec.Event(lambda t, y: y[1], reset=lambda t, y: [y[0], y[1], y[2], -y[3]]),
    ]
    sol, pullback = odec.solve_vjp(corner, (0.0, 2.0), [1.0, 1.0, -1.0, -1.0], (0.1,), events=walls, t_eval=[])
    np.testing.assert_allclose(sol.y1, [1.0, 1.0, 1.0, 1.0], atol=1e-9)
    found = pullback(np.array([[1.0, 10.0, 0.0, 0.0]]))
    np.testing.assert_allclose(found.y0, [-1.0, -10.0, -2.0, -20.0], atol=1e-8)


def test_an_event_at_an_end_of_a_step_has_its_time():
    line = odec.dynamics(lambda t, y, speed: speed)
    level, over = odec.Event(lambda t, y: y - 1.0), odec.Event(lambda t, y: y - 1.5, reset=lambda t, y: y - 1.5)
    how = {"method": "rk4", "first_step": 0.25, "t_eval": [1.0, 2.0]}
    sol, pullback = odec.solve_vjp(line, (0.0, 2.0), 0.0, (1.0,), events=[level, over], **how)
    np.testing.assert_allclose([sol.t_events[0][0], sol.t_events[1][0]], [1.0, 1.5])
    np.testing.assert_allclose(pullback(None, [[1.0], [10.0]]).params, [-1.0 - 15.0], rtol=1e-12)
    np.testing.assert_allclose(pullback([1.0, 10.0]).params, [1.0 + 20.0], rtol=1e-12)


def test_a_reset_at_the_end_of_the_span_is_gone_back_through():
    line = odec.dynamics(lambda t, y, speed: speed)
    over = odec.Event(lambda t, y: t - 2.0, reset=lambda t, y: 3.0 * y)
    for t_eval in ([], None):
        sol, pullback = odec.solve_vjp(line, (0.0, 2.0), 1.0, (1.0,), events=over, t_eval=t_eval)
        found = pullback(np.eye(1, len(sol.ts), len(sol.ts) - 1)[0])
        assert len(sol.t_events[0]) == 1 and sol.y1 == pytest.approx(9.0)
        np.testing.assert_allclose([found.y0, found.params[0]], [3.0, 6.0])


def test_arrays_go_through_events():
    rng = np.random.default_rng(1)
    network = odec.dynamics(lambda t, y, w: np.tanh(w @ y) - y)
    tired = odec.Event(lambda t, y: np.sum(y) - 20.0, reset=lambda t, y, w: (1.5 * y, {"w": 0.9 * w}))
    y0, w, along = rng.uniform(size=60), rng.normal(size=(60, 60)) / 10, rng.normal(size=(60, 60))
    how = {"method": "rk4", "first_step": 0.1, "t_eval": [2.0], "events": tired}
    sol, pullback = odec.solve_vjp(network, (0.0, 2.0), y0, (w,), **how)
    assert len(sol.t_events[0]) >= 1
    value = lambda s: odec.solve(network, (0.0, 2.0), y0, (w + s[0] * along,), **how).ys.sum()
    found = (pullback(np.ones((1, 60))).params[0] * along).sum()
    np.testing.assert_allclose(found, central(value, np.zeros(1), 1e-4)[0], rtol=1e-8)


def test_float32_gradient_goes_through_events():
    y0, p = np.array(BALL[0], np.float32), BALL[1]
    sol, pullback = odec.solve_vjp(ball, (0.0, 2.0), y0, p, events=[APEX, FLOOR], t_eval=[], rtol=1e-5)
    _, exact = odec.solve_vjp(ball, (0.0, 2.0), BALL[0], p, events=[APEX, FLOOR], t_eval=[], rtol=1e-10)
    bars = weights(sol)
    found = pullback(*bars)
    assert found.y0.dtype == np.float32
    np.testing.assert_allclose(flat(found), flat(exact(*bars)), rtol=2e-3, atol=2e-3)


def test_structures_go_through_events():
    thrown = odec.dynamics(lambda t, y, p: {"place": y["speed"], "speed": -p["g"] * np.ones(2)})
    floor = odec.Event(lambda t, y: y["place"][1], reset=lambda t, y: {"place": y["place"], "speed": -0.5 * y["speed"]})
    y0 = {"place": np.array([0.0, 1.0]), "speed": np.array([0.3, 0.0])}
    sol, pullback = odec.solve_vjp(thrown, (0.0, 0.6), y0, {"p": {"g": 9.81}}, t_eval=[], events=floor)
    bar = {"place": np.zeros((1, 2)), "speed": np.array([[0.0, 1.0]])}
    found = pullback(None, None, [bar])  # v = -sqrt(2 g h)
    np.testing.assert_allclose(found.y0["place"], [0.0, -np.sqrt(9.81 / 2)], atol=1e-8)
    np.testing.assert_allclose(found.params["p"]["g"], -1 / np.sqrt(2 * 9.81), rtol=1e-8)
    assert sol.y_events[0]["speed"].shape == (1, 2)


# ---- what has no gradient, bad input


def test_an_event_that_all_but_touches_is_warned_of():
    fall = odec.dynamics(lambda t, y, g: [y[1], -g])
    top = odec.Event(lambda t, y: y[0] - (2.25 - 1e-14))
    how = {"method": "rk4", "first_step": 0.25, "t_eval": []}
    sol, pullback = odec.solve_vjp(fall, (0.0, 1.0), [1.0, 5.0], (10.0,), events=top, **how)
    assert len(sol.t_events[0]) == 2
    with pytest.warns(RuntimeWarning, match="event <lambda> at t = 0.5 only touches its zero: .* hardly has one"):
        found = pullback(None, [[1.0, 0.0]])
    assert np.isfinite(found.y0).all()


def test_an_event_that_does_not_move_has_no_time():
    decay = odec.dynamics(lambda t, y, k: -k * y)
    jump = odec.Event(lambda t, y, k: np.where(y > 0.5, k, -k), terminal=True)
    _, pullback = odec.solve_vjp(decay, (0.0, 3.0), 1.0, (1.0,), events=jump, t_eval=[])
    message = r"event <lambda> at t = 0.69\d* only touches its zero: .* so its time has no derivative"
    with pytest.raises(ArgumentError, match=message):
        pullback(None, [[1.0]])
    assert pullback(np.zeros(1)).y0 == 0.0  # of nothing


def test_a_function_of_time_alone_may_jump():
    decay = odec.dynamics(lambda t, y, k: -k * y)
    pill = odec.Event(lambda t, y: np.where(t > 1.0, 1.0, -1.0), reset=lambda t, y: y + 1.0)
    how = {"events": pill, "t_eval": [], "rtol": 1e-9}
    _, pullback = odec.solve_vjp(decay, (0.0, 3.0), 1.0, (0.5,), **how)
    expected = -3.0 * np.exp(-1.5) - 2.0 * np.exp(-1.0)
    np.testing.assert_allclose(pullback([1.0], [[1.0]]).params, [expected], rtol=1e-7)
    forward = odec.sensitivities(decay, (0.0, 3.0), 1.0, (0.5,), wrt="k", **how)
    np.testing.assert_allclose(forward.sensitivities["k"], [expected], rtol=1e-7)
    assert not forward.t_event_sensitivities[0]["k"].any()


@pytest.mark.parametrize(
    "t_bar, y_bar, error, message",
    [
        (np.ones(3), None, ArgumentError, "t_events_bar is of ndarray; a list with one entry for each of the 2 events"),
        ([None], None, ArgumentError, "t_events_bar is 1 entries; a list with one entry"),
        ([None, np.ones(7)], None, ShapeError, r"t_events_bar\[1\] has shape \(7,\)"),
        ([None, [1.0, np.nan, 1.0]], None, ArgumentError, r"t_events_bar\[1\] has nan; finite numbers are needed"),
        (None, [None, np.ones((3, 3))], ShapeError, r"y_events_bar\[1\] has shape \(3, 3\)"),
        (None, [None, np.full((3, 2), np.inf)], ArgumentError, r"y_events_bar\[1\] has inf"),
        (None, 3.0, ArgumentError, "y_events_bar is of float"),
    ],
)
def test_cotangents_that_do_not_fit_are_refused(t_bar, y_bar, error, message):
    model, span, (y0, p), options = CASES["steps"]
    sol, pullback = odec.solve_vjp(model, span, y0, p, **FIXED, **options)
    assert [len(t) for t in sol.t_events] == [4, 3]
    with pytest.raises(error, match="ball: " + message):
        pullback(np.zeros_like(sol.ys), t_bar, y_bar)


def test_what_does_not_go_with_events_is_refused():
    model, span, (y0, p), options = CASES["end"]
    for adjoint in ("backsolve", "interpolating"):
        with pytest.raises(ArgumentError, match=r"ball: the solve has events, and .*; use adjoint=\"discrete\""):
            odec.solve_vjp(model, span, y0, p, adjoint=adjoint, **options)
    with pytest.raises(ArgumentError, match="ball: checkpoints is 8, but each step of a solve with events is recorded"):
        odec.solve_vjp(model, span, y0, p, checkpoints=8, **options)
    _, pullback = odec.solve_vjp(model, span, y0, p, t_eval=[])
    with pytest.raises(ArgumentError, match="ball: the solve has no events; leave t_events_bar and y_events_bar out"):
        pullback(None, [[1.0]])
