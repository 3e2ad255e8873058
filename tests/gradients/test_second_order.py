"""Second derivatives of a solve: differences of the discrete gradient, symmetry, closed forms, bad input."""

import numpy as np
import pytest
from gradient_models import decay, driven
from hypothesis import given
from hypothesis import strategies as st

import odec

FIXED = dict(method="rk4", first_step=0.05)
TIMES = np.linspace(0.1, 1.0, 4)
Y0, P = np.array([1.0, 1.2]), (1.5, 1.0, 3.0, 1.0)


@odec.dynamics
def spring(t, y, mass, unused):
    return {"place": y["speed"], "speed": -mass["stiffness"] * y["place"] ** 3 / mass["mass"]}


@odec.dynamics
def network(t, y, first, second):
    return np.tanh(y @ first) @ second


def misfit(ys):
    return np.sum((ys - 1.0) ** 2 * ys)


def slope_of_misfit(ys):
    return 2.0 * (ys - 1.0) * ys + (ys - 1.0) ** 2


def flat(pair):
    return np.concatenate([np.ravel(pair[0]), *(np.ravel(v) for v in pair[1])])


def along(f, width=1e-3):
    """df/de at 0, by differences of fourth order."""
    return (8.0 * (f(width) - f(-width)) - f(2 * width) + f(-2 * width)) / (12.0 * width)


def close(found, expected, tolerance):
    return np.max(np.abs(found - expected)) <= tolerance * np.max(np.abs(expected))


unit = st.floats(-1.0, 1.0)
directions = st.tuples(st.tuples(unit, unit).map(np.array), st.tuples(unit, unit, unit, unit))

# ---- laws -------------------------------------------------------------------------------------------------


@given(directions)
def test_product_is_the_derivative_of_the_discrete_gradient(v):
    options = dict(t_eval=TIMES, **FIXED)
    sol, gradient, product = odec.hessian_vector_product(driven, (0.0, 1.0), Y0, P, loss=misfit, tangents=v, **options)

    def slope(e):
        moved = tuple(a + e * da for a, da in zip(P, v[1]))
        sol, pullback = odec.solve_vjp(driven, (0.0, 1.0), Y0 + e * v[0], moved, **options)
        found = pullback(slope_of_misfit(sol.ys))
        return flat((found.y0, found.params))

    exact = slope(0.0)
    assert close(flat(gradient), exact, 1e-13)
    assert np.max(np.abs(flat(product) - along(slope))) <= 1e-8 * np.max(np.abs(exact))
    assert sol.ys == pytest.approx(odec.solve(driven, (0.0, 1.0), Y0, P, **options).ys, rel=1e-13)


@given(directions, directions)
def test_hessian_is_symmetric(v, w):
    options = dict(loss=misfit, rtol=1e-5, atol=1e-8)
    _, _, by_v = odec.hessian_vector_product(driven, (0.0, 1.0), Y0, P, tangents=v, **options)
    _, _, by_w = odec.hessian_vector_product(driven, (0.0, 1.0), Y0, P, tangents=w, **options)
    scale = np.max(np.abs(flat(by_v))) + np.max(np.abs(flat(by_w)))
    assert flat(w) @ flat(by_v) == pytest.approx(flat(v) @ flat(by_w), rel=1e-10, abs=1e-11 * scale)


@given(st.floats(0.5, 2.0), st.floats(0.5, 2.0), unit, unit)
def test_exponential_decay_has_its_closed_form(y0, rate, dy, drate):
    _, gradient, product = odec.hessian_vector_product(
        decay, (0.0, 1.0), y0, (rate,), loss=lambda ys: np.sum(ys**2) / 2.0, tangents=(dy, (drate,)), t_eval=[],
        method="vern9", rtol=1e-11, atol=1e-13,
    )  # fmt: skip
    square = np.exp(-2.0 * rate)  # L = y0^2 exp(-2 rate) / 2 at t = 1
    hessian = square * np.array([[1.0, -2.0 * y0], [-2.0 * y0, 2.0 * y0**2]])
    assert flat(gradient) == pytest.approx(square * np.array([y0, -(y0**2)]), rel=1e-9)
    assert flat(product) == pytest.approx(hessian @ [dy, drate], rel=1e-8, abs=1e-9)


def test_steps_are_those_of_the_plain_solve():
    options = dict(rtol=1e-7, atol=1e-9)
    plain = odec.solve(driven, (0.0, 2.0), Y0, P, **options)
    sol, _, _ = odec.hessian_vector_product(driven, (0.0, 2.0), Y0, P, loss=misfit, tangents=(Y0, P), **options)
    assert sol.stats["steps"] == plain.stats["steps"] and sol.ts == pytest.approx(plain.ts, rel=1e-11)


# ---- structures, layouts, types ---------------------------------------------------------------------------


