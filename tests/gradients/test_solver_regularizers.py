"""Sums of the solver's own estimates over its steps, and their gradients by the discrete adjoint."""

import numpy as np
import pytest
from gradient_models import decay, driven
from hypothesis import given, settings
from hypothesis import strategies as st

import odec
from odec.errors import ArgumentError, ShapeError
from odec.regularizers import ErrorEstimate, Kinetic, Stiffness, Taylor
from odec.solving import posed
from odec.steppers.methods import method_named
from odec.steppers.step import estimates_of

P, Y0 = np.array([1.5, 1.0, 3.0, 1.0]), np.array([1.0, 1.2])
BOTH = [ErrorEstimate(), Stiffness()]
SPAN, ROUGH = (0.3, 1.8), {"rtol": 1e-3, "t_eval": []}


@odec.dynamics
def network(t, y, w1, b1, w2):
    return np.tanh(y @ w1 + b1) @ w2


def driven_rate(t, y, p):
    a, b, c, d = p
    return np.array([a * y[0] - b * y[0] * y[1] + 0.3 * np.sin(2 * t), -c * y[1] + d * y[0] * y[1]])


def network_rate(t, y, p):
    y, (w1, b1, w2) = y.reshape(20, 2), p
    return (np.tanh(y @ w1 + b1) @ w2).ravel()


def rms(v):
    return np.sqrt(np.mean(v * v))


def one_step(tableau, rate, t, h, y, p):
    """(y1, error times |h|, stiffness) of a step, by NumPy; None for an estimate that the method does not make."""
    c, a, b = np.array(tableau.c, float), [np.array(row, float) for row in tableau.a], np.array(tableau.b, float)
    states, k = [], []
    for i in range(len(b)):
        states.append(y + h * sum(x * s for x, s in zip(a[i], k)))
        k.append(rate(t + c[i] * h, states[-1], p))
    y1, error, stiffness = y + h * sum(x * s for x, s in zip(b, k)), None, None
    if tableau.b_error is not None:
        error = h * sum(float(x) * s for x, s in zip(tableau.b_error, k))
        size = rms(error)
        if tableau.b_error_second is not None:
            second = rms(h * sum(float(x) * s for x, s in zip(tableau.b_error_second, k)))
            size = size**2 / np.sqrt(size**2 + 0.01 * second**2)
        error = size * abs(h)
    others = [i for i in range(len(b) - tableau.fsal) if abs(c[i] - 1) < 1e-9]
    if others:
        x = states[others[-1]]
        stiffness = rms(rate(t + h, y1, p) - rate(t + h, x, p)) / rms(y1 - x)
    return y1, error, stiffness


def sums(marks, name, rate, y, p):
    """The sums of both estimates over steps of given places and sizes, by NumPy."""
    tableau, total = method_named(name), np.zeros(2)
    for t, h in marks:
        y, *found = one_step(tableau, rate, t, h, y, p)
        total += [0.0 if x is None else x for x in found]
    return total


def along(f, x, direction, step=1e-3):
    """d/de f(x + e direction) at 0, of fourth order."""
    value = lambda e: f(x + e * step * direction)
    return (8 * (value(1) - value(-1)) - (value(2) - value(-2))) / (12 * step)


def marks_of(model, span, y0, p, **how):
    return posed(model, span, y0, p, records=True, **how).run().record.marks


ESTIMATING = [m.name for m in odec.methods() if estimates_of(m)]


# ---- laws


def test_methods_make_the_estimates_that_their_stages_allow():
    assert [estimates_of(method_named(n)) for n in ("tsit5", "bs3", "rk4", "euler", "carpenter_kennedy54")] == [
        ("error", "stiffness"), ("error",), ("stiffness",), (), (),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ESTIMATING)
def test_estimates_of_a_step_and_their_adjoint_are_those_of_its_stages(name):
    system, method = driven.bind(Y0, tuple(P)), method_named(name)
    names, places = estimates_of(method), [("error", "stiffness").index(n) for n in estimates_of(method)]
    t, h = 0.4, -0.6
    made = lambda t, h, y, p: np.array(one_step(method, driven_rate, t, h, y, p)[1:])[places].astype(float)
    found = system.derivative("step_terms", method=name, terms=names).evaluate(t, h, Y0, P, np.zeros(2))["p_bar"]
    np.testing.assert_allclose(found, made(t, h, Y0, P), rtol=2e-8)
    reverse = system.derivative("step_vjp", method=name, timed=True, terms=names)
    moves = 0.3, 0.2, np.array([0.4, -1.0]), np.array([0.5, 1.0, -0.3, 0.8])
    for k, weights in enumerate(np.eye(len(names))):
        bars = reverse.evaluate(t, h, Y0, np.concatenate([P, weights]), np.zeros(2))
        expected = along(lambda e, k=k: made(*(x + e * d for x, d in zip((t, h, Y0, P), moves)))[k], 0.0, 1.0, 3e-4)
        pulled = sum(np.sum(bars[f"{x}_bar"] * d) for x, d in zip(("t", "h", "y", "p"), moves))
        np.testing.assert_allclose(pulled, expected, rtol=2e-6)


