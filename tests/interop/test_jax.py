"""odec.jax.odeint: values, gradients, jit, vmap, structures and errors within JAX."""

import sys
from typing import NamedTuple

import numpy as np
import pytest

import odec

jax = pytest.importorskip("jax", reason="odec[jax] is not installed")
jnp = jax.numpy
odeint = odec.jax.odeint

H = 0.05
TIMES = np.array([0.3, 0.5, 1.1, 1.3])  # ends of steps of H from 0.3
FIXED = {"method": "rk4", "first_step": H}
FINE = {"method": "tsit5", "rtol": 1e-11, "atol": 1e-12}


@odec.dynamics
def driven(t, y, a, b):
    return [a * y[0] - b[0] * y[0] * y[1] + np.sin(t), b[1] * y[0] * y[1] - y[1]]


def driven_in_jax(t, y, a, b):
    return jnp.stack([a * y[0] - b[0] * y[0] * y[1] + jnp.sin(t), b[1] * y[0] * y[1] - y[1]])


@odec.dynamics
def decay(t, y, rate=2.0):
    return -rate * y


@odec.dynamics
def still(t, y):
    return -y


@odec.dynamics
def blowing(t, y, gain):
    return gain * y * y


Y0 = np.array([1.0, 2.0])
PARAMS = (1.5, np.array([0.8, 0.6]))


@pytest.fixture(autouse=True)
def doubles():
    with jax.enable_x64(True):
        yield


def rk4_rows(y, params):
    """Rows at TIMES by classic Runge-Kutta steps of H in JAX."""
    step = lambda y, k: (rk4_step(TIMES[0] + k * H, y, params, H),) * 2
    ends = np.rint((TIMES - TIMES[0]) / H).astype(int)
    _, states = jax.lax.scan(step, y, np.arange(ends[-1]))
    return jnp.concatenate([y[None], states[ends[1:] - 1]])


def rk4_step(t, y, params, h):
    k1 = driven_in_jax(t, y, *params)
    k2 = driven_in_jax(t + h / 2, y + h / 2 * k1, *params)
    k3 = driven_in_jax(t + h / 2, y + h / 2 * k2, *params)
    k4 = driven_in_jax(t + h, y + h * k3, *params)
    return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


WEIGHTS = np.arange(1.0, 9.0).reshape(4, 2)


def weighed(y0, params, **options):
    return jnp.sum(WEIGHTS * odeint(driven, y0, TIMES, params, **options) ** 2)


