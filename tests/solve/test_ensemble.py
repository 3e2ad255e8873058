"""odec.solve_ensemble as users meet it: the numbers of odec.solve for each member, failures named and masked."""

import copy
import dataclasses
import pickle
import re
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import numbers

import odec
from odec import Status

RHO = np.linspace(0.0, 21.0, 7)
Y0 = np.array([1.0, 1.0, 1.0])
SHARP = {"rtol": 1e-9, "atol": 1e-9}


@odec.dynamics(state=("x", "v", "z"))
def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
    x, v, z = y
    return [sigma * (v - x), x * (rho - z) - v, x * v - beta * z]


@odec.dynamics
def decay(t, y, rate=1.0):
    return -rate * y


@odec.dynamics
def falling(t, y, weight=1.0):
    return [weight * np.log(y[0])]  # y falls to where the logarithm ends


class Body(NamedTuple):
    place: np.ndarray
    speed: np.ndarray


@dataclasses.dataclass
class Spring:
    stiffness: float
    rest: float = 0.0


@odec.dynamics
def spring(t, y, spring):
    return Body(y.speed, -spring.stiffness * (y.place - spring.rest))


def assert_members_equal(ens, solve_member, tolerance=1e-7):
    """Statuses, ends and rows of an ensemble are those of solving each member by itself."""
    for i in range(len(ens)):
        one = solve_member(i)
        assert one.status == ens.status[i], i
        member = ens[i]
        assert ens.nfev[i] == member.stats["nfev"] == one.stats["nfev"]
        assert member.status == one.status and len(member.ts) == len(one.ts)
        np.testing.assert_allclose(member.ts, one.ts, rtol=1e-9)
        np.testing.assert_allclose(member.flat_rows, one.flat_rows, rtol=tolerance, atol=tolerance)
        if one.success:
            np.testing.assert_allclose(
                ens.flat_y1[i], ens.structure.flatten(one.y1, "y1"), rtol=tolerance, atol=tolerance
            )


# ---- the same numbers as odec.solve ---------------------------------------------------------------------------


@st.composite
def sweeps(draw):
    """(N, {name: values} of what is batched, both ends of the spans, t_eval)."""
    size = draw(st.integers(1, 4))

    def array(low, high, *shape):
        elements = [draw(numbers(low, high)) for _ in range(size * int(np.prod(shape)))]
        return np.array(elements).reshape(size, *shape)

    given = {
        "y0": array(0.5, 2.0, 3), "sigma": array(5.0, 15.0), "rho": array(1.0, 20.0), "beta": array(1.0, 3.0),
        "t0": array(-0.5, -0.1), "t1": array(1.0, 2.0), "own": array(0.1, 0.9, 3),
    }  # fmt: skip
    names = draw(st.sets(st.sampled_from(sorted(given)), min_size=1))
    return size, {name: given[name] for name in names}, draw(st.sampled_from((None, (), (0.0, 0.3, 0.9))))


@given(sweep=sweeps())
@example(sweep=(1, {"rho": np.array([1.0])}, None))
@example(sweep=(2, {"own": np.array([[0.1, 0.2, np.nan], [np.nan] * 3])}, None))
def test_members_are_those_of_single_solves(sweep):
    size, given, shared = sweep
    batched = tuple(name for name in given if name in ("y0", "sigma", "rho", "beta"))
    params = {name: given[name] for name in batched if name != "y0"}
    span = given.get("t0", 0.0), given.get("t1", 1.0)
    t_eval = np.sort(given["own"], axis=1) if "own" in given else shared
    ens = odec.solve_ensemble(lorenz, span, given.get("y0", Y0), params, batched=batched, t_eval=t_eval, **SHARP)
    assert len(ens) == size and ens.success.all() and not ens.failures

    def member(i):
        own = [a[i] if np.ndim(a) else a for a in span]
        rows = t_eval[i][~np.isnan(t_eval[i])] if "own" in given else list(shared or ())
        state = given["y0"][i] if "y0" in given else Y0
        return odec.solve(lorenz, own, state, {n: v[i] for n, v in params.items()}, t_eval=rows, **SHARP)

    if "own" in given:
        assert ens.ts.shape == ens.ys.shape[:2] == (size, 3)
        for i in range(size):
            kept = ~np.isnan(t_eval[i])
            assert (np.isnan(ens.ys[i]).any(axis=1) == ~kept).all() and len(ens[i].ts) == kept.sum()
            if kept.any():
                np.testing.assert_allclose(ens[i].ys, member(i).ys, rtol=1e-7, atol=1e-7)
    else:
        assert_members_equal(ens, member)