@pytest.mark.parametrize("span", [SPAN, SPAN[::-1]], ids=["forwards", "backwards"])
def test_gradient_is_that_of_the_sums_over_the_recorded_steps(span):
    times = span[0] + (span[1] - span[0]) * np.array([0.13, 0.5, 0.9])
    how = {"rtol": 1e-3, "t_eval": times, "tstops": [1.0]}
    sol, pullback = odec.solve_vjp(driven, span, Y0, tuple(P), regularizers=BOTH, **how)
    marks = marks_of(driven, span, Y0, tuple(P), **how)
    np.testing.assert_allclose(sol.regularizers, sums(marks, "tsit5", driven_rate, Y0, P), rtol=1e-10)
    weights, dy, dp = np.array([30.0, -0.2]), np.array([0.3, -1.0]), np.array([0.5, 1.0, -0.3, 0.8])
    gradient = pullback(None, regularizers=weights)
    by_y = along(lambda y: weights @ sums(marks, "tsit5", driven_rate, y, P), Y0, dy)
    by_p = along(lambda p: weights @ sums(marks, "tsit5", driven_rate, Y0, p), P, dp)
    np.testing.assert_allclose([gradient.y0 @ dy, np.array(gradient.params) @ dp], [by_y, by_p], rtol=1e-7)
    assert not gradient.t_eval.any()
    longer = lambda e: weights @ sums([*marks[:-1], marks[-1] + [0, e]], "tsit5", driven_rate, Y0, P)
    np.testing.assert_allclose(gradient.t1, along(longer, 0.0, 1.0), rtol=1e-6)


@given(st.tuples(*[st.floats(-1e3, 1e3, allow_subnormal=False)] * 3))
@settings(max_examples=25)
def test_gradients_add_up_over_weights(weights):
    _, pullback = odec.solve_vjp(driven, SPAN, Y0, tuple(P), regularizers=BOTH, **ROUGH)
    flat = lambda g: np.concatenate([g.y0, np.array(g.params), [g.t0, g.t1]])
    row, first, second = weights
    whole = flat(pullback(row * np.ones((1, 2)), regularizers=[first, second]))
    parts = np.array([flat(pullback(np.ones((1, 2)))), *(flat(pullback(None, regularizers=e)) for e in np.eye(2))])
    assert (np.abs(whole - weights @ parts) <= 1e-10 * (np.abs(weights) @ np.abs(parts))).all()


def test_linear_decay_has_its_sums_in_closed_form():
    rate, y0, h, steps = 0.8, 1.7, 0.25, 6
    sol, pullback = odec.solve_vjp(
        decay, (0.0, h * steps), [y0], (rate,), first_step=h, max_step=h, rtol=1e-2, t_eval=[], regularizers=BOTH
    )
    ends, errors, _ = np.array([one_step(method_named("tsit5"), lambda t, y, p: -rate * y, 0.0, h, 1.0, ())] * steps).T
    expected = y0 * np.sum(errors * ends[0] ** np.arange(steps))
    np.testing.assert_allclose(sol.regularizers, [expected, steps * rate], rtol=1e-8)
    np.testing.assert_allclose(pullback(None, regularizers=[1.0, 0.0]).y0, [expected / y0], rtol=1e-8)
    stiff = pullback(None, regularizers=[0.0, 1.0])
    np.testing.assert_allclose([stiff.params[0], stiff.y0[0]], [steps, 0.0], atol=1e-10)


