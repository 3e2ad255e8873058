"""Events of Taylor steps: every root within a step, from the series of the event function."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from targets import python_events, python_solver, run

import odec
from odec import Event, Status
from odec.event import event_functions, event_kernels
from odec.integrate.roots import DEPTH, PLACES, separated
from odec.steppers.methods import method_at
from odec.steppers.taylor import TaylorMethod
from odec.transforms.along import along

DEGREE = 6
ORDER = 15  # which rtol=1e-12 asks for
FINE = {"rtol": 1e-12, "atol": 1e-12}
TAYLOR = {"method": "taylor"} | FINE


@odec.dynamics
def polynomial(t, y, slopes):
    """y' = sum_j slopes_j t^j."""
    rate = slopes[DEGREE - 1]
    for j in reversed(range(DEGREE - 1)):
        rate = rate * t + slopes[j]
    return rate + 0.0 * y


@odec.dynamics
def swing(t, y, level=0.0):
    return [y[1], -y[0]]


@odec.dynamics
def ball(t, y, g=9.81, kept=0.9):
    return [y[1], -g]


POLYNOMIAL = polynomial.bind([0.0], params=(np.zeros(DEGREE),))
SWING = swing.bind([0.0, 1.0])
BALL = ball.bind([1.0, 0.0])
CROSSES = (Event(lambda t, y: y[0]),)
REACHES = (Event(lambda t, y, level: y[0] - level),)
FLOOR = Event(lambda t, y: y[0], direction=-1, reset=lambda t, y, kept: [0.0, -kept * y[1]])


def solve(system, events, span, y, p, series=True, **how):
    """The Outcome of a Taylor solve with events that are found by their series, or by samples alone."""
    method = method_at("taylor", FINE["rtol"])
    kernels = event_kernels(system, events, method if series else None)
    return run(system.solver(method), span, y, p, events=kernels, **{"t_eval": (), "first_step": 1.0} | FINE | how)


def factored(roots):
    """(y(0), slopes) of the polynomial with these roots, and what rounding of its values is."""
    coefficients = np.polynomial.polynomial.polyfromroots(roots)
    slopes = np.zeros(DEGREE)
    slopes[: len(roots)] = coefficients[1:] * np.arange(1, len(coefficients))
    return [coefficients[0]], slopes, 4e-16 * np.abs(coefficients).sum()


def distances(roots):
    """How far rounding may move each of the simple roots."""
    *_, noise = factored(roots)
    return [4 * noise / abs(math.prod(r - other for other in roots if other != r)) + 1e-15 for r in roots]


# ---- all roots -----------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 99), min_size=1, max_size=DEGREE, unique=True), st.booleans())
@example([40, 41, 42, 43, 44, 45], False)
@example([48, 49, 50, 51, 52, 53], False)
@example([1, 2, 97, 98, 99], True)
@example([25, 50, 75], False)
def test_all_roots_of_a_polynomial_are_found_in_one_step(hundredths, backward):
    """Roots at multiples of 0.01, six of them next to each other at the least."""
    roots = sorted(h / 100 for h in hundredths)
    y, slopes, _ = factored(roots)
    if backward:
        y, span = [np.polynomial.polynomial.polyval(1.0, np.polynomial.polynomial.polyfromroots(roots))], (1.0, 0.0)
    else:
        span = (0.0, 1.0)
    out = solve(POLYNOMIAL, CROSSES, span, y, slopes)
    assert out.steps == 1 and len(out.fired_t) == len(roots)
    assert (np.abs(np.sort(out.fired_t) - roots) <= distances(roots)).all()
    assert (np.diff(out.fired_t) * (-1 if backward else 1) > 0).all()


@given(st.integers(10, 40), st.integers(20, 50), st.sampled_from((1e-13, 1e-11, 1e-7, 1e-3)))
def test_a_function_that_just_passes_zero_is_told_from_one_that_just_misses_it(touched, gap, depth):
    """((t - a)² ± depth) (t - b)."""
    a, b = touched / 100, (touched + gap) / 100
    square = np.polynomial.polynomial.polyfromroots([a, a])
    for way, near in ((1.0, [b]), (-1.0, [a - math.sqrt(depth), a + math.sqrt(depth), b])):
        coefficients = np.polynomial.polynomial.polymul([depth * way + square[0], *square[1:]], [-b, 1.0])
        slopes = np.zeros(DEGREE)
        slopes[:3] = coefficients[1:] * [1, 2, 3]
        out = solve(POLYNOMIAL, CROSSES, (0.0, 1.0), coefficients[:1], slopes)
        assert out.fired_t == pytest.approx(near, abs=2e-15 / math.sqrt(depth) / (b - a) + 1e-14)


