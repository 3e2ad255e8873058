"""Methods of fixed steps that are no Butcher tableaus: Python and machine code take the same steps."""

import numpy as np
import pytest
from targets import python_events, python_solver, run

import odec
from odec import Status
from odec.event import event_kernels, event_list
from odec.steppers.fixed_steps import FixedSteps

METHODS = [m for m in odec.methods() if isinstance(m, FixedSteps)]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


@odec.dynamics
def pendulum(t, y, g=9.81):
    angle, rate = y
    return rate, -g * np.sin(angle) + 0.1 * np.cos(t)


SYSTEM = pendulum.bind((1.0, 0.0))
SPANS = [(0.0, 3.0), (3.0, 0.0), (-3.0, -1.0)]


@every_method
@pytest.mark.parametrize("span", SPANS)
def test_python_and_machine_code_take_the_same_steps(method, span):
    for times in (None, np.linspace(*span, 23), ()):
        a, b = (
            run(solver, span, [1.0, 0.3], [9.81], t_eval=times, first_step=0.03, tstops=(sum(span) / 2,))
            for solver in (python_solver(SYSTEM, method), SYSTEM.solver(method))
        )
        assert (a.status, a.steps, a.rejected, a.nfev) == (b.status, b.steps, b.rejected, b.nfev)
        assert a.status is Status.SUCCESS
        assert a.ts == pytest.approx(b.ts, rel=1e-13) and a.ys == pytest.approx(b.ys, rel=1e-11, abs=1e-13)


@every_method
def test_only_steps_evaluate(method):
    solver = python_solver(SYSTEM, method)
    outcome = run(solver, (0.0, 1.0), [1.0, 0.3], [9.81], t_eval=(), first_step=0.1)
    assert (solver.rhs.calls, solver.kernel("advance").calls) == (1, 10)
    assert outcome.nfev == 1 + 10 * method.evaluations


@every_method
def test_events_fire_alike_in_python_and_machine_code(method):
    hit = event_list(odec.Event(lambda t, y, g: y[0], direction=-1, reset=lambda t, y, g: (y[0], -0.9 * y[1])))
    a, b = (
        run(solver, (0.0, 4.0), [1.0, 0.0], [9.81], first_step=0.01, events=kernels(SYSTEM, hit))
        for solver, kernels in (
            (python_solver(SYSTEM, method), python_events), (SYSTEM.solver(method), event_kernels),
        )
    )  # fmt: skip
    assert len(a.fired_t) == len(b.fired_t) == 4
    assert a.fired_t == pytest.approx(b.fired_t, rel=1e-11)
    assert a.ys == pytest.approx(b.ys, rel=1e-9, abs=1e-11)
