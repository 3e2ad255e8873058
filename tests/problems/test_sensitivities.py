"""Sensitivities of the reference problems, forward in time."""

import numpy as np
import pytest
from records import load, numbers

import odec

REFERENCES = [problem for problem in load("nonstiff.json") if "sensitivity" in problem.record]


@pytest.mark.parametrize("problem", REFERENCES, ids=lambda problem: problem.name)
def test_references_are_met(problem):
    reference = problem.record["sensitivity"]
    span = problem.t0, reference["t1"]
    sol = odec.sensitivities(
        problem.model, span, problem.y0, problem.params, wrt=("y0", "p"), method="vern9", rtol=1e-12, atol=1e-12,
        t_eval=[],
    )  # fmt: skip
    for name, key in (("y0", "dy_dy0"), ("p", "dy_dp")):
        expected = np.array([numbers(row) for row in reference[key]])
        assert np.max(np.abs(sol.sensitivities[name][0] - expected)) <= 1e-9 * np.max(np.abs(expected))


def test_all_three_references_are_here():
    assert [problem.name for problem in REFERENCES] == ["lorenz", "lotka_volterra", "mlp_tanh"]


def test_error_control_takes_more_steps_and_comes_closer():
    problem = REFERENCES[0]
    reference = problem.record["sensitivity"]
    expected = np.array([numbers(row) for row in reference["dy_dp"]])
    errors, steps = [], []
    for control in (False, True):
        sol = odec.sensitivities(
            problem.model, (problem.t0, reference["t1"]), problem.y0, problem.params, wrt=("y0", "p"), rtol=1e-5,
            atol=1e-8, error_control=control, t_eval=[],
        )  # fmt: skip
        errors.append(np.max(np.abs(sol.sensitivities["p"][0] - expected)))
        steps.append(sol.stats["steps"])
    assert errors[1] < errors[0] and steps[1] > steps[0]
