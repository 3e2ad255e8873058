"""The steps of the Taylor method: Python and machine code take the same ones."""

import numpy as np
import pytest
from targets import python_solver, run

import odec
from odec import Status
from odec.steppers.taylor import TaylorMethod


@odec.dynamics
def pendulum(t, y, g):
    angle, rate = y
    return rate, -g * np.sin(angle) + 0.1 * np.cos(t)


@odec.dynamics
def pushed(t, y, g):
    angle, rate = y
    return rate, -g * angle + np.where(t < 0.4, 1.0, -np.abs(rate))


@pytest.mark.parametrize("span", [(0.0, 3.0), (3.0, 0.0), (-3.0, -1.0)])
@pytest.mark.parametrize("model", [pendulum, pushed], ids=lambda model: model.name)
@pytest.mark.parametrize("order, tolerance", [(8, 1e-9), ("adaptive", 1e-5)])
def test_python_and_machine_code_take_the_same_steps(order, tolerance, model, span):
    system, method = model.bind((1.0, 0.0), (9.81,)), TaylorMethod(order).at(tolerance)
    tolerances = {"rtol": np.full(2, tolerance), "atol": np.full(2, tolerance)}
    for times in (None, np.linspace(*span, 23), ()):
        options = {"t_eval": times, "tstops": (sum(span) / 2,)} | tolerances
        a, b = (run(s, span, [1.0, 0.3], [9.81], **options)
                for s in (python_solver(system, method), system.solver(method)))  # fmt: skip
        assert (a.status, a.steps, a.rejected, a.nfev) == (b.status, b.steps, b.rejected, b.nfev)
        assert a.status is Status.SUCCESS and a.steps >= 5
        assert a.ts == pytest.approx(b.ts, rel=1e-11) and a.ys == pytest.approx(b.ys, rel=1e-9, abs=1e-11)
