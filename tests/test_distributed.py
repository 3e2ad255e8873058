"""Ensembles over executors: chunks, what travels, results that are those of one process to the bit."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import odec
from odec import job as jobs
from odec.chunks import AHEAD, INPUT_BYTES, LEAST, OUTPUT_BYTES, Chunks, EvenChunks, even_length, most_members
from odec.distributed import run_scattered
from odec.event import event_kernels
from odec.integrate.batch import Batch
from odec.integrate.ensemble import run_batch
from odec.integrate.problem import Problem
from odec.integrate.reductions import block_size, combined
from odec.job import Job, Packed
from odec.steppers.methods import method_named

TSIT5 = method_named("tsit5")


def oscillator(t, y, rate, damping=0.1):
    return [y[1], -rate * np.sin(y[0]) - damping * y[1]]


SYSTEM = odec.dynamics(oscillator).bind(np.ones(2), (1.0, 0.1))


def batch_of(size=100, rows=5, events=(), system=SYSTEM, **arrays):
    """Members of the oscillator with rates from 1 to 30."""
    times = np.linspace(0.0, 3.0, rows) if rows else np.empty(0)
    problem = Problem((0.0, 3.0), np.ones(2, system.dtype), np.array([1.0, 0.1], system.dtype), t_eval=times)
    problem.events = event_kernels(system, events) if events else None
    rates = np.linspace(1.0, 30.0, size, dtype=system.dtype)[:, None]
    return Batch(problem, size, parameters=rates, columns=np.array([0]), **arrays)


def scattered(executor, batch, events=(), reduce=(), reached=None, system=SYSTEM, record=TSIT5, **where):
    return run_scattered(system, record, batch, events, reduce, executor, reached, **where)


def local(batch, reduce=(), system=SYSTEM, record=TSIT5):
    return run_batch(system.solver(record), batch, 1, reduce)


def assert_same(found, expected):
    """Every array equal to the bit."""
    for name in ("t1", "y1", "status", "steps", "rejected", "nfev", "ys"):
        a, b = getattr(found, name), getattr(expected, name)
        assert (a is None and b is None) or (a.dtype == b.dtype and a.tobytes() == b.tobytes()), name
    for name in ("member", "event", "t", "y"):
        assert getattr(found.fired, name).tobytes() == getattr(expected.fired, name).tobytes(), name


@pytest.fixture(scope="module")
def spawned():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as executor:
        yield executor


# ---- chunks ---------------------------------------------------------------------------------------------------

SIZES, LENGTHS = st.integers(1, 100_000), st.integers(1, 5_000)


@given(
    SIZES, LENGTHS, st.sampled_from([1, 64, 512]), st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=20),
    st.lists(st.integers(1, 100), min_size=1, max_size=5), st.integers(0, 7),
)  # fmt: skip
def test_chunks_cover_all_members_once_in_order_within_their_bounds(size, most, block, costs, workers, late):
    plan, at, count, running = Chunks(size, most, block), 0, 0, []
    while span := plan.after(workers[count % len(workers)]):
        assert span[0] == at < span[1] <= size and span[0] % block == 0
        assert span[1] - span[0] <= max(most, block) and ((span[1] - span[0]) % block == 0 or span[1] == size)
        at, count = span[1], count + 1
        running.append((span[1] - span[0], costs[count % len(costs)]))
        if len(running) > late:
            members, cost = running.pop(0)
            plan.ended(members, members * cost)
    assert at == size and plan.after(1) is None


def test_chunks_grow_to_a_second_and_shrink_towards_the_end():
    plan, lengths = Chunks(100_000, 1 << 30), []
    while span := plan.after(2):
        lengths.append(span[1] - span[0])
        plan.ended(lengths[-1], lengths[-1] * 1e-4)
    assert lengths[:5] == [8, 64, 512, 4096, 10_000] and max(lengths) == 10_000
    tail = lengths[lengths.index(10_000) :]
    assert tail == sorted(tail, reverse=True) and 0.02 < tail[-2] * 1e-4 < 0.2


def test_costly_members_are_shared_among_all_workers():
    plan = Chunks(10, 1 << 30)
    assert [plan.after(4) for _ in range(4)] == [(0, 3), (3, 6), (6, 9), (9, 10)]
    plan = Chunks(1000, 1 << 30)
    plan.after(4)
    plan.ended(8, 1e4)
    assert plan.after(4) == (8, 16)


@given(SIZES, LENGTHS)
def test_even_chunks_differ_in_the_last_only(size, length):
    plan, spans = EvenChunks(size, length), []
    while span := plan.after(3):
        spans.append(span)
    assert [b - a for a, b in spans] == plan.lengths and sum(plan.lengths) == size
    assert set(plan.lengths[:-1]) <= {length} and plan.lengths[-1] <= length
    assert spans == [*zip([0, *(b for _, b in spans[:-1])], [b for _, b in spans], strict=True)]


@given(SIZES, st.integers(1, 500), st.floats(1e-12, 1e6), LENGTHS)
def test_even_lengths_are_shares_of_a_second_at_most(size, workers, pace, most):
    length = even_length(size, workers, pace, most)
    assert 1 <= length <= min(most, -(-size // (AHEAD * workers)))
    assert length <= max(LEAST["cpu"], 1.0 / pace)


def test_chunks_of_large_members_are_small_enough_to_send():
    wide = replace(batch_of(10), states=np.zeros((10, 1 << 18)))
    assert most_members(wide) == INPUT_BYTES // (wide.states.nbytes // 10 + 8)
    assert most_members(batch_of(10, rows=10_000)) == OUTPUT_BYTES // (32 + 16 * 10_001)
    assert most_members(batch_of(10, rows=10_000), reduced=True) == OUTPUT_BYTES // (32 + 16)
    assert most_members(batch_of(10, rows=10_000_000)) == 1


# ---- the same results everywhere ------------------------------------------------------------------------------

EVENTS = (
    odec.Event(lambda t, y: y[0], direction=-1),
    odec.Event(lambda t, y, rate: y[1] - 0.2 * rate, terminal=2),
    odec.Event(lambda t, y: t - 1.5, reset=lambda t, y, damping: ([y[0], -y[1]], {"damping": 2 * damping})),
)


def test_threads_give_the_results_of_one_process(threads):
    expected = local(batch_of(events=EVENTS))
    assert_same(scattered(threads, batch_of(events=EVENTS), EVENTS), expected)


def test_spawned_processes_give_the_results_of_one_process(spawned):
    expected = local(batch_of(events=EVENTS))
    assert_same(scattered(spawned, batch_of(events=EVENTS), EVENTS), expected)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes cannot fork here")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_forked_processes_give_the_results_of_one_process():
    expected = local(batch_of(events=EVENTS))
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as executor:
        assert_same(scattered(executor, batch_of(events=EVENTS), EVENTS), expected)


def test_members_with_their_own_spans_states_and_times(spawned):
    rng = np.random.default_rng(2)
    begins = rng.uniform(0.0, 1.0, 40)
    times = np.sort(begins[:, None] + rng.uniform(0.0, 1.0, (40, 4)), axis=1)
    times[::3, 2:] = np.nan
    batch = batch_of(40, 4, begins=begins, ends=begins + 1.0, states=rng.normal(size=(40, 2)), times=times)
    expected = local(batch)
    assert_same(scattered(spawned, batch), expected)


def test_ends_only_of_single_precision_by_a_method_of_ones_own(spawned):
    system = odec.dynamics(oscillator).bind(np.ones(2, np.float32), (np.float32(1), np.float32(0.1)))
    mine = odec.ButcherTableau("mine", 2, ("0", "1/2"), ((), ("1/2",)), ("0", "1"), source="midpoint")
    for record in (TSIT5, mine):
        batch = batch_of(30, 0, system=system)
        batch.problem.first_step = 0.01
        expected = local(batch, system=system, record=record)
        found = scattered(spawned, batch, system=system, record=record)
        assert_same(found, expected)
        assert found.y1.dtype == np.float32 and found.ys.shape == (30, 0, 2)


def test_reductions_do_not_depend_on_the_chunks(spawned, threads):
    size, names = 700, ("mean", "std", "min", "max", "sum")
    expected = combined(local(batch_of(size), names).partials)
    for executor in (threads, spawned):
        found = scattered(executor, batch_of(size), reduce=names)
        assert found.ys is None and len(found.partials) == -(-size // block_size(size))
        for name, value in combined(found.partials).items():
            assert value.tobytes() == expected[name].tobytes(), name


def test_a_failed_member_does_not_touch_the_others(spawned):
    batch = batch_of(20)
    batch.parameters[7] = np.nan
    expected, found = local(batch), scattered(spawned, batch)
    assert_same(found, expected)
    assert found.status[7] != 0 and (np.delete(found.status, 7) == 0).all()


def test_a_model_that_closes_over_what_cannot_be_pickled(spawned):
    lock = threading.Lock()

    def locked(t, y, rate, damping):
        with lock:
            return oscillator(t, y, rate, damping)

    system = odec.dynamics(locked).bind(np.ones(2), (1.0, 0.1))
    events = (odec.Event(lambda t, y: y[0] - (0.5 if lock else 0.0)),)
    with pytest.raises(TypeError):
        pickle.dumps(lock)
    batch = batch_of(20, events=events, system=system)
    expected = local(batch, system=system)
    assert_same(scattered(spawned, batch, events, system=system), expected)


class OnlySubmit:
    """An executor as MPI's: it has submit, and says how many workers there are."""

    num_workers = 3

    def __init__(self):
        self.futures = []

    def submit(self, function, /, *args):
        future = Future()
        self.futures.append(future)
        threading.Thread(target=self._run, args=(future, function, pickle.dumps(args))).start()
        return future

    def _run(self, future, function, args):
        if future.set_running_or_notify_cancel():
            future.set_result(function(*pickle.loads(args)))


