"""Discrete gradients of ensembles: each member's own, whatever lanes, threads and neighbours there are."""

import numpy as np
import pytest

import odec
from odec.errors import ArgumentError, ShapeError, Status
from odec.gradients import members
from odec.gradients.members import MembersBack
from odec.integrate.ensemble import run_batch

N = 37
SPAN = (0.2, 3.0)
RNG = np.random.default_rng(5)
Y0 = RNG.uniform(0.5, 1.5, (N, 2))
C = RNG.uniform(1.0, 4.0, N)
P = {"a": 1.5, "b": 1.0, "c": C, "d": 1.0}
HOW = {"rtol": 1e-4, "first_step": 1.0}  # which is rejected


@odec.dynamics
def driven(t, y, a, b, c, d):
    """Lotka and Volterra's, with prey that breed by season."""
    return [a * y[0] - b * y[0] * y[1] + 0.3 * np.sin(2 * t), -c * y[1] + d * y[0] * y[1]]


@odec.dynamics
def pendulum(t, y, mass):
    return {"angle": y["speed"], "speed": -mass["ratio"] * np.sin(y["angle"]) - mass["drag"] @ y["speed"]}


@odec.dynamics
def network(t, y, first, second):
    return np.tanh(y @ first) @ second


@odec.dynamics
def bursting(t, y, k):
    return [y[0] ** 2 * k, y[1]]


def close(found, expected, rtol=1e-12, least=0.0):
    """Up to rounding; least : of what differences the numbers are, where they nearly cancel."""
    found, expected = np.asarray(found), np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * np.abs(expected).max(initial=least))


def alone(w, spans=None, times=None, y0=Y0, **how):
    """The Gradients of the members of `driven`, each solved by itself."""
    found = []
    for i in range(N):
        span = SPAN if spans is None else (spans[0][i], spans[1])
        own = times if times is None or np.ndim(times) == 1 else times[i][~np.isnan(times[i])]
        start = y0[i] if np.ndim(y0) == 2 else y0
        _, pullback = odec.solve_vjp(driven, span, start, P | {"c": C[i]}, t_eval=[] if own is None else own, **how)
        rows = 1 if own is None else len(own)
        found.append(pullback(w[i, :rows]))
    return found


def own_times(spans):
    """Times (N, 4) within each span, of some members the start or the end, of some fewer."""
    begins, end = spans
    times = begins[:, None] + (end - begins[:, None]) * np.array([0.0, 0.31, 0.33, 1.0])
    times[1::3, 0] = begins[1::3] + 0.01 * (end - begins[1::3])
    times[::4, 3] = np.nan
    return times


# ---- parity


@pytest.mark.parametrize("kept", ["end", "shared", "own"])
@pytest.mark.parametrize("stops", [(), (1.1, 2.0)], ids=["free", "stops"])
def test_members_have_the_gradients_of_their_own_solves(kept, stops):
    spans = (np.linspace(0.2, 0.9, N), 3.0)
    times = {"end": None, "shared": np.array([1.0, 1.1, 1.11, 2.5, 3.0]), "own": own_times(spans)}[kept]
    how = HOW | {"tstops": stops}
    ens, pullback = odec.solve_vjp(driven, spans, Y0, P, batched=("y0", "c"), t_eval=times, **how)
    w = RNG.normal(size=ens.ys.shape)
    gradient, expected = pullback(w), alone(w, spans, times, **how)
    assert ens.rejected.sum() > 0 and len(set(ens.steps)) > 1 and len(set(ens.nfev)) > 1
    close(gradient.y0, [g.y0 for g in expected])
    close(gradient.params["c"], [g.params["c"] for g in expected])
    for name in "abd":
        close(gradient.params[name], sum(g.params[name] for g in expected))
    close(gradient.t0, [g.t0 for g in expected], 1e-11, least=1.0)
    close(gradient.t1, sum(g.t1 for g in expected), 1e-11, least=1.0)
    if kept == "shared":
        close(gradient.t_eval, sum(g.t_eval for g in expected), 1e-11)
    elif kept == "own":
        for i, g in enumerate(expected):
            close(gradient.t_eval[i, : len(g.t_eval)], g.t_eval, 1e-11)
            assert not gradient.t_eval[i, len(g.t_eval) :].any()
    else:
        assert gradient.t_eval is None