@pytest.mark.parametrize("first_step", [None, 1.2])
def test_step_sizes_move_the_sums_where_they_are_differentiated(first_step):
    how = {"first_step": first_step, "method": "dopri5", **ROUGH}
    sol, pullback = odec.solve_vjp(driven, SPAN, Y0, tuple(P), regularizers=BOTH, differentiate_steps=True, **how)
    marks = marks_of(driven, SPAN, Y0, tuple(P), **how)
    np.testing.assert_allclose(sol.regularizers, sums(marks, "dopri5", driven_rate, Y0, P), rtol=1e-9)
    assert (sol.stats["rejected"] > 0) == (first_step is not None)
    weights, dy, dp = np.array([30.0, -0.2]), np.array([0.3, -1.0]), np.array([0.5, 1.0, -0.3, 0.8])
    gradient = pullback(None, regularizers=weights)

    def value(e):
        p = tuple(P + e * dp)
        marks = marks_of(driven, SPAN, Y0 + e * dy, p, **how)
        return weights @ sums(marks, "dopri5", driven_rate, Y0 + e * dy, np.array(p))

    _, as_data = odec.solve_vjp(driven, SPAN, Y0, tuple(P), regularizers=BOTH, **how)
    found, frozen = (g.y0 @ dy + np.array(g.params) @ dp for g in (gradient, as_data(None, regularizers=weights)))
    # the controller's logarithm is a line through bits, and its slope true to two digits
    assert abs(found - along(value, 0.0, 1.0, 1e-4)) < 0.02 * abs(found - frozen)


# ---- parity


def test_checkpoints_give_the_same_gradient():
    how = {"rtol": 1e-6, "t_eval": [], "regularizers": BOTH}
    sol, pullback = odec.solve_vjp(driven, SPAN, Y0, tuple(P), **how)
    few, back = odec.solve_vjp(driven, SPAN, Y0, tuple(P), checkpoints=4, **how)
    np.testing.assert_array_equal(few.regularizers, sol.regularizers)
    one, other = (pull(np.ones((1, 2)), regularizers=[3.0, 1.0]) for pull in (pullback, back))
    np.testing.assert_array_equal(one.params, other.params)
    assert other.stats["again"] > 0


def test_network_goes_back_from_what_it_kept_as_from_steps_made_again():
    rng = np.random.default_rng(4)
    y0 = rng.normal(size=(20, 2))
    p = rng.normal(size=(2, 50)), rng.normal(size=50), rng.normal(size=(50, 2))
    how = {"rtol": 1e-3, "t_eval": [], "regularizers": BOTH}
    sol, pullback = odec.solve_vjp(network, (0.0, 1.0), y0, p, **how)
    again, back = odec.solve_vjp(network, (0.0, 1.0), y0, p, checkpoints=1000, **how)
    marks = marks_of(network, (0.0, 1.0), y0, p, rtol=1e-3)
    expected = sums(marks, "tsit5", network_rate, y0.ravel(), p)
    np.testing.assert_allclose(sol.regularizers, expected, rtol=1e-9)
    np.testing.assert_allclose(again.regularizers, expected, rtol=1e-9)
    one, other = (pull(np.ones((1, 20, 2)), regularizers=[100.0, 0.1]) for pull in (pullback, back))
    for a, b in zip((one.y0, *one.params), (other.y0, *other.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.abs(b).max())
    dw = rng.normal(size=(2, 50))
    value = lambda w: np.array([100.0, 0.1]) @ sums(marks, "tsit5", network_rate, y0.ravel(), (w, *p[1:]))
    found = np.sum(pullback(None, regularizers=[100.0, 0.1]).params[0] * dw)
    np.testing.assert_allclose(found, along(value, p[0], dw), rtol=1e-6)


def test_what_was_kept_of_a_network_is_not_evaluated_again():
    rng = np.random.default_rng(4)
    p = rng.normal(size=(2, 50)), rng.normal(size=50), rng.normal(size=(50, 2))
    system, how = network.bind(rng.normal(size=(20, 2)), p), {"method": "tsit5", "terms": ("error", "stiffness")}
    calls = lambda kernel, **how: sum(node.op.name == "call" for node in system.derivative(kernel, **how).nodes)
    assert calls("step_terms", **how) == 7 and calls("kept_terms", **how) == 0
    assert calls("kept_vjp", **how) == calls("kept_vjp", method="tsit5") + 1  # back through y1's slope as well


def test_a_solve_that_fails_has_the_sums_of_what_it_reached():
    how = {"throw": False, "max_steps": 4, **ROUGH}
    sol, pullback = odec.solve_vjp(driven, (0.3, 9.0), Y0, tuple(P), regularizers=BOTH, **how)
    marks = marks_of(driven, (0.3, 9.0), Y0, tuple(P), max_steps=4, **ROUGH)
    assert not sol.success and len(marks) > 0
    np.testing.assert_allclose(sol.regularizers, sums(marks, "tsit5", driven_rate, Y0, P), rtol=1e-9)
    assert np.isfinite(pullback(None, regularizers=[1.0, 1.0]).y0).all()


def test_single_precision_has_the_sums_of_double_to_its_digits():
    how = {"first_step": 0.25, "max_step": 0.25, "rtol": 1e-2, "atol": 1e-2, "t_eval": [], "regularizers": BOTH}
    exact, back = odec.solve_vjp(driven, SPAN, Y0, tuple(P), **how)
    rough, pull = odec.solve_vjp(driven, SPAN, Y0, tuple(P), dtype="float32", **how)
    assert rough.regularizers.dtype == np.float32
    np.testing.assert_allclose(rough.regularizers, exact.regularizers, rtol=1e-2)
    for weights in np.eye(2):
        one, other = (np.array(p(None, regularizers=weights).params) for p in (pull, back))
        np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-2 * np.abs(other).max())


