"""Batches in lanes and threads: every member's numbers are its own, whoever its neighbours are."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from targets import Counted, python_kernel

import odec
from odec import Status
from odec.event import event_kernels, event_list
from odec.integrate import ensemble
from odec.integrate.advance import advance_function
from odec.integrate.batch import Batch
from odec.integrate.ensemble import run_batch
from odec.integrate.problem import Problem
from odec.integrate.run import Solver
from odec.steppers.methods import method_named
from odec.steppers.step import dense_function


@odec.dynamics
def lotka(t, y, a=1.5, b=1.0):
    return [a * y[0] - b * y[0] * y[1], -3.0 * y[1] + y[0] * y[1] + 0.1 * np.sin(t)]


@odec.dynamics
def rational(t, y, a=1.5, b=1.0):
    """No function of the library in it, so that lanes and scalars compute the same."""
    return [a * y[0] - b * y[0] * y[1], -3.0 * y[1] + y[0] * y[1] / (1.0 + 0.1 * t)]


LOTKA, RATIONAL = (model.bind(np.ones(2), (1.5, 1.0)) for model in (lotka, rational))
SIZE = 29  # neither a multiple of lanes nor less than them


def batch_of(size=SIZE, t_eval=(), seed=1, **how):
    """Members of different states, parameters, spans."""
    rng = np.random.default_rng(seed)
    given = {"rtol": 1e-6, "atol": 1e-9, "max_steps": 10_000} | how
    problem = Problem((0.0, 4.0), np.ones(2), np.array([1.5, 1.0]), t_eval=np.array(t_eval, float), **given)
    return Batch(
        problem, size, begins=np.zeros(size), ends=rng.uniform(1.0, 6.0, size), states=rng.uniform(0.5, 3.0, (size, 2)),
        parameters=rng.uniform(0.5, 2.0, (size, 1)), columns=np.array([1]),
    )  # fmt: skip


def arrays(found):
    parts = [found.t1, found.y1, found.status, found.steps, found.rejected, found.nfev, found.ys]
    return [*parts, found.fired.member, found.fired.event, found.fired.t, found.fired.y]


def same_bits(a, b):
    return all(x.tobytes() == y.tobytes() for x, y in zip(arrays(a), arrays(b), strict=True))


def chosen(batch, order):
    """The members of a batch in another order."""
    names = ("begins", "ends", "states", "parameters", "times")
    parts = {name: getattr(batch, name) for name in names}
    return replace(batch, size=len(order), **{n: a if a is None else a[order] for n, a in parts.items()})


BOUNCE = [
    odec.Event(lambda t, y: y[0] - 1.5, reset=lambda t, y, a, b: ([y[0], 0.9 * y[1]], (a, b * 1.01))),
    odec.Event(lambda t, y: y[1] - 5.0, terminal=True),
    odec.Event(lambda t, y: np.sin(3.0 * t)),
]
TIMES = np.linspace(0.0, 1.0, 7)


def with_events(batch):
    kernels = event_kernels(LOTKA, event_list(BOUNCE))
    return replace(batch, problem=replace(batch.problem, events=kernels))


KINDS = {
    "ends": batch_of(), "rows": batch_of(t_eval=TIMES), "stops": batch_of(t_eval=TIMES, tstops=(0.3, 0.7)),
    "events": with_events(batch_of(t_eval=TIMES)),
}  # fmt: skip
every_kind = pytest.mark.parametrize("kind", KINDS)


# ---- no number depends on who else runs ------------------------------------------------------------------------


@every_kind
def test_threads_rounds_and_pauses_change_no_bit(kind, monkeypatch):
    solver, batch = LOTKA.solver("tsit5"), KINDS[kind]
    usual = run_batch(solver, batch, threads=1)
    assert same_bits(usual, run_batch(solver, batch, threads=2))
    assert same_bits(usual, run_batch(solver, batch, threads=3))
    monkeypatch.setattr(ensemble, "ROUND", 10)
    monkeypatch.setattr(ensemble, "FIRST_PAUSE", 3)
    monkeypatch.setattr(ensemble, "next_pause", lambda steps, seconds: 2)
    monkeypatch.setattr(ensemble, "FIRED_ROOM", 1)
    assert same_bits(usual, run_batch(solver, batch, threads=2))


@every_kind
@given(st.permutations(range(SIZE)))
def test_neighbours_change_no_bit(kind, order):
    solver, batch = LOTKA.solver("tsit5"), replace(KINDS[kind])
    usual, order = run_batch(solver, batch, threads=1), np.array(order[: SIZE - 3])
    found = run_batch(solver, chosen(batch, order), threads=1)
    for a, b in zip(arrays(usual)[:7], arrays(found)[:7], strict=True):
        assert a[order].tobytes() == b.tobytes()
    for place, member in enumerate(order):
        mine, theirs = found.fired.member == place, usual.fired.member == member
        assert (found.fired.t[mine] == usual.fired.t[theirs]).all()


def test_parts_of_a_batch_give_what_the_whole_gives():
    solver, batch = LOTKA.solver("tsit5"), KINDS["rows"]
    whole, first, rest = (run_batch(solver, b, 1) for b in (batch, batch.part(0, 11), batch.part(11, SIZE)))
    for a, b, c in zip(arrays(whole)[:7], arrays(first)[:7], arrays(rest)[:7], strict=True):
        assert a.tobytes() == np.concatenate([b, c]).tobytes()


# ---- lanes are solves --------------------------------------------------------------------------------------------


def check_members(system, method, batch, lanes=None, rel=1e-9):
    solver = system.solver(method)
    found = run_batch(solver, batch, 1, lanes=lanes)
    for i in range(batch.size):
        problem = batch.member(i)
        alone = solver.run(problem)
        assert found.status[i] == alone.status
        assert abs(found.steps[i] - alone.steps) <= 1 and abs(found.rejected[i] - alone.rejected) <= 1
        if (found.steps[i], found.rejected[i]) == (alone.steps, alone.rejected):
            assert found.nfev[i] == alone.nfev
        assert found.y1[i] == pytest.approx(alone.y, rel=rel, abs=rel)
        assert found.t1[i] == pytest.approx(alone.t, rel=1e-12)
        if not problem.keeps_end_only:
            assert found.ys[i][: len(alone.ys)] == pytest.approx(alone.ys, rel=rel, abs=rel)
            assert np.isnan(found.ys[i][len(alone.ys) :]).all()
        if alone.fired_t is not None:
            mine = found.fired.member == i
            assert found.fired.event[mine].tolist() == alone.fired_e.tolist()
            assert found.fired.t[mine] == pytest.approx(alone.fired_t, rel=1e-9, abs=1e-9)
    return found


@pytest.mark.parametrize("method", [m.name for m in odec.methods() if m.family == "explicit Runge-Kutta"])
def test_every_method_runs_in_lanes(method):
    how = {} if method_named(method).adaptive else {"first_step": 0.01}
    check_members(RATIONAL, method, batch_of(11, TIMES, rtol=1e-4, atol=1e-6, **how), rel=1e-6)


@every_kind
def test_lanes_are_solves(kind):
    found = check_members(LOTKA, "tsit5", KINDS[kind], rel=1e-8)
    assert (kind == "events") == bool(len(found.fired.t))


@pytest.mark.parametrize("lanes", [1, 2, 4, 16])
def test_any_number_of_lanes(lanes):
    check_members(RATIONAL, "dopri5", KINDS["rows"], lanes)


@pytest.mark.parametrize("lanes", [1, 4, 8])
@pytest.mark.parametrize("method", ["tsit5", "dop853", "taylor", "rk4"])
@given(st.lists(st.tuples(*[st.floats(0.5, 3.0)] * 2, st.floats(0.0, 6.0)), min_size=1, max_size=11), st.booleans())
def test_a_member_is_evaluated_as_often_as_alone(method, lanes, members, kept):
    given, size = np.array(members), None if method_named(method).adaptive else 0.05
    batch = batch_of(len(given), TIMES if kept else (), tstops=(0.3, 0.7), first_step=size)
    batch = replace(batch, states=given[:, :2], ends=given[:, 2], parameters=given[:, 1:2] / 2)
    solver = RATIONAL.solver(method)
    found = run_batch(solver, batch, 1, lanes=lanes)
    assert found.nfev.dtype == np.int64
    assert found.nfev.tolist() == [solver.run(batch.member(i)).nfev for i in range(batch.size)]


def test_single_precision():
    system = rational.bind(np.ones(2, np.float32), (1.5, 1.0))
    wide = batch_of(t_eval=TIMES, rtol=1e-4, atol=1e-5)
    problem = replace(wide.problem, y=np.ones(2, np.float32), p=np.array([1.5, 1.0], np.float32))
    narrow = replace(wide, problem=problem, states=wide.states.astype("f4"), parameters=wide.parameters.astype("f4"))
    found = check_members(system, "tsit5", narrow, rel=2e-3)
    assert found.y1.dtype == found.ys.dtype == np.float32


def test_members_have_their_own_times():
    batch = batch_of()
    times = np.sort(np.random.default_rng(2).uniform(0.0, 1.0, (SIZE, 5)), axis=1) * batch.ends[:, None]
    times[3, 2:], times[4, :], times[5, 0], times[6, -1] = np.nan, np.nan, 0.0, batch.ends[6]
    found = check_members(LOTKA, "tsit5", replace(batch, times=times), rel=1e-8)
    assert np.isnan(found.ys[3, 2:]).all() and np.isnan(found.ys[4]).all()
    assert (found.ys[5, 0] == batch.states[5]).all() and (found.ys[6, -1] == found.y1[6]).all()


def test_members_that_end_where_they_begin_are_done():
    batch = batch_of(t_eval=(0.0,))
    batch.ends[::2] = 0.0
    found = run_batch(LOTKA.solver("tsit5"), batch, 1)
    assert (found.status == Status.SUCCESS).all() and (found.y1[::2] == batch.states[::2]).all()
    assert (found.steps[::2] == 0).all() and (found.ys[:, 0] == batch.states).all()


def test_backward():
    batch = batch_of()
    check_members(LOTKA, "tsit5", replace(batch, ends=-batch.ends * 0.2, problem=replace(batch.problem, span=(0, -1))))


# ---- failures ------------------------------------------------------------------------------------------------------


@odec.dynamics
def perilous(t, y, kind=0.0):
    """kind 0: fine; 1: nan after t = 1; 2: nan at once; 3: blows up; 4: takes many steps."""
    bad = np.where(kind == 1.0, np.sqrt(1.0 - t), np.where(kind == 2.0, np.log(-y[0]), 1.0))
    return [np.where(kind == 3.0, y[0] * y[0], np.where(kind == 4.0, np.cos(3e4 * t) * 3e4, -y[0])) * bad / bad]


def test_each_member_has_its_own_status_and_the_others_go_on():
    system, kinds = perilous.bind([1.0], (0.0,)), np.arange(40) % 5
    problem = Problem((0.0, 2.0), np.ones(1), np.zeros(1), t_eval=np.array([0.5, 1.5]), max_steps=500)
    batch = Batch(problem, 40, parameters=kinds[:, None].astype(float), columns=np.array([0]))
    found = run_batch(system.solver("tsit5"), batch, 2)
    expected = np.array([Status.SUCCESS, Status.NON_FINITE, Status.NON_FINITE_START, -1, Status.STEP_LIMIT])[kinds]
    blown = kinds == 3
    assert (found.status[~blown] == expected[~blown]).all()
    assert set(found.status[blown]) <= {Status.STEP_UNDERFLOW, Status.NON_FINITE, Status.STEP_LIMIT}
    fine = kinds == 0
    assert found.y1[fine, 0] == pytest.approx(np.exp(-2.0), rel=1e-4) and not np.isnan(found.ys[fine]).any()
    assert not np.isnan(found.ys[kinds == 1, 0]).any() and np.isnan(found.ys[kinds == 1, 1]).all()
    assert found.t1[kinds == 1] == pytest.approx(1.0, abs=1e-3) and found.t1[blown] == pytest.approx(1.0, abs=1e-3)
    assert (found.steps + found.rejected)[kinds == 4].tolist() == [500] * 8
    assert (found.nfev[kinds == 2] == 1).all()  # the slope at the start


# ---- the text of the loop ------------------------------------------------------------------------------------------


class Wide:
    """A kernel of so many lanes from one that takes one: lane by lane."""

    def __init__(self, function, inputs, shared, lanes):
        self.function, self.lanes = function, lanes
        self.shared = [name in shared for name in inputs]

    def __call__(self, *buffers):
        *arguments, _ = buffers
        self.shared += [False] * (len(arguments) - len(self.shared))
        for lane in range(self.lanes):
            parts = [a if s else a[: a.size // self.lanes * self.lanes][lane :: self.lanes].copy()
                     for a, s in zip(arguments, self.shared, strict=True)]  # fmt: skip
            parts = [a if s else p for a, p, s in zip(arguments, parts, self.shared, strict=True)]
            self.function(*parts)
            for a, p, s in zip(arguments, parts, self.shared, strict=True):
                if not s:
                    a[: p.size * self.lanes][lane :: self.lanes] = p


def python_lanes(system, method, lanes):
    """The loop for several lanes, and its kernels, as plain Python."""
    record = method_named(method)
    graphs = {"advance": advance_function(system.graph, record), "dense": dense_function(system.graph, record)}

    def make(name, lanes, shared, keeps, tapes):
        function = graphs[name]
        sizes = {n: node.size for n, node in (function.inputs | function.outputs).items()}
        return Sized(Wide(python_kernel(function, name), sizes, shared, lanes), list(sizes.values()), shared, sizes)

    rhs = Counted(python_kernel(system.graph, "rhs"))
    sizes = system.y_structure.size, system.p_structure.size
    return Solver(rhs, make, record, sizes, system.dtype, lanes, python=True)


class Sized:
    """A kernel that is given buffers which go on behind what it reads: cut to size."""

    def __init__(self, kernel, sizes, shared, names):
        self.kernel = kernel
        self.sizes = [s * (1 if n in shared else kernel.lanes) for n, s in zip(names, sizes, strict=True)]

    def __call__(self, *buffers):
        *arguments, work = buffers
        self.kernel(*(a[:s] for a, s in zip(arguments, self.sizes, strict=True)), work)


@pytest.mark.parametrize("method", ["tsit5", "bs3"])
def test_python_and_machine_code_agree_in_lanes(method):
    batch = batch_of(6, (0.25, 0.5), rtol=1e-4, atol=1e-6)
    batch.ends[:] = np.linspace(0.5, 1.0, 6)
    text, code = (run_batch(s, batch, 1, lanes=4) for s in (python_lanes(RATIONAL, method, 4), RATIONAL.solver(method)))
    assert (text.status == Status.SUCCESS).all() and text.steps.tolist() == code.steps.tolist()
    assert text.nfev.tolist() == code.nfev.tolist()
    assert text.y1 == pytest.approx(code.y1, rel=1e-12) and text.ys == pytest.approx(code.ys, rel=1e-12)


# ---- what it costs -------------------------------------------------------------------------------------------------


def test_lanes_are_in_use():
    found = run_batch(RATIONAL.solver("tsit5"), batch_of(2_000), 1)
    assert int((found.steps + found.rejected).sum()) / found.slots > 0.95


def test_progress_is_told():
    told = []
    run_batch(RATIONAL.solver("tsit5"), batch_of(200), 2, reached=told.append)
    assert told[-1] == 200 and told == sorted(told)