def test_a_double_root_is_where_a_touch_is_reported_if_at_all():
    """Whether rounding carries it over zero is open; the crossing beside it is found once."""
    y, slopes, _ = factored([0.3, 0.3, 0.7])
    out = solve(POLYNOMIAL, CROSSES, (0.0, 1.0), y, slopes)
    touches = [t for t in out.fired_t if abs(t - 0.7) > 1e-3]
    assert len(out.fired_t) == len(touches) + 1 and len(touches) in (0, 1, 2)
    assert touches == pytest.approx([0.3] * len(touches), abs=1e-6)


@pytest.mark.parametrize("step", [0.125, 0.25, 0.05, 1 / 3])
@pytest.mark.parametrize("roots", [(0.25, 0.5, 0.75), (0.5,), (0.25, 0.75)])
def test_roots_where_a_step_ends_are_found_once(step, roots):
    y, slopes, _ = factored(roots)
    for span, start in (((0.0, 1.0), y), ((1.0, 0.0), [math.prod(1.0 - r for r in roots)])):
        out = solve(POLYNOMIAL, CROSSES, span, start, slopes, max_step=step)
        assert np.sort(out.fired_t) == pytest.approx(list(roots), abs=1e-14)


def test_what_samples_miss_within_one_step_is_found():
    """sin(t) is above 0.9999 for 0.028 at a time, a fiftieth of a step."""
    level, span = 0.9999, (0.0, 100.0)
    found, missed = (solve(SWING, REACHES, span, [0.0, 1.0], [level], series, dense=True) for series in (True, False))
    tops = [math.pi / 2 + 2 * math.pi * k for k in range(16)]
    half = math.acos(level)
    assert found.fired_t == pytest.approx([t for top in tops for t in (top - half, top + half)], abs=1e-10)
    assert found.steps == missed.steps and len(missed.fired_t) < len(found.fired_t)
    step = np.searchsorted(found.dense.starts, found.fired_t)
    assert any(a == b for a, b in itertools.pairwise(step))  # both within one step


@pytest.mark.parametrize("span", [(0.0, 10.0), (10.0, 0.0)])
def test_a_function_faster_than_the_model_shortens_steps_until_its_series_tells(span):
    events = (Event(lambda t, y: np.sin(100.0 * t)),)
    out = solve(SWING, events, span, [0.0, 1.0], [0.0], dense=True)
    first, last = sorted(span)
    expected = [k * math.pi / 100 for k in range(1, 319) if first < k * math.pi / 100 < last]
    expected = expected if span[1] else [0.0, *expected]  # the end is one, the start is not
    assert np.sort(out.fired_t) == pytest.approx(expected, abs=1e-13)
    times = np.linspace(*span, 57)
    assert out.dense(times)[:, 0] == pytest.approx(np.sin(times - span[0]), abs=1e-12)
    assert out.y[0] == pytest.approx(math.sin(span[1] - span[0]), abs=1e-12)


def test_a_step_with_more_extrema_than_there_is_room_for_is_cut_short():
    levels = np.linspace(0.99, 0.9999, 70)
    events = tuple(Event(lambda t, y, *, level=level: y[0] - level) for level in levels)
    out = solve(SWING, events, (0.0, math.pi), [0.0, 1.0], [0.0])
    rising, falling = np.arcsin(levels), math.pi - np.arcsin(levels)[::-1]
    assert out.fired_t == pytest.approx([*rising, *falling], abs=1e-12)
    assert out.fired_e.tolist() == [*range(70), *reversed(range(70))]


def test_functions_with_kinks_are_sampled_beside_smooth_ones():
    events = (Event(lambda t, y: np.abs(y[0]) - 0.5), Event(lambda t, y: y[0] - 0.9999),
              Event(lambda t, y: np.where(y[0] > 0.25, 1.0, -1.0)))  # fmt: skip
    out = solve(SWING, events, (0.0, 3.0), [0.0, 1.0], [0.0])
    expected = {0: [0.5, -0.5], 1: [0.9999, -0.9999], 2: [0.25, -0.25]}
    for e, values in expected.items():
        times = [math.asin(v) if v > 0 else math.pi + math.asin(v) for v in values]
        assert out.fired_t[out.fired_e == e] == pytest.approx(times, abs=1e-11)