def test_whatever_submits_futures_is_an_executor():
    assert_same(scattered(OnlySubmit(), batch_of(events=EVENTS), EVENTS), local(batch_of(events=EVENTS)))


def test_progress_counts_every_member_once(threads):
    seen = []
    scattered(threads, batch_of(200), reached=seen.append)
    assert seen == sorted(set(seen)) and seen[-1] == 200 and len(seen) > 2


# ---- what a worker remembers ----------------------------------------------------------------------------------


def packed(system=SYSTEM, **changed):
    job = Job(system, TSIT5, replace(batch_of().problem, events=None), **changed)
    return job.packed(())


def test_a_worker_makes_a_job_ready_once():
    sent = packed()
    assert sent == packed() and len(sent.data) < 10_000
    assert jobs.opened(sent) is jobs.opened(Packed(*sent))


def test_a_worker_forgets_the_oldest_jobs():
    sent = [packed(threads=k) for k in range(1, jobs.REMEMBERED + 2)]
    first = jobs.opened(sent[0])
    for one in sent[1:]:
        jobs.opened(one)
    assert len(jobs._known) == jobs.REMEMBERED and jobs.opened(sent[0]) is not first


def test_workers_with_another_version_say_so(spawned, monkeypatch):
    monkeypatch.setattr(Job, "__init__", partial_version(Job.__init__))
    with pytest.raises(
        odec.ArgumentError, match=r"a worker has odec .*, but .* sent by odec 0\.0\.7; install the same"
    ):
        scattered(spawned, batch_of(20))