def test_time_may_run_backwards():
    spans, times = (np.linspace(3.0, 2.6, N), 0.4), np.array([2.2, 1.5, 1.49, 0.4])
    ens, pullback = odec.solve_vjp(driven, spans, Y0, P, batched=("y0", "c"), t_eval=times, tstops=(1.5,), **HOW)
    w = RNG.normal(size=ens.ys.shape)
    gradient, expected = pullback(w), alone(w, spans, times, tstops=(1.5,), **HOW)
    close(gradient.y0, [g.y0 for g in expected])
    close(gradient.t0, [g.t0 for g in expected], 1e-11, least=1.0)
    close(gradient.t_eval, sum(g.t_eval for g in expected), 1e-11)


@pytest.mark.parametrize("name", ["bs3", "rk4", "carpenter_kennedy54"])
def test_methods_have_them(name):
    times, how = np.array([0.7, 3.0]), {"method": name, "first_step": 0.11, "rtol": 1e-4}
    ens, pullback = odec.solve_vjp(driven, SPAN, Y0, P, batched=("y0", "c"), t_eval=times, **how)
    w = RNG.normal(size=ens.ys.shape)
    gradient, expected = pullback(w), alone(w, None, times, **how)
    close(gradient.y0, [g.y0 for g in expected], 1e-11)
    close(gradient.t0, sum(g.t0 for g in expected), 1e-10)


def test_state_that_is_shared_has_the_sum():
    _, pullback = odec.solve_vjp(driven, SPAN, Y0[0], P, batched="c", **HOW)
    w = RNG.normal(size=(N, 2))
    gradient, expected = pullback(w), alone(w[:, None], y0=Y0[0], **HOW)
    close(gradient.y0, sum(g.y0 for g in expected))
    close(gradient.t0, sum(g.t0 for g in expected))
    assert isinstance(gradient.t1, float)


def test_parameters_that_are_shared_have_the_sum():
    values = (1.5, 1.0, 3.0, 1.0)
    _, pullback = odec.solve_vjp(driven, SPAN, Y0, values, batched="y0", **HOW)
    gradient = pullback(np.ones((N, 2)))
    single = [odec.solve_vjp(driven, SPAN, y, values, t_eval=[], **HOW)[1](np.ones((1, 2))) for y in Y0]
    close(gradient.params, np.sum([g.params for g in single], axis=0))
    assert isinstance(gradient.params, tuple)


def test_structures_come_back():
    y0 = {"angle": RNG.normal(size=(9, 2)), "speed": RNG.normal(size=(9, 2))}
    mass = {"ratio": np.linspace(1.0, 2.0, 9), "drag": RNG.uniform(0.0, 0.2, (9, 2, 2))}
    times = np.array([0.4, 1.0])
    ens, pullback = odec.solve_vjp(pendulum, (0.0, 1.0), y0, (mass,), batched=("y0", "mass"), t_eval=times)
    w = {k: RNG.normal(size=v.shape) for k, v in ens.ys.items()}
    gradient = pullback(w)
    for i in range(9):
        one = {k: v[i] for k, v in mass.items()}
        _, single = odec.solve_vjp(pendulum, (0.0, 1.0), {k: v[i] for k, v in y0.items()}, (one,), t_eval=times)
        expected = single({k: v[i] for k, v in w.items()})
        for key in y0:
            close(gradient.y0[key][i], expected.y0[key], 1e-11)
        for key in mass:
            close(gradient.params[0][key][i], expected.params[0][key], 1e-11)