def test_shapes_of_an_ensemble_with_shared_times():
    times = np.linspace(0.0, 1.0, 5)
    ens = odec.solve_ensemble(lorenz, (0.0, 1.0), Y0, {"rho": RHO}, batched="rho", t_eval=times)
    assert ens.ts.shape == (5,) and ens.ys.shape == (7, 5, 3) and ens.y1.shape == (7, 3) and ens.t1.shape == (7,)
    assert ens.status.shape == (7,) and ens.success.all() and ens.steps.sum() == ens.stats["steps"]
    assert 0.0 < ens.stats["lane_use"] <= 1.0 and ens.stats["nfev"] > ens.stats["steps"]
    assert ens.nfev.shape == (7,) and ens.nfev.dtype == np.int64 and ens.nfev.sum() == ens.stats["nfev"]
    np.testing.assert_array_equal(ens.y1, ens.ys[:, -1])
    assert ens.names == ("x", "v", "z") and ens.t_span == (0.0, 1.0)
    np.testing.assert_array_equal(ens.batched["rho"], RHO)
    assert ens.t_events is None and ens.y_events is None


@pytest.mark.parametrize("t_eval", [None, [], ()])
def test_without_times_the_end_is_the_only_row(t_eval):
    ens = odec.solve_ensemble(decay, (0.0, 1.0), np.ones((3, 2)), batched="y0", t_eval=t_eval)
    assert ens.ts.tolist() == [1.0] and ens.ys.shape == (3, 1, 2)
    np.testing.assert_array_equal(ens.ys[:, 0], ens.y1)
    ends = odec.solve_ensemble(decay, (0.0, [1.0, 2.0, 3.0]), np.ones((3, 2)), batched=["y0"], t_eval=t_eval)
    assert ends.ts.tolist() == [[1.0], [2.0], [3.0]] and ends.t1.tolist() == [1.0, 2.0, 3.0]
    np.testing.assert_allclose(ends.y1[:, 0], np.exp([-1.0, -2.0, -3.0]), rtol=1e-5)


def test_time_runs_backward_for_all():
    ens = odec.solve_ensemble(decay, ([1.0, 2.0], 0.0), np.ones(2), t_eval=[[0.5, 0.25], [1.5, np.nan]], **SHARP)
    wanted = np.exp([[0.5, 0.75], [0.5, np.nan]])
    np.testing.assert_allclose(ens.ys, wanted[:, :, None] * np.ones(2), rtol=1e-7)


def test_structures_are_batched_leaf_by_leaf():
    k = np.array([1.0, 4.0, 9.0])
    y0 = Body(np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 2.0]]), np.zeros((3, 2)))
    ens = odec.solve_ensemble(
        spring, (0.0, 1.0), y0, (Spring(k, np.zeros(3)),), batched=("y0", "spring"), t_eval=[0.0, 1.0], **SHARP
    )
    assert isinstance(ens.ys, Body) and ens.ys.place.shape == (3, 2, 2) and ens.y1.speed.shape == (3, 2)
    np.testing.assert_allclose(ens.y1.place, y0.place * np.cos(np.sqrt(k))[:, None], atol=1e-7)
    one = ens[2]
    assert isinstance(one.y1, Body) and one.ys.place.shape == (2, 2)
    np.testing.assert_array_equal(one.y1.place, ens.y1.place[2])


