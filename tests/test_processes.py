"""Models, Systems and Solutions in other processes; solves in several threads; Ctrl-C."""

import copy
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pickled_models
import pytest
from pickled_models import end_of, failing, grouped, lotka, pendulum, renamed

import odec
from odec import Status


def sent(value):
    return pickle.loads(pickle.dumps(value))


# ---- pickling -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [lotka, pendulum], ids=lambda m: m.name)
def test_a_decorated_model_is_pickled_by_its_name(model):
    assert sent(model) is model
    for protocol in range(4, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(model, protocol)) is model


@pytest.mark.parametrize("model", [renamed, grouped], ids=lambda m: m.name)
def test_a_model_of_an_importable_function_is_pickled_with_it(model):
    other = sent(model)
    assert other is not model and other.function is model.function and other.name == model.name
    assert odec.solve(other, (0.0, 1.0), [1.0]).ys.tobytes() == odec.solve(model, (0.0, 1.0), [1.0]).ys.tobytes()


def test_a_model_that_no_other_process_can_import_says_so():
    @odec.dynamics
    def local(t, y):
        return -y

    for model, name in ((local, "local"), (odec.dynamics(lambda t, y: -y), "<lambda>")):
        with pytest.raises(pickle.PicklingError) as raised:
            pickle.dumps(model)
        message = str(raised.value)
        assert message.startswith(f"{name} cannot be pickled") and "top level" in message
        assert f"{name}.bind(y0, params)" in message and message.endswith(".")
        assert sent(model.bind([1.0])).rhs(0.0, [2.0]).tolist() == [-2.0]  # the cure that it names


def test_models_copy_as_functions_do():
    local = odec.dynamics(lambda t, y: -y)
    assert copy.copy(local) is local and copy.deepcopy({"f": local})["f"] is local


def test_systems_keep_everything():
    system = pendulum.bind([0.1, 0.0])
    other = sent(system)
    assert (other.name, other.dtype, other.state) == ("pendulum", "float64", ("angle", "speed"))
    assert other.y_structure == system.y_structure and other.p_structure == system.p_structure
    assert other.graph.digest == system.graph.digest and str(other.graph) == str(system.graph)
    assert sorted(other.source("step").split("\n")) == sorted(system.source("step").split("\n"))  # in another order
    one, two = (odec.solve(s, (0.0, 2.0), [0.1, 0.0], (2.0,)) for s in (system, other))
    assert one.ts.tobytes() == two.ts.tobytes() and one.ys.tobytes() == two.ys.tobytes()


def test_systems_of_structures_and_single_precision():
    model = odec.dynamics(lambda t, y, w: {"a": w["x"] @ y["a"], "b": -y["b"]})
    y0 = {"a": np.ones(2, np.float32), "b": np.float32(1.0)}
    w = {"x": np.array([[0.0, 1.0], [-1.0, 0.0]], np.float32)}
    system = model.bind(y0, (w,))
    other = sent(system)
    assert other.dtype == system.dtype == "float32"
    found = other.rhs(0.0, y0, w)
    assert found["a"].tolist() == [1.0, -1.0] and found["b"] == -1.0


def test_solutions_and_their_errors():
    sol = odec.solve(pendulum, (0.0, 1.0), [0.1, 0.0], t_eval=[0.0, 1.0])
    other = sent(sol)
    assert other.ts.tobytes() == sol.ts.tobytes() and other.ys.tobytes() == sol.ys.tobytes()
    assert (other.status, other.message, other.stats, repr(other)) == (sol.status, sol.message, sol.stats, repr(sol))
    assert other.status is Status.SUCCESS and other.names == ("angle", "speed")
    with pytest.raises(odec.SolveError) as raised:
        failing()
    error = sent(raised.value)
    assert type(error) is odec.SolveError and str(error) == str(raised.value)
    assert error.solution.ys.tobytes() == raised.value.solution.ys.tobytes()


# ---- processes ------------------------------------------------------------------------------------------------


def test_spawned_processes_solve_what_they_are_sent():
    y0 = [1.0, 1.0]
    local = odec.dynamics(lambda t, y, c: c * np.sin(y) - y)
    jobs = [(lotka, y0, (1.5,)), (lotka.bind(y0), y0, (1.5,)), (local.bind(y0, (2.0,)), y0, (2.0,)), (renamed, y0, ())]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        found = list(pool.map(end_of, *zip(*jobs)))
        with pytest.raises(odec.SolveError, match="blow up") as raised:
            pool.submit(failing).result()
    assert [f.tobytes() for f in found] == [end_of(*job).tobytes() for job in jobs]
    assert raised.value.solution.ts[-1] == pytest.approx(1.0, abs=1e-4)


# ---- threads --------------------------------------------------------------------------------------------------


def at_once(tasks, workers=8):
    """Results of tasks that start at the same moment."""
    gate = threading.Barrier(workers)

    def run(task):
        gate.wait(timeout=60)
        return task()

    with ThreadPoolExecutor(workers) as pool:
        return [f.result() for f in [pool.submit(run, t) for t in tasks]]


def test_one_model_in_eight_threads_gives_the_serial_results():
    starts = [[1.0 + 0.1 * k, 1.0] for k in range(8)]
    serial = [odec.solve(lotka, (0.0, 300.0), y0, rtol=1e-8).ys for y0 in starts]
    threads = at_once([lambda y0=y0: odec.solve(lotka, (0.0, 300.0), y0, rtol=1e-8).ys for y0 in starts])
    assert [a.tobytes() for a in serial] == [b.tobytes() for b in threads]