def test_a_function_without_series_at_a_point_is_sampled_there():
    """sqrt(1 - y) has none at the top, where it is 0 and its slope infinite."""
    events = (Event(lambda t, y: np.sqrt(1.0 - y[0]) - 0.5),)
    out = solve(SWING, events, (0.0, 3.0), [0.0, 1.0], [0.0], max_step=0.25)
    assert out.status is Status.SUCCESS
    assert out.fired_t == pytest.approx([math.asin(0.75), math.pi - math.asin(0.75)], abs=1e-12)


@given(st.lists(st.floats(-1.0, 1.0), min_size=6, max_size=16), st.sampled_from((0.3, 0.6, 0.9)))
@example([0.0, 1.0, -1.0, 0.0, 0.0, 0.0], 0.9)
def test_between_two_places_a_polynomial_changes_its_sign_once_at_most(numbers, ratio):
    order = len(numbers) - 1
    row = np.array(numbers) * ratio ** np.arange(order + 1)
    places, side = np.ones(PLACES), int(np.sign(row[0]))
    found = separated(row, order, 1.0, side, np.empty((DEPTH + 1) * (order + 1)), places, 1)
    assert (np.diff(places[:found]) >= 0).all() and places[found - 1] == 1.0
    x = np.linspace(0.0, 1.0, 4001)
    values = np.polynomial.polynomial.polyval(x, row)
    sure = np.abs(values) > 1e-14
    for low, high in itertools.pairwise([0.0, *places[:found]]):
        signs = np.sign(values[(x >= low) & (x <= high) & sure])
        assert np.count_nonzero(np.diff(signs)) <= 1


# ---- what follows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", [-1, 0, 1])
@pytest.mark.parametrize("terminal", [False, 1, 2])
def test_direction_and_terminal_count_the_roots_of_one_step(direction, terminal):
    """Roots at 0.2 and 0.6 fall, those at 0.4 and 0.8 rise."""
    events = (Event(lambda t, y: y[0], terminal=terminal, direction=direction),)
    y, slopes, _ = factored([0.2, 0.4, 0.6, 0.8])
    out = solve(POLYNOMIAL, events, (0.0, 1.0), y, slopes)
    expected = {-1: [0.2, 0.6], 0: [0.2, 0.4, 0.6, 0.8], 1: [0.4, 0.8]}[direction]
    expected = expected[: terminal or None]
    assert out.fired_t == pytest.approx(expected, abs=1e-13) and out.steps == 1
    assert out.status is (Status.TERMINATED if terminal else Status.SUCCESS)
    assert out.t == (out.fired_t[-1] if terminal else 1.0)


def test_events_of_several_functions_come_in_the_order_of_time():
    events = (CROSSES[0], Event(lambda t, y: np.sin(30.0 * t)), Event(lambda t, y: t - 0.5))
    y, slopes, _ = factored([0.3, 0.31, 0.9])
    out = solve(POLYNOMIAL, events, (0.0, 1.0), y, slopes)
    expected = sorted([(0.3, 0), (0.31, 0), (0.9, 0), (0.5, 2), *((k * math.pi / 30, 1) for k in range(1, 10))])
    assert out.fired_e.tolist() == [e for _, e in expected]
    assert out.fired_t == pytest.approx([t for t, _ in expected], abs=1e-12)


def test_the_bounces_of_a_ball_are_those_of_the_closed_form():
    out = solve(BALL, (FLOOR,), (0.0, 6.0), [1.0, 0.0], [9.81, 0.9], t_eval=None)
    fall = math.sqrt(2 / 9.81)
    flights = itertools.accumulate((2 * fall * 0.9**k for k in range(1, 60)), initial=fall)
    expected = [t for t in flights if t < 6.0]
    assert len(out.fired_t) == len(expected) == 11
    assert out.fired_t == pytest.approx(expected, rel=1e-14)
    speeds = [-9.81 * fall * 0.9**k for k in range(len(expected))]
    assert out.fired_y[:, 1] == pytest.approx(speeds, rel=2e-13)