def test_a_dict_of_numbers_is_batched_as_a_dict_of_vectors():
    model = odec.dynamics(lambda t, y: {"a": -y["a"], "b": y["a"]})
    ens = odec.solve_ensemble(model, (0.0, 1.0), {"b": [0.0, 1.0], "a": [1, 2]}, batched="y0", **SHARP)
    assert list(ens.y1) == ["b", "a"] and ens.y1["a"] == pytest.approx(np.exp(-1.0) * np.array([1, 2]))
    assert ens.y1["b"] == pytest.approx([1 - np.exp(-1), 3 - 2 * np.exp(-1)])


def test_a_system_takes_its_members():
    system = lorenz.bind(Y0)
    params = {"sigma": 10.0, "rho": RHO, "beta": 8 / 3}
    ens = odec.solve_ensemble(system, (0.0, 1.0), Y0, params, batched="rho", **SHARP)
    again = odec.solve_ensemble(lorenz, (0.0, 1.0), Y0, (10.0, RHO), batched="rho", **SHARP)
    np.testing.assert_array_equal(ens.y1, again.y1)


def test_an_array_parameter_has_its_own_shape_after_the_first_axis():
    model = odec.dynamics(lambda t, y, a, b: a @ y + b)
    a = np.random.default_rng(0).normal(size=(4, 2, 2))
    ens = odec.solve_ensemble(model, (0.0, 1.0), [1.0, 0.0], {"a": a, "b": np.zeros(2)}, batched="a", **SHARP)
    assert_members_equal(
        ens, lambda i: odec.solve(model, (0.0, 1.0), [1.0, 0.0], (a[i], np.zeros(2)), t_eval=[], **SHARP)
    )


def test_float32_stays_float32():
    y0 = np.ones((3, 2), np.float32)
    ens = odec.solve_ensemble(decay, (0.0, 1.0), y0, batched="y0", t_eval=[0.5, 1.0], reduce="mean")
    assert ens.y1.dtype == np.float32 and ens.reduced["mean"].dtype == np.float32 and ens.t1.dtype == np.float64
    assert odec.solve_ensemble(decay, (0.0, 1.0), np.ones((3, 2)), batched="y0", dtype="float32").y1.dtype == np.float32


@pytest.mark.parametrize(
    "form",
    [np.asfortranarray, lambda a: np.repeat(a, 2, axis=0)[::2], lambda a: a.tolist(), lambda a: a.astype(np.float32)],
    ids=["fortran", "strided", "list", "float32"],
)
def test_inputs_of_any_layout_are_left_alone(form):
    y0 = np.arange(1.0, 7.0).reshape(3, 2)
    given = form(y0)
    if isinstance(given, np.ndarray):
        given.flags.writeable = False
    before = copy.deepcopy(given)
    rate = np.array([1, 2, 3])
    ens = odec.solve_ensemble(decay, (0.0, 1.0), given, {"rate": rate}, batched=("y0", "rate"), dtype=float, **SHARP)
    np.testing.assert_allclose(ens.y1, y0 * np.exp(-rate)[:, None], rtol=1e-7)
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_no_result_depends_on_threads(threads):
    how = {"batched": "rho", "t_eval": [0.5, 1.0], "reduce": ("mean", "std")}
    rho = np.linspace(0.0, 21.0, 200)
    one = odec.solve_ensemble(lorenz, (0.0, 1.0), Y0, {"rho": rho}, threads=1, **how)
    ens = odec.solve_ensemble(lorenz, (0.0, 1.0), Y0, {"rho": rho}, threads=threads, **how)
    np.testing.assert_array_equal(ens.y1, one.y1)
    for name in ("mean", "std"):
        np.testing.assert_array_equal(ens.reduced[name], one.reduced[name])


def test_stops_are_shared():
    model = odec.dynamics(lambda t, y: np.where(t < 0.5, 0.0, 1.0) + 0 * y)
    ens = odec.solve_ensemble(model, (0.0, [1.0, 2.0]), [0.0], tstops=[0.5])
    np.testing.assert_allclose(ens.y1[:, 0], [0.5, 1.5], rtol=1e-12)
    assert ens.steps.max() < 30


