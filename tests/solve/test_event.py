"""Events as users write them: what they return, what they change, where they stop, and what is said of them."""

import collections
import functools
import math
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import integrate

import odec
from odec import Event, ShapeError, Status, TraceError

Phase = collections.namedtuple("Phase", "q v")


@odec.dynamics
def line(t, y, rate=1.0, level=2.0):
    """A ramp and a sine."""
    return [rate + 0.0 * y[0], np.cos(t)]


@odec.dynamics
def ball(t, y, g=9.81, kept=1.0):
    return [y[1], -g]


BOUNCE = Event(lambda t, y: y[0], reset=lambda t, y, kept: [0.0, -kept * y[1]])


def ramp(events, span=(0.0, 10.0), **how):
    return odec.solve(line, span, [0.0, 0.0], events=events, **{"t_eval": []} | how)


def times(event, **how):
    return ramp(event, **how).t_events[0]


# ---- which events ------------------------------------------------------------------------------------------------

PLACES = {
    "state": (lambda t, y: y[0] - 3.0, [3.0]),
    "time": (lambda t, y: t - 2.5, [2.5]),
    "parameter": (lambda t, y, level: y[0] - level, [2.0]),
    "constant parameter": (lambda t, y, level: level - 2.0, []),
    "never": (lambda t, y: y[0] + 1.0, []),
    "zero": (lambda t, y: 0.0, []),
    "zero of the state": (lambda t, y: 0.0 * y[0], []),
    "a number": (lambda t, y: 3, []),
    "starts at zero": (lambda t, y: y[0], []),
    "starts at zero, comes back": (lambda t, y: np.sin(t), [math.pi, 2 * math.pi, 3 * math.pi]),
    "touches": (lambda t, y: (y[0] - math.pi) ** 2, []),
    "touches flat, crosses": (lambda t, y: (y[0] - 3.0) ** 3, [3.0]),
    "abs": (lambda t, y: np.abs(y[0] - math.pi) - 0.5, [math.pi - 0.5, math.pi + 0.5]),
    "abs at the start": (lambda t, y: np.abs(y[0]), []),
    "max at the start": (lambda t, y: np.maximum(-y[0], 0.0), []),
    "floor": (lambda t, y: np.floor(y[0]) - 3.0, [3.0]),
    "where": (lambda t, y: np.where(y[0] < 3.0, -1.0, 2.0), [3.0]),
    "square wave": (lambda t, y: np.floor(t / 2) % 2 - 0.5, [2.0, 4.0, 6.0, 8.0, 10.0]),
    "pole": (lambda t, y: 1 / (y[0] - 3.0), [3.0]),
    "infinite": (lambda t, y: np.where(y[0] < 3.0, np.inf, -1.0), [3.0]),
    "nan from there on": (lambda t, y: np.sqrt(math.pi - y[0]), []),
    "nan before": (lambda t, y: np.log(y[0] - math.e), [math.e + 1.0]),
    "nan between": (lambda t, y: np.sqrt(y[1]) - 0.5, [np.arcsin(0.25), math.pi - np.arcsin(0.25), 2 * math.pi
                    + np.arcsin(0.25), 3 * math.pi - np.arcsin(0.25)]),
    "huge": (lambda t, y: 1e307 * (y[0] - 3.0), [3.0]),
    "tiny": (lambda t, y: 1e-300 * (y[0] - 3.0), [3.0]),
    "list of one": (lambda t, y: [y[0] - 3.0], [3.0]),
    "any parameters": (lambda t, y, *params: y[0] - params[1], [2.0]),
    "keyword only": (lambda t, y, *, level: y[0] - level, [2.0]),
    "bound keyword": (lambda t, y, *, at=4.0: y[0] - at, [4.0]),
    "partial": (functools.partial(lambda at, t, y: y[0] - at, 5.0), [5.0]),
}  # fmt: skip


