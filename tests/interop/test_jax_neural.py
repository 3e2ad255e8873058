"""`odec.jax.odeint` where a network is trained: sums of the solver's estimates, flows, regularised models."""

import numpy as np
import pytest
from small_network import (
    BOTH,
    FIXED,
    PROBES,
    REFUSALS,
    ROUGH,
    START,
    SUMS_BAR,
    TIMES,
    WEIGHTS,
    YS_BAR,
    easy,
    network,
    of_easy,
    of_solve_vjp,
)

import odec
import odec.codegen.compile as compiling
from odec.augmented import Augmented
from odec.errors import ArgumentError
from odec.regularizers import ErrorEstimate

jax = pytest.importorskip("jax", reason="odec[jax] is not installed")
jnp = jax.numpy
check_grads = pytest.importorskip("jax.test_util").check_grads
odeint = odec.jax.odeint

AROUND = pytest.mark.parametrize("around", [lambda f: f, jax.jit], ids=["eager", "jit"])


@pytest.fixture(autouse=True)
def doubles():
    with jax.enable_x64(True):
        yield


def assert_all_close(found, expected, rtol):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


# ---- sums of the solver's own estimates


def weighed(y0, t, weights, sums_bar=SUMS_BAR):
    """What of_solve_vjp differentiates, and the states and sums."""
    ys, sums = odeint(network, y0, t, weights, regularizers=BOTH, **ROUGH)
    return jnp.sum(YS_BAR * ys) + sums_bar @ sums, (ys, sums)


@AROUND
def test_sums_and_gradients_are_those_of_solve_vjp(around):
    both = jax.value_and_grad(weighed, (0, 1, 2), has_aux=True)
    (value, (ys, sums)), (y0_bar, t_bar, weights_bar) = around(both)(START, TIMES, WEIGHTS)
    sol, expected = of_solve_vjp()
    assert sums.dtype == jnp.float64 and isinstance(sums, jax.Array)
    np.testing.assert_array_equal(ys, sol.ys)
    np.testing.assert_array_equal(sums, sol.regularizers)
    np.testing.assert_allclose(value, np.sum(YS_BAR * sol.ys) + SUMS_BAR @ sol.regularizers, rtol=1e-12)
    assert_all_close((y0_bar, weights_bar), (expected.y0, expected.params), 1e-12)
    np.testing.assert_allclose(t_bar, expected.t_eval + np.array([expected.t0, 0.0, expected.t1]), rtol=1e-12)


@AROUND
def test_sums_without_weight_leave_the_plain_gradient(around):
    found = around(jax.grad(lambda y, w: weighed(y, TIMES, w, np.zeros(2))[0], (0, 1)))(START, WEIGHTS)
    _, plain = of_solve_vjp(regularizers=(), sums_bar=None)
    assert_all_close(found, (plain.y0, plain.params), 1e-12)


def test_sums_alone_have_a_gradient_by_differences():
    scales = np.array([1e3, 1.0])
    sums = lambda y, w: scales * odeint(network, y, TIMES, w, regularizers=BOTH, **FIXED)[1]
    check_grads(sums, (START, WEIGHTS), order=1, modes=["rev"], rtol=1e-6, atol=1e-6)


def test_members_of_a_vmap_have_the_sums_and_gradients_of_single_solves():
    members, weights = np.stack([START, 2.0 * START]), {name: jnp.asarray(w) for name, w in WEIGHTS.items()}
    one = jax.value_and_grad(lambda y, w: weighed(y, TIMES, w)[0], (0, 1))
    found = jax.jit(jax.vmap(one, (0, None)))(members, weights)
    assert_all_close(found, jax.tree.map(lambda *parts: jnp.stack(parts), *(one(y, weights) for y in members)), 1e-12)
    sums = jax.vmap(lambda y: odeint(network, y, TIMES, weights, regularizers=BOTH, **ROUGH)[1])(members)
    np.testing.assert_array_equal(sums[0], of_solve_vjp()[0].regularizers)


def test_an_empty_list_of_terms_gives_the_states_alone():
    assert odeint(network, START, TIMES, WEIGHTS, regularizers=[], **ROUGH).shape == (3, 3, 2)


