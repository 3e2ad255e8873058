"""Ensembles of Taylor solves: lanes, threads, events and reductions give what single solves give."""

import pickle

import numpy as np
import pytest

import odec
from odec import Status

RNG = np.random.default_rng(5)
SIZE = 11
Y0 = RNG.normal(size=(SIZE, 3)) + np.array([0.0, 0.0, 20.0])
RHO = np.linspace(20.0, 40.0, SIZE)
SPAN, TIMES = (0.0, 1.0), np.linspace(0.0, 1.0, 6)
HOW = {"method": "taylor", "rtol": 1e-12, "atol": 1e-12}


@odec.dynamics
def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
    x, v, z = y
    return [sigma * (v - x), x * (rho - z) - v, x * v - beta * z]


def ensemble(**options):
    return odec.solve_ensemble(lorenz, SPAN, Y0, (10.0, RHO, 8 / 3), batched=("y0", "rho"), **(HOW | options))


def single(i, **options):
    return odec.solve(lorenz, SPAN, Y0[i], (10.0, RHO[i], 8 / 3), **(HOW | options))


def test_members_are_single_solves_in_any_number_of_threads():
    ens = ensemble(t_eval=TIMES)
    again = ensemble(t_eval=TIMES, threads=2)
    assert (ens.status == Status.SUCCESS).all() and np.array_equal(ens.ys, again.ys)
    for i in range(SIZE):
        alone = single(i, t_eval=TIMES)
        np.testing.assert_allclose(ens.ys[i], alone.ys, rtol=1e-11, atol=1e-11)
        assert ens.steps[i] == pytest.approx(alone.stats["steps"], abs=1)
        assert ens.nfev[i] - ens.steps[i] == alone.stats["nfev"] - alone.stats["steps"]


def test_reductions_and_ends():
    ens, ends = ensemble(t_eval=TIMES, reduce=("mean", "max")), ensemble()
    rows = ensemble(t_eval=TIMES).ys
    np.testing.assert_allclose(ens.reduced["mean"], rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(ens.reduced["max"], rows.max(axis=0), rtol=1e-12)
    np.testing.assert_allclose(ends.y1, rows[:, -1], rtol=1e-11, atol=1e-11)


def test_events_of_members():
    events = [odec.Event(lambda t, y, *p: y[0] - 3.0), odec.Event(lambda t, y, *p: y[2] - 12.0, terminal=True)]
    ens = ensemble(events=events)
    assert len(set(ens.status)) == 2
    for i in range(SIZE):
        alone = single(i, events=events)
        assert ens.status[i] == alone.status
        np.testing.assert_allclose(ens.y1[i], alone.y1, rtol=1e-9, atol=1e-9)
        for members, theirs in zip(ens.t_events, alone.t_events, strict=True):
            mine = members[i][np.isfinite(members[i])]
            np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-11)


def test_a_member_that_fails_hides_no_other():
    ens = odec.solve_ensemble(
        odec.dynamics(lambda t, y: y * y), (0.0, 1.0), np.array([[0.5], [2.0], [0.25]]), batched="y0", method="taylor"
    )
    assert ens.status[1] not in (Status.SUCCESS, Status.TERMINATED) and "t = 0.5" in ens.message(1)
    np.testing.assert_allclose(ens.y1[[0, 2], 0], [1.0, 1 / 3], rtol=1e-5)


def test_float32_members_and_a_given_order():
    how = {"rtol": 1e-5, "atol": 1e-5, "dtype": np.float32, "method": odec.TaylorMethod(order=6)}
    ens = ensemble(**how)
    assert ens.y1.dtype == np.float32
    np.testing.assert_allclose(ens.y1[4], single(4, **how).y1, rtol=1e-3)


MIXING = np.linspace(-1.0, 1.0, 400).reshape(20, 20)


@odec.dynamics
def network(t, y, gain):
    return gain * (MIXING @ np.tanh(MIXING @ np.tanh(y))) - y


def test_members_of_a_model_whose_series_is_a_loop_over_the_orders():
    """Its right-hand side is small enough for lanes, its series is not."""
    y0 = RNG.normal(size=(3, 20))
    ens = odec.solve_ensemble(network, SPAN, y0, (0.3,), batched="y0", **HOW)
    for i in range(3):
        alone = odec.solve(network, SPAN, y0[i], (0.3,), **HOW)
        np.testing.assert_allclose(ens.y1[i], alone.y1, rtol=1e-12, atol=1e-12)


def test_the_dense_output_of_a_solve_can_be_pickled_and_drawn():
    sol = single(0, dense_output=True)
    again = pickle.loads(pickle.dumps(sol))
    assert np.array_equal(again(TIMES), sol(TIMES)) and again.message == sol.message
    np.testing.assert_allclose(sol(TIMES), single(0, t_eval=TIMES).ys, rtol=1e-12, atol=1e-12)


def test_progress_is_shown(capsys):
    pytest.importorskip("tqdm")
    odec.solve(lorenz, (0.0, 200.0), Y0[0], progress=True, **HOW)
    assert "lorenz" in capsys.readouterr().err
