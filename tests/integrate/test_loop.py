"""The loop: Python and machine code give the same numbers, and every promise about steps is kept."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from targets import python_solver, run

import odec
from odec import Status
from odec.integrate import kept
from odec.integrate import run as runs
from odec.integrate import slots as at

METHODS = ("tsit5", "bs3", "rk38")


@odec.dynamics
def lotka(t, y, a=1.5, b=1.0):
    return [a * y[0] - b * y[0] * y[1], -3.0 * y[1] + y[0] * y[1] + 0.1 * np.sin(t)]


@odec.dynamics
def decay(t, y):
    return -y


LOTKA = lotka.bind([1.0, 1.0])
DECAY = decay.bind([1.0])


def compiled(system, method="tsit5"):
    return system.solver(method)


# ---- parity ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("span", [(0.0, 6.0), (6.0, 0.0), (-3.0, -1.0)])
def test_python_and_machine_code_take_the_same_steps(method, span):
    """The step sizes follow from the same formulas; only contraction to multiply-add differs. The first step
    is given: the error of a much too small one is all rounding, and so is the size of the next. An error estimate
    of 1e-9 of the state has seven digits, and so have the sizes that follow from it."""
    for t_eval in (None, np.linspace(*span, 23), ()):
        a = run(python_solver(LOTKA, method), span, [1.0, 1.2], [1.5, 1.0], t_eval=t_eval, first_step=0.05)
        b = run(compiled(LOTKA, method), span, [1.0, 1.2], [1.5, 1.0], t_eval=t_eval, first_step=0.05)
        assert (a.status, a.steps, a.rejected, a.nfev) == (b.status, b.steps, b.rejected, b.nfev)
        assert a.status is Status.SUCCESS
        assert a.ts == pytest.approx(b.ts, rel=1e-9, abs=1e-7)
        assert t_eval is None or a.ys == pytest.approx(b.ys, rel=1e-9)
        assert a.y == pytest.approx(b.y, rel=1e-9) and a.t == b.t == span[1]


@given(st.floats(0.5, 2.0), st.floats(0.5, 2.0), st.floats(-12.0, -3.0), st.floats(0.5, 4.0))
def test_python_and_machine_code_agree_for_any_problem(y0, a, digits, end):
    tolerance = 10.0**digits
    solvers = python_solver(LOTKA), compiled(LOTKA)
    one, two = (run(s, (0.0, end), [y0, 1.0], [a, 1.0], rtol=tolerance, atol=tolerance, t_eval=()) for s in solvers)
    assert one.status is two.status is Status.SUCCESS
    assert one.y == pytest.approx(two.y, rel=1e3 * tolerance + 1e-12)


# ---- rows ------------------------------------------------------------------------------------------------


def test_every_accepted_step_is_a_row():
    sol = odec.solve(lotka, (0.0, 5.0), [1.0, 1.0])
    assert len(sol.ts) == sol.stats["steps"] + 1
    assert sol.ts[0] == 0.0 and sol.ts[-1] == 5.0 and (np.diff(sol.ts) > 0).all()
    assert (sol.ys[0] == 1.0).all() and (sol.ys[-1] == sol.y1).all()
    backward = odec.solve(lotka, (5.0, 0.0), sol.y1)
    assert (np.diff(backward.ts) < 0).all() and backward.y1 == pytest.approx([1.0, 1.0], abs=1e-4)


def test_t_eval_keeps_the_asked_times_exactly_and_the_ends_bit_for_bit():
    every = odec.solve(lotka, (0.0, 5.0), [1.0, 1.0])
    times = [0.0, 0.0, 0.1, 1 / 3, 1 / 3, 1 / 3, 2.0, 5.0, 5.0]
    sol = odec.solve(lotka, (0.0, 5.0), [1.0, 1.0], t_eval=times)
    assert sol.ts.tolist() == times
    assert (sol.ys[0] == 1.0).all() and (sol.ys[1] == 1.0).all()
    assert (sol.ys[3] == sol.ys[4]).all() and (sol.ys[-1] == every.y1).all() and (sol.ys[-2] == every.y1).all()
    assert sol.stats["steps"] == every.stats["steps"]  # output does not steer the steps


def test_t_eval_backward_and_at_single_places():
    times = [5.0, 4.0, 4.0, 1.0, 0.25]
    sol = odec.solve(lotka, (5.0, 0.0), [1.0, 1.0], t_eval=times)
    assert sol.ts.tolist() == times
    for place in (5.0, 3.3, 0.0):
        one = odec.solve(lotka, (5.0, 0.0), [1.0, 1.0], t_eval=[place])
        assert one.ts.tolist() == [place] and one.ys.shape == (1, 2)
    assert (one.ys[0] == one.y1).all()


def test_t_eval_at_accepted_steps_gives_their_states():
    every = odec.solve(lotka, (0.0, 5.0), [1.0, 1.0], rtol=1e-8)
    sol = odec.solve(lotka, (0.0, 5.0), [1.0, 1.0], rtol=1e-8, t_eval=every.ts)
    assert sol.ys == pytest.approx(every.ys, rel=1e-14)


def test_empty_t_eval_gives_the_end_only():
    sol = odec.solve(lotka, (0.0, 5.0), [1.0, 1.0], t_eval=[])
    assert sol.ts.tolist() == [5.0] and sol.ys.shape == (1, 2) and (sol.ys[0] == sol.y1).all()


@given(st.lists(st.floats(0.0, 3.0), max_size=8), st.booleans())
def test_dense_output_is_as_good_as_the_solution(times, backward):
    span = (3.0, 0.0) if backward else (0.0, 3.0)
    times = sorted(times, reverse=backward)
    sol = odec.solve(decay, span, [np.exp(-span[0])], rtol=1e-8, atol=1e-10, t_eval=times or [1.0])
    assert sol.ys[:, 0] == pytest.approx(np.exp(-sol.ts), rel=3e-7)


def test_many_rows_take_the_memory_of_what_is_kept():
    small = odec.solve(decay, (0.0, 1.0), [1.0], max_step=1e-2)
    assert small.stats["steps"] >= 100
    tracemalloc.start()
    try:
        sol = odec.solve(decay, (0.0, 1.0), [1.0], max_step=1e-5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    kept = sol.ts.nbytes + sol.ys.nbytes
    assert 100_000 <= len(sol.ts) <= 100_002 and peak < 4 * kept
    assert (np.diff(sol.ts) > 0).all() and sol.ys[:, 0] == pytest.approx(np.exp(-sol.ts), rel=1e-9)


def test_max_steps_sizes_no_buffer():
    odec.solve(decay, (0.0, 1.0), [1.0])  # so that nothing is left to compile
    tracemalloc.start()
    try:
        odec.solve(decay, (0.0, 1.0), [1.0], max_steps=10**15)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


# ---- pauses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t_eval", [None, (), tuple(np.linspace(0.0, 5.0, 40))])
def test_pauses_and_small_chunks_change_no_bit(monkeypatch, t_eval):
    whole = run(compiled(LOTKA), (0.0, 5.0), [1.0, 1.0], [1.5, 1.0], t_eval=t_eval)
    monkeypatch.setattr(runs, "FIRST_PAUSE", 1)
    monkeypatch.setattr(kept, "FIRST_ROOM", 1)
    monkeypatch.setattr(kept, "DOUBLED", 0)
    monkeypatch.setattr(runs, "next_pause", lambda steps, seconds: 1)
    pieces = run(compiled(LOTKA), (0.0, 5.0), [1.0, 1.0], [1.5, 1.0], t_eval=t_eval)
    assert (whole.steps, whole.rejected, whole.nfev) == (pieces.steps, pieces.rejected, pieces.nfev)
    assert whole.ts.tobytes() == pieces.ts.tobytes() and whole.ys.tobytes() == pieces.ys.tobytes()
    assert whole.y.tobytes() == pieces.y.tobytes()


def test_same_inputs_give_the_same_bits():
    a, b = (odec.solve(lotka, (0.0, 5.0), [1.0, 1.0]) for _ in range(2))
    assert a.ts.tobytes() == b.ts.tobytes() and a.ys.tobytes() == b.ys.tobytes()


# ---- counts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["tsit5", "bs3", "dop853", "vern7"])
def test_nfev_is_the_number_of_evaluations(method):
    """Counted in the Python target: calls of the rhs kernel, and stages of each call of the step."""
    solver = python_solver(LOTKA, method)
    out = run(solver, (0.0, 8.0), [1.0, 4.0], [1.5, 1.0], rtol=1e-5, atol=1e-8)
    assert solver.kernel("advance").calls == out.steps + out.rejected and out.rejected > 0
    assert out.nfev == solver.rhs.calls + solver.method.evaluations * solver.kernel("advance").calls
    assert solver.rhs.calls == 2  # the slope at the start, and one trial for the first step size
    given_step = python_solver(LOTKA, method)
    run(given_step, (0.0, 1.0), [1.0, 4.0], [1.5, 1.0], first_step=0.01)
    assert given_step.rhs.calls == 1


def test_stats_name_what_happened():
    sol = odec.solve(lotka, (0.0, 5.0), [1.0, 1.0])
    assert set(sol.stats) == {"steps", "rejected", "nfev", "njev", "nlu", "compile_seconds", "solve_seconds"}
    assert sol.stats["njev"] == sol.stats["nlu"] == 0
    assert sol.stats["compile_seconds"] >= 0 and sol.stats["solve_seconds"] > 0


# ---- rejection ------------------------------------------------------------------------------------------------


def test_rejected_step_leaves_state_and_history_unchanged():
    """A step that the error refuses is tried again from the same t, y and slope, with a smaller h."""
    solver = python_solver(LOTKA)
    before = []
    inner = solver.kernel("advance").function

    def watched(now, task, y, p, slope, *rest):
        before.append((now[at.T], now[at.H], y.copy(), slope.copy()))
        inner(now, task, y, p, slope, *rest)

    solver.kernel("advance").function = watched
    out = run(solver, (0.0, 5.0), [1.0, 1.0], [1.5, 1.0], first_step=2.0)
    assert out.rejected > 0
    again = [(a, b) for a, b in itertools.pairwise(before) if a[0] == b[0]]
    assert len(again) == out.rejected
    for a, b in again:
        assert abs(b[1]) < abs(a[1]) and (a[2] == b[2]).all() and (a[3] == b[3]).all()


def test_step_after_a_rejection_does_not_grow():
    solver = python_solver(LOTKA)
    run(solver, (0.0, 5.0), [1.0, 1.0], [1.5, 1.0], first_step=2.0)
    tried = solver.kernel("advance").seen  # t and h of each try
    for (t0, h0), (t1, h1), (t2, h2) in zip(tried, tried[1:], tried[2:]):
        if t0 == t1 and t2 != t1 and t2 + 1.02 * h2 < 5.0:
            assert h1 < h0 and h2 <= h1 * (1 + 1e-12)


def test_a_non_finite_stage_rejects_the_step():
    """sqrt of a negative stage is nan: the step is tried smaller, and the solve reaches the end."""

    @odec.dynamics
    def draining(t, y):
        return [-np.sqrt(y[0])]

    sol = odec.solve(draining, (0.0, 1.9), [1.0], first_step=1.8)  # y = (1 - t/2)^2
    assert sol.stats["rejected"] > 0 and sol.y1[0] == pytest.approx(0.05**2, rel=1e-4)
    python = run(python_solver(draining.bind([1.0])), (0.0, 1.9), [1.0], first_step=1.8)
    assert python.rejected == sol.stats["rejected"]


def test_a_right_hand_side_that_ends_is_named_non_finite():
    @odec.dynamics
    def wall(t, y):
        return [np.log(1.0 - t) * y[0], 1.0]

    with pytest.raises(odec.SolveError) as raised:
        odec.solve(wall, (0.0, 2.0), [1.0, 0.0])
    partial = raised.value.solution
    assert partial.status is Status.NON_FINITE and 0.99 < partial.ts[-1] <= 1.0 and np.isfinite(partial.ys).all()
    message = str(raised.value)
    assert message.startswith("wall: ") and "non-finite" in message and "t = 1" in message and "y[0]" in message


def test_blow_up_in_finite_time_is_an_error_with_what_was_reached():
    @odec.dynamics(state=("calm", "wild"))
    def blow(t, y):
        return [-y[0], y[1] ** 2]

    with pytest.raises(odec.SolveError) as raised:
        odec.solve(blow, (0.0, 2.0), [1.0, 1.0])
    message, partial = str(raised.value), raised.value.solution
    assert partial.status in (Status.STEP_UNDERFLOW, Status.NON_FINITE)
    assert partial.ts[-1] == pytest.approx(1.0, abs=1e-5) and np.isfinite(partial.ys).all()
    assert message.startswith("blow: ") and "t = 1" in message and "wild" in message and "blow up" in message
    assert message == partial.message and not partial.success
    quiet = odec.solve(blow, (0.0, 2.0), [1.0, 1.0], throw=False)
    assert quiet.message == message and quiet.ts.tobytes() == partial.ts.tobytes()
    end = odec.solve(blow, (0.0, 2.0), [1.0, 1.0], throw=False, t_eval=[])
    assert end.ts.tolist() == [partial.ts[-1]] and (end.y1 == partial.y1).all()
    rows = odec.solve(blow, (0.0, 2.0), [1.0, 1.0], throw=False, t_eval=[0.0, 0.5, 1.5, 2.0])
    assert rows.ts.tolist() == [0.0, 0.5] and rows.ys.shape == (2, 2)


def test_overflow_to_infinity_is_never_a_success():
    """A constant slope leads past the largest double without one non-finite stage."""

    @odec.dynamics
    def ramp(t, y):
        return [1e306 + 0.0 * y[0], 0.0 * y[1] + 1.0]

    for t_eval in (None, [], [0.0, 1.0, 9.0]):
        sol = odec.solve(ramp, (0.0, 1000.0), [0.0, 0.0], throw=False, t_eval=t_eval)
        assert sol.status is Status.NON_FINITE and np.isfinite(sol.ys).all()
        assert "y[0]" in sol.message and sol.ts.shape == (len(sol.ys),)


def test_non_finite_at_the_start():
    @odec.dynamics
    def inverse(t, y):
        return [1.0, 1.0 / y[1]]

    sol = odec.solve(inverse, (0.0, 1.0), [1.0, 0.0], throw=False)
    assert sol.status is Status.NON_FINITE_START and sol.stats["steps"] == 0
    assert "y[1]" in sol.message and "y0" in sol.message and (sol.y1 == [1.0, 0.0]).all()
    with pytest.raises(odec.SolveError, match="not finite at the start"):
        odec.solve(inverse, (0.0, 1.0), [1.0, 0.0])


# ---- limits ------------------------------------------------------------------------------------------------


def test_step_limit_counts_every_try():
    for limit in (1, 2, 7, 300):
        sol = odec.solve(lotka, (0.0, 1e6), [1.0, 1.0], max_steps=limit, throw=False)
        assert sol.status is Status.STEP_LIMIT
        assert sol.stats["steps"] + sol.stats["rejected"] == limit
        assert "max_steps" in sol.message and f"{sol.stats['steps']:,} steps" in sol.message
        assert sol.ts[-1] < 1e6 and (sol.ys[-1] == sol.y1).all()


def test_enough_steps_for_exactly_the_end():
    need = odec.solve(lotka, (0.0, 5.0), [1.0, 1.0]).stats
    need = need["steps"] + need["rejected"]
    assert odec.solve(lotka, (0.0, 5.0), [1.0, 1.0], max_steps=need).success
    assert not odec.solve(lotka, (0.0, 5.0), [1.0, 1.0], max_steps=need - 1, throw=False).success


def test_min_step_stops_with_underflow():
    sol = odec.solve(lotka, (0.0, 5.0), [1.0, 1.0], rtol=1e-10, atol=1e-12, min_step=0.5, throw=False)
    assert sol.status is Status.STEP_UNDERFLOW and "min_step" in sol.message


def test_max_step_bounds_every_step():
    sol = odec.solve(decay, (0.0, 3.0), [1.0], max_step=0.01)
    assert np.diff(sol.ts).max() <= 0.01 * (1 + 1e-9)
    back = odec.solve(decay, (3.0, 0.0), [1.0], max_step=0.01)
    assert -np.diff(back.ts).min() <= 0.01 * (1 + 1e-9)
    coarse = odec.solve(decay, (0.0, 3.0), [1.0], max_step=100.0)
    assert coarse.ts.tolist() == odec.solve(decay, (0.0, 3.0), [1.0]).ts.tolist()


def test_first_step_is_taken():
    for span, sign in (((0.0, 5.0), 1), ((5.0, 0.0), -1)):
        sol = odec.solve(decay, span, [1.0], first_step=1e-3)
        assert sol.ts[1] - sol.ts[0] == pytest.approx(sign * 1e-3, rel=1e-9)
    assert odec.solve(decay, (0.0, 1e-3), [1.0], first_step=50.0).ts.tolist() == [0.0, 1e-3]


def test_fixed_steps_take_no_notice_of_tolerances():
    plain = odec.solve(lotka, (0.0, 1.0), [1.0, 1.0], method="rk4", first_step=0.1)
    given = odec.solve(lotka, (0.0, 1.0), [1.0, 1.0], method="rk4", first_step=0.1, rtol=[1e-9, 1.0], atol=[1.0, 1e-9])
    assert given.ys.tobytes() == plain.ys.tobytes() and len(plain.ts) == 11


def test_tiny_and_far_spans():
    tiny = odec.solve(decay, (0.0, 1e-300), [1.0])
    assert tiny.success and tiny.y1[0] == 1.0
    one = odec.solve(decay, (1.0, np.nextafter(1.0, 2.0)), [1.0])
    assert one.success and one.ts[-1] == np.nextafter(1.0, 2.0)
    far = odec.solve(decay, (1e9, 1e9 + 1.0), [1.0])
    assert far.y1[0] == pytest.approx(np.exp(-1.0), rel=1e-5)
    wide = odec.solve(odec.dynamics(lambda t, y: 0.0 * y), (-8e307, 8e307), [1.0])
    assert wide.success and wide.y1[0] == 1.0


def test_resting_at_a_large_time_starts_with_a_step_that_moves_time():
    """Time in milliseconds since 1970, and a state at rest: 1e-6 is less than the spacing of such doubles."""
    sol = odec.solve(odec.dynamics(lambda t, y: 1e-9 * (1.0 - y)), (1.7e12, 1.8e12), [1.0])
    assert sol.success and sol.y1[0] == 1.0


@pytest.mark.parametrize("y0", [0.0, 1e-300, 1e-30, 1e30, 1e300, -1e300])
@pytest.mark.parametrize("tolerances", [(1e-6, 1e-9), (1e-300, 1e-300), (1e-12, 1e-300), (1e-6, 1e300)])
def test_states_and_tolerances_of_any_size_end_soon(y0, tolerances):
    """Whatever overflows in a norm, the step size stays a number: steps are taken, and fail only for
    tolerances that no double can meet."""
    rtol, atol = tolerances
    sol = odec.solve(decay, (0.0, 1.0), [y0], rtol=rtol, atol=atol, max_steps=20_000, throw=False)
    assert sol.stats["rejected"] < 1000 and (sol.success or rtol < 1e-100)
    if sol.success:
        assert sol.y1[0] == pytest.approx(y0 * np.exp(-1.0), rel=1e-3, abs=atol)


# ---- tolerances ------------------------------------------------------------------------------------------------


def test_tolerances_by_component():
    exact = odec.solve(lotka, (0.0, 5.0), [1.0, 1.0], rtol=1e-12, atol=1e-13).y1
    same = odec.solve(lotka, (0.0, 5.0), [1.0, 1.0], rtol=[1e-6, 1e-6], atol=np.array([1e-9, 1e-9]))
    assert same.ts.tolist() == odec.solve(lotka, (0.0, 5.0), [1.0, 1.0]).ts.tolist()
    loose = odec.solve(lotka, (0.0, 5.0), [1.0, 1.0], rtol=1e-3, atol=[1.0, 1e-6])
    tight = odec.solve(lotka, (0.0, 5.0), [1.0, 1.0], rtol=[1e-3, 1e-9], atol=[1.0, 1e-9])
    assert tight.stats["steps"] > 1.5 * loose.stats["steps"]
    assert abs(tight.y1 - exact)[1] < abs(loose.y1 - exact)[1]


def test_error_falls_with_the_tolerance():
    errors = []
    for digits in range(3, 12):
        sol = odec.solve(decay, (0.0, 3.0), [1.0], rtol=10.0**-digits, atol=10.0**-digits)
        errors.append(abs(sol.y1[0] - np.exp(-3.0)))
        assert errors[-1] < 20 * 10.0**-digits
    assert np.polyfit(range(3, 12), np.log10(errors), 1)[0] < -0.8
