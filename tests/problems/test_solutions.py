"""All nonstiff reference problems, traced unchanged and solved: errors follow the tolerance."""

import numpy as np
import pytest
from records import load, numbers

import odec

NONSTIFF = load("nonstiff.json")
TOLERANCES = (1e-5, 1e-8, 1e-10)
# Errors against the reference, relative to `scale`, over tolerance times max(cond, 1). Largest: 120, the outer
# solar system with dopri5 at 1e-5 (59 steps for five orbits of Jupiter), else 28.
BOUND = 150.0


def error_of(sol, problem):
    """max_i |y_i - reference_i| / scale_i at the end."""
    return np.max(np.abs(sol.y1 - numbers(problem.record["reference"]["y"])) / problem.record["scale"])


def solved(problem, method, tolerance, **options):
    record = problem.record
    return odec.solve(
        problem.model, (record["t0"], record["t1"]), record["y0"], problem.params, method=method, rtol=tolerance,
        atol=tolerance * np.array(record["scale"]), **options,
    )  # fmt: skip


def test_every_nonstiff_problem_is_here():
    assert len(NONSTIFF) == 26


@pytest.mark.parametrize("method", ["tsit5", "dopri5"])
@pytest.mark.parametrize("problem", NONSTIFF, ids=lambda problem: problem.name)
def test_errors_fall_with_the_tolerance(problem, method):
    solutions = [solved(problem, method, tolerance, t_eval=[]) for tolerance in TOLERANCES]
    errors = [error_of(sol, problem) for sol in solutions]
    cond = max(problem.record["cond"], 1.0)
    for error, tolerance in zip(errors, TOLERANCES):
        assert error <= BOUND * tolerance * cond
    # Over five decades of tolerance the error falls at least as its power 2/3.
    assert errors[-1] <= errors[0] * (TOLERANCES[-1] / TOLERANCES[0]) ** (2 / 3)
    steps = [sol.stats["steps"] for sol in solutions]
    assert steps == sorted(steps)


@pytest.mark.parametrize("problem", NONSTIFF, ids=lambda problem: problem.name)
def test_dense_output_meets_the_checkpoints(problem):
    checkpoints = problem.record["checkpoints"]
    sol = solved(problem, "tsit5", 1e-8, t_eval=[c["t"] for c in checkpoints])
    assert sol.ts.tolist() == [c["t"] for c in checkpoints]
    reference = np.array([numbers(c["y"]) for c in checkpoints])
    error = np.max(np.abs(sol.ys - reference) / problem.record["scale"])
    assert error <= BOUND * 1e-8 * max(problem.record["cond"], 1.0)


@pytest.mark.parametrize("problem", NONSTIFF, ids=lambda problem: problem.name)
def test_traced_right_hand_side_is_the_plain_one(problem):
    traced = problem.system.graph.evaluate(problem.t0, problem.y0, np.ravel(problem.params))["dydt"]
    plain = np.array(problem.model(problem.t0, problem.y0, *problem.params), float)
    assert traced == pytest.approx(plain, rel=1e-14)