# ---- examples


def test_a_solution_at_rest_adds_nothing_and_has_a_gradient():
    sol, pullback = odec.solve_vjp(decay, (0.0, 1.0), [0.0], (0.8,), t_eval=[], regularizers=BOTH)
    np.testing.assert_array_equal(sol.regularizers, [0.0, 0.0])
    gradient = pullback(None, regularizers=[1.0, 1.0])
    assert gradient.y0[0] == 0.0 and gradient.params[0] == 0.0


def test_integrals_and_sums_go_together():
    model = odec.regularize(decay, Kinetic(), in_error_norm=False)
    how = {"rtol": 1e-3, "t_eval": [], "regularizers": [ErrorEstimate()]}
    alone, _ = odec.solve_vjp(decay, (0.0, 2.0), [1.0, 2.0], (1.5,), **how)
    joined, pullback = odec.solve_vjp(model, (0.0, 2.0), model.start(np.array([1.0, 2.0])), (1.5,), **how)
    np.testing.assert_allclose(joined.regularizers, alone.regularizers, rtol=1e-9)
    only, pull = odec.solve_vjp(model, (0.0, 2.0), model.start(np.array([1.0, 2.0])), (1.5,), gradient_only=True, **how)
    np.testing.assert_allclose(only.regularizers, alone.regularizers, rtol=1e-9)
    one, other = (p((np.zeros((1, 2)), np.ones((1, 1))), regularizers=[5.0]) for p in (pullback, pull))
    np.testing.assert_allclose(one.params, other.params, rtol=1e-9)


# ---- bad input


@pytest.mark.parametrize(
    "how, match",
    [
        ({"regularizers": ErrorEstimate()}, "a list of terms"),
        ({"regularizers": [ErrorEstimate]}, r"Call it, as ErrorEstimate\(\)"),
        ({"regularizers": [Taylor(order=3)]}, "given to odec.regularize"),
        ({"adjoint": "backsolve"}, "differentiates the solution instead"),
        ({"adjoint": "interpolating"}, "differentiates the solution instead"),
        ({"batched": "y0"}, "an ensemble"),
        ({"events": [lambda t, y, *p: y[0] - 5.0]}, "events are watched"),
        ({"method": "rk4", "first_step": 0.1}, r"ErrorEstimate\(\) needs an error estimate, but rk4 has none"),
        ({"method": "bs3", "regularizers": [Stiffness()]}, r"Stiffness\(\) needs a stage .* bs3 has none"),
        ({"method": "taylor"}, "but taylor has none"),
        ({"method": "carpenter_kennedy54", "first_step": 0.1}, "carpenter_kennedy54 has none"),
    ],
)
def test_what_has_no_such_sums_is_said(how, match):
    with pytest.raises(ArgumentError, match=match):
        odec.solve_vjp(driven, SPAN, Y0, tuple(P), **{"regularizers": [ErrorEstimate()], **how})


def test_sums_over_steps_are_no_terms_of_regularize():
    with pytest.raises(ArgumentError, match=r"to odec.solve_vjp, as regularizers=\[...\]"):
        odec.regularize(driven, ErrorEstimate())


def test_cotangents_of_sums_are_checked():
    _, plain = odec.solve_vjp(driven, SPAN, Y0, tuple(P), **ROUGH)
    with pytest.raises(ArgumentError, match="the solve has none"):
        plain(None, regularizers=[1.0])
    _, pullback = odec.solve_vjp(driven, SPAN, Y0, tuple(P), regularizers=BOTH, **ROUGH)
    with pytest.raises(ShapeError, match=r"have shape \(2,\)"):
        pullback(None, regularizers=[1.0])
    with pytest.raises(ArgumentError, match="finite numbers"):
        pullback(None, regularizers=[1.0, np.nan])
    with pytest.raises(ArgumentError, match="a number for each term"):
        pullback(None, regularizers="strong")