def test_models_of_arrays_in_single_precision_have_them():
    y0 = RNG.normal(size=(5, 64, 4)).astype("float32")
    weights = RNG.normal(size=(4, 50)).astype("float32"), (0.1 * RNG.normal(size=(50, 4))).astype("float32")
    ens, pullback = odec.solve_vjp(network, (0.0, 1.0), y0, weights, batched="y0", rtol=1e-3)
    w = RNG.normal(size=ens.y1.shape).astype("float32")
    gradient = pullback(w)
    single = [odec.solve_vjp(network, (0.0, 1.0), y, weights, t_eval=[], rtol=1e-3)[1](v[None]) for y, v in zip(y0, w)]
    close(gradient.y0, [g.y0 for g in single], 1e-4)
    for k in range(2):
        close(gradient.params[k], sum(g.params[k] for g in single), 1e-4)
    assert gradient.y0.dtype == gradient.params[0].dtype == "float32"


# ---- laws


def pulled(ens, w, threads=1, lanes=None):
    """The PulledMembers of an ensemble, in so many lanes."""
    batch, solver = ens.origin.batch, ens.origin.system.solver(ens.origin.record)
    again = run_batch(solver, batch, threads, lanes=lanes)
    back = MembersBack(ens.origin.system, ens.origin.record, batch, again.steps + again.rejected, threads, lanes)
    return back.pull(w)


def test_lanes_change_the_last_digits_only():
    ens, pullback = odec.solve_vjp(
        driven, SPAN, Y0, P, batched=("y0", "c"), t_eval=own_times((np.full(N, 0.2), 3.0)), **HOW
    )
    w = RNG.normal(size=ens.ys.shape)
    gradient, one = pullback(w), pulled(ens, w, lanes=1)
    close(one.own.y, gradient.y0)
    close(one.parameters[:, 0], gradient.params["c"])
    close(one.summed.p[:2], [gradient.params["a"], gradient.params["b"]])
    close(one.own.times, gradient.t_eval, 1e-11)


def test_neither_threads_nor_chunks_nor_order_change_a_bit_of_a_member(monkeypatch):
    monkeypatch.setattr(members, "LEAST", 16)
    monkeypatch.setattr(members, "TAPE_BYTES", 20_000)
    _, pullback = odec.solve_vjp(driven, SPAN, Y0, P, batched=("y0", "c"), threads=1, **HOW)
    w = RNG.normal(size=(N, 2))
    gradient = pullback(w)
    assert len(pullback._back.chunks()) > 2
    _, threaded = odec.solve_vjp(driven, SPAN, Y0, P, batched=("y0", "c"), threads=3, **HOW)
    for again in (threaded(w), threaded(w)):
        np.testing.assert_array_equal(again.y0, gradient.y0)
        assert again.params["a"] == gradient.params["a"] and again.t0 == gradient.t0
    order = RNG.permutation(N)
    _, shuffled = odec.solve_vjp(driven, SPAN, Y0[order], P | {"c": C[order]}, batched=("y0", "c"), **HOW)
    moved = shuffled(w[order])
    np.testing.assert_array_equal(moved.y0, gradient.y0[order])
    np.testing.assert_array_equal(moved.params["c"], gradient.params["c"][order])
    close(moved.params["a"], gradient.params["a"])


def test_chunks_hold_all_members_within_their_budget():
    _, pullback = odec.solve_vjp(driven, SPAN, np.ones((1_000, 2)), (1.5, 1.0, 3.0, 1.0), batched="y0", rtol=1e-8)
    chunks = pullback._back.chunks()
    assert [a for a, _ in chunks] == [0, *(b for _, b in chunks[:-1])] and chunks[-1][1] == 1_000
    assert len(chunks) == 16 and max(b - a for a, b in chunks) == members.LEAST