# ---- failures -------------------------------------------------------------------------------------------------


def test_failed_members_never_hide_the_others():
    y0 = np.array([[2.0], [0.5], [3.0], [0.1]])
    ens = odec.solve_ensemble(falling, (0.0, 2.0), y0, batched="y0", t_eval=[0.0, 0.1, 1.9])
    assert ens.success.tolist() == [True, False, True, False] and ens.stats["failed"] == 2
    assert np.isnan(ens.y1[[1, 3]]).all() and np.isfinite(ens.y1[[0, 2]]).all()
    assert np.isfinite(ens.ys[:, 0]).all() and np.isnan(ens.ys[[1, 3], 2]).all() and np.isfinite(ens.ys[[0, 2]]).all()
    assert (ens.t1[[1, 3]] < 2.0).all() and (ens.t1[[0, 2]] == 2.0).all()
    assert len(ens[1].ts) < 3 and ens[1].status == ens.status[1] and not ens[1].success
    assert "at t = " in ens[1].message
    members = np.concatenate([f.members for f in ens.failures])
    assert sorted(members) == [1, 3] and sum(f.count for f in ens.failures) == 2


def test_the_message_of_a_member_is_that_of_its_single_solve():
    y0 = np.array([[2.0], [0.5]])
    ens = odec.solve_ensemble(falling, (0.0, 2.0), y0, batched="y0")
    alone = odec.solve(falling, (0.0, 2.0), y0[1], t_eval=[], throw=False)
    assert ens.message(0) == "reached the end of the time span"
    assert ens.message(1) == alone.message and ens.nfev[1] == alone.stats["nfev"]
    assert re.search(r"np\.log\(.*test_ensemble\.py:\d+.*y\[0\]", ens.message(-1))


def test_step_limits_are_statuses():
    ens = odec.solve_ensemble(lorenz, (0.0, [0.01, 50.0]), Y0, max_steps=40)
    assert ens.status.tolist() == [Status.SUCCESS, Status.STEP_LIMIT]
    assert "max_steps" in ens.message(1) and ens.steps[1] + ens.rejected[1] == 40


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_members_whose_inputs_are_not_finite_fail_alone(bad):
    model = odec.dynamics(lambda t, y, a: np.ones(2) * t)  # finite whatever y and a are
    y0, a = np.zeros((5, 2)), np.ones((5, 3))
    y0[1, 1], a[3, 2] = bad, bad
    ens = odec.solve_ensemble(
        model, (0.0, [1.0, 2.0, 3.0, 4.0, 5.0]), y0, (a,), batched=("y0", "a"), t_eval=[0.0, 1.0],
        events=lambda t, y: t - 0.5, reduce=(),
    )  # fmt: skip
    assert ens.status.tolist() == [0, Status.NON_FINITE_START, 0, Status.NON_FINITE_START, 0]
    assert np.isnan(ens.y1[[1, 3]]).all() and np.isnan(ens.ys[[1, 3]]).all() and (ens.t1[[1, 3]] == 0.0).all()
    np.testing.assert_allclose(ens.y1[[0, 2, 4], 0], [0.5, 4.5, 12.5])
    np.testing.assert_allclose(ens.t_events[0][:, 0], [0.5, np.nan, 0.5, np.nan, 0.5])
    assert f"y0[1] is {bad}" in ens.message(1) and f"params['a'][2] is {bad}" in ens.message(3)
    assert ens.steps[1] == ens.nfev[1] == 0 and len(ens[1].ts) == 0 and ens.stats["nfev"] == ens.nfev.sum()


def test_an_ensemble_without_one_finite_member_is_returned_too():
    ens = odec.solve_ensemble(decay, (0.0, 1.0), np.full((3, 2), np.nan), batched="y0", t_eval=[0.5], reduce="mean")
    assert (ens.status == Status.NON_FINITE_START).all() and np.isnan(ens.reduced["mean"]).all()
    assert ens.stats["failed"] == 3 and ens.reduced["mean"].shape == (1, 2) and ens.nfev.tolist() == [0, 0, 0]