def partial_version(init):
    def older(self, *args, **named):
        init(self, *args, **(named | {"version": "0.0.7"}))

    return older


# ---- bad input and bad luck -----------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", [5, "dask", ProcessPoolExecutor, {"submit": 1}, [1]], ids=str)
def test_what_is_no_executor_is_refused(executor):
    with pytest.raises(
        odec.ArgumentError, match=r"oscillator: executor is .*ProcessPoolExecutor\(\).*Client is needed"
    ):
        scattered(executor, batch_of())


def test_an_executor_that_is_shut_down_is_refused(threads):
    threads.shutdown()
    with pytest.raises(odec.ArgumentError, match="a ThreadPoolExecutor, is shut down; make a new one"):
        scattered(threads, batch_of())


def test_an_executor_shut_down_in_mid_run_is_named(threads):
    with pytest.raises(
        odec.SolveError, match=r"the ThreadPoolExecutor was shut down after [1-9][\d,]* of 5,000 members"
    ):
        scattered(threads, batch_of(5000), reached=lambda ended: threads.shutdown(cancel_futures=True))


def test_gather_false_needs_a_dask_client(threads):
    for executor, found in ((threads, "the executor is a ThreadPoolExecutor"), (None, "there is no executor")):
        with pytest.raises(odec.ArgumentError, match=rf"gather=False .* but {found}; give a dask"):
            odec.solve_ensemble(SYSTEM, (0, 1), np.ones((9, 2)), (1, 0), batched="y0", executor=executor, gather=False)