@settings(max_examples=8)
@given(st.floats(-0.95, 0.95), st.floats(0.5, 5.0), st.booleans())
def test_python_and_machine_code_find_the_same_events(level, length, backward):
    span = (0.0, -length if backward else length)
    method = TaylorMethod(8)
    how = {"t_eval": None, "rtol": 1e-6, "atol": 1e-6}
    pairs = (
        (SWING.solver(method), event_kernels(SWING, PARITY, method)),
        (python_solver(SWING, method), python_events(SWING, PARITY, method)),
    )
    a, b = (run(solver, span, [0.0, 1.0], [level], events=kernels, **how) for solver, kernels in pairs)
    assert a.fired_e.tolist() == b.fired_e.tolist() and (a.steps, a.nfev) == (b.steps, b.nfev)
    assert a.fired_t == pytest.approx(b.fired_t, rel=1e-9, abs=1e-9)
    assert a.ts == pytest.approx(b.ts, rel=1e-9) and a.ys == pytest.approx(b.ys, abs=1e-8)


PARITY = (REACHES[0], Event(lambda t, y: np.abs(y[1]) - 0.3), Event(lambda t, y: np.sin(9.0 * t) * y[0]))


def test_members_in_lanes_find_what_each_finds_alone():
    levels = np.linspace(-0.99995, 0.99995, 19)
    span = (0.0, 20.0)
    them = odec.solve_ensemble(swing, span, [0.0, 1.0], {"level": levels}, batched="level", events=REACHES, **TAYLOR)
    for i in (0, 7, 18):
        alone = odec.solve(swing, span, [0.0, 1.0], {"level": levels[i]}, events=REACHES, **TAYLOR)
        assert len(alone.t_events[0]) in (6, 7)
        times = them.t_events[0][i]
        assert times[np.isfinite(times)] == pytest.approx(alone.t_events[0], abs=1e-9)


def test_states_with_names_have_series_too():
    @odec.dynamics
    def pair(t, y):
        return {"place": y["speed"], "speed": -y["place"]}

    event = Event(lambda t, y: y["place"][1] - 0.9999)
    start = {"place": np.array([1.0, 0.0]), "speed": np.array([0.0, 1.0])}
    sol = odec.solve(pair, (0.0, 3.0), start, events=event, **TAYLOR)
    half = math.acos(0.9999)
    assert sol.t_events[0] == pytest.approx([math.pi / 2 - half, math.pi / 2 + half], abs=1e-11)
    assert sol.y_events[0]["place"][:, 1] == pytest.approx([0.9999, 0.9999], abs=1e-14)


# ---- the series -----------------------------------------------------------------------------------------------------


@given(st.floats(0.1, 2.0), st.lists(st.floats(-1.0, 1.0), min_size=8, max_size=8))
def test_coefficients_along_a_curve_are_those_of_the_composition(t, numbers):
    k = np.reshape(numbers, (4, 2))
    functions = (
        lambda t, y: y[0] * y[1] - t**2, lambda t, y: np.sin(y[0] + t) / (3.0 + y[1]), lambda t, y: np.abs(y[0]),
        lambda t, y, level: y[0] ** 3 - level, lambda t, y: np.maximum(y[0], y[1]), lambda t, y: 1.0,
    )  # fmt: skip
    events = tuple(map(Event, functions))
    values = event_functions(SWING, events)["events"]
    (found,) = along(values, 3).evaluate(t, k, [0.5]).values()
    s = 1e-3 * np.arange(-2, 3)
    here = np.array([values.evaluate(t + x, x ** np.arange(4) @ k, [0.5])["values"] for x in s])
    by_s = np.polynomial.polynomial.polyvander(s, 3) @ found.T
    smooth = [0, 1, 3, 5]
    assert by_s[:, smooth] == pytest.approx(here[:, smooth], abs=1e-9)
    assert np.isnan(found[[2, 4]]).all()


def test_the_way_back_goes_through_steps_that_were_cut_short():
    """y = y0 exp(-r t); the event at t_k = k π / 60 does not move, its state does."""
    decay = odec.dynamics(lambda t, y, r=0.5: -r * y)
    event = Event(lambda t, y: np.sin(60.0 * t) * y[0])
    sol, pull = odec.solve_vjp(decay, (0.0, 2.0), [2.0], events=event, t_eval=[], **TAYLOR)
    times = math.pi / 60 * np.arange(1, 39)
    assert sol.stats["steps"] > 10 and sol.t_events[0] == pytest.approx(times, abs=1e-13)
    found = pull([[1.0]], None, [np.ones((38, 1))])
    assert found.y0 == pytest.approx([math.exp(-1.0) + np.exp(-0.5 * times).sum()], rel=1e-11)
    assert found.params[0] == pytest.approx(
        -4.0 * math.exp(-1.0) - 2.0 * (times * np.exp(-0.5 * times)).sum(), rel=1e-11
    )