# ---- events ---------------------------------------------------------------------------------------------------


def bounce():
    ground = odec.Event(lambda t, y: y[0], direction=-1, reset=lambda t, y, p: [0.0, -p * y[1]])
    top = odec.Event(lambda t, y: y[1], direction=-1)
    return odec.dynamics(lambda t, y, p: [y[1], -9.81]), [ground, top]


@pytest.mark.parametrize("method", ["tsit5", "dop853", "taylor", "rk4"])
def test_events_of_members_are_those_of_single_solves(method):
    model, events = bounce()
    heights, p = np.array([[1.0, 0.0], [5.0, 0.0], [0.2, 0.0]]), np.array([0.5, 0.9, 0.8])
    how = {"events": events, "t_eval": [0.0, 0.5, 1.0], "method": method, **SHARP}
    how["first_step"] = 0.01 if method == "rk4" else None
    ens = odec.solve_ensemble(model, (0.0, 1.0), heights, (p,), batched=("y0", "p"), **how)
    single = [odec.solve(model, (0.0, 1.0), h, (q,), **how) for h, q in zip(heights, p)]
    assert_members_equal(ens, single.__getitem__)
    for e in range(2):
        most = max(len(s.t_events[e]) for s in single)
        assert ens.t_events[e].shape == (3, most) and ens.y_events[e].shape == (3, most, 2)
        for i, s in enumerate(single):
            k = len(s.t_events[e])
            np.testing.assert_allclose(ens.t_events[e][i, :k], s.t_events[e], rtol=1e-8)
            np.testing.assert_allclose(ens.y_events[e][i, :k], s.y_events[e], rtol=1e-6, atol=1e-6)
            assert np.isnan(ens.t_events[e][i, k:]).all() and np.isnan(ens.y_events[e][i, k:]).all()
            np.testing.assert_array_equal(ens[i].t_events[e], ens.t_events[e][i, :k])
            np.testing.assert_array_equal(ens[i].y_events[e], ens.y_events[e][i, :k])
    assert (np.diff(ens.events.member) >= 0).all() and len(ens.events.t) == np.isfinite(ens.t_events[0]).sum() + np.sum(
        np.isfinite(ens.t_events[1])
    )


def test_a_terminal_event_ends_its_member():
    down = odec.Event(lambda t, y: y[0] - 0.5, terminal=True)
    rate = np.array([0.1, 1.0, 2.0])
    ens = odec.solve_ensemble(
        decay, (0.0, 1.0), [1.0], {"rate": rate}, batched="rate", events=down, t_eval=[0.0, 0.5, 1.0], **SHARP
    )
    assert ens.status.tolist() == [0, Status.TERMINATED, Status.TERMINATED] and ens.success.all()
    np.testing.assert_allclose(ens.t1, [1.0, np.log(2), np.log(2) / 2], rtol=1e-7)
    np.testing.assert_array_equal(np.isnan(ens.ys[:, :, 0]), [[0, 0, 0], [0, 0, 1], [0, 1, 1]])
    ends = odec.solve_ensemble(decay, (0.0, 1.0), [1.0], {"rate": rate}, batched="rate", events=down, **SHARP)
    np.testing.assert_allclose(ends.ts[:, 0], ends.t1)
    np.testing.assert_allclose(ends.y1[1:, 0], 0.5, rtol=1e-9)
    mean = odec.solve_ensemble(
        decay, (0.0, 1.0), [1.0], {"rate": rate}, batched="rate", events=down, t_eval=[0.0, 0.5, 1.0], reduce="mean"
    ).reduced["mean"]
    np.testing.assert_allclose(mean, np.nanmean(ens.ys, axis=0), rtol=1e-5)


def test_an_event_that_never_comes_has_no_columns():
    ens = odec.solve_ensemble(decay, (0.0, 1.0), np.ones((2, 1)), batched="y0", events=lambda t, y: y[0] + 1.0)
    assert ens.t_events[0].shape == (2, 0) and ens.y_events[0].shape == (2, 0, 1)


