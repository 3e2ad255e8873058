"""Events in the loop: found once each, in order, at the roots of the dense output, in Python and machine code alike."""

import itertools
import math

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from targets import python_events, python_solver, run

import odec
from odec import Event, Status
from odec.event import event_kernels
from odec.integrate import kept
from odec.integrate import run as runs

SHIFTS = (0.0, 1e6, -1e6)  # where in time a solve starts
METHODS = {"tsit5": {}, "dop853": {}, "vern9": {}, "rk4": {"first_step": 0.1}}


@odec.dynamics
def swing(t, y, level=0.0, start=0.0):
    return [y[1], -y[0]]


@odec.dynamics
def ball(t, y, g=9.81, kept=0.9):
    return [y[1], -g]


SWING = swing.bind([0.0, 1.0])
BALL = ball.bind([1.0, 0.0])
REACHES = (Event(lambda t, y, level: y[0] - level),)
WATCHED = (
    Event(lambda t, y: y[0], direction=-1, reset=lambda t, y, kept: [0.0, -kept * y[1]]),
    Event(lambda t, y: y[1]),
    Event(lambda t, y: np.sin(3.0 * t)),
)


def compiled(system, events, method="tsit5"):
    return system.solver(method), event_kernels(system, events)


def in_python(system, events, method="tsit5"):
    return python_solver(system, method), python_events(system, events)


def solve(pair, span, y, p, **how):
    return run(pair[0], span, y, p, events=pair[1], **how)


def root_of_step(out, when, level):
    """The root near `when` of y[0] - level on the polynomial of the step that holds it, to 40 digits."""
    dense = out.dense
    ahead = np.sign(dense.sizes[0])
    with mpmath.workdps(40):
        step = max(int(np.searchsorted(ahead * dense.starts, ahead * when, side="left")) - 1, 0)
        start, size = mpmath.mpf(float(dense.starts[step])), mpmath.mpf(float(dense.sizes[step]))
        rows = [mpmath.mpf(float(r)) for r in dense.rows[step, :, 0]]

        def height(t):
            theta = (t - start) / size
            inner = sum(q * (2 * theta - 1) ** m for m, q in enumerate(rows[2:]))
            return rows[0] + theta * (rows[1] + (1 - theta) * inner) - mpmath.mpf(float(level))

        root = mpmath.findroot(height, (mpmath.mpf(float(when)), mpmath.mpf(float(when)) + size * mpmath.mpf("1e-6")))
        return float(root - mpmath.mpf(float(when)))


# ---- where ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@given(st.floats(-0.9, 0.9), st.sampled_from(SHIFTS), st.sampled_from((1.0, -1.0)))
@example(0.0, 0.0, 1.0)
def test_events_are_roots_of_the_dense_output_to_four_spacings(method, level, shift, ahead):
    """Beside the spacing of t, what rounding of the state, 4e-16 of 1 a few times, moves a root by at this slope."""
    pair = compiled(SWING, REACHES, method)
    span = (shift, shift + 9.0 * ahead)
    out = solve(pair, span, [0.0, 1.0], [level, shift], rtol=1e-8, atol=1e-8, dense=True, t_eval=(), **METHODS[method])
    exact = sorted(_crossings(level, ahead))
    assert out.fired_t == pytest.approx([shift + ahead * t for t in exact], abs=2e-4 if method == "rk4" else 1e-5)
    for when, state in zip(out.fired_t, out.fired_y, strict=True):
        allowed = 4 * np.spacing(abs(when)) + 2e-15 / math.sqrt(1 - level**2)
        assert abs(root_of_step(out, when, level)) <= allowed
        assert state[0] == pytest.approx(level, abs=2e-15)  # the state is that of the root, however large t is


def _crossings(level, ahead):
    """Where ahead * sin(t) crosses the level for t in (0, 9)."""
    turn = math.asin(ahead * level)
    near = [turn + 2 * math.pi * k for k in range(-1, 3)] + [math.pi - turn + 2 * math.pi * k for k in range(-1, 3)]
    return [t for t in near if 0.0 < t < 9.0]