def test_the_front_door_takes_an_executor(spawned):
    model = odec.dynamics(oscillator)
    options = dict(params=(np.linspace(1, 5, 30), 0.1), batched="rate", t_eval=[1.0, 2.0], events=EVENTS)
    here = odec.solve_ensemble(model, (0.0, 2.0), [1.0, 0.0], **options)
    there = odec.solve_ensemble(model, (0.0, 2.0), [1.0, 0.0], executor=spawned, **options)
    assert there.ys.tobytes() == here.ys.tobytes() and there.status.tolist() == here.status.tolist()
    assert there.y_events[0].tobytes() == here.y_events[0].tobytes()


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_a_dead_worker_of_a_process_pool_is_a_sentence():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:

        def kill(ended):
            for pid in list(executor._processes or ()):
                with contextlib.suppress(ProcessLookupError):  # the pool ends its others once it misses one
                    os.kill(pid, signal.SIGKILL)

        with pytest.raises(
            odec.SolveError, match=r"a worker of the ProcessPoolExecutor died after [1-9][\d,]* of 5,000 members"
        ):
            scattered(executor, batch_of(5000), reached=kill)
        with pytest.raises(odec.SolveError, match=r"died after 0 of 20 members.* start a new one"):
            scattered(executor, batch_of(20))


class Text(str):
    """A text that no process can send."""

    def __reduce__(self):
        raise TypeError("not this one")


def test_a_method_that_cannot_be_pickled_is_refused_for_processes_only(spawned, threads):
    odd = replace(TSIT5, source=Text("from nowhere"))
    with pytest.raises(
        odec.ArgumentError, match=r"the method tsit5 cannot be sent to another process \(not this one\)"
    ):
        scattered(spawned, batch_of(20), record=odd)
    assert_same(scattered(threads, batch_of(20), record=odd), local(batch_of(20)))


class Never(OnlySubmit):
    """An executor that never begins."""

    def _run(self, future, function, args):
        pass


def test_the_keyboard_cancels_what_has_not_begun():
    executor = Never()
    timer = threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        scattered(executor, batch_of())
    timer.join()
    assert len(executor.futures) == AHEAD * executor.num_workers and all(f.cancelled() for f in executor.futures)


def test_an_error_of_a_worker_reaches_the_caller(threads, monkeypatch):
    def broken(*args):
        raise MemoryError("no room")

    monkeypatch.setattr(jobs, "run_batch", broken)
    with pytest.raises(MemoryError, match="no room"):
        scattered(threads, batch_of())