@pytest.mark.parametrize("method", ["tsit5", "dop853"])
def test_each_event_is_found_where_it_is(method):
    """All at once, so that they also must not disturb one another."""
    sol = ramp([function for function, _ in PLACES.values()], method=method, rtol=1e-9, atol=1e-11)
    for name, (_, expected), found in zip(PLACES, PLACES.values(), sol.t_events, strict=True):
        assert found.tolist() == pytest.approx(expected, abs=1e-6), name
    back = ramp([f for f, _ in PLACES.values()], span=(0.0, -10.0), params=(-1.0, 2.0), method=method)
    assert back.t_events[0].tolist() == pytest.approx([-3.0]) and len(back.t_events[3]) == 0


@pytest.mark.parametrize("ahead", [1.0, -1.0])
def test_direction_counts_along_the_solve(ahead):
    zero = lambda t, y: np.sin(3.0 * t)
    both, up, down = ramp(
        [zero, Event(zero, direction=1), Event(zero, direction=-0.5)], span=(0.1 * ahead, 6.5 * ahead)
    ).t_events
    roots = ahead * np.arange(1, 7) * math.pi / 3
    assert both == pytest.approx(roots, abs=1e-12)
    first, second = (down, up) if ahead > 0 else (up, down)
    assert first == pytest.approx(roots[::2], abs=1e-12) and second == pytest.approx(roots[1::2], abs=1e-12)


@odec.dynamics
def stepped(t, y, places):
    return np.ones(1)


STEPPED = stepped.bind([0.0], params=(np.zeros(6),))
SIX = [Event(lambda t, y, places, *, k=k: y[0] - places[k]) for k in range(6)]


@given(st.lists(st.floats(0.01, 9.99), min_size=1, max_size=6, unique=True), st.booleans())
@example([5.0, 5.0 + 1e-12], False)
def test_several_events_in_a_step_are_all_found(places, backward):
    """At any places, in a step of ten; the thresholds are a parameter, so that one kernel serves."""
    ahead = -1.0 if backward else 1.0
    thresholds = np.resize(places, 6)
    sol = odec.solve(STEPPED, (0.0, 10.0 * ahead), [0.0], params=(ahead * thresholds,), events=SIX, method="rk4",
                     first_step=10.0, t_eval=[])  # fmt: skip
    assert sol.stats["steps"] == 1
    assert [t.tolist() for t in sol.t_events] == [pytest.approx([at], rel=1e-14) for at in ahead * thresholds]


def test_one_function_may_change_sign_in_each_part_of_a_step():
    wave = lambda t, y: np.sin(math.pi * (8.0 * t - 0.5))
    sol = odec.solve(line, (0.0, 1.0), [0.0, 0.0], method="rk4", first_step=1.0, events=wave, t_eval=[])
    assert sol.stats["steps"] == 1 and sol.t_events[0] == pytest.approx((np.arange(8) + 0.5) / 8, abs=1e-14)


def test_events_at_the_same_time_all_happen_and_reset_in_list_order():
    add = Event(lambda t, y: y[0] - 2.0, reset=lambda t, y: [y[0], y[1] + 1.0])
    double = Event(lambda t, y: t - 2.0, reset=lambda t, y: [y[0], 2.0 * y[1]])
    look = Event(lambda t, y: 4.0 - 2.0 * y[0])
    start = math.sin(2.0)
    for events, after in (((add, double, look), 2 * (start + 1)), ((look, double, add), 2 * start + 1)):
        sol = ramp(events, t_eval=None, rtol=1e-10, atol=1e-12)
        assert [t.tolist() for t in sol.t_events] == [pytest.approx([2.0], abs=1e-15)] * 3
        (at,) = np.flatnonzero(sol.ts == sol.t_events[0][0])[:1]
        assert sol.ys[at, 1] == pytest.approx(start, abs=1e-8) and sol.ys[at + 1, 1] == pytest.approx(after, abs=1e-8)
        for states in sol.y_events:
            assert states[:, 1] == pytest.approx([start], abs=1e-8)


