"""Forward sensitivities of ensembles: each member has the derivatives of its own solve, failures stay their own."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import odec

SPAN, TIMES = (0.0, 0.5), np.linspace(0.0, 0.5, 4)
Y0, SIGMA, BETA = np.array([1.0, 0.5, 20.0]), 10.0, 2.5
SHARP = dict(rtol=1e-7, atol=1e-9)


@odec.dynamics
def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
    x, v, z = y
    return [sigma * (v - x), x * (rho - z) - v, x * v - beta * z]


@odec.dynamics
def spring(t, y, mass, unused):
    return {"place": y["speed"], "speed": -mass["stiffness"] * y["place"] / mass["mass"]}


@odec.dynamics
def grows(t, y, rate):
    return rate * y**2


@odec.dynamics
def ball(t, y, gravity, bounce):
    return [y[1], -gravity]


def assert_members_equal(ensemble, alone, tolerance=1e-12):
    """Steps, rows and derivatives of an ensemble are those of solving each member by itself."""
    for i in range(len(ensemble)):
        one, member = alone(i), ensemble[i]
        for name in ("steps", "rejected", "nfev"):
            assert getattr(ensemble, name)[i] == one.stats[name]
        assert member.ys == pytest.approx(one.ys, rel=tolerance)
        for name, expected in one.sensitivities.items():
            found = ensemble.sensitivities[name][i]
            assert found.shape == expected.shape and np.array_equal(found, member.sensitivities[name])
            assert np.max(np.abs(found - expected)) <= tolerance * np.max(np.abs(expected))


# ---- each member as by itself -----------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(-2.0, 2.0), st.floats(15.0, 30.0)), min_size=1, max_size=11))
def test_members_have_the_derivatives_of_their_own_solves(drawn):
    """A batched state and parameters in and outside wrt, with shared ones."""
    starts, rho = np.array([[x, 0.5, 20.0] for x, _ in drawn]), np.array([r for _, r in drawn])
    options = dict(wrt=("y0", "beta", "rho", "t0"), t_eval=TIMES, **SHARP)
    found = odec.sensitivities(lorenz, SPAN, starts, (SIGMA, rho, BETA), batched=("y0", "rho"), **options)
    assert found.sensitivities["y0"].shape == (len(drawn), 4, 3, 3) and found.success.all()
    assert_members_equal(found, lambda i: odec.sensitivities(lorenz, SPAN, starts[i], (SIGMA, rho[i], BETA), **options))


@pytest.mark.parametrize("wrt", ["beta", "sigma"])
def test_a_shared_state_and_the_end_only(wrt):
    sigma = np.linspace(8.0, 12.0, 5)
    found = odec.sensitivities(lorenz, SPAN, Y0, (sigma, 28.0, BETA), wrt=wrt, batched="sigma", **SHARP)
    assert found.ts.shape == (1,) and found.sensitivities[wrt].shape == (5, 1, 3)
    assert_members_equal(
        found, lambda i: odec.sensitivities(lorenz, SPAN, Y0, (sigma[i], 28.0, BETA), wrt=wrt, t_eval=[], **SHARP)
    )


def test_spans_and_times_of_their_own():
    ends, times = np.array([0.5, 0.3]), np.array([[0.1, 0.2, 0.5], [0.1, 0.3, np.nan]])
    found = odec.sensitivities(
        lorenz, (0.0, ends), np.stack([Y0, Y0]), wrt=("y0", "t0"), batched="y0", t_eval=times, **SHARP
    )
    assert np.isnan(found.sensitivities["y0"][1, 2]).all() and len(found[1].sensitivities["y0"]) == 2
    for i, end in enumerate(ends):
        kept = times[i][~np.isnan(times[i])]
        one = odec.sensitivities(lorenz, (0.0, end), Y0, wrt=("y0", "t0"), t_eval=kept, **SHARP)
        for name, expected in one.sensitivities.items():
            assert found[i].sensitivities[name] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_threads_lanes_and_chunks_make_no_difference():
    rho = np.linspace(15.0, 30.0, 13)
    options = dict(wrt=("y0", "rho"), batched="rho", t_eval=TIMES, **SHARP)
    one, three = (odec.sensitivities(lorenz, SPAN, Y0, (SIGMA, rho, BETA), threads=k, **options) for k in (1, 3))
    turned = odec.sensitivities(lorenz, SPAN, Y0, (SIGMA, rho[::-1], BETA), threads=1, **options)
    parts = odec.sensitivities(lorenz, SPAN, Y0, (SIGMA, rho, BETA), chunk=3, **options)
    for name, value in one.sensitivities.items():
        assert np.array_equal(value, three.sensitivities[name])
        assert np.array_equal(value, turned.sensitivities[name][::-1])
        assert parts.sensitivities[name] == pytest.approx(value, rel=1e-9, abs=1e-9)
    assert np.array_equal(parts.nfev, 2 * one.nfev)  # four derivatives, three at a time
    assert np.array_equal(parts.steps, one.steps) and parts.ys == pytest.approx(one.ys, rel=1e-11)


def test_structures_nest_behind_the_axis_of_members():
    y0 = {"place": np.array([1.0, 0.5]), "speed": np.array([0.0, -0.2])}
    mass = {"stiffness": np.array([[2.0, 3.0], [2.5, 3.5], [1.0, 1.0]]), "mass": np.array([1.5, 1.0, 2.0])}
    options = dict(wrt=("mass", "y0", "unused"), t_eval=TIMES)
    found = odec.sensitivities(spring, SPAN, y0, (mass, np.ones(2)), batched="mass", **options)
    assert found.sensitivities["mass"]["place"]["stiffness"].shape == (3, 4, 2, 2)
    assert not found.sensitivities["unused"]["speed"].any()
    for i in range(3):
        own = {"stiffness": mass["stiffness"][i], "mass": mass["mass"][i]}
        one = odec.sensitivities(spring, SPAN, y0, (own, np.ones(2)), **options)
        expected = one.sensitivities["mass"]["place"]
        assert found.sensitivities["mass"]["place"]["mass"][i] == pytest.approx(expected["mass"], rel=1e-12)
        assert found[i].sensitivities["mass"]["place"]["stiffness"] == pytest.approx(expected["stiffness"], rel=1e-12)


unit = st.floats(-1.0, 1.0)


@given(st.lists(st.tuples(unit, unit, unit), min_size=1, max_size=6), st.tuples(unit, unit))
def test_each_member_goes_along_a_direction_of_its_own(drawn, shared):
    """A batched state and parameter with their own tangents, beside the shared tangent of another parameter."""
    drawn = np.array(drawn)
    starts, rho = Y0 + drawn, 28.0 + drawn[:, 0]
    tangents, options = (drawn, {"rho": drawn[:, 1], "beta": shared[0], "sigma": None}), dict(t_eval=TIMES, **SHARP)
    found, dot = odec.solve_jvp(
        lorenz, SPAN, starts, (SIGMA, rho, BETA), tangents=tangents, batched=("y0", "rho"), **options
    )
    assert dot.shape == found.ys.shape == (len(drawn), 4, 3)
    for i in range(len(drawn)):
        own = drawn[i], {"rho": drawn[i, 1], "beta": shared[0]}
        one, expected = odec.solve_jvp(lorenz, SPAN, starts[i], (SIGMA, rho[i], BETA), tangents=own, **options)
        assert found.ys[i] == pytest.approx(one.ys, rel=1e-12)
        assert (found.steps[i], found.nfev[i]) == (one.stats["steps"], one.stats["nfev"])
        assert np.max(np.abs(dot[i] - expected)) <= 1e-12 * np.max(np.abs(expected), initial=1e-300)


def test_one_direction_of_a_shared_state():
    rho, dy = np.array([20.0, 28.0]), np.array([1.0, 0.0, -1.0])
    found, dot = odec.solve_jvp(lorenz, SPAN, Y0, (SIGMA, rho, BETA), tangents=(dy, None), batched="rho", **SHARP)
    for i, value in enumerate(rho):
        _, expected = odec.solve_jvp(lorenz, SPAN, Y0, (SIGMA, value, BETA), tangents=(dy, None), t_eval=[], **SHARP)
        assert dot[i] == pytest.approx(expected, rel=1e-12) and found.ts.shape == (1,)


@pytest.mark.parametrize(
    ("tangents", "error", "words"),
    [
        (Y0, odec.ArgumentError, "a tuple \\(dy0, dparams\\) is needed"),
        ((None, {"rho": 1.0}), odec.ShapeError, "tangent of rho has shape \\(\\).*2 members"),
        ((None, {"rho": np.array([1.0, np.nan])}), odec.ArgumentError, "tangent of rho has nan"),
        ((None, {"roh": 1.0}), odec.ArgumentError, "did you mean 'rho'"),
        ((np.ones((2, 3)), None), odec.ShapeError, "tangent of y0 has shape \\(2, 3\\)"),
    ],
)
def test_directions_that_do_not_fit_the_members(tangents, error, words):
    with pytest.raises(error, match=words):
        odec.solve_jvp(lorenz, SPAN, Y0, (SIGMA, np.array([28.0, 29.0]), BETA), tangents=tangents, batched="rho")


# ---- failures, events -------------------------------------------------------------------------------------


def test_a_failed_member_is_nan_and_hides_no_other():
    rate = np.array([0.1, 2.0, np.nan, 0.3])
    found = odec.sensitivities(grows, (0.0, 1.0), 1.0, (rate,), wrt=("y0", "rate"), batched="rate", **SHARP)
    assert list(found.success) == [True, False, False, True] and found.stats["failed"] == 2
    by_y0, by_rate = (found.sensitivities[name][:, 0] for name in ("y0", "rate"))
    assert np.isnan(by_y0[[1, 2]]).all() and np.isnan(by_rate[[1, 2]]).all() and np.isnan(found.ys[[1, 2]]).all()
    good = rate[[0, 3]]  # y = 1 / (1 / y0 - rate t)
    assert by_y0[[0, 3]] == pytest.approx(1.0 / (1.0 - good) ** 2, rel=1e-5)
    assert by_rate[[0, 3]] == pytest.approx(1.0 / (1.0 - good) ** 2, rel=1e-5)
    assert "grows: " in found.message(1) and "rate" in found.message(2) and len(found[1].sensitivities["rate"]) == 0
    again = pickle.loads(pickle.dumps(found))
    assert np.array_equal(again.sensitivities["rate"], found.sensitivities["rate"], equal_nan=True)


def test_rows_before_a_failure_keep_their_derivatives():
    times = np.array([0.1, 0.4, 0.9])
    found = odec.sensitivities(
        grows, (0.0, 1.0), 1.0, (np.array([2.0, 0.1]),), wrt="rate", batched="rate", t_eval=times, **SHARP
    )
    first = found.sensitivities["rate"][0]
    assert first[:2] == pytest.approx(times[:2] / (1.0 - 2.0 * times[:2]) ** 2, rel=1e-4) and np.isnan(first[2])
    assert len(found[0].ts) == len(found[0].sensitivities["rate"]) == 2


def test_bounces_carry_the_derivatives_across():
    floor = odec.Event(lambda t, y: y[0], direction=-1, reset=lambda t, y, bounce: [-y[0], -bounce * y[1]])
    options = dict(wrt=("y0", "bounce"), t_eval=np.array([0.3, 0.8, 1.2]), events=floor, **SHARP)
    bounce, span = np.array([0.9, 0.8, 0.5]), (0.0, 1.2)
    found = odec.sensitivities(ball, span, [1.0, 0.5], (9.81, bounce), batched="bounce", **options)
    assert found.y_events[0].shape[2:] == (2,)
    for i, value in enumerate(bounce):
        one = odec.sensitivities(ball, span, [1.0, 0.5], (9.81, value), **options)
        assert found[i].t_events[0] == pytest.approx(one.t_events[0], rel=1e-12)
        for name, expected in one.sensitivities.items():
            assert found[i].sensitivities[name] == pytest.approx(expected, rel=1e-9, abs=1e-9)


# ---- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (dict(wrt="rhoo"), odec.ArgumentError, "did you mean 'rho'"),
        (dict(batched="rhoo"), odec.ArgumentError, "batched has 'rhoo'.*did you mean 'rho'"),
        (dict(batched=("rho", "y0")), odec.ArgumentError, "2 members.*but .* has 3|3 members.*but .* has 2"),
        (dict(error_control=True), odec.ArgumentError, "error_control weighs derivatives"),
        (dict(gather=False), odec.ArgumentError, "gather: derivatives of an ensemble are solved in this process"),
        (dict(target="gpu"), odec.ArgumentError, "target 'gpu' is not known"),
        (dict(executor=None), odec.ArgumentError, "executor: derivatives of an ensemble"),
        (dict(reduce="mean"), odec.ArgumentError, "reduce: derivatives of an ensemble"),
        (dict(dense_output=True), odec.ArgumentError, "dense_output: an ensemble keeps no polynomials"),
        (dict(threds=2), TypeError, "no keyword 'threds'; did you mean 'threads'"),
        (dict(params=(SIGMA, np.array([28, 29]), BETA)), odec.ArgumentError, "wrt 'rho' has values of int64"),
        (dict(threads=0), odec.ArgumentError, "threads is 0"),
        (dict(chunk=0), odec.ArgumentError, "chunk is 0"),
        (dict(rtol=-1.0), odec.ArgumentError, "rtol is -1.0"),
    ],
)
def test_what_derivatives_of_an_ensemble_refuse(options, error, words):
    given = dict(params=(SIGMA, np.array([28.0, 29.0]), BETA), wrt="rho", batched="rho") | options
    with pytest.raises(error, match=words):
        odec.sensitivities(lorenz, SPAN, Y0, **given)


def test_threads_are_for_ensembles():
    with pytest.raises(TypeError, match="no keyword 'threads'"):
        odec.sensitivities(lorenz, SPAN, Y0, wrt="rho", threads=2)
