"""Bounded memory: the same gradient, bit by bit, from few recorded steps and few snapshots."""

import functools
import os
import tracemalloc

import numpy as np
import pytest
from gradient_models import decay

import odec
from odec.errors import ArgumentError, RoomError, SolveError
from odec.gradients import checkpoints as module
from odec.gradients import disk
from odec.gradients.checkpoints import least_advances, split


@odec.dynamics
def lorenz(t, y, sigma, rho, beta):
    return [sigma * (y[1] - y[0]), y[0] * (rho - y[2]) - y[1], y[0] * y[1] - beta * y[2]]


@odec.dynamics
def switched(t, y, a):
    return [y[1], -a * y[0] + np.where(t < 1.0, 0.5, -0.5) * np.where(t < 2.5, 1.0, 0.25)]


P = (10.0, 28.0, 8 / 3)
CASES = {
    "rows of every step": (lorenz, (0.0, 2.0), np.ones(3), P, {}),
    "end only": (lorenz, (0.0, 2.0), np.ones(3), P, {"t_eval": [], "rtol": 1e-8}),
    "rejections": (lorenz, (0.0, 3.0), np.ones(3), P, {"t_eval": [], "rtol": 1e-4, "controller": "I"}),
    "rows of every step and stops": (switched, (0.0, 4.0), np.ones(2), (3.0,), {"tstops": [1.0, 2.5], "rtol": 1e-7}),
    "rows and stops": (
        switched, (0.0, 4.0), np.array([1.0, 0.0]), (3.0,),
        {"t_eval": np.array([0.0, 0.0, 0.3, 1.0, 1.7, 2.5, 2.6, 4.0]), "tstops": [1.0, 2.5], "rtol": 1e-7},
    ),
    "backwards, carried slope": (
        switched, (4.0, -1.0), np.array([1.0, 0.0]), (3.0,),
        {"t_eval": np.linspace(4.0, -1.0, 9), "tstops": [2.5, 1.0], "method": "dopri5"},
    ),
    "fixed steps": (
        switched, (0.0, 4.0), np.array([1.0, 0.0]), (3.0,),
        {"t_eval": np.linspace(0.05, 4.0, 7), "tstops": [1.0, 2.5], "method": "rk4", "first_step": 0.03},
    ),
    "float32": (switched, (0.0, 4.0), np.array([1.0, 0.0], np.float32), (3.0,), {"rtol": 1e-5, "atol": 1e-6}),
}  # fmt: skip


def gradient(case, checkpoints, pulls=1):
    model, span, y0, params, options = CASES[case]
    sol, pullback = odec.solve_vjp(model, span, y0, params, checkpoints=checkpoints, **options)
    ys_bar = np.cos(np.arange(sol.ys.size)).reshape(sol.ys.shape).astype(sol.ys.dtype)
    return sol, [pullback(ys_bar) for _ in range(pulls)]


recorded = functools.cache(lambda case: gradient(case, 10**6))


def numbers(found):
    times = () if found.t_eval is None else found.t_eval
    return [found.y0, *found.params, times, found.t0, found.t1]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("checkpoints", (2, 3, 4, 5, 7, 12, 30, 100, 400, "file"))
def test_gradient_does_not_depend_on_the_memory_it_is_given(case, checkpoints):
    sol, (whole,) = recorded(case)
    again, found = gradient(case, checkpoints, pulls=3)
    np.testing.assert_array_equal(again.ys, sol.ys)
    np.testing.assert_array_equal(again.ts, sol.ts)
    assert whole.stats["again"] == 0
    for bounded in found:
        assert bounded.stats["steps"] == whole.stats["steps"] == sol.stats["steps"]
        for a, b in zip(numbers(bounded), numbers(whole), strict=True):
            np.testing.assert_array_equal(a, b)


def test_rejected_tries_are_made_again():
    assert recorded("rejections")[0].stats["rejected"] > 5


def test_a_solve_within_the_leaf_makes_nothing_again():
    _, (found,) = gradient("end only", 2 * recorded("end only")[0].stats["steps"] + 40)
    assert found.stats["again"] == 0


def test_beyond_the_budget_snapshots_take_over(monkeypatch):
    monkeypatch.setattr(module, "BUDGET", 40 * 25)
    _, (whole,) = recorded("end only")
    _, (found,) = gradient("end only", None)
    assert 0 < found.stats["again"] < whole.stats["steps"] + 25
    for a, b in zip(numbers(found), numbers(whole), strict=True):
        np.testing.assert_array_equal(a, b)