@given(st.floats(1e-12, 1e-2))
def test_events_near_time_zero_keep_their_digits(level):
    """y = sin(t) reaches a tiny level at a tiny time, which has digits of its own."""
    out = solve(compiled(SWING, REACHES), (0.0, 1.0), [0.0, 1.0], [level, 0.0], t_eval=(), first_step=0.1)
    assert out.fired_t.tolist() == pytest.approx([math.asin(level)], rel=1e-5)
    assert out.fired_y[0, 0] == pytest.approx(level, rel=1e-12)


# ---- parity ------------------------------------------------------------------------------------------------------


@given(st.floats(0.2, 2.0), st.floats(0.0, 3.0), st.floats(0.85, 1.0), st.booleans())
def test_python_and_machine_code_find_the_same_events(height, speed, kept_, rows):
    pairs = compiled(BALL, WATCHED), in_python(BALL, WATCHED)
    how = {"t_eval": None if rows else (), "first_step": 0.01}
    a, b = (solve(pair, (0.0, 2.0), [height, speed], [9.81, kept_], **how) for pair in pairs)
    assert a.status is b.status is Status.SUCCESS and len(a.fired_e) > 2
    assert (a.fired_e == b.fired_e).all() and (a.steps, a.rejected, a.nfev) == (b.steps, b.rejected, b.nfev)
    assert a.fired_t == pytest.approx(b.fired_t, rel=1e-9) and a.fired_y == pytest.approx(b.fired_y, abs=1e-8)
    assert a.ts == pytest.approx(b.ts, rel=1e-9) and a.ys == pytest.approx(b.ys, abs=1e-8)


@given(st.floats(0.3, 2.0), st.floats(0.8, 0.95))
@example(1.0, 0.9)
def test_bounces_are_those_of_the_closed_form_in_python_too(height, kept_):
    solver = in_python(BALL, WATCHED[:1])
    out = solve(solver, (0.0, 1.5), [height, 0.0], [9.81, kept_], t_eval=())
    assert out.fired_t == pytest.approx([t for t in _bounces(height, kept_, 9.81) if t < 1.5], rel=1e-9)
    assert solver[1].resets[0].calls == len(out.fired_t)


def _bounces(height, kept_, g):
    """Times at which a ball dropped from a height meets the floor."""
    fall = math.sqrt(2 * height / g)
    flights = (2 * fall * kept_**k for k in itertools.count(1))
    return list(itertools.accumulate(itertools.islice(flights, 60), initial=fall))


@pytest.mark.parametrize("t_eval", [None, (), tuple(np.linspace(0.0, 6.0, 40))])
@pytest.mark.parametrize("dense", [False, True])
def test_pauses_and_small_rooms_change_no_bit(monkeypatch, t_eval, dense):
    how = {"t_eval": t_eval, "dense": dense}
    whole = solve(compiled(BALL, WATCHED), (0.0, 6.0), [1.0, 0.0], [9.81, 0.9], **how)
    monkeypatch.setattr(runs, "FIRST_PAUSE", 1)
    monkeypatch.setattr(kept, "FIRST_ROOM", 1)
    monkeypatch.setattr(kept, "DOUBLED", 0)
    monkeypatch.setattr(runs, "next_pause", lambda steps, seconds: 1)
    pieces = solve(compiled(BALL, WATCHED), (0.0, 6.0), [1.0, 0.0], [9.81, 0.9], **how)
    assert (whole.steps, whole.rejected, whole.nfev) == (pieces.steps, pieces.rejected, pieces.nfev)
    for name in ("ts", "ys", "y", "fired_t", "fired_e", "fired_y"):
        assert getattr(whole, name).tobytes() == getattr(pieces, name).tobytes()
    if dense:
        assert whole.dense.rows.tobytes() == pieces.dense.rows.tobytes()
        assert whole.dense.jumps.tolist() == whole.fired_t[whole.fired_e == 0].tolist()


# ---- stops -------------------------------------------------------------------------------------------------------

FORMS = {
    "<": lambda t: np.where(t < 1.0, 0.0, 1e9),
    "<=": lambda t: np.where(t <= 1.0, 0.0, 1e9),
    "< 0": lambda t: np.where(t - 1.0 < 0, 0.0, 1e9),
}