def fresh(k, dtype=None):
    """A model that nothing has bound or compiled yet."""
    return odec.dynamics(lambda t, y, a: [np.sin(a * y[1]) - 0.01 * k * y[0], -np.cos(t) * y[0]])


def test_new_models_traced_and_compiled_in_eight_threads():
    serial = [odec.solve(fresh(k), (0.0, 5.0), [1.0, 0.5], (2.0,)).ys for k in range(8)]
    models = [fresh(k) for k in range(8)]
    threads = at_once([lambda m=m: odec.solve(m, (0.0, 5.0), [1.0, 0.5], (2.0,)).ys for m in models])
    assert [a.tobytes() for a in serial] == [b.tobytes() for b in threads]


def test_one_new_model_bound_by_eight_threads_at_once():
    model = fresh(77)
    found = at_once([lambda: odec.solve(model, (0.0, 5.0), [1.0, 0.5], (2.0,)).ys.tobytes()] * 8)
    assert len(set(found)) == 1


def test_systems_evaluate_in_eight_threads():
    system = pendulum.bind([0.1, 0.0])
    points = np.random.default_rng(5).normal(size=(8, 2))

    def work(y):
        for _ in range(50):
            bar = system.vjp(0.0, y, 1.0, cotangent=y)[1]
            found = np.concatenate([system.rhs(0.0, y, 1.0), system.jacobian(0.0, y, 1.0).ravel(), bar])
        return found.tobytes()

    serial = [work(y) for y in points]
    assert at_once([lambda y=y: work(y) for y in points]) == serial


def test_a_failing_solve_does_not_disturb_the_other_threads():
    def good():
        return odec.solve(lotka, (0.0, 50.0), [1.0, 1.0]).ys.tobytes()

    def bad():
        with pytest.raises(odec.SolveError):
            failing()
        with pytest.raises(odec.TraceError, match="bad_if"):
            odec.dynamics(bad_if).bind([1.0])
        return None

    expected = good()
    results = at_once([good, bad] * 4)
    assert [r for r in results if r] == [expected] * 4


def bad_if(t, y):
    return y if y[0] > 0 else -y


# ---- Ctrl-C ---------------------------------------------------------------------------------------------------

INTERRUPTED = """
import os, signal, sys, time
import numpy as np
import odec

@odec.dynamics
def fast(t, y):
    return [y[1], -y[0]]

odec.solve(fast, (0.0, 1.0), [1.0, 0.0])
before = odec.solve(fast, (0.0, 10.0), [1.0, 0.0]).ys
print("ready", flush=True)
try:
    odec.solve(fast, (0.0, 1e12), [1.0, 0.0], rtol=1e-10, atol=1e-12, max_steps=10**12, {options})
    print("finished", flush=True)
except KeyboardInterrupt:
    print("interrupted", time.time(), flush=True)
again = odec.solve(fast, (0.0, 10.0), [1.0, 0.0]).ys
print("same" if again.tobytes() == before.tobytes() else "different", flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
@pytest.mark.parametrize("options", ["t_eval=[]", "t_eval=np.linspace(0.0, 1e12, 1001)"])
def test_ctrl_c_returns_promptly_and_the_process_solves_on(options):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED.format(options=options))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.4)
        process.send_signal(signal.SIGINT)
        pressed = time.time()
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    word, at, verdict = out.split()
    assert (word, verdict) == ("interrupted", "same"), err
    assert float(at) - pressed < 1.0


def test_ctrl_c_in_this_process_keeps_the_solver_usable():
    """A pooled buffer that an interrupted run was working on is not used again."""
    before = odec.solve(lotka, (0.0, 20.0), [1.0, 1.0]).ys
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        odec.solve(lotka, (0.0, 1e12), [1.0, 1.0], t_eval=[], max_steps=10**12)
    timer.join()
    assert odec.solve(lotka, (0.0, 20.0), [1.0, 1.0]).ys.tobytes() == before.tobytes()


def test_the_helper_module_is_importable_by_name():
    assert pickled_models.lotka is lotka


COLD = """
import sys, threading
import numpy as np
from concurrent.futures import ThreadPoolExecutor
import odec
import odec.codegen.compile as compiling
loops, object_code = [], compiling.object_code
import odec.codegen.numba_bridge as bridge
bridge.object_code = lambda text, **how: loops.append(1) or object_code(text, **how)
gate = threading.Barrier(8)

def work(k):
    model = odec.dynamics(lambda t, y: [np.sin(y[1]) - 0.01 * k * y[0], -np.cos(t) * y[0]])
    gate.wait()
    return odec.solve(model, (0.0, 5.0), [1.0, 0.5]).ys.tobytes()

with ThreadPoolExecutor(8) as pool:
    found = list(pool.map(work, range(8)))
gate = threading.Barrier(1)
print(len(loops), found == [work(k) for k in range(8)])
"""


def test_eight_threads_on_an_empty_cache_compile_the_loop_once(tmp_path):
    environment = {**os.environ, "ODEC_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-W", "error", "-c", COLD], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["1", "True"], done.stderr
