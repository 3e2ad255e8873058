"""Gradients of Taylor solves: every way to them gives that of the solution, to the tolerance."""

import functools

import numpy as np
import pytest

import odec

RNG = np.random.default_rng(11)
P = 9.81, 0.4
Y0 = np.array([0.6, -0.3])
SPAN = 0.2, 3.0
TIMES = np.array([0.2, 0.9, 1.7, 2.4])  # the first is the start, the end is none
W = RNG.normal(size=(4, 2))
HOW = {"method": "taylor", "rtol": 1e-10, "atol": 1e-12}
REFERENCE = {"method": "dop853", "rtol": 1e-13, "atol": 1e-14}


@odec.dynamics
def pendulum(t, y, gravity, drive):
    return [y[1], -gravity * np.sin(y[0]) + drive * np.cos(2 * t) / (1 + y[1] ** 2)]


def gradient(span=SPAN, times=TIMES, weights=W, model=pendulum, y0=Y0, params=P, **options):
    _, pullback = odec.solve_vjp(model, span, y0, params, t_eval=times, **options)
    return pullback(weights)


@functools.cache
def reference(kind):
    span, times = KINDS[kind]
    return gradient(span, times, weights_of(times), **REFERENCE)


KINDS = {"rows": (SPAN, TIMES), "the end": (SPAN, ()), "backward": (SPAN[::-1], TIMES[::-1])}


def weights_of(times):
    return W if len(times) else W[:1]


def assert_alike(found, expected, rtol):
    scale = max(np.abs(found.y0).max(), 1.0)
    for name in ("y0", "params", "t_eval", "t0", "t1"):
        a, b = getattr(found, name), getattr(expected, name)
        if b is not None:
            np.testing.assert_allclose(flat(a), flat(b), rtol=rtol, atol=rtol * scale, err_msg=name)


def flat(values):
    return np.concatenate([np.ravel(v) for v in (values if isinstance(values, tuple) else (values,))])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "how",
    [{}, {"adjoint": "interpolating"}, {"adjoint": "backsolve"}, {"adjoint": "interpolating", "adjoint_rtol": 1e-8}],
    ids=lambda how: " ".join(map(str, how.values())) or "discrete",
)
def test_every_adjoint_gives_the_gradient_of_the_solution(how, kind):
    span, times = KINDS[kind]
    rtol = 1e-8 if "adjoint_rtol" not in how else 1e-6
    assert_alike(gradient(span, times, weights_of(times), **how, **HOW), reference(kind), rtol)


@pytest.mark.parametrize("adjoint", ["interpolating", "backsolve"])
def test_the_way_back_may_have_another_method_than_the_way_there(adjoint):
    back_by_taylor = HOW | {"method": "dop853", "adjoint": adjoint, "adjoint_method": "taylor"}
    assert_alike(gradient(**back_by_taylor), reference("rows"), 1e-8)
    there_by_taylor = HOW | {"adjoint": adjoint, "adjoint_method": "dop853"}
    assert_alike(gradient(**there_by_taylor), reference("rows"), 1e-8)


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
def test_checkpoints_change_no_bit(adjoint):
    held = gradient(adjoint=adjoint, **HOW)
    for checkpoints in (2, 5, "file"):
        again = gradient(adjoint=adjoint, checkpoints=checkpoints, **HOW)
        assert np.array_equal(again.y0, held.y0) and np.array_equal(again.params, held.params)
        assert np.array_equal(again.t_eval, held.t_eval) and again.t0 == held.t0


def test_a_given_order_and_rows_at_steps():
    """Without t_eval the rows are those of the steps, of which there are as many as the order asks for."""
    how = HOW | {"method": odec.TaylorMethod(order=8)}
    sol, pullback = odec.solve_vjp(pendulum, SPAN, Y0, P, **how)
    weights = np.zeros_like(sol.ys)
    weights[-1] = W[0]
    assert_alike(pullback(weights), reference("the end"), 1e-8)


def test_forward_and_reverse_derivatives_are_transposed():
    dy0, dp = np.array([0.3, -1.0]), (0.7, 0.2)
    _, pushed = odec.solve_jvp(pendulum, SPAN, Y0, P, tangents=(dy0, dp), t_eval=TIMES, **HOW)
    found = gradient(**HOW)
    assert np.sum(W * pushed) == pytest.approx(found.y0 @ dy0 + np.dot(found.params, dp), rel=1e-8)
    sol = odec.sensitivities(pendulum, SPAN, Y0, P, wrt=("y0", "gravity"), t_eval=TIMES, **HOW)
    np.testing.assert_allclose(np.tensordot(W, sol.sensitivities["y0"], 2), found.y0, rtol=1e-8)
    assert np.sum(W * sol.sensitivities["gravity"]) == pytest.approx(found.params[0], rel=1e-8)