@pytest.mark.parametrize("method", ["tsit5", "dop853", "vern9", "rk4", "bs3"])
@pytest.mark.parametrize("form", FORMS)
def test_no_stage_sees_the_other_side_of_a_stop(method, form):
    """A slope of 1e9 from the stop on: one stage on the wrong side, or one step across, would show in the state."""
    step = odec.dynamics(lambda t, y: FORMS[form](t) + 0.0 * y)
    how = {"method": method, "tstops": [1.0], "t_eval": [0.5, 1.0, 2.0], "throw": False}
    how |= {"first_step": 0.07} if method == "rk4" else {}
    up = odec.solve(step, (0.0, 2.0), [0.0], **how)
    assert up.ys[:2, 0].tolist() == [0.0, 0.0] and up.ys[2, 0] == pytest.approx(1e9, rel=1e-14)
    down = odec.solve(step, (2.0, 0.0), [0.0], **how | {"t_eval": [1.0, 0.5, 0.0]})
    assert down.ys[0, 0] == pytest.approx(-1e9, rel=1e-14) and down.ys[1, 0] == down.ys[2, 0] == down.ys[0, 0]
    assert up.stats["rejected"] == down.stats["rejected"] == 0


@given(st.floats(-3.0, 3.0), st.floats(0.01, 2.0), st.booleans())
@example(0.0, 1.0, False)
@example(0.0, 1.0, True)
@example(1e-17, 1.0, False)
@example(3.0, 0.01171875, True)
def test_stops_anywhere_split_the_solve(at, length, backward):
    """y' = 1 before the stop, 1e6 after it, true to some spacings of t; zero is a time like any other."""
    ahead = -1.0 if backward else 1.0
    span = (at - ahead * length, at + ahead * length)
    sol = odec.solve(KINK, span, [0.0], params=(at,), tstops=[at], t_eval=[at, span[1]])
    before, after = (1e6, 1.0) if backward else (1.0, 1e6)
    some = 1e6 * 8 * np.spacing(max(abs(at), length))
    assert sol.ys[0, 0] == pytest.approx(ahead * before * length, rel=1e-14, abs=min(before * 1e-6, 1.0) * some)
    assert sol.ys[1, 0] == pytest.approx(ahead * (before + after) * length, rel=1e-14, abs=some)


@odec.dynamics
def kinked(t, y, at):
    return np.where(t < at, 1.0, 1e6) + 0.0 * y


KINK = kinked.bind([0.0], params=(0.0,))


def test_stops_are_sorted_and_counted_once_and_the_ends_do_nothing():
    plain = odec.solve(KINK, (0.0, 2.0), [0.0], params=(1.0,), tstops=[1.0])
    same = odec.solve(KINK, (0.0, 2.0), [0.0], params=(1.0,), tstops=[1.0, 2.0, 0.0, 1.0, np.nextafter(1.0, 2.0)])
    assert same.ts.tolist() == plain.ts.tolist() and 1.0 in plain.ts.tolist()
    several = odec.solve(KINK, (0.0, 2.0), [0.0], params=(1.0,), tstops=[1.5, 0.25, 1.0])
    assert {0.25, 1.0, 1.5} <= set(several.ts.tolist()) and several.y1 == pytest.approx(plain.y1)
    for outside in (-0.5, 2.5, np.nan, np.inf):
        with pytest.raises(odec.ArgumentError, match="tstops"):
            odec.solve(KINK, (0.0, 2.0), [0.0], params=(1.0,), tstops=[1.0, outside])


def test_stops_give_pulses_their_full_accuracy():
    """Doses for a tenth of a second every second, on a decaying state."""
    edges = np.sort(np.concatenate([np.arange(10.0), np.arange(10.0) + 0.1]))
    dosed = odec.dynamics(lambda t, y: np.where(t - np.floor(t) < 0.1, 10.0, 0.0) - y)
    how = {"rtol": 1e-10, "atol": 1e-12, "t_eval": []}
    with_stops = odec.solve(dosed, (0.0, 10.0), [0.0], tstops=edges, **how)
    without = odec.solve(dosed, (0.0, 10.0), [0.0], throw=False, **how)
    grown = 10 * (1 - math.exp(-0.1)) * math.exp(-0.9)  # of one pulse, at the end of its second
    exact = grown * sum(math.exp(-k) for k in range(10))
    assert with_stops.y1[0] == pytest.approx(exact, rel=1e-9)
    assert with_stops.stats["rejected"] <= 3 * len(edges) < 0.5 * without.stats["rejected"], without.stats
    assert with_stops.stats["nfev"] < 0.5 * without.stats["nfev"]
