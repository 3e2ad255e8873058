"""Stiff problems end, or stop and say that they are stiff; nonstiff problems are never called stiff."""

import numpy as np
import pytest
from records import load

import odec
from odec import Status

STIFF, NONSTIFF = load("stiff.json"), load("nonstiff.json")
HINT = "held down by stability"


def by_name(problem):
    return problem.name


def solved(problem, tolerance, max_steps):
    record = problem.record
    return odec.solve(
        problem.model, (record["t0"], record["t1"]), record["y0"], problem.params, rtol=tolerance,
        atol=tolerance * np.array(record["scale"]), t_eval=[], throw=False, max_steps=max_steps,
    )  # fmt: skip


@pytest.mark.parametrize("tolerance", [1e-4, 1e-7])
@pytest.mark.parametrize("problem", STIFF, ids=by_name)
def test_stiff_problems_end_or_stop_with_the_hint(problem, tolerance):
    sol = solved(problem, tolerance, 20_000)
    assert sol.status in (Status.SUCCESS, Status.STEP_LIMIT)
    assert sol.success or HINT in sol.message


@pytest.mark.parametrize("problem", NONSTIFF, ids=by_name)
@pytest.mark.parametrize("max_steps", [20, 50])
def test_nonstiff_problems_stop_without_the_hint(problem, max_steps):
    sol = solved(problem, 1e-6, max_steps)
    assert HINT not in sol.message
