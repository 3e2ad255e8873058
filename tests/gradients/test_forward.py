"""Forward sensitivities: central differences of the solver's own output, structures, bad input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import odec
from odec.gradients.forward import FROM_INPUT, variational
from odec.transforms.scalar import operation_count

FIXED = dict(method="rk4", first_step=0.05)


@odec.dynamics
def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
    x, v, z = y
    return [sigma * (v - x), x * (rho - z) - v, x * v - beta * z]


@odec.dynamics
def spring(t, y, mass, unused):
    force = -mass["stiffness"] * y["place"] + np.sin(t)
    return {"place": y["speed"], "speed": force / mass["mass"]}


SPRING0 = {"place": np.array([1.0, 0.5]), "speed": np.array([0.0, -0.2])}
MASS = {"stiffness": np.array([2.0, 3.0]), "mass": 1.5}


def central(run, x, width=1e-5):
    """d run / d x at a vector x by differences of fourth order, (*run.shape, x.size)."""
    columns = []
    for j in range(x.size):
        step = np.zeros_like(x)
        step[j] = width * max(1.0, abs(x[j]))
        near, far = run(x + step) - run(x - step), run(x + 2 * step) - run(x - 2 * step)
        columns.append((8.0 * near - far) / (12.0 * step[j]))
    return np.stack(columns, axis=-1)


def close(found, expected, tolerance):
    return np.max(np.abs(found - expected)) <= tolerance * np.max(np.abs(expected))


# ---- the derivative of the computed numbers ---------------------------------------------------------------


@given(st.tuples(*[st.floats(-2.0, 2.0)] * 3), st.floats(5.0, 12.0), st.floats(20.0, 30.0))
def test_fixed_steps_give_the_derivative_of_the_rows(y0, sigma, rho):
    y0, times = np.array(y0), np.linspace(0.0, 0.5, 4)
    sol = odec.sensitivities(lorenz, (0.0, 0.5), y0, (sigma, rho, 2.5), wrt=("y0", "rho"), t_eval=times, **FIXED)

    def rows(x):
        return odec.solve(lorenz, (0.0, 0.5), x[:3], (sigma, x[3], 2.5), t_eval=times, **FIXED).ys

    expected = central(rows, np.array([*y0, rho]), 1e-3)
    assert close(sol.sensitivities["y0"], expected[..., :3], 1e-8)
    assert np.max(np.abs(sol.sensitivities["rho"] - expected[..., 3])) <= 1e-8 * np.max(np.abs(expected))


@given(st.tuples(*[st.floats(-1.0, 1.0)] * 3), st.tuples(*[st.floats(-1.0, 1.0)] * 3))
def test_a_directional_derivative_is_the_sensitivities_times_the_direction(dy0, dparams):
    y0, options = np.array([1.0, 0.5, 20.0]), dict(t_eval=np.linspace(0.0, 0.5, 3), **FIXED)
    sol, ys_dot = odec.solve_jvp(lorenz, (0.0, 0.5), y0, tangents=(np.array(dy0), dparams), **options)
    full = odec.sensitivities(lorenz, (0.0, 0.5), y0, wrt=("y0", "sigma", "rho", "beta"), **options)
    parts = full.sensitivities
    expected = parts["y0"] @ dy0 + sum(parts[k] * d for k, d in zip(("sigma", "rho", "beta"), dparams))
    assert ys_dot == pytest.approx(expected, rel=1e-11, abs=1e-11)
    assert sol.ys == pytest.approx(full.ys, rel=1e-13)


def test_steps_are_those_of_the_plain_solve():
    options = dict(rtol=1e-7, atol=1e-9)
    plain = odec.solve(lorenz, (0.0, 2.0), [1.0, 0.0, 0.0], **options)
    sol = odec.sensitivities(lorenz, (0.0, 2.0), [1.0, 0.0, 0.0], wrt="y0", **options)
    assert sol.stats["steps"] == plain.stats["steps"] and sol.stats["rejected"] == plain.stats["rejected"]
    assert sol.ts == pytest.approx(plain.ts, rel=1e-11)
    assert sol.ys == pytest.approx(plain.ys, rel=1e-10)
    assert sol.y1 == pytest.approx(sol.ys[-1]) and sol.names == plain.names


def test_by_the_start_time():
    options = dict(method="vern9", rtol=1e-12, atol=1e-12, t_eval=[])
    sol = odec.sensitivities(lorenz, (0.1, 0.6), [1.0, 0.5, 20.0], wrt="t0", **options)

    def end(t0):
        return odec.solve(lorenz, (t0[0], 0.6), [1.0, 0.5, 20.0], **options).y1

    assert close(sol.sensitivities["t0"][0], central(end, np.array([0.1]), 2e-4)[:, 0], 1e-8)


def test_chunks_make_no_difference():
    options = dict(wrt=("sigma", "y0"), rtol=1e-6, atol=1e-9)
    whole = odec.sensitivities(lorenz, (0.0, 1.0), [1.0, 0.0, 0.0], **options)
    parts = odec.sensitivities(lorenz, (0.0, 1.0), [1.0, 0.0, 0.0], chunk=3, **options)
    assert parts.ts == pytest.approx(whole.ts, rel=1e-12)
    for name, value in whole.sensitivities.items():
        assert parts.sensitivities[name] == pytest.approx(value, rel=1e-9, abs=1e-9)


# ---- states, spans, methods -------------------------------------------------------------------------------


def test_structures_nest_and_a_parameter_that_does_not_enter_has_zeros():
    options = dict(params={"mass": MASS, "unused": np.ones(2)}, t_eval=np.linspace(0.0, 1.0, 5))
    sol = odec.sensitivities(spring, (0.0, 1.0), SPRING0, wrt=("y0", "mass", "unused"), **options, **FIXED)
    by_mass, by_y0 = sol.sensitivities["mass"], sol.sensitivities["y0"]
    assert by_mass["place"]["stiffness"].shape == (5, 2, 2) and by_mass["speed"]["mass"].shape == (5, 2)
    assert by_y0["place"]["speed"].shape == (5, 2, 2)
    assert sol.sensitivities["unused"]["speed"].shape == (5, 2, 2) and not sol.sensitivities["unused"]["speed"].any()
    assert sol.ys["place"].shape == (5, 2)

    def places(x):
        mass = {"stiffness": x[:2], "mass": x[2]}
        return odec.solve(spring, (0.0, 1.0), SPRING0, **(options | {"params": (mass, np.ones(2))}), **FIXED).ys[
            "place"
        ]

    expected = central(places, np.array([2.0, 3.0, 1.5]), 1e-3)
    assert close(by_mass["place"]["stiffness"], expected[..., :2], 1e-8)
    assert close(by_mass["place"]["mass"], expected[..., 2], 1e-8)


def test_a_directional_derivative_has_the_structure_of_the_state():
    tangents = (
        {"place": np.array([1.0, 0.0]), "speed": np.zeros(2)},
        {"mass": {"stiffness": np.zeros(2), "mass": 1.0}},
    )
    sol, dot = odec.solve_jvp(spring, (0.0, 1.0), SPRING0, (MASS, np.ones(2)), tangents=tangents, t_eval=[], **FIXED)
    full = odec.sensitivities(
        spring, (0.0, 1.0), SPRING0, (MASS, np.ones(2)), wrt=("y0", "mass", "unused"), t_eval=[], **FIXED
    ).sensitivities
    expected = full["y0"]["speed"]["place"][..., 0] + full["mass"]["speed"]["mass"]
    assert dot["speed"] == pytest.approx(expected, rel=1e-12)
    assert dot["place"].shape == sol.ys["place"].shape


def test_backward_in_time():
    sol = odec.sensitivities(lorenz, (0.5, 0.0), [1.0, 0.5, 20.0], wrt=("y0", "rho"), t_eval=[], **FIXED)

    def end(x):
        return odec.solve(lorenz, (0.5, 0.0), x[:3], (10.0, x[3], 8 / 3), t_eval=[], **FIXED).y1

    expected = central(end, np.array([1.0, 0.5, 20.0, 28.0]), 1e-4)
    assert close(sol.sensitivities["y0"][0], expected[:, :3], 1e-8)
    assert np.max(np.abs(sol.sensitivities["rho"][0] - expected[:, 3])) <= 1e-8 * np.max(np.abs(expected))


def test_float32():
    y0 = np.array([1.0, 0.5, 20.0], np.float32)
    sol = odec.sensitivities(lorenz, (0.0, 0.5), y0, wrt=("y0", "rho"), rtol=1e-5, atol=1e-5, t_eval=[])
    wide = odec.sensitivities(lorenz, (0.0, 0.5), y0.astype(float), wrt=("y0", "rho"), rtol=1e-9, t_eval=[])
    assert sol.sensitivities["y0"].dtype == np.float32
    for name in ("y0", "rho"):
        assert close(sol.sensitivities[name], wide.sensitivities[name], 1e-3)


def test_symplectic_steps():
    @odec.dynamics
    def oscillator(t, y, stiffness):
        q, v = y
        return v, -stiffness * q

    options = dict(method="velocity_verlet", first_step=0.01, t_eval=[])
    start, given = (np.array([1.0]), np.array([0.0])), (np.array([4.0]),)
    sol = odec.sensitivities(oscillator, (0.0, 1.0), start, given, wrt="stiffness", **options)

    def place(x):
        return odec.solve(oscillator, (0.0, 1.0), start, (x,), **options).y1[0]

    assert close(sol.sensitivities["stiffness"][0][0], central(place, given[0], 1e-3), 1e-8)


def test_dense_output_is_that_of_the_state():
    sol = odec.sensitivities(lorenz, (0.0, 0.5), [1.0, 0.5, 20.0], wrt="rho", dense_output=True)
    plain = odec.solve(lorenz, (0.0, 0.5), [1.0, 0.5, 20.0], dense_output=True)
    times = np.linspace(0.0, 0.5, 7)
    assert sol(times) == pytest.approx(plain(times), rel=1e-11)


# ---- events -----------------------------------------------------------------------------------------------


@odec.dynamics
def ball(t, y, gravity, bounce, drag):
    return [y[1], -gravity - drag * y[1]]


def test_a_bounce_carries_the_derivatives_across():
    floor = odec.Event(lambda t, y: y[0], direction=-1, reset=lambda t, y, bounce: [-y[0], -bounce * y[1]])
    options = dict(method="vern9", rtol=1e-12, atol=1e-13, t_eval=np.array([0.3, 0.8, 1.2]), events=floor)
    sol = odec.sensitivities(
        ball, (0.0, 1.2), [1.0, 0.5], (9.81, 0.8, 0.1), wrt=("y0", "gravity", "bounce", "drag"), **options
    )

    def rows(x):
        return odec.solve(ball, (0.0, 1.2), x[:2], tuple(x[2:]), **options).ys

    expected = central(rows, np.array([1.0, 0.5, 9.81, 0.8, 0.1]), 1e-4)
    assert len(sol.t_events[0]) >= 1 and sol.y_events[0].shape[1:] == (2,)
    assert close(sol.sensitivities["y0"], expected[..., :2], 1e-7)
    for k, name in enumerate(("gravity", "bounce", "drag"), 2):
        assert close(sol.sensitivities[name], expected[..., k], 1e-7)


def test_a_reset_of_parameters_carries_their_derivatives():
    def softer(t, y, gravity, bounce, drag):
        return y, {"drag": drag + 0.2 * y[1] ** 2}

    high = odec.Event(lambda t, y, drag: t - 0.2 - drag, reset=softer)
    options = dict(method="vern9", rtol=1e-12, atol=1e-13, t_eval=[], events=high)
    given, tangents = (9.81, 0.8, 0.1), (np.array([0.3, -0.4]), (0.5, 0.0, 0.7))
    _, dot = odec.solve_jvp(ball, (0.0, 1.0), [1.0, 0.5], given, tangents=tangents, **options)

    def end(s):
        y0, p = np.array([1.0, 0.5]) + s[0] * tangents[0], tuple(a + s[0] * d for a, d in zip(given, tangents[1]))
        return odec.solve(ball, (0.0, 1.0), y0, p, **options).y1

    assert close(dot[0], central(end, np.zeros(1), 1e-3)[:, 0], 1e-7)


def test_times_of_events_have_their_closed_form():
    """A stone thrown up from h with speed v is back at 0 after (v + sqrt(v² + 2 g h)) / g, and is highest at v / g."""
    stone = odec.dynamics(lambda t, y, g, unused: {"h": y["v"], "v": -g})
    ground = odec.Event(lambda t, y: y["h"], terminal=True, direction=-1)
    events = [odec.Event(lambda t, y: y["v"]), ground, odec.Event(lambda t, y: t - 0.25)]
    options = dict(wrt=("y0", "g", "unused"), events=events, t_eval=[])
    for chunk in (None, 2):
        sol = odec.sensitivities(stone, (0.0, 9.0), {"h": 2.0, "v": 3.0}, (9.81, 1.0), chunk=chunk, **options)
        root = np.sqrt(3.0**2 + 2 * 9.81 * 2.0)
        top, end, still = sol.t_event_sensitivities
        assert (top["y0"]["h"], top["y0"]["v"]) == pytest.approx((0.0, 1 / 9.81), abs=1e-9)
        assert end["y0"]["h"] == pytest.approx(1 / root, rel=1e-9)
        assert end["y0"]["v"] == pytest.approx((1 + 3.0 / root) / 9.81, rel=1e-9)
        assert top["g"] == pytest.approx(-3.0 / 9.81**2, rel=1e-9) and end["unused"] == 0.0
        assert not still["g"].any() and still["g"].shape == (1,)
        state = sol.y_event_sensitivities[1]
        assert state["y0"]["h"]["v"] == pytest.approx(0.0, abs=1e-9)  # on the ground, whenever that is
        assert state["g"]["v"] == pytest.approx(-2.0 / root, rel=1e-9)
        assert sol.sensitivities["y0"]["h"]["v"][-1] == pytest.approx(sol.t_events[1][0])  # at a fixed time
    assert (
        odec.sensitivities(stone, (0.0, 1.0), {"h": 2.0, "v": 3.0}, wrt="g", params=(9.81, 1.0)).t_event_sensitivities
        is None
    )


def test_a_time_that_has_no_derivative_is_nan_and_said():
    jump = odec.Event(lambda t, y: np.where(y[0] > 0.5, 1.0, -1.0))
    with pytest.warns(RuntimeWarning, match="ball: event <lambda> at t = .* so its time has no derivative"):
        sol = odec.sensitivities(ball, (0.0, 1.0), [1.0, 0.5], (9.81, 0.8, 0.1), wrt="drag", events=jump)
    assert np.isnan(sol.t_event_sensitivities[0]["drag"]).all() and np.isfinite(sol.sensitivities["drag"]).all()
    jump = odec.Event(jump.fn, reset=lambda t, y: [y[0] + 1.0, y[1]])
    with pytest.warns(RuntimeWarning, match="so its time has no derivative"):
        odec.solve_jvp(ball, (0.0, 0.6), [1.0, 0.5], (9.81, 0.8, 0.1), tangents=(None, (0, 0, 1.0)), events=jump)


# ---- the larger model -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 80])
def test_both_forms_agree_with_the_jvp_of_the_system(n):
    rng = np.random.default_rng(3)

    @odec.dynamics
    def network(t, y, w):
        return np.tanh(w @ y) - y

    y, w = rng.normal(size=n), rng.normal(size=(n, n))
    system = network.bind(y, (w,))
    s, dw = rng.normal(size=n), rng.normal(size=(n, n))
    expected = system.jvp(0.0, y, w, tangents=(None, s, (dw,)))
    large = variational(system.graph, (FROM_INPUT,))
    (found,) = large.evaluate(
        0.0, np.stack([y, s], 1).ravel(), np.stack([w.ravel(), dw.ravel()], 1).ravel()
    ).values()  # fmt: skip
    assert found.reshape(n, 2)[:, 1] == pytest.approx(expected, rel=1e-12, abs=1e-12)
    unit = variational(system.graph, (None, 5))
    (found,) = unit.evaluate(0.0, np.stack([y, s, 0 * s], 1).ravel(), w.ravel()).values()
    one = np.zeros((n, n))
    one.flat[5] = 1.0
    assert found.reshape(n, 3)[:, 1] == pytest.approx(system.jvp(0.0, y, w, tangents=(None, s)), rel=1e-12)
    assert found.reshape(n, 3)[:, 2] == pytest.approx(system.jvp(0.0, y, w, tangents=(None, None, (one,))), rel=1e-12)


def test_structural_zeros_leave_no_operation():
    graph = lorenz.bind(np.zeros(3)).graph
    assert len(variational(graph, (1,)).nodes) < len(variational(graph, (FROM_INPUT,)).nodes)


def test_tangents_too_long_for_scalars_keep_the_arrays_of_the_model():
    @odec.dynamics
    def network(t, y, w):
        return np.tanh(w @ y) - y

    graph = network.bind(np.zeros(40), (np.zeros((40, 40)),)).graph
    assert len(variational(graph, (None,) * 10).nodes) < 300 < operation_count(graph)
    small = lorenz.bind(np.zeros(3)).graph
    products = [node for node in variational(small, (None,) * 6).nodes if node.op.name == "mul"]
    assert products and all(node.shape == () for node in products)


# ---- bad input --------------------------------------------------------------------------------------------

START = (0.0, 0.5), [1.0, 0.5, 20.0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(wrt="sigmoid"), "sigmoid.*did you mean 'sigma'"),
        (dict(wrt=()), "wrt is \\(\\); names are needed"),
        (dict(wrt=None), "wrt is None; names are needed"),
        (dict(wrt="rho", chunk=0), "chunk is 0"),
        (dict(wrt="rho", rtol=-1.0), "rtol is -1.0"),
        (dict(wrt="rho", t_eval=[2.0]), "outside the time span"),
        (dict(wrt="rho", events=3), "events is 3"),
        (dict(wrt="rho", mass_matrix=np.eye(3)), "mass_matrix is not available"),
        (dict(wrt="rho", params=(10.0, np.nan, 2.0)), "params.*is nan"),
        (dict(wrt="rho", params=(10.0, True, 2.0)), "wrt 'rho' has values of bool"),
        (dict(wrt="rho", params=(10.0, np.int64(28), 2.0)), "wrt 'rho' has values of int64"),
        (dict(wrt=("y0", "rho"), error_control=True, chunk=2), "give t_eval"),
    ],
)
def test_what_sensitivities_refuses(options, words):
    with pytest.raises(odec.ArgumentError, match=words):
        odec.sensitivities(lorenz, *START, **options)


def test_a_misspelt_keyword_is_named():
    with pytest.raises(TypeError, match="'rtoll'; did you mean"):
        odec.sensitivities(lorenz, *START, wrt="rho", rtoll=1e-3)


def test_plain_integers_are_numbers():
    sol = odec.sensitivities(lorenz, *START, (10, 28, 8 / 3), wrt="rho", t_eval=[])
    assert sol.sensitivities["rho"].any()


@pytest.mark.parametrize(
    ("tangents", "error", "words"),
    [
        ((np.ones(2), None), odec.ShapeError, "tangent of y0 has shape \\(2,\\)"),
        ((None, {"sigmoid": 1.0}), odec.ArgumentError, "did you mean 'sigma'"),
        ((None, (1.0,)), odec.ArgumentError, "3 parameters"),
        ((None, {"rho": [1.0, 2.0]}), odec.ShapeError, "tangent of rho"),
        (([np.nan, 0.0, 0.0], None), odec.ArgumentError, "tangent of y0 has nan"),
        ((None, {"rho": np.inf}), odec.ArgumentError, "tangent of params has inf"),
        (np.ones(3), odec.ArgumentError, "a tuple \\(dy0, dparams\\) is needed"),
    ],
)
def test_what_solve_jvp_refuses(tangents, error, words):
    with pytest.raises(error, match=words):
        odec.solve_jvp(lorenz, *START, tangents=tangents)


def test_no_tangents_give_zeros():
    _, ys_dot = odec.solve_jvp(lorenz, *START, tangents=(None, None), t_eval=[])
    assert not ys_dot.any()


def test_a_solve_that_stops_early_keeps_what_it_has():
    @odec.dynamics
    def blows_up(t, y, rate):
        return rate * y**2

    with pytest.raises(odec.SolveError, match=r"blows_up: .*y changed fastest") as caught:
        odec.sensitivities(blows_up, (0.0, 2.0), 1.0, (1.0,), wrt=("y0", "rate"))
    sol = caught.value.solution
    assert len(sol.ts) == len(sol.sensitivities["y0"]) > 3 and sol.names == ("y",)
    early = odec.sensitivities(blows_up, (0.0, 2.0), 1.0, (1.0,), wrt=("y0", "rate"), throw=False)
    assert not early.success and early.sensitivities["rate"][0] == 0.0
