"""Jacobians of all 39 reference problems against SymPy's derivatives of the same plain functions."""

import numpy as np
import pytest
from records import load, numbers
from symbols import evaluator, expressions, jacobian_entries

PROBLEMS = load("nonstiff.json", "stiff.json")
COMPILED = ("arenstorf", "hodgkin_huxley", "ring_modulator", "pollu")
# Each entry is some tens of operations; sums inside an entry may cancel, hence the part relative to the row.
RELATIVE, OF_ROW = 1e-12, 1e-14


def test_every_problem_is_here():
    assert len(PROBLEMS) == 39


def points(problem):
    """(t, y): the start, and a place on the solution."""
    checkpoint = problem.record["checkpoints"][0]
    return [(problem.t0, problem.y0), (checkpoint["t"], numbers(checkpoint["y"]))]


def close(found, exact):
    """found, exact : dense matrices."""
    row = np.max(np.abs(exact), axis=1, keepdims=True)
    return np.all(np.abs(found - exact) <= RELATIVE * np.abs(exact) + OF_ROW * row)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_jacobian_is_sympys(problem):
    system, n, p = problem.system, len(problem.y0), np.ravel(problem.params)
    t, y, symbols, rhs = expressions(problem.f, n, p.size)
    entries = jacobian_entries(rhs, y)
    pattern = system.jacobian_sparsity()
    rows, columns = pattern.nonzero()
    assert set(zip(rows.tolist(), columns.tolist())) == set(entries)  # neither missing nor superfluous
    values = system.derivative("jacobian", wrt="y")
    exact_at = evaluator(entries, (t, *y, *symbols))
    for time, state in points(problem):
        exact = np.zeros((n, n))
        for place, value in exact_at([time, *state, *p]).items():
            exact[place] = float(value)
        found = np.zeros((n, n))
        (found[rows, columns],) = values.evaluate(time, state, p).values()
        assert close(found, exact)
        if problem.name in COMPILED:
            dense = system.jacobian(time, state, *problem.params)
            sparse = system.jacobian(time, state, *problem.params, sparse=True)
            assert close(dense, exact) and (sparse.toarray() == dense).all() and sparse.nnz == len(entries)


@pytest.mark.parametrize("name", ["lorenz", "arenstorf", "kepler_e06", "pleiades", "akzo_nobel", "ring_modulator"])
def test_jacobian_by_parameters_and_time_is_sympys(name):
    problem = next(p for p in PROBLEMS if p.name == name)
    system, n, p = problem.system, len(problem.y0), np.ravel(problem.params)
    t, y, symbols, rhs = expressions(problem.f, n, p.size)
    for wrt, by in (("p", symbols), ("t", (t,))):
        entries = jacobian_entries(rhs, by)
        exact_at = evaluator(entries, (t, *y, *symbols)) if entries else lambda values: {}
        rows, columns = system.jacobian_sparsity(wrt=wrt).nonzero()
        assert set(entries) == set(zip(rows.tolist(), columns.tolist()))
        values = system.derivative("jacobian", wrt=wrt)
        # On its orbit the ring modulator's currents balance to ten digits, and so do these derivatives.
        time, state = points(problem)[name != "ring_modulator"]
        exact, found = np.zeros((2, n, len(by)))
        for place, value in exact_at([time, *state, *p]).items():
            exact[place] = float(value)
        (found[rows, columns],) = values.evaluate(time, state, p).values()
        assert close(found, exact)


def test_a_tridiagonal_problem_needs_three_colours():
    """The compressed Jacobian of a grid does not grow with the grid."""
    problem = next(p for p in PROBLEMS if p.name == "advection_diffusion_1d_n64")
    assert problem.system.jacobian_sparsity().nnz == 3 * 64 - 2
    brusselator = next(p for p in PROBLEMS if p.name == "brusselator_1d_n100")
    rows, columns = brusselator.system.jacobian_sparsity().nonzero()
    assert abs(rows - columns).max() == 2