# ---- reductions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t_eval", [None, [0.3, 0.7]])
def test_reductions_are_of_the_members_that_succeed(t_eval):
    y0 = np.concatenate([np.linspace(1.5, 2.5, 150), [0.1, 0.2]])[:, None]
    names = ("mean", "std", "min", "max", "sum")
    ens = odec.solve_ensemble(falling, (0.0, 1.5), y0, batched="y0", t_eval=t_eval, reduce=names)
    kept = odec.solve_ensemble(falling, (0.0, 1.5), y0, batched="y0", t_eval=t_eval)
    assert ens.ys is None and list(ens.reduced) == list(names) and not ens.success[150:].any()
    rows = kept.ys[:150] if t_eval else kept.y1[:150]
    for name in names:
        assert ens.reduced[name].shape == rows.shape[1:]
        np.testing.assert_allclose(ens.reduced[name], getattr(np, name)(rows, axis=0), rtol=1e-10)
    np.testing.assert_array_equal(ens.y1, kept.y1)
    assert len(ens[0].ts) == 1 and ens[0].ts[0] == 1.5


def test_reductions_have_the_structure_of_the_state():
    y0 = Body(np.ones((4, 2)), np.zeros((4, 2)))
    ens = odec.solve_ensemble(
        spring, (0.0, 1.0), y0, (Spring(1.0),), batched="y0", t_eval=[0.0, 0.5, 1.0], reduce=("mean", "mean")
    )
    assert isinstance(ens.reduced["mean"], Body) and ens.reduced["mean"].place.shape == (3, 2)


# ---- what comes back ------------------------------------------------------------------------------------------


def test_an_ensemble_is_a_sequence_of_solutions():
    ens = odec.solve_ensemble(lorenz, (0.0, 1.0), Y0, {"rho": RHO}, batched="rho", t_eval=[0.5, 1.0])
    assert len(ens) == len(list(ens)) == 7
    np.testing.assert_array_equal(ens[-1].ys, ens.ys[6])
    assert ens[np.int64(2)].stats["steps"] == ens.steps[2] and ens[2].names == ens.names
    with pytest.raises(IndexError, match="7 members"):
        ens[7]
    with pytest.raises(odec.ArgumentError, match="give its number"):
        ens[1:3]


def test_an_ensemble_says_what_it_is():
    y0 = np.array([[2.0], [0.5], [np.nan]])
    ens = odec.solve_ensemble(falling, (0.0, 2.0), y0, batched="y0")
    text = repr(ens)
    assert "falling" in text and "3 trajectories" in text and "1 reached the end" in text and "2 failed" in text
    assert "NON_FINITE_START: 1 member (2)" in repr(ens.failures) and "<table>" in ens._repr_html_()
    good = odec.solve_ensemble(decay, (0.0, 1.0), np.ones((1, 1)), batched="y0")
    assert "1 trajectory, all reached the end" in repr(good) and repr(good.failures) == "no member failed"


def test_an_ensemble_can_be_pickled():
    y0 = np.array([[2.0], [0.5]])
    ens = odec.solve_ensemble(falling, (0.0, 2.0), y0, batched="y0")
    sent = pickle.loads(pickle.dumps(ens))
    np.testing.assert_array_equal(sent.y1, ens.y1)
    np.testing.assert_array_equal(sent.nfev, ens.nfev)
    assert sent.message(1) == ens.message(1)
    watched = odec.solve_ensemble(falling, (0.0, 2.0), y0, batched="y0", events=lambda t, y: y[0] - 2.5)
    sent = pickle.loads(pickle.dumps(watched))
    np.testing.assert_array_equal(sent.t_events, watched.t_events)
    assert Status(watched.status[1]).sentence in sent.message(1)


def test_a_bar_shows_how_many_have_ended(capsys):
    odec.solve_ensemble(decay, (0.0, 1.0), np.ones((5, 1)), batched="y0", progress=True)
    shown = capsys.readouterr().err
    assert "decay" in shown and "5.00/5.00" in shown and "trajectories" in shown
