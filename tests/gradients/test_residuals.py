"""What the evaluations of a solve leave for the way back, and gradients made of it."""

import gc

import numpy as np
import pytest

import odec
from odec.gradients import residuals
from odec.gradients.replay import residual_sizes
from odec.integrate import slots as at
from odec.steppers.low_storage import LowStorageTableau
from odec.steppers.methods import method_named, methods
from odec.steppers.tableaus import ButcherTableau

RNG = np.random.default_rng(2)
Y0, P = 0.5 * RNG.normal(size=(3, 4)), (RNG.normal(size=(4, 20)), 0.3 * RNG.normal(size=(20, 4)))
METHODS = [m.name for m in methods() if isinstance(m, (ButcherTableau, LowStorageTableau))]


@odec.dynamics
def network(t, y, first, second):
    return np.tanh(y @ first + t) @ second


@odec.dynamics
def pendulum(t, y, length):
    return [y[1], -np.sin(y[0]) / length]


@pytest.fixture(scope="module")
def system():
    return network.bind(Y0, P)


def evaluated(system, kernel, given, **how):
    """The outputs of a kernel's graph by NumPy; inputs that are not given are ones."""
    graph = system.derivative(kernel, **how)
    return graph.evaluate(*(given.get(name, np.ones(node.shape)) for name, node in graph.inputs.items()))


@pytest.mark.parametrize("name", METHODS)
def test_a_step_goes_back_from_its_residuals_as_from_its_start(system, name):
    head, size = residual_sizes(system.graph, method_named(name))
    start = {"t": 0.3, "h": 0.2, "y": Y0.ravel(), "p": np.concatenate([w.ravel() for w in P])}
    room = np.zeros(head + size)
    if head:
        room[:head] = evaluated(system, "first_residuals", start, method=name)["packed"]
    now, task = np.zeros(at.NOWS), np.zeros(at.TASKS)
    now[at.T], now[at.H], task[at.STOP] = 0.3, 0.2, 9.0
    given = start | {"now": now, "task": task, "f0": room[: Y0.size if head else 0]}
    tried = evaluated(system, "advance", given, method=name, tapes=True, commits=False)
    room[head:] = tried["k"]
    given = start | {"kept": room, "y1_bar": np.cos(np.arange(Y0.size))}
    found, wanted = (
        evaluated(system, kernel, given, method=name, **how)
        for kernel, how in (("kept_vjp", {"timed": True}), ("step_vjp", {"timed": True}))
    )
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-11, atol=1e-13, err_msg=key)
    if head:  # what the next step finds before its own is the evaluation that it starts with
        given = start | {"t": 0.5, "y": tried["y1"]}
        after = evaluated(system, "first_residuals", given, method=name)["packed"]
        np.testing.assert_allclose(room[-head:], after, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("times", [[], None, [0.1, 0.5, 0.9, 2.0]])
def test_gradient_is_that_of_steps_made_again(system, times, monkeypatch):
    head, size = residual_sizes(system.graph, method_named("tsit5"))
    found = []
    for steps in (10_000, 7, 0):  # room for all of them, for some, for none
        monkeypatch.setattr(residuals, "BUDGET", 8 * (head + size * (steps + 1)))
        monkeypatch.setattr(residuals, "_rooms", type(residuals._rooms)())
        sol, pullback = odec.solve_vjp(system, (0.0, 2.0), Y0, P, t_eval=times, rtol=1e-8)
        assert sol.stats["steps"] > 10 and (pullback._adjoint.residuals is None) == (steps == 0)
        found.append(pullback(np.sin(np.arange(sol.ys.size)).reshape(sol.ys.shape)))
    for gradient in found[:2]:
        np.testing.assert_allclose(gradient.y0, found[2].y0, rtol=1e-12)
        np.testing.assert_allclose(gradient.t0, found[2].t0, rtol=1e-11)
        np.testing.assert_allclose(gradient.t1, found[2].t1, rtol=1e-11)
        for ours, theirs in zip(gradient.params, found[2].params, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_rejected_tries_leave_nothing_behind(system):
    kicked = dict(t_eval=[], rtol=1e-7, first_step=1.9)
    sol, pullback = odec.solve_vjp(system, (0.0, 2.0), Y0, P, **kicked)
    _, again = odec.solve_vjp(system, (0.0, 2.0), Y0, P, checkpoints=2000, **kicked)
    assert sol.stats["rejected"] > 0 and pullback._adjoint.residuals is not None
    np.testing.assert_allclose(pullback(sol.ys).params[0], again(sol.ys).params[0], rtol=1e-12)


def test_a_room_is_taken_again_only_once_nobody_holds_it(system):
    first, second = (odec.solve_vjp(system, (0.0, 2.0), scale * Y0, P, t_eval=[]) for scale in (1.0, 2.0))
    assert first[1]._adjoint.residuals.room is not second[1]._adjoint.residuals.room
    before = first[1](first[0].ys).y0.copy()
    room = second[1]._adjoint.residuals.room
    del second
    gc.collect()
    third = odec.solve_vjp(system, (0.0, 2.0), 3.0 * Y0, P, t_eval=[])
    assert third[1]._adjoint.residuals.room is room
    np.testing.assert_array_equal(first[1](first[0].ys).y0, before)


def test_small_models_and_steps_that_start_anew_are_evaluated_again(system):
    _, pullback = odec.solve_vjp(pendulum, (0.0, 1.0), np.ones(2), (1.0,), t_eval=[])
    assert pullback._adjoint.residuals is None
    _, pullback = odec.solve_vjp(system, (0.0, 1.0), Y0, P, t_eval=[], tstops=[0.5])
    assert pullback._adjoint.residuals is None