def test_a_terminal_event_ends_the_solve_at_once_or_after_some():
    wave = lambda t, y: np.sin(t)
    for terminal, count in ((True, 1), (1, 1), (np.int64(2), 2), (3, 3), (4, 3)):
        sol = ramp(Event(wave, terminal=terminal), t_eval=[1.0, 9.5])
        assert len(sol.t_events[0]) == count
        ended = terminal < 4
        assert sol.status is (Status.TERMINATED if ended else Status.SUCCESS) and sol.success
        assert sol.ts.tolist() == ([1.0] if ended else [1.0, 9.5])
        if ended:
            assert sol.y1[0] == pytest.approx(count * math.pi) and (sol.y_events[0][-1] == sol.y1).all()
    rows = ramp([Event(wave, terminal=True), lambda t, y: t - 4.0], t_eval=None)
    assert rows.ts[-1] == rows.t_events[0][0] and len(rows.t_events[1]) == 0
    assert (rows.ys[-1] == rows.y1).all() and (np.diff(rows.ts) > 0).all()


# ---- resets ------------------------------------------------------------------------------------------------------


def test_doses_at_given_times():
    """A dose of 1 each 24 hours, of what decays at 0.1 an hour, has a geometric series."""
    decay = odec.dynamics(lambda t, y, rate: -rate * y)
    dose = Event(lambda t, y: np.sin(math.pi * t / 24.0), reset=lambda t, y: y + 1.0)
    sol = odec.solve(decay, (0.0, 100.0), [1.0], params=(0.1,), events=dose, rtol=1e-10, atol=1e-12, t_eval=[95.9])
    assert sol.t_events[0] == pytest.approx([24.0, 48.0, 72.0, 96.0], abs=1e-12)
    left = math.exp(-2.4)
    assert sol.y_events[0][:, 0] == pytest.approx(np.cumsum(left ** np.arange(1, 5)), rel=1e-8)
    at = [Event(lambda t, y, *, at=at: t - at, reset=lambda t, y: y + 1.0) for at in (24.0, 48.0, 72.0, 96.0)]
    exact = odec.solve(decay, (0.0, 100.0), [1.0], params=(0.1,), events=at, rtol=1e-10, atol=1e-12, t_eval=[])
    assert [t.tolist() for t in exact.t_events] == [[24.0], [48.0], [72.0], [96.0]]
    assert exact.y1 == pytest.approx(np.exp(-0.4) * sum(left**k for k in range(5)), rel=1e-8)


@pytest.mark.parametrize(
    "reset",
    [
        lambda t, y, rate: ([0.0, y[1]], {"rate": 2.0 * rate}),
        lambda t, y, rate, level: ([0.0, y[1]], (2.0 * rate, level)),
        lambda t, y, rate, level: (np.array([0.0, y[1]]), {"level": level, "rate": 2.0 * rate}),
    ],
)
def test_a_reset_changes_parameters(reset):
    """At rate 1, 2, 4 from 0 to 2: 2, 1 and a half."""
    sol = ramp(Event(lambda t, y, level: y[0] - level, reset=reset), span=(0.0, 3.6))
    assert sol.t_events[0] == pytest.approx([2.0, 3.0, 3.5], abs=1e-13) and sol.y1[0] == pytest.approx(0.8, abs=1e-12)