def test_gradient_is_that_of_a_change_of_an_input():
    how = {"method": "rk4", "first_step": 0.05, "t_eval": np.array([1.0, 3.0])}
    ens, pullback = odec.solve_vjp(driven, SPAN, Y0, P, batched=("y0", "c"), **how)
    w, step = RNG.normal(size=ens.ys.shape), 1e-3
    value = lambda a: (w * odec.solve_ensemble(driven, SPAN, Y0, P | {"a": a}, batched=("y0", "c"), **how).ys).sum()
    near, far = (value(1.5 + k * step) - value(1.5 - k * step) for k in (1, 2))
    np.testing.assert_allclose(pullback(w).params["a"], (8 * near - far) / (12 * step), rtol=1e-8)


# ---- members that fail, and what is refused


def test_members_that_fail_have_zeros():
    y0 = np.array([[0.5, 1.0], [4.0, 1.0], [np.nan, 1.0], [0.25, 1.0]])  # the second grows without bound before t = 1
    with np.errstate(all="ignore"):
        ens, pullback = odec.solve_vjp(bursting, (0.0, 1.0), y0, (1.0,), batched="y0", t_eval=[0.5, 1.0])
    assert ens.success.tolist() == [True, False, False, True] and ens.status[2] == Status.NON_FINITE_START
    gradient = pullback(2 * ens.ys)
    good, of_good = odec.solve_vjp(bursting, (0.0, 1.0), y0[[0, 3]], (1.0,), batched="y0", t_eval=[0.5, 1.0])
    expected = of_good(2 * good.ys)
    np.testing.assert_array_equal(gradient.y0[[0, 3]], expected.y0)
    np.testing.assert_array_equal(gradient.y0[[1, 2]], 0.0)
    assert gradient.params == expected.params


def test_where_all_fail_all_is_zero():
    ens, pullback = odec.solve_vjp(bursting, (0.0, 1.0), [[4.0, 1.0], [5.0, 1.0]], (1.0,), batched="y0")
    gradient = pullback(ens.ys)
    assert not ens.success.any() and not gradient.y0.any() and gradient.params == (0.0,)
    assert gradient.stats["steps"] == 0 and gradient.y0.shape == (2, 2)


def test_inputs_may_be_changed_after_the_solve():
    y0 = Y0.copy()
    _, pullback = odec.solve_vjp(driven, SPAN, y0, P, batched=("y0", "c"), **HOW)
    before = pullback(np.ones((N, 2))).y0
    y0[:] = 0.0
    np.testing.assert_array_equal(pullback(np.ones((N, 2))).y0, before)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"adjoint": "backsolve"}, "discrete adjoint only"),
        ({"checkpoints": 8}, "no such choice"),
        ({"differentiate_steps": True}, "no such choice"),
        ({"events": [lambda t, y: y[0]]}, "leave events out"),
        ({"reduce": "mean"}, "reduce `ens.ys`"),
        ({"executor": 3}, "ask for threads"),
        ({"target": "gpu"}, "target 'gpu' is not known"),
        ({"target": "cuda", "on_device": True}, "lie in the host's memory"),
        ({"dense_output": True}, "keeps no polynomials"),
    ],
)
def test_what_cannot_be_done_is_refused(how, message):
    with pytest.raises(ArgumentError, match=message):
        odec.solve_vjp(driven, SPAN, Y0, P, batched=("y0", "c"), **how)


def test_cotangents_that_do_not_fit_are_refused():
    times = own_times((np.full(N, 0.2), 3.0))
    ens, pullback = odec.solve_vjp(driven, SPAN, Y0, P, batched=("y0", "c"), t_eval=times, **HOW)
    pullback(ens.ys)  # nan where a member has no row
    w = np.ones(ens.ys.shape)
    w[3, 1, 1] = np.inf
    with pytest.raises(ArgumentError, match=r"ys_bar\[1\] of row 1 of member 3 is inf"):
        pullback(w)
    with pytest.raises(ShapeError, match=r"ys_bar has shape \(37, 2\)"):
        pullback(np.ones((N, 2)))
    assert "37 members" in repr(pullback)