def test_structures_are_those_of_the_inputs():
    y0 = {"place": np.array([1.0, 0.5]), "speed": np.array([0.0, -0.2])}
    params = {"mass": {"stiffness": np.array([2.0, 3.0]), "mass": 1.5}, "unused": np.ones(2)}
    options = dict(t_eval=TIMES, **FIXED)
    tangents = ({"place": np.ones(2), "speed": np.zeros(2)}, {"mass": {"stiffness": np.ones(2), "mass": 0.5}})
    loss = lambda ys: np.sum(ys["place"][:, 0] ** 2) + ys["speed"][-1, 1]
    _, gradient, product = odec.hessian_vector_product(
        spring, (0.0, 1.0), y0, params, loss=loss, tangents=tangents, **options
    )
    assert set(product.params) == {"mass", "unused"} and not product.params["unused"].any()

    def slope(e):
        moved = {"mass": {"stiffness": np.array([2.0, 3.0]) + e, "mass": 1.5 + 0.5 * e}, "unused": np.ones(2)}
        start = {"place": y0["place"] + e, "speed": y0["speed"]}
        sol, pullback = odec.solve_vjp(spring, (0.0, 1.0), start, moved, **options)
        bar = {k: np.zeros_like(v) for k, v in sol.ys.items()}
        bar["place"][:, 0], bar["speed"][-1, 1] = 2.0 * sol.ys["place"][:, 0], 1.0
        found = pullback(bar)
        return np.array([*found.y0["place"], *found.y0["speed"], *found.params["mass"]["stiffness"]])

    parts = product.y0["place"], product.y0["speed"], product.params["mass"]["stiffness"]
    assert np.concatenate(parts) == pytest.approx(along(slope), rel=1e-7, abs=1e-8)
    again = odec.hessian_vector_product(spring, (0.0, 1.0), y0, params, loss=loss, tangents=gradient, **options)
    assert again[2].y0["place"].shape == (2,)


def test_a_network_in_loops_over_arrays():
    rng = np.random.default_rng(1)
    y0, first, second = (rng.normal(size=s) / 3.0 for s in ((40, 4), (4, 30), (30, 4)))
    options = dict(t_eval=np.array([0.3, 0.5]), method="rk4", first_step=0.125)
    direction = rng.normal(size=(4, 30))
    _, gradient, product = odec.hessian_vector_product(
        network, (0.0, 0.5), y0, (first, second), loss=misfit, tangents=(None, {"first": direction}), **options
    )

    def slope(e):
        sol, pullback = odec.solve_vjp(network, (0.0, 0.5), y0, (first + e * direction, second), **options)
        found = pullback(slope_of_misfit(sol.ys))
        return flat((found.y0, found.params))

    assert close(flat(gradient), slope(0.0), 1e-12)
    assert close(flat(product), along(slope), 1e-7)


def test_float32():
    v, options = (np.array([0.5, -1.0]), (0.3, 0.2, 0.1, -0.4)), dict(loss=misfit, t_eval=TIMES, rtol=1e-5, atol=1e-5)
    _, _, narrow = odec.hessian_vector_product(driven, (0.0, 1.0), Y0.astype(np.float32), P, tangents=v, **options)
    _, _, wide = odec.hessian_vector_product(driven, (0.0, 1.0), Y0, P, tangents=v, **options)
    assert narrow.y0.dtype == np.float32 and close(flat(narrow), flat(wide), 1e-3)


def test_a_model_without_parameters():
    free = odec.dynamics(lambda t, y: -(y**2))
    _, gradient, product = odec.hessian_vector_product(
        free, (0.0, 1.0), [1.0], loss=lambda ys: np.sum(ys), tangents=([1.0], None), t_eval=[], rtol=1e-10, atol=1e-12
    )  # fmt: skip
    assert gradient.y0 == pytest.approx([0.25], rel=1e-7) and gradient.params == ()
    assert product.y0 == pytest.approx([-0.25], rel=1e-7)  # y(1) = y0 / (1 + y0)


# ---- bad input --------------------------------------------------------------------------------------------


def asks_for_a_value(ys):
    return 1.0 if ys[0, 0] > 0 else 0.0


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (dict(loss=3.0), odec.ArgumentError, "loss is 3.0; a function loss\\(ys\\)"),
        (dict(loss=lambda ys: ys), odec.ShapeError, "loss of driven returned float64 of shape \\(4, 2\\)"),
        (dict(loss=lambda ys: None), odec.ShapeError, "loss of driven returned no number"),
        (dict(loss=lambda ys: "much"), odec.ShapeError, "loss of driven returned no number"),
        (dict(loss=lambda ys: np.all(ys > 0)), odec.ShapeError, "loss of driven returned bool"),
        (dict(loss=asks_for_a_value), odec.TraceError, "loss of driven .*asks for the value"),
        (dict(loss=lambda ys: np.sum(np.sqrt(ys - ys))), odec.ArgumentError, "gradient of loss has"),
        (dict(events=lambda t, y: y[0]), odec.ArgumentError, "events are not differentiated twice"),
        (dict(tangents=Y0), odec.ArgumentError, "a tuple \\(dy0, dparams\\) is needed"),
        (dict(tangents=([np.nan, 0.0], None)), odec.ArgumentError, "tangent of y0 has nan"),
        (dict(params=(1.0, np.inf, 1.0, 1.0)), odec.ArgumentError, "params.*is inf"),
        (dict(rtoll=1e-3), TypeError, "'rtoll'; did you mean"),
    ],
)
def test_what_cannot_be_differentiated_twice(options, error, words):
    given = dict(params=P, loss=misfit, tangents=(Y0, None), t_eval=TIMES, **FIXED) | options
    with pytest.raises(error, match=words):
        odec.hessian_vector_product(driven, (0.0, 1.0), Y0, **given)


def test_a_solve_that_stops_early_raises_with_what_it_reached():
    @odec.dynamics
    def blows_up(t, y, rate):
        return rate * y**2

    with pytest.raises(odec.SolveError, match="blows_up: ") as caught:
        odec.hessian_vector_product(blows_up, (0.0, 2.0), 1.0, (1.0,), loss=np.sum, tangents=(1.0, None))
    assert caught.value.solution.ys[-1] > 10.0