STATES = {
    "namedtuple": (Phase, lambda s: s.q, lambda s: Phase(s.q, -s.v)),
    "dict": (lambda q, v: {"q": q, "v": v}, lambda s: s["q"], lambda s: s | {"v": -s["v"]}),
    "tuple": (lambda q, v: (q, v), lambda s: s[0], lambda s: (s[0], -s[1])),
}


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("params", [None, tuple, dict])
def test_structured_states_are_reset_in_their_structure(kind, params):
    """Reflected at q = 0, a swing from (0.5, -1) meets it at atan(0.5), and then each half turn."""
    build, place, reflect = STATES[kind]
    velocity = lambda s: s.v if kind == "namedtuple" else s["v"] if kind == "dict" else s[1]
    swing = odec.dynamics(lambda t, y, stiffness: build(velocity(y), -stiffness * place(y)))
    with_params = {
        None: lambda t, y: reflect(y),
        tuple: lambda t, y, stiffness: (reflect(y), (stiffness,)),
        dict: lambda t, y: (reflect(y), {}),
    }
    wall = Event(lambda t, y: place(y)[0], reset=with_params[params])
    y0 = build(np.array([0.5, 1.0]), np.array([-1.0, 0.0]))
    sol = odec.solve(swing, (0.0, 8.0), y0, params=(1.0,), events=wall, rtol=1e-10, atol=1e-10, t_eval=[])
    assert sol.t_events[0] == pytest.approx(math.atan(0.5) + math.pi * np.arange(3), abs=1e-8)
    assert place(sol.y_events[0]).shape == (3, 2)
    assert velocity(sol.y_events[0])[:, 0] == pytest.approx(-math.sqrt(1.25) * np.ones(3), abs=1e-8)


def test_scalar_matrix_and_parameterless_states_are_reset():
    fall = odec.dynamics(lambda t, y: -y)
    half = Event(lambda t, y: np.ravel(y)[0] - 0.5, reset=lambda t, y: ((1.0, 1.0), (2.0, 3.0)))
    sol = odec.solve(fall, (0.0, 1.0), np.ones((2, 2)), events=half, t_eval=[])
    assert sol.y1 == pytest.approx(np.array([[1, 1], [2, 3]]) * 2 / math.e, rel=1e-5)
    again = Event(lambda t, y: y - 0.5, reset=lambda t, y: (1.0, ()))
    assert len(odec.solve(fall, (0.0, 3.0), 1.0, events=again, t_eval=[]).t_events[0]) == 4


def test_what_a_reset_leaves_unchanged_is_no_new_event():
    same = Event(lambda t, y: y[0] - 3.0, reset=lambda t, y: y)
    copied = Event(lambda t, y: y[0] - 5.0, reset=lambda t, y: y.copy())
    sol = ramp([same, copied], method="vern7")
    assert [t.tolist() for t in sol.t_events] == [pytest.approx([3.0]), pytest.approx([5.0])] and sol.success
    assert sol.y1 == pytest.approx([10.0, math.sin(10.0)], abs=1e-5)


@pytest.mark.parametrize("method", ["tsit5", "bs3", "dop853"])
def test_a_jump_of_the_function_is_not_its_rounding(method):
    """A function that jumps by more than its value after the reset: three units of time to each event."""
    jump = Event(lambda t, y: np.where(y[0] < 3.0, y[0] - 4.0, y[0] + 5.0), reset=lambda t, y: [0.0, y[1]])
    assert times(jump, method=method) == pytest.approx([3.0, 6.0, 9.0])
    assert times(Event(lambda t, y: np.floor(y[0]) - 3.0, reset=lambda t, y: [0.0, y[1]])) == pytest.approx(
        [3.0, 6.0, 9.0]
    )


def test_a_neuron_spikes_as_often_at_any_tolerance():
    """Izhikevich's regular spiking neuron, reset far away; (2003) IEEE Trans. Neural Networks 14, 1569."""

    @odec.dynamics
    def neuron(t, y, a=0.02, b=0.2, current=10.0):
        v, u = y
        return [0.04 * v * v + 5.0 * v + 140.0 - u + current, a * (b * v - u)]

    spike = Event(lambda t, y: y[0] - 30.0, direction=1, reset=lambda t, y: [-65.0, y[1] + 8.0])
    rough, fine = (
        odec.solve(neuron, (0.0, 1000.0), [-65.0, -13.0], events=spike, rtol=r, atol=r, t_eval=[]).t_events[0]
        for r in (1e-6, 1e-11)
    )
    assert len(rough) == len(fine) > 20 and rough == pytest.approx(fine, abs=1e-2)