def test_without_throw_the_sums_of_a_failing_solve_are_nan():
    soft = lambda y: odeint(network, y, TIMES, WEIGHTS, regularizers=BOTH, throw=False, max_steps=2, **ROUGH)
    ys, sums = jax.jit(soft)(START)
    np.testing.assert_array_equal(ys[0], START)
    assert np.isnan(ys[-1]).all() and sums.shape == (2,) and np.isnan(sums).all()
    assert np.isnan(jax.grad(lambda y: jnp.sum(soft(y)[1]))(START)).all()


def test_a_loss_of_both_terms_falls_in_single_precision():
    def loss(weights, y0):
        ys, sums = odeint(network, y0, [0.0, 1.0], weights, regularizers=BOTH, **ROUGH)
        return jnp.mean((ys[-1] + y0) ** 2) + jnp.array([100.0, 0.01]) @ sums, sums

    with jax.enable_x64(False):
        step, losses = jax.jit(jax.value_and_grad(loss, has_aux=True)), []
        y0, weights = jnp.asarray(START), {name: jnp.asarray(w) for name, w in WEIGHTS.items()}
        for _ in range(3):
            (value, sums), slope = step(weights, y0)
            weights = jax.tree.map(lambda w, bar: w - 0.05 * bar, weights, slope)
            losses.append(float(value))
    assert sums.dtype == slope["w1"].dtype == jnp.float32 and np.all(np.diff(losses) < 0)


@AROUND
@pytest.mark.parametrize(("how", "words"), REFUSALS)
def test_what_has_no_such_sums_is_said_as_solve_vjp_says_it(around, how, words):
    with pytest.raises(ArgumentError, match=words):
        around(lambda y: odeint(network, y, TIMES, WEIGHTS, **{"regularizers": [ErrorEstimate()], **how}))(START)


# ---- flows and regularised models


def squares(y0, weights, probe):
    """What of_easy differentiates, and the states."""
    ys = odeint(easy, easy.start(easy.model.start(y0)), TIMES, weights | {"probe": probe}, **ROUGH)
    (z, logp), r = ys
    return jnp.sum(z**2) + jnp.sum(logp**2) + jnp.sum(r**2), ys


@AROUND
def test_a_regularised_flow_has_the_gradient_of_solve_vjp(around):
    slope = around(jax.grad(squares, (0, 1, 2), has_aux=True))
    (y0_bar, weights_bar, probe_bar), ys = slope(START, WEIGHTS, PROBES[0])
    sol, expected = of_easy(PROBES[0])
    assert_all_close(ys, sol.ys, 1e-13)
    assert_all_close((y0_bar, weights_bar | {"probe": probe_bar}), (expected.y0[0][0], expected.params), 1e-12)


def test_integrals_and_sums_enter_one_loss():
    flow, given = easy.model, WEIGHTS | {"probe": PROBES[0]}

    def loss(y0, params):
        (z, logp), sums = odeint(flow, flow.start(y0), TIMES, params, regularizers=[ErrorEstimate()], **ROUGH)
        return z.sum() + logp.sum() + 100.0 * sums.sum()

    numbers = (TIMES[0], TIMES[-1]), flow.start(START), given
    _, pullback = odec.solve_vjp(flow, *numbers, t_eval=TIMES, regularizers=[ErrorEstimate()], **ROUGH)
    expected = pullback((np.ones((3, 3, 2)), np.ones((3, 3))), regularizers=[100.0])
    assert_all_close(jax.jit(jax.grad(loss, (0, 1)))(START, given), (expected.y0[0], expected.params), 1e-12)


def test_a_flow_starts_from_what_jax_traces():
    started = jax.jit(lambda y: easy.model.start(y))(jnp.asarray(START, jnp.float32))
    assert [part.dtype for part in started] == [jnp.float32] * 2 and started[1].shape == (3,)


def test_probes_of_each_step_compile_nothing(monkeypatch):
    made, object_code, system_of = [], compiling.object_code, Augmented.system_of
    noted = lambda function: lambda *given, **how: made.append(function.__name__) or function(*given, **how)
    step = jax.jit(jax.grad(squares, 1, has_aux=True))
    ends = [step(START, WEIGHTS, PROBES[0])]
    monkeypatch.setattr(compiling, "object_code", noted(object_code))
    monkeypatch.setattr(Augmented, "system_of", noted(system_of))
    ends += [step(START, WEIGHTS, probe) for probe in PROBES[1:]]
    assert made == [] and step._cache_size() == 1
    assert len({float(slope["w1"][0, 0]) for slope, _ in ends}) == 3