def test_steps_that_ran_out_are_gone_back_over():
    run = lambda n: odec.solve_vjp(lorenz, (0, 9), np.ones(3), P, checkpoints=n, max_steps=60, throw=False, t_eval=[])
    found = [pullback(np.ones((1, 3))) for _, pullback in (run(1000), run(8))]
    for a, b in zip(*map(numbers, found), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(SolveError, match="max_steps"):
        odec.solve_vjp(lorenz, (0, 9), np.ones(3), P, checkpoints=8, max_steps=60)


@pytest.mark.parametrize("slots", (1, 2, 3, 5, 8))
@pytest.mark.parametrize("blocks", (1, 2, 3, 7, 20, 61))
def test_splits_reach_the_binomial_bound(blocks, slots):
    @functools.cache
    def advances(b, s):
        if b == 1:
            return 0
        m = split(b, s) if s > 1 else b - 1
        assert 1 <= m < b
        return m + (advances(b - m, s - 1) if s > 1 else 0) + advances(m, s)

    @functools.cache
    def least(b, s):  # over all ways to split
        if b == 1:
            return 0
        if s == 1:
            return b * (b - 1) // 2
        return min(m + least(b - m, s - 1) + least(m, s) for m in range(1, b))

    assert advances(blocks, slots) == least_advances(blocks, slots) == least(blocks, slots)


@pytest.mark.parametrize("steps, checkpoints", ((1000, 10), (1000, 40), (333, 6), (90, 3)))
def test_steps_made_again_are_as_many_as_the_binomial_bound_says(steps, checkpoints):
    options = {"method": "rk4", "first_step": 1.0 / steps, "t_eval": [], "checkpoints": checkpoints}
    _, pullback = odec.solve_vjp(decay, (0.0, 1.0), np.ones(2), (0.5,), **options)
    leaf = checkpoints // 2
    bound = leaf * least_advances(-(-steps // leaf), checkpoints - leaf) + steps
    first, second = (pullback(np.ones((1, 2))).stats["again"] for _ in range(2))
    assert first <= bound
    assert second == bound


def peak_of_gradient(steps, checkpoints):
    """Bytes at most in memory for 20 numbers over so many steps."""
    options = {"method": "euler", "first_step": 1.0 / steps, "t_eval": [], "max_steps": 10**7}
    tracemalloc.start()
    _, pullback = odec.solve_vjp(decay, (0.0, 1.0), np.ones(20), (0.5,), checkpoints=checkpoints, **options)
    assert pullback(np.ones((1, 20))).stats["steps"] == steps
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_memory_does_not_depend_on_the_number_of_steps():
    peak_of_gradient(100, 600)  # compiled
    short, full, long = (peak_of_gradient(steps, 600) for steps in (10**3, 10**5, 10**6))  # the second fills all
    assert short < full
    assert long < 1.1 * full + 10_000
    assert long < 900 * 20 * 8 + 300 * 1_500 + 100_000  # states, slopes of snapshots, what else those hold, and a rest
    assert peak_of_gradient(10**5, 10**6) > 10 * full


# ---- on the disk


def test_file_takes_the_memory(tmp_path):
    peak_of_gradient(100, "file")
    few, many = (peak_of_gradient(steps, tmp_path) for steps in (10**3, 10**6))
    assert many < few + 4 * 2**20  # of 176 MB on the disk, copies of a few columns of one stretch
    assert peak_of_gradient(10**5, None) > 16 * 10**6


def test_stretches_of_a_file_meet_where_they_should(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "STRETCH", 7)
    for case in ("rows of every step and stops", "rows and stops", "rejections"):
        _, (whole,) = recorded(case)
        _, found = gradient(case, tmp_path, pulls=2)
        for again in found:
            for a, b in zip(numbers(again), numbers(whole), strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a file keeps its name until it is closed")
def test_file_has_no_name(tmp_path):
    _, pullback = odec.solve_vjp(lorenz, (0.0, 2.0), np.ones(3), P, t_eval=[], checkpoints=tmp_path)
    assert not list(tmp_path.iterdir())
    assert np.isfinite(pullback(np.ones((1, 3))).y0).all()


def test_room_is_made_where_the_system_has_no_call_for_it(monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    monkeypatch.setattr(disk, "ZEROS", 100)
    _, (found,) = gradient("end only", "file")
    for a, b in zip(numbers(found), numbers(recorded("end only")[1][0]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_full_disk_is_said(tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
    try:
        with pytest.raises(RoomError, match=r"recorded steps take [\d,]+ bytes, .* has no room .* larger disk"):
            gradient("end only", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("name", ("missing", "file"))
def test_folder_without_files_is_said(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match=f"folder .*{name}, in which no file can be made .* name a folder"):
        odec.solve_vjp(decay, (0.0, 1.0), np.ones(2), (0.5,), checkpoints=tmp_path / name)


@pytest.mark.parametrize("checkpoints", (0, 1, -3, True, False, "x", 4.0, (5,), np.ones(3), ["file"]))
def test_checkpoints_that_are_no_number_are_refused(checkpoints):
    with pytest.raises(ArgumentError, match=r"(?s)checkpoints is .* at least 2"):
        odec.solve_vjp(decay, (0.0, 1.0), np.ones(2), (0.5,), checkpoints=checkpoints)