# ---- bounces -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "error"), [("tsit5", 3e-4), ("dopri5", 3e-5), ("vern7", 3e-5), ("dop853", 1e-6), ("bs3", 1e-6)]
)
def test_a_hundred_thousand_bounces_none_missed_or_doubled(method, error):
    """Restitution 1; times against the closed form. The time of a flight is rounded alike at each bounce, and so is
    the step's polynomial (at tsit5 the most): the error grows with the square of the number of bounces."""
    flight, count = 8.8 / 9.81, 100_000
    span = (0.0, flight * (count + 0.5))
    sol = odec.solve(ball, span, [0.0, 4.4], method=method, events=BOUNCE, t_eval=[], max_steps=10**6)
    assert len(sol.t_events[0]) == count
    assert abs(sol.t_events[0] - flight * np.arange(1, count + 1)).max() < error
    assert sol.stats["steps"] < 1.001 * count and sol.stats["solve_seconds"] < 2.0


def test_bounces_cost_no_memory_beyond_their_rows():
    span = (0.0, 8.8 / 9.81 * 100_000)
    how = {"events": BOUNCE, "t_eval": [], "max_steps": 10**6}
    odec.solve(ball, (0.0, 1.0), [0.0, 4.4], **how)
    tracemalloc.start()
    try:
        sol = odec.solve(ball, span, [0.0, 4.4], **how)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * (sol.t_events[0].nbytes + sol.y_events[0].nbytes)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("floor", [0.0, 1000.0])
@pytest.mark.parametrize("kept", [0.9, 0.5, 0.1])
def test_a_ball_that_comes_to_rest_ends_as_chattering(dtype, keep, floor, kept):
    """Infinitely many bounces before a finite time; it neither hangs nor falls through the floor, whether the reset
    puts it on the floor or leaves the height as it is."""
    reset = lambda t, y, kept: [y[0] if keep else floor, -kept * y[1]]
    sol = odec.solve(
        ball, (0.0, 30.0), [floor + 1.0, 0.0], params=(9.81, kept), dtype=dtype, throw=False,
        events=Event(lambda t, y: y[0] - floor, reset=reset), method="tsit5",
    )  # fmt: skip
    end = math.sqrt(2 / 9.81) * (1 + kept) / (1 - kept)
    assert sol.status is Status.CHATTERING and not sol.success
    assert sol.ts[-1] == pytest.approx(end, rel=1e-6 if dtype == "float64" and not floor else 3e-2)
    assert "an event kept resetting the state without time moving on at t = " in sol.message
    assert "the last was events[0], which happened" in sol.message and "let its reset bring" in sol.message
    assert sol.ys[:, 0].min() >= floor - (1e-9 if dtype == "float64" else 1e-3)


def test_steps_after_resets_keep_to_min_step():
    """Ten bounces in the time of one step."""
    sol = odec.solve(ball, (0.0, 1.0), [0.0, 0.25], events=BOUNCE, min_step=0.5, t_eval=[])
    assert sol.t_events[0] == pytest.approx(0.5 / 9.81 * np.arange(1, 20), abs=1e-12)


def test_resets_that_follow_each_other_faster_and_faster_end():
    """The rate doubles at each event: their times have a limit; a slope against its surface slides along it."""
    faster = Event(lambda t, y: y[0] - 1.0, reset=lambda t, y, rate: ([0.0, y[1]], {"rate": 2.0 * rate}))
    sol = ramp(faster, throw=False)
    assert sol.status is Status.CHATTERING and sol.t_events[0][-1] == pytest.approx(2.0)
    slide = odec.dynamics(lambda t, y: -np.sign(y))
    stuck = Event(lambda t, y: y[0], reset=lambda t, y: y)
    began = time.perf_counter()
    sol = odec.solve(slide, (0.0, 3.0), [1.0], events=stuck, throw=False, max_steps=20_000, t_eval=[])
    assert abs(sol.y1[0]) < 1e-3 and sol.status in (Status.CHATTERING, Status.STEP_LIMIT, Status.SUCCESS)
    assert time.perf_counter() - began < 5.0