def assert_trees_close(found, wanted, rtol):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("around", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_rows_are_those_of_solve(around):
    found = around(lambda y, p: odeint(driven, y, TIMES, p, **FINE))(Y0, PARAMS)
    wanted = odec.solve(driven, (TIMES[0], TIMES[-1]), Y0, PARAMS, t_eval=TIMES, **FINE).ys
    assert found.dtype == jnp.float64 and isinstance(found, jax.Array)
    np.testing.assert_array_equal(found, wanted)


@pytest.fixture(scope="module")
def reference_gradient():
    with jax.enable_x64(True):
        return jax.jit(jax.grad(lambda y, p: jnp.sum(WEIGHTS * rk4_rows(y, p) ** 2), (0, 1)))(Y0, PARAMS)


@pytest.mark.parametrize("around", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_gradient_is_that_of_the_same_steps_in_jax(around, reference_gradient):
    found = around(jax.grad(lambda y, p: weighed(y, p, **FIXED), (0, 1)))(Y0, PARAMS)
    assert_trees_close(found, reference_gradient, 1e-10)


def test_gradient_under_vmap_is_that_of_each_member():
    members = np.stack([Y0, Y0 + 0.3, Y0 * 0.5])
    gradient = jax.grad(lambda y, p: weighed(y, p, **FIXED), (0, 1))
    found = jax.jit(jax.vmap(gradient, (0, None)))(members, PARAMS)
    wanted = [gradient(y, PARAMS) for y in members]
    assert_trees_close(found, jax.tree.map(lambda *parts: jnp.stack(parts), *wanted), 1e-13)


def test_rows_under_nested_vmap_are_those_of_each_member():
    rates, starts = np.array([0.5, 1.0, 2.0]), np.array([[1.0], [3.0]])
    one = lambda y, rate: odeint(decay, y, TIMES, (rate,), **FINE)
    found = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(starts, rates)
    exact = starts[:, None, None, :] * np.exp(-rates[None, :, None, None] * (TIMES - TIMES[0])[:, None])
    np.testing.assert_allclose(found, exact, rtol=1e-9)


@pytest.mark.parametrize("own", ["y0", "times", "rate"])
def test_rows_of_members_are_those_of_solve(own):
    given = {"y0": np.ones(2), "times": TIMES, "rate": 0.7}
    members = given | {own: np.stack([given[own], given[own] * 1.5, given[own] * 2.0])}
    one = lambda g: odeint(decay, g["y0"], g["times"], (g["rate"],), **FINE)
    found = jax.jit(jax.vmap(one, ({name: 0 if name == own else None for name in given},)))(members)
    for k in range(3):
        np.testing.assert_allclose(found[k], one(given | {own: members[own][k]}), rtol=1e-13)


def test_a_vmap_of_one_member_is_that_member():
    found = jax.vmap(lambda y: odeint(driven, y, TIMES, PARAMS, **FINE))(Y0[None])
    np.testing.assert_array_equal(found[0], odeint(driven, Y0, TIMES, PARAMS, **FINE))


def test_a_failing_member_is_named():
    with pytest.raises(RuntimeError, match="SolveError: member 1 of 2: blowing: "):
        jax.block_until_ready(jax.jit(jax.vmap(blown))(jnp.array([[0.1], [1.0]])))


def test_gradient_of_the_times_is_the_slope_of_the_rows():
    """y(t_k) = y0 exp(-2 (t_k - t_0)), so that t_0 moves every row, and t_k its own."""
    loss = lambda t: jnp.sum(jnp.array([1.0, 2.0, 3.0, 4.0]) * odeint(decay, jnp.ones(1), t, **FINE)[:, 0])
    slopes = 2.0 * np.arange(1.0, 5.0) * np.exp(-2.0 * (TIMES - TIMES[0]))
    wanted = np.array([slopes[1:].sum(), *-slopes[1:]])
    for around in (lambda f: f, jax.jit):
        np.testing.assert_allclose(around(jax.grad(loss))(TIMES), wanted, rtol=1e-8)


def test_times_may_fall():
    falling = TIMES[::-1].copy()
    found = odeint(decay, jnp.ones(2), falling, **FINE)
    np.testing.assert_allclose(found[:, 0], np.exp(-2.0 * (falling - falling[0])), rtol=1e-9)
    slope = jax.grad(lambda t: odeint(decay, jnp.ones(2), t, **FINE)[-1, 0])(falling)
    end = 2.0 * np.exp(2.0)
    np.testing.assert_allclose(slope, [end, 0.0, 0.0, -end], rtol=1e-8, atol=1e-12)


class Arm(NamedTuple):
    angle: jax.Array
    joints: jax.Array


@odec.dynamics
def swinging(t, y, gains):
    arm, rest = y["arm"], y["rest"]
    return {"rest": -rest, "arm": Arm(gains["up"] * arm.joints[0], [-arm.angle, gains["down"][1] * arm.joints[1]])}


def test_structures_go_in_and_come_out():
    y0 = {"rest": jnp.ones((2, 1)), "arm": Arm(jnp.asarray(0.5), jnp.array([1.0, 2.0]))}
    gains = {"up": 1.3, "down": np.array([0.2, -0.4])}

    def loss(y0, params):
        ys = odeint(swinging, y0, TIMES, params, **FINE)
        return jnp.sum(ys["rest"][-1]) + jnp.sum(ys["arm"].joints[:, 1])

    ys = jax.jit(lambda y: odeint(swinging, y, TIMES, (gains,), **FINE))(y0)
    assert jax.tree.structure(ys) == jax.tree.structure(y0)
    assert ys["rest"].shape == (4, 2, 1) and ys["arm"].angle.shape == (4,)
    np.testing.assert_allclose(ys["rest"][:, 0, 0], np.exp(TIMES[0] - TIMES), rtol=1e-9)
    y_bar, p_bar = jax.jit(jax.grad(loss, (0, 1)))(y0, {"gains": gains})
    growth = np.exp(-0.4 * (TIMES - TIMES[0]))
    np.testing.assert_allclose(y_bar["arm"].joints, [0.0, growth.sum()], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(y_bar["rest"], np.full((2, 1), np.exp(-1.0)), rtol=1e-8)
    wanted = np.array([0.0, (2.0 * (TIMES - TIMES[0]) * growth).sum()])
    np.testing.assert_allclose(p_bar["gains"]["down"], wanted, rtol=1e-8, atol=1e-12)
    assert p_bar["gains"]["up"] == 0.0


def test_a_list_of_numbers_is_an_array():
    loss = lambda y: jnp.sum(odeint(driven, [y, 2.0], TIMES, PARAMS, **FINE)[-1])
    array = lambda y: jnp.sum(odeint(driven, jnp.stack([y, 2.0]), TIMES, PARAMS, **FINE)[-1])
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(1.0), jax.grad(array)(1.0), rtol=1e-13)


def test_a_model_without_parameters_is_solved():
    gradient = jax.jit(jax.grad(lambda y: jnp.sum(odeint(still, y, TIMES, **FINE)[-1])))(jnp.ones(3))
    np.testing.assert_allclose(gradient, np.full(3, np.exp(-1.0)), rtol=1e-9)


@odec.dynamics
def unsorted(t, y, rate, gain):
    return [rate * y[1], -gain * y[0]]


@pytest.mark.parametrize("params", [(2.0, 0.5), {"gain": 0.5, "rate": 2.0}], ids=["tuple", "dict"])
def test_parameters_stay_in_the_order_of_the_signature(params):
    """JAX sorts the keys of a dict."""
    expected = odec.solve(unsorted, (TIMES[0], TIMES[-1]), Y0, params, t_eval=TIMES, **FINE).ys
    np.testing.assert_allclose(odeint(unsorted, Y0, TIMES, params, **FINE), expected, rtol=1e-12)


def test_a_system_is_taken_as_a_model_is():
    system = driven.bind(Y0, PARAMS)
    found = jax.jit(lambda y: odeint(system, y, TIMES, PARAMS, **FINE))(Y0)
    np.testing.assert_array_equal(found, odeint(driven, Y0, TIMES, PARAMS, **FINE))


@pytest.mark.parametrize("wide", [True, False], ids=["with doubles", "without doubles"])
def test_float32_states_stay_float32(wide):
    with jax.enable_x64(wide):
        y0 = jnp.ones(2, jnp.float32)
        loss = lambda y, rate: jnp.sum(odeint(decay, y, TIMES, (rate,), rtol=1e-5, atol=1e-6)[-1])
        rows = jax.jit(lambda y: odeint(decay, y, TIMES))(y0)
        y_bar, rate_bar = jax.jit(jax.grad(loss, (0, 1)))(y0, jnp.float32(2.0))
        assert {rows.dtype, y_bar.dtype, rate_bar.dtype} == {jnp.dtype("float32")}
        np.testing.assert_allclose(y_bar, np.full(2, np.exp(-2.0)), rtol=1e-4)
        np.testing.assert_allclose(rate_bar, -2.0 * np.exp(-2.0), rtol=1e-4)


def test_numpy_doubles_become_what_jax_can_hold():
    with jax.enable_x64(False):
        assert odeint(decay, np.ones(2), TIMES).dtype == jnp.float32
        with pytest.raises(odec.ArgumentError, match="bound to float64, but JAX gives y0 as float32"):
            odeint(decay.bind(np.ones(2)), np.ones(2), TIMES, (2.0,))


STOPPING = {"max_steps": 100_000, "method": "tsit5"}


def blown(y):
    return odeint(blowing, y, TIMES, (4.0,), **STOPPING)


def test_a_failing_solve_raises_as_solve_does():
    with pytest.raises(odec.SolveError, match="blowing: ") as caught:
        blown(jnp.ones(1))
    assert 0.3 < caught.value.solution.ts[-1] <= 0.55
    with pytest.raises(odec.SolveError, match="blowing: "):
        jax.grad(lambda y: jnp.sum(blown(y)))(jnp.ones(1))


@pytest.mark.parametrize("around", [jax.jit, jax.vmap], ids=["jit", "vmap"])
def test_a_failing_solve_within_jax_quotes_the_error(around, caplog):
    with pytest.raises(RuntimeError, match="SolveError: blowing: "):
        jax.block_until_ready(around(blown)(jnp.ones((1, 1))))
    assert "SolveError: blowing: " in caplog.text


def test_without_throw_a_failing_solve_is_nan_from_where_it_failed():
    soft = lambda y: odeint(blowing, y, TIMES, (4.0,), throw=False, **STOPPING)
    rows = jax.jit(soft)(jnp.ones(1))
    np.testing.assert_allclose(rows[:2, 0], [1.0, 5.0], rtol=1e-4)
    assert np.isnan(rows[2:]).all()
    members = jax.jit(jax.vmap(jax.grad(lambda y: jnp.sum(soft(y)))))(jnp.array([[1.0], [0.1]]))
    assert np.isnan(members[0]).all() and np.isfinite(members[1]).all()


@pytest.mark.parametrize("around", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda y: odeint(driven, y[:1], TIMES, PARAMS), odec.TraceError, "driven"),
        (lambda y: odeint(lambda t, y: y, y, TIMES), odec.ArgumentError, "^odec.jax.odeint: .* not an odec model"),
        (lambda y: odeint(driven, y, TIMES), odec.ArgumentError, "needs the parameter 'a'"),
        (lambda y: odeint(decay.bind(Y0), y[:1], TIMES, (2.0,)), odec.ShapeError, "has shape"),
        (lambda y: odeint(decay, y, y[0]), odec.ShapeError, "one-dimensional array of at least two times"),
        (lambda y: odeint(decay, y, y[:1]), odec.ShapeError, r"shape \(1,\)"),
        (lambda y: odeint(decay, y, [0.0, 2.0, 1.0, 3.0]), odec.ArgumentError, "decay: t is not sorted"),
        (lambda y: odeint(decay, y, [0.0, np.nan, 1.0]), odec.ArgumentError, "decay: t has nan"),
        (lambda y: odeint(decay, y, [2.0, 3.0, 2.0]), odec.ArgumentError, "decay: t starts and ends at 2.0"),
        (lambda y: odeint(decay, y, TIMES, method="tsit6"), odec.ArgumentError, "tsit5"),
        (lambda y: odeint(decay, y, TIMES, rtol=-1.0), odec.ArgumentError, "rtol is -1"),
        (lambda y: odeint(decay, y, TIMES, adjoint="discreet"), odec.ArgumentError, "did you mean 'discrete'"),
        (lambda y: odeint(decay, y, TIMES, t_eval=TIMES), odec.ArgumentError, "the output times are t"),
        (lambda y: odeint(decay, y, TIMES, events=[]), odec.ArgumentError, "events cannot be given"),
        (lambda y: odeint(decay, y, TIMES, batched="y0"), odec.ArgumentError, "members are those of jax.vmap"),
        (lambda y: odeint(decay, y, TIMES, rtoll=1e-3), TypeError, "did you mean 'rtol'"),
        (lambda y: odeint(decay, y * 1j, TIMES), odec.ArgumentError, "complex"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_runs(around, call, error, words):
    with pytest.raises(error, match=words):
        around(call)(jnp.asarray(Y0))


@pytest.mark.parametrize("around", [jax.jit, lambda f: lambda t: jax.vmap(f)(t[None])], ids=["jit", "vmap"])
def test_times_known_late_are_refused_by_the_name_they_were_given(around, caplog):
    with pytest.raises(RuntimeError, match="ArgumentError: decay: t is not sorted"):
        jax.block_until_ready(around(lambda t: odeint(decay, Y0, t, (2.0,)))(jnp.array([0.0, 2.0, 1.0])))


def test_forward_mode_is_refused_by_jax():
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda y: odeint(decay, y, TIMES), (jnp.ones(1),), (jnp.ones(1),))


def test_without_jax_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(ImportError, match=r"pip install odec\[jax\]"):
        odeint(decay, Y0, TIMES)
