"""Taylor coefficients of three solutions, order 0 to 20, against references of 39 digits."""

import numpy as np
import pytest
from mpmath import mpf
from records import load

WITH_TAYLOR = [p for p in load("nonstiff.json") if "taylor" in p.record]


def relative_errors(found, problem):
    """(order + 1, n): |found - reference| / |reference|; where the reference is 0, 0 if it was met, else 1."""
    reference = [[mpf(x) for x in row] for row in problem.record["taylor"]["coefficients"]]
    return np.array(
        [
            [float(abs(mpf(found[k, i]) - c) / abs(c)) if c else float(found[k, i] != 0) for i, c in enumerate(row)]
            for k, row in enumerate(zip(*reference))
        ]
    )


def test_three_problems_have_coefficients():
    assert [p.name for p in WITH_TAYLOR] == ["arenstorf", "pendulum", "hodgkin_huxley"]


@pytest.mark.parametrize("problem", WITH_TAYLOR, ids=lambda problem: problem.name)
def test_coefficients_agree_to_1e_13(problem):
    """Every component and order by itself, zeros by symmetry exactly zero."""
    graph = problem.system.derivative("taylor", order=20)
    (rows,) = graph.evaluate(problem.t0, problem.y0, np.ravel(problem.params)).values()
    assert relative_errors(rows.reshape(21, -1), problem).max() <= 1e-13


def test_compiled_coefficients_agree_to_1e_13():
    pendulum = next(p for p in WITH_TAYLOR if p.name == "pendulum")
    rows = pendulum.system.taylor(pendulum.t0, pendulum.y0, *pendulum.params, order=20)
    assert rows.shape == (21, 2) and relative_errors(rows, pendulum).max() <= 1e-13