# ---- rows --------------------------------------------------------------------------------------------------------


def jumps(**how):
    """Ramps from 0 to 2, three of them: 2, 4 and the end at 5."""
    event = Event(lambda t, y, level: y[0] - level, reset=lambda t, y: [0.0, y[1]])
    return ramp(event, span=(0.0, 5.0), **how)


def test_every_step_has_two_rows_at_a_reset():
    sol = jumps(t_eval=None)
    for at in sol.t_events[0]:
        (rows,) = np.nonzero(sol.ts == at)
        assert len(rows) == 2 and sol.ys[rows, 0] == pytest.approx([2.0, 0.0], abs=1e-14)
    assert (np.diff(sol.ts) >= 0).all() and np.count_nonzero(np.diff(sol.ts) == 0) == 2


@given(st.lists(st.floats(0.0, 5.0), max_size=6))
@example([])
def test_output_at_and_around_jumps_is_what_was_before_them(places):
    reset_at = jumps().t_events[0]
    around = [t for at in reset_at for t in (np.nextafter(at, 0), at, np.nextafter(at, 9))]
    asked = np.sort([*places, *around, 5.0])
    sol = jumps(t_eval=asked, dense_output=True)
    for at in reset_at:
        assert sol.ys[sol.ts == at, 0] == pytest.approx(2.0, abs=1e-14)
        assert sol.ys[sol.ts == np.nextafter(at, 9), 0] == pytest.approx(0.0, abs=1e-14)
    assert sol(asked) == pytest.approx(sol.ys, abs=1e-14)
    resets = (asked[:, None] > reset_at).sum(axis=1)
    assert sol.ys[:, 0] == pytest.approx(asked - 2.0 * resets, abs=1e-12)


@pytest.mark.parametrize("at", ["stop", "end", "start"])
def test_events_at_stops_and_ends_happen_once(at):
    event = Event(lambda t, y: t - 2.0, reset=lambda t, y: [10.0, y[1]])
    span = {"stop": (0.0, 4.0), "end": (0.0, 2.0), "start": (2.0, 4.0)}[at]
    sol = ramp(event, span=span, tstops=[2.0] if at == "stop" else (), t_eval=None)
    assert sol.t_events[0].tolist() == ([] if at == "start" else [2.0])
    assert sol.y1[0] == pytest.approx({"stop": 12.0, "end": 10.0, "start": 2.0}[at])
    assert sol.ts[-1] == span[1] and (sol.ys[-1] == sol.y1).all()
    reached = ramp(Event(lambda t, y: y[0] - 2.0, reset=lambda t, y: [0.0, y[1]]), tstops=[2.0, 4.0, 6.0])
    assert reached.t_events[0] == pytest.approx([2.0, 4.0, 6.0, 8.0, 10.0][: len(reached.t_events[0])])
    assert len(reached.t_events[0]) >= 4


# ---- what cannot be used -----------------------------------------------------------------------------------------


def test_functions_with_attributes_of_scipy_are_events():
    def up(t, y):
        return y[0] - 2.0

    up.terminal, up.direction = True, -1
    assert ramp(up).status is Status.SUCCESS
    up.direction = 1
    assert ramp([up]).status is Status.TERMINATED
    assert len(ramp(e for e in [lambda t, y: y[0] - 1.0]).t_events[0]) == 1
    assert ramp([]).t_events is None and ramp(None).t_events is None


@pytest.mark.parametrize("returned", [None, True, "high", {"a": 1.0}, [1.0, 2.0], np.ones(2), ()])
def test_event_functions_that_return_no_number_are_named(returned):
    def crossing(t, y):
        return returned if returned is not True else y[0] > 1.0

    with pytest.raises(ShapeError, match="event crossing of line returned"):
        ramp(crossing)