def test_second_derivatives():
    """Against differences of gradients."""
    loss, v, step = lambda ys: np.sum(W * ys**2), np.array([1.0, 0.5]), 1e-4
    _, _, product = odec.hessian_vector_product(
        pendulum, SPAN, Y0, P, loss=loss, tangents=(v, None), t_eval=TIMES, **HOW
    )

    def gradient_at(y0):
        sol, pullback = odec.solve_vjp(pendulum, SPAN, y0, P, t_eval=TIMES, **HOW)
        found = pullback(2 * W * sol.ys)
        return np.array([*found.y0, *found.params])

    expected = (gradient_at(Y0 + step * v) - gradient_at(Y0 - step * v)) / (2 * step)
    np.testing.assert_allclose([*product.y0, *product.params], expected, rtol=1e-5)


def test_gradients_of_event_times():
    event = odec.Event(lambda t, y, gravity, drive: y[0] + 0.2, terminal=True, direction=-1)

    def of(**how):
        sol, pullback = odec.solve_vjp(pendulum, SPAN, Y0, P, t_eval=[], events=event, **how)
        assert sol.status == odec.Status.TERMINATED
        return pullback(np.ones_like(sol.ys), [np.ones(1)])

    assert_alike(of(**HOW), of(**REFERENCE), 1e-7)


@odec.dynamics
def relay(t, y, rate, level):
    return -rate * np.where(t < 1.0, y, level * y) + np.maximum(y, 0.3)


def test_a_model_with_a_switch_at_a_stop():
    given = {"model": relay, "y0": Y0 + 0.5, "params": (0.7, 2.0), "tstops": [1.0]}
    assert_alike(gradient(**given, **HOW), gradient(**given, **REFERENCE), 1e-7)


def test_float32():
    given = {"y0": Y0.astype(np.float32), "weights": W.astype(np.float32)}
    found = gradient(**given, method="taylor", rtol=1e-6, atol=1e-6)
    assert found.y0.dtype == np.float32
    assert_alike(found, reference("rows"), 2e-4)


def test_members_of_an_ensemble_have_the_gradients_of_single_solves():
    y0, drives = RNG.normal(size=(5, 2)), np.linspace(0.0, 1.0, 5)
    weights = RNG.normal(size=(5, 4, 2))
    options = HOW | {"t_eval": TIMES}
    _, pullback = odec.solve_vjp(pendulum, SPAN, y0, (P[0], drives), batched=("y0", "drive"), **options)
    found, gravity = pullback(weights), 0.0
    for i in range(5):
        _, single = odec.solve_vjp(pendulum, SPAN, y0[i], (P[0], drives[i]), **options)
        alone = single(weights[i])
        np.testing.assert_allclose(found.y0[i], alone.y0, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(found.params[1][i], alone.params[1], rtol=1e-9, atol=1e-10)
        gravity += alone.params[0]
    assert found.params[0] == pytest.approx(gravity, rel=1e-9)


@odec.dynamics
def springs(t, y, a):
    apart = y[:, None] - y[None]
    return -a[0] * np.sum(apart / (1 + apart**2) ** 1.5, axis=1) + a[1] * t


def test_a_large_model_whose_series_is_a_loop_over_the_orders():
    """Order 16: the reverse of the unrolled series would take minutes to compile."""
    given = {"model": springs, "y0": np.linspace(-1.0, 1.0, 10) ** 3, "params": (np.array([0.2, 0.3]),)}
    given |= {"span": (0.0, 2.0), "times": (), "weights": np.ones((1, 10)), "atol": 1e-13}
    expected = gradient(**given, method="tsit5", rtol=1e-12)
    assert_alike(gradient(**given, method="taylor", rtol=1e-13), expected, 1e-9)


def test_torch():
    torch, expected = pytest.importorskip("torch"), gradient(**HOW)
    y0, *p = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (Y0, *P))
    ys = odec.torch.odeint(pendulum, y0, torch.tensor(TIMES), tuple(p), **HOW)
    (ys * torch.tensor(W)).sum().backward()
    np.testing.assert_allclose(y0.grad, expected.y0, rtol=1e-9)
    np.testing.assert_allclose([v.grad for v in p], flat(expected.params), rtol=1e-9)


def test_jax():
    jax, expected = pytest.importorskip("jax"), gradient(**HOW)
    loss = lambda y, p: (odec.jax.odeint(pendulum, y, TIMES, p, **HOW) * W).sum()
    with jax.enable_x64(True):
        y_bar, p_bar = jax.grad(loss, (0, 1))(jax.numpy.array(Y0), tuple(map(jax.numpy.array, P)))
    np.testing.assert_allclose(y_bar, expected.y0, rtol=1e-9)
    np.testing.assert_allclose(flat(p_bar), flat(expected.params), rtol=1e-9)