RESETS = {
    "None": lambda t, y: None,
    "(None, params)": lambda t, y: (None, {"rate": 1.0}),
    "too long": lambda t, y: [1.0, 2.0, 3.0],
    "a number": lambda t, y: 1.0,
    "text": lambda t, y: "a",
    "a dict": lambda t, y: {"y": y},
    "(y, number)": lambda t, y: (y, 2.0),
    "(y, list)": lambda t, y: (y, [1.0, 2.0]),
    "(y, too few)": lambda t, y: (y, (1.0,)),
    "(y, too many)": lambda t, y: (y, (1.0, 2.0, 3.0)),
    "(y, unknown)": lambda t, y: (y, {"speed": 1.0}),
    "(y, wrong shape)": lambda t, y: (y, {"rate": [1.0, 2.0]}),
}


@pytest.mark.parametrize("what", RESETS)
def test_resets_of_the_wrong_structure_are_named(what):
    def crossing(t, y):
        return y[0] - 1.0

    with pytest.raises(ShapeError, match="reset of event crossing of line returned"):
        ramp(Event(crossing, reset=RESETS[what]))


def test_what_else_cannot_be_used_is_said():
    def grabs(t, y):
        y[0] = 0.0
        return y

    with pytest.raises(TraceError, match="assigns into the state y"):
        ramp(Event(lambda t, y: y[0] - 1.0, reset=grabs))
    with pytest.raises(odec.ArgumentError, match="takes 'speed', which line has not"):
        ramp(lambda t, y, speed: y[0] - speed)
    with pytest.raises(odec.ArgumentError, match="takes 'speed', which line has not"):
        ramp(lambda t, y, *, speed: y[0] - speed)
    with pytest.raises(TraceError, match=r"Use np.where|asks for the value"):
        ramp(lambda t, y: 1.0 if y[0] > 1.0 else -1.0)
    for bad in (3, "abc", [None], {"a": 1}, [[lambda t, y: t]]):
        with pytest.raises(odec.ArgumentError, match="events is"):
            ramp(bad)
    for field in ({"terminal": -1}, {"terminal": 1.5}, {"direction": np.nan}, {"direction": "up"}, {"reset": 3.0}):
        with pytest.raises(odec.ArgumentError, match=f"Event: {next(iter(field))}"):
            Event(lambda t, y: t, **field)


def test_a_reset_to_nan_names_the_state():
    sol = ramp(Event(lambda t, y: y[0] - 1.0, reset=lambda t, y: [np.nan, y[1]]), throw=False)
    assert sol.status is Status.NON_FINITE and "y[0] is nan" in sol.message and "resets of events" in sol.message


# ---- large, small and saved models -------------------------------------------------------------------------------


def test_events_of_a_model_with_arrays():
    """200 states in the array layout, whose right-hand side is called: reset as a whole at one component."""
    rates = np.linspace(0.5, 1.5, 200)
    many = odec.dynamics(lambda t, y, weights: weights @ y * 0.0 - rates * y)
    half = Event(lambda t, y: y[0] - 0.5, reset=lambda t, y, weights: (y + 0.5, {"weights": 2.0 * weights}))
    sol = odec.solve(many, (0.0, 2.0), np.ones(200), params=(np.eye(200),), events=half, rtol=1e-9, atol=1e-11)
    assert sol.t_events[0] == pytest.approx([2 * math.log(2)], abs=1e-7)
    left = np.exp(-rates * 2 * math.log(2))
    assert sol.y_events[0][0] == pytest.approx(left, abs=1e-8)
    assert sol.y1 == pytest.approx((left + 0.5) * np.exp(-rates * (2.0 - 2 * math.log(2))), abs=1e-7)


def test_events_of_a_saved_model(tmp_path):
    line.bind([0.0, 0.0]).save(tmp_path / "line.json")
    system = odec.load(tmp_path / "line.json")
    event = Event(lambda t, y, level: y[0] - level, reset=lambda t, y, rate: ([0.0, y[1]], {"rate": 2.0 * rate}))
    sol = odec.solve(system, (0.0, 3.2), [0.0, 0.0], params=(1.0, 2.0), events=event, t_eval=[])
    assert sol.t_events[0] == pytest.approx([2.0, 3.0]) and sol.y1[0] == pytest.approx(0.8)


def test_events_of_a_float32_model():
    sol = ramp([Event(lambda t, y, level: y[0] - level), lambda t, y: t - 2.4], dtype="float32")
    assert sol.y_events[0].dtype == np.float32
    assert [t.tolist() for t in sol.t_events] == [pytest.approx([2.0], rel=1e-6), pytest.approx([2.4], rel=1e-6)]


# ---- the same as SciPy -------------------------------------------------------------------------------------------


def upward(t, y):
    return y[0]


upward.direction = 1


def grounded(t, y):
    return y[0]


grounded.terminal, grounded.direction = True, -1

PROBLEMS = {
    "van der Pol": (lambda t, y: [y[1], (1 - y[0] ** 2) * y[1] - y[0]], (0.0, 20.0), [2.0, 0.0],
                    [upward, lambda t, y: y[1], lambda t, y: y[0] - 1.0]),
    "cannon with drag": (lambda t, y: [y[1], -9.81 - 0.01 * y[1] * np.abs(y[1])], (0.0, 100.0), [0.0, 30.0],
                         [grounded, lambda t, y: y[1]]),
    "Lotka-Volterra, backward": (lambda t, y: [1.5 * y[0] - y[0] * y[1], y[0] * y[1] - 3.0 * y[1]], (10.0, 0.0),
                                 [1.0, 1.0], [lambda t, y: y[0] - y[1], lambda t, y: y[0] + y[1] - 5.0]),
}  # fmt: skip


@pytest.mark.parametrize("name", PROBLEMS)
def test_times_and_states_of_events_are_those_of_scipy(name):
    f, span, y0, events = PROBLEMS[name]
    exact = integrate.solve_ivp(lambda t, y: np.array(f(t, y)), span, y0, "DOP853", events=events, rtol=1e-11,
                                atol=1e-12)  # fmt: skip
    sol = odec.solve(odec.dynamics(f), span, y0, events=events, rtol=1e-10, atol=1e-12)
    assert sol.ts[-1] == pytest.approx(exact.t[-1])
    for k in range(len(events)):
        later = sol.t_events[k] != span[0]
        wanted = exact.t_events[k] != span[0]  # SciPy counts a zero at the start
        assert sol.t_events[k][later] == pytest.approx(exact.t_events[k][wanted], abs=1e-6)
        assert sol.y_events[k][later] == pytest.approx(exact.y_events[k][wanted], abs=1e-6)


@pytest.mark.parametrize("fn", [lambda y: y[0], lambda: 0.0], ids=["one", "none"])
def test_a_function_without_time_and_state_is_refused(fn):
    model = odec.dynamics(lambda t, y: -y)
    with pytest.raises(odec.ArgumentError, match=r"it must take the time and the state first, as \(t, y\)"):
        odec.solve(model, (0.0, 1.0), [1.0], events=fn)


def test_at_the_end_too_the_dense_output_gives_the_state_before_a_reset():
    grown = odec.dynamics(lambda t, y: [1.0 + 0.0 * y[0]])
    emptied = Event(lambda t, y: t - 2.0, reset=lambda t, y: [0.0 * y[0]])
    for span, end in (((0.0, 2.0), 2.0), ((4.0, 2.0), -2.0)):
        sol = odec.solve(grown, span, [0.0], events=emptied, t_eval=[2.0], dense_output=True)
        assert sol.y1 == [0.0] and sol.t_events[0].tolist() == [2.0]
        assert sol.ys[0] == pytest.approx([end]) and sol(2.0) == pytest.approx([end])
