"""odec.steady_state and its gradient: closed forms, conserved quantities, structures, and input that cannot do."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import odec


@odec.dynamics
def lotka_volterra(t, y, a=1.5, b=1.0, c=3.0, d=1.0):
    prey, predators = y
    return [a * prey - b * prey * predators, d * prey * predators - c * predators]


@odec.dynamics
def reversible(t, y, forward, backward):
    rate = forward * y[0] - backward * y[1]
    return [-rate, rate]


@odec.dynamics
def reversible_with_total(t, y, forward, backward, total):
    return -forward * y + backward * (total - y)


@odec.dynamics
def enzyme(t, y, inflow, v_max, k_m):
    return inflow - v_max * y / (k_m + y)


@odec.dynamics
def brusselator(t, y, a=1.0, b=1.5):
    x, z = y
    return [a + x * x * z - (b + 1.0) * x, b * x - x * x * z]


@odec.dynamics
def toggle(t, y, strength=10.0):
    return [strength / (1.0 + y[1] ** 2) - y[0], strength / (1.0 + y[0] ** 2) - y[1]]


@odec.dynamics
def heat(t, y, source, conductivity=1.0):
    n = y.shape[0]
    edge = np.zeros(1)
    left, right = np.concatenate([edge, y[:-1]]), np.concatenate([y[1:], edge])
    return conductivity * (left - 2.0 * y + right) * (n + 1) ** 2 + source


@odec.dynamics
def drift(t, y):
    return [1.0 + 0.0 * y[0], -y[1]]


@odec.dynamics
def forced(t, y):
    return np.cos(t) - y


@odec.dynamics
def tanks(t, y, flow, unused):
    return {"a": flow["in"] - y["a"], "b": y["a"] * np.ones(2) - flow["out"] * y["b"]}


# ---- where it is ---------------------------------------------------------------------------------------------


def test_fixed_point_of_lotka_volterra_is_a_centre():
    steady = odec.steady_state(lotka_volterra, [2.5, 1.2])
    assert steady.success and steady.y == pytest.approx([3.0, 1.5], rel=1e-10)
    assert steady.stable is None and steady.residual < 1e-12
    assert steady.stats["pseudo_steps"] == 0


rates = st.floats(0.1, 10.0)


@given(forward=rates, backward=rates, first=st.floats(0.0, 5.0), second=st.floats(0.1, 5.0))
def test_equilibrium_keeps_the_total_of_y0(forward, backward, first, second):
    steady = odec.steady_state(reversible, [first, second], (forward, backward))
    share = (first + second) / (forward + backward)
    assert steady.y == pytest.approx([share * backward, share * forward], rel=1e-9)
    assert steady.stable is None


def test_a_conserved_quantity_is_named():
    steady = odec.steady_state(reversible, [1.0, 0.5], (2.0, 1.0))
    assert "singular" in steady.message and steady.stats["pseudo_steps"] > 0


@given(inflow=st.floats(0.05, 0.9), k_m=st.floats(0.01, 100.0))
def test_enzyme_at_its_closed_form(inflow, k_m):
    steady = odec.steady_state(enzyme, 0.1, (inflow, 1.0, k_m))
    assert float(steady.y) == pytest.approx(inflow * k_m / (1.0 - inflow), rel=1e-8)
    assert steady.stable


@pytest.mark.parametrize(("b", "stable"), [(1.5, True), (3.0, False)])
def test_brusselator_loses_stability_beyond_its_hopf_point(b, stable):
    steady = odec.steady_state(brusselator, [2.0, 0.5], {"b": b})
    assert steady.y == pytest.approx([1.0, b], rel=1e-9)
    assert steady.stable is stable


def test_a_switch_has_a_state_for_each_start():
    high = 5.0 + np.sqrt(24.0)
    for y0, expected in (([5.0, 1.0], [high, 1 / high]), ([1.0, 5.0], [1 / high, high])):
        steady = odec.steady_state(toggle, y0)
        assert steady.y == pytest.approx(expected, rel=1e-9) and steady.stable
    between = odec.steady_state(toggle, [0.0, 0.0])
    assert between.y == pytest.approx([2.0, 2.0]) and between.stable is False


def test_stiff_kinetics_that_conserve_mass():
    @odec.dynamics
    def robertson_closed(t, y):
        a, b, c = y
        return [-0.04 * a + 1e4 * b * c + 0.01 * c, 0.04 * a - 1e4 * b * c - 3e7 * b * b, 3e7 * b * b - 0.01 * c]

    steady = odec.steady_state(robertson_closed, [1.0, 0.0, 0.0])
    assert sum(steady.y) == pytest.approx(1.0, rel=1e-7)
    solved = odec.solve(robertson_closed, (0.0, 1.0), steady.y, rtol=1e-9, atol=1e-14, max_steps=100_000)
    assert solved.y1 == pytest.approx(steady.y, rel=1e-6)


def test_a_state_behind_an_extremum_of_the_slope_is_reached_in_pseudo_time():
    @odec.dynamics
    def cubic(t, y):  # Newton's method goes back and forth between 0 and 1
        return -(y**3) + 2.0 * y - 2.0

    steady = odec.steady_state(cubic, [0.0])
    assert steady.stats["pseudo_steps"] > 0 and steady.stable
    assert steady.y == pytest.approx([-1.7692923542386314], rel=1e-10)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_large_sparse_model(dtype):
    n = 400
    steady = odec.steady_state(heat, np.zeros(n, dtype), (1.0,))
    x = np.arange(1, n + 1) / (n + 1)
    assert steady.y.dtype == dtype and steady.stable
    assert steady.y == pytest.approx(x * (1.0 - x) / 2.0, rel=1e-9 if dtype == "float64" else 1e-2)


def test_a_large_sparse_model_with_a_conserved_sum():
    @odec.dynamics
    def insulated(t, y):
        return np.concatenate([y[:1], y[:-1]]) - 2.0 * y + np.concatenate([y[1:], y[-1:]])

    steady = odec.steady_state(insulated, np.arange(150.0))
    assert steady.y == pytest.approx(np.full(150, 74.5), rel=1e-8)
    assert "singular" in steady.message


def test_a_structured_state_and_parameters_by_name():
    @odec.dynamics
    def tanks(t, y, flow):
        return {"a": flow["in"] - y["a"], "b": y["a"] * np.ones(2) - flow["out"] * y["b"]}

    y0 = {"a": 0.0, "b": np.zeros(2)}
    steady = odec.steady_state(tanks, y0, {"flow": {"in": 2.0, "out": np.array([1.0, 4.0])}})
    assert float(steady.y["a"]) == pytest.approx(2.0) and steady.y["b"] == pytest.approx([2.0, 0.5])


def test_a_system_and_a_float32_state():
    system = toggle.bind(np.float32([5.0, 1.0]))
    steady = odec.steady_state(system, np.float32([5.0, 1.0]), (10.0,))
    assert steady.y.dtype == np.float32 and steady.y == pytest.approx([9.898979, 0.1010205], rel=1e-5)


def test_a_start_that_is_steady_stays():
    y0 = np.array([3.0, 1.5])
    steady = odec.steady_state(lotka_volterra, y0)
    assert np.array_equal(steady.y, y0) and steady.stats["iterations"] == 0


def test_the_time_at_which_a_model_is_held():
    assert float(odec.steady_state(forced, 0.0, t=0.0).y) == pytest.approx(1.0)
    assert float(odec.steady_state(forced, 0.0, t=np.pi / 3).y) == pytest.approx(0.5)


def test_the_jacobian_of_a_steady_state_is_kept_and_travels():
    steady = odec.steady_state(lotka_volterra, [2.5, 1.2])
    assert steady.jacobian == pytest.approx(lotka_volterra.bind(steady.y).jacobian(0.0, steady.y, 1.5, 1.0, 3.0, 1.0))
    again = pickle.loads(pickle.dumps(odec.steady_state(toggle, [5.0, 1.0])))
    assert again.stable and repr(again).endswith(", stable>")


def test_a_record_shows_how_it_was_found():
    assert repr(odec.steady_state(enzyme, 0.1, (0.5, 1.0, 1.0))).startswith(
        "<SteadyState of enzyme: steady by Newton's method; residual "
    )


# ---- input that cannot do ------------------------------------------------------------------------------------


def test_a_model_that_depends_on_time_is_asked_for_one():
    with pytest.raises(odec.ArgumentError, match=r"forced depends on t.* t=0\.0"):
        odec.steady_state(forced, 0.0)

    switched = odec.dynamics(lambda t, y: np.where(t > 1.0, 1.0, 0.0) - y)
    with pytest.raises(odec.ArgumentError, match="depends on t"):
        odec.steady_state(switched, 0.0)


def test_no_steady_state():
    with pytest.raises(odec.SolveError, match=r"no steady state found .*dy\[0\]/dt .*raise max_steps") as raised:
        odec.steady_state(drift, [0.0, 1.0])
    reached = raised.value.solution
    assert reached.success is False and reached.residual == 1.0 and reached.stable is None
    assert odec.steady_state(drift, [0.0, 1.0], throw=False).message == str(raised.value)


def test_max_steps_bounds_the_iterations():
    for most in (1, 3, 60):
        assert odec.steady_state(drift, [0.0, 1.0], max_steps=most, throw=False).stats["iterations"] == most
    assert not odec.steady_state(enzyme, 0.1, (0.9, 1.0, 50.0), max_steps=1, throw=False).success


def test_a_slope_that_is_not_finite_at_the_start():
    root = odec.dynamics(lambda t, y: 1.0 - np.sqrt(y))
    with pytest.raises(odec.SolveError, match=r"dy\[0\]/dt is not finite at y0 \(nan\)"):
        odec.steady_state(root, [-1.0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"y0": [np.nan, 1.0]}, r"y0\[0\] is nan"),
        ({"params": (1.0, np.inf, 1.0, 1.0)}, r"params\['b'\] is inf"),
        ({"rtol": -1.0}, "rtol is -1"),
        ({"atol": [1e-9]}, "atol"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"t": "noon"}, "t is 'noon'"),
        ({"t": np.inf}, "t is inf"),
        ({"params": {"speed": 1.0}}, "no parameter 'speed'"),
    ],
)
def test_arguments_that_cannot_be_used(options, said):
    y0 = options.pop("y0", [1.0, 1.0])
    with pytest.raises(ValueError, match=said):
        odec.steady_state(lotka_volterra, y0, **options)


def test_a_search_leaves_its_arguments_alone():
    y0, params = np.array([2.5, 1.2]), {"a": np.array(1.5)}
    odec.steady_state(lotka_volterra, y0, params)
    assert np.array_equal(y0, [2.5, 1.2]) and params == {"a": 1.5}


# ---- gradients -----------------------------------------------------------------------------------------------


def test_gradient_of_lotka_volterra_in_closed_form():
    _, pullback = odec.steady_state_vjp(lotka_volterra, [2.5, 1.2])
    found = pullback([1.0, 10.0])  # of c / d + 10 a / b
    assert found.params == pytest.approx((10.0, -15.0, 1.0, -3.0))
    assert np.array_equal(found.y0, [0.0, 0.0])


@given(forward=rates, backward=rates, total=rates)
def test_gradient_of_an_equilibrium_in_closed_form(forward, backward, total):
    _, pullback = odec.steady_state_vjp(reversible_with_total, 0.5, (forward, backward, total))
    both = (forward + backward) ** 2
    expected = -backward * total / both, forward * total / both, backward / (forward + backward)
    assert pullback(1.0).params == pytest.approx(expected, rel=1e-7)


def central_difference(of, x, step=1e-5):
    return (of(x + step) - of(x - step)) / (2 * step)


def test_gradient_of_the_switch_is_the_central_difference():
    weights = np.array([0.3, -2.0])
    value = lambda strength: weights @ odec.steady_state(toggle, [5.0, 1.0], {"strength": strength}).y
    _, pullback = odec.steady_state_vjp(toggle, [5.0, 1.0], {"strength": 10.0})
    assert pullback(weights).params == {"strength": pytest.approx(central_difference(value, 10.0), rel=1e-7)}


def test_gradient_of_a_large_sparse_model():
    n = 400
    _, pullback = odec.steady_state_vjp(heat, np.zeros(n), (np.ones(n), 2.0))
    x = np.arange(1, n + 1) / (n + 1)
    source_bar, conductivity_bar = pullback(np.ones(n)).params
    assert source_bar == pytest.approx(x * (1.0 - x) / 4.0, rel=1e-8)  # the operator is symmetric
    assert float(conductivity_bar) == pytest.approx(-np.sum(x * (1.0 - x) / 8.0), rel=1e-8)


def test_gradients_have_the_structure_of_the_parameters():
    flow = {"in": 2.0, "out": np.array([1.0, 4.0])}
    y0 = {"a": 0.0, "b": np.zeros(2)}
    _, pullback = odec.steady_state_vjp(tanks, y0, {"flow": flow, "unused": np.ones(3)})
    found = pullback({"a": 0.0, "b": np.array([1.0, 1.0])})
    assert float(found.params["flow"]["in"]) == pytest.approx(1.25)
    assert found.params["flow"]["out"] == pytest.approx([-2.0, -0.125])
    assert np.array_equal(found.params["unused"], np.zeros(3))
    assert set(found.y0) == {"a", "b"} and np.array_equal(found.y0["b"], [0.0, 0.0])


@given(st.lists(st.floats(-1.0, 1.0), min_size=10, max_size=10).map(np.array))
def test_forwards_is_the_transpose_of_backwards(drawn):
    """<y_bar, y_dot> = <params_bar, dparams>, of structures and of a parameter that does not enter."""
    given = {"flow": {"in": 2.0, "out": np.array([1.0, 4.0])}, "unused": np.ones(3)}
    y0, flow_dot = {"a": 0.0, "b": np.zeros(2)}, {"in": drawn[0], "out": drawn[1:3]}
    steady, dot = odec.steady_state_jvp(tanks, y0, given, tangents=(None, {"flow": flow_dot, "unused": drawn[3:6]}))
    assert steady.success and dot["b"].shape == (2,)
    bar = {"a": drawn[6], "b": drawn[7:9]}
    params_bar = odec.steady_state_vjp(tanks, y0, given)[1](bar).params["flow"]
    expected = params_bar["in"] * flow_dot["in"] + params_bar["out"] @ flow_dot["out"]
    assert bar["a"] * dot["a"] + bar["b"] @ dot["b"] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_forwards_in_closed_form():
    _, dot = odec.steady_state_jvp(lotka_volterra, [2.5, 1.2], tangents=([5.0, 5.0], (0.0, 0.5, 1.0, 0.0)))
    assert dot == pytest.approx([1.0, -0.75])  # of (c / d, a / b), wherever the search begins
    _, still = odec.steady_state_jvp(forced, 0.0, t=1.0, tangents=(None, None))
    assert still == 0.0
    n, x = 400, np.arange(1, 401) / 401
    _, dot = odec.steady_state_jvp(heat, np.zeros(n), (np.ones(n), 2.0), tangents=(None, {"conductivity": 1.0}))
    assert dot == pytest.approx(-x * (1.0 - x) / 8.0, rel=1e-8)


def test_what_has_no_derivative_forwards():
    with pytest.raises(odec.SolveError, match=r"singular at the steady state.* fix the conserved total"):
        odec.steady_state_jvp(reversible, [1.0, 0.5], (2.0, 1.0), tangents=(None, (1.0, 0.0)))
    with pytest.raises(odec.SolveError, match="no steady state found"):
        odec.steady_state_jvp(drift, [0.0, 1.0], tangents=(None, None))
    with pytest.raises(odec.ArgumentError, match="did you mean 'a'"):
        odec.steady_state_jvp(lotka_volterra, [2.5, 1.2], tangents=(None, {"aa": 1.0}))


@pytest.mark.parametrize("search", [odec.steady_state, odec.steady_state_vjp])
def test_a_function_that_is_no_model_is_named_with_the_search(search):
    def plain(t, y):
        return -y

    with pytest.raises(odec.ArgumentError, match=f"^{search.__name__}: plain is not an odec model; decorate"):
        search(plain, [1.0])


def test_gradient_of_a_float32_model():
    _, pullback = odec.steady_state_vjp(enzyme, np.float32(0.1), (0.5, 1.0, 2.0))
    found = pullback(1.0)
    assert all(bar.dtype == np.float32 for bar in found.params)
    assert found.params == pytest.approx((8.0, -4.0, 1.0), rel=1e-4)


def test_gradient_by_the_time_at_which_the_model_is_held():
    found = odec.steady_state_vjp(forced, 0.0, t=1.0)[1](2.0)
    assert found.t1 == pytest.approx(-2.0 * np.sin(1.0)) and found.params == ()


def test_a_conserved_quantity_has_no_gradient_and_gets_a_cure():
    steady, pullback = odec.steady_state_vjp(reversible, [1.0, 0.5], (2.0, 1.0))
    assert steady.success
    with pytest.raises(odec.SolveError, match=r"singular at the steady state.* fix the conserved total"):
        pullback([1.0, 0.0])


def test_what_is_not_steady_has_no_gradient():
    steady, pullback = odec.steady_state_vjp(drift, [0.0, 1.0], throw=False)
    assert not steady.success
    with pytest.raises(odec.SolveError, match="is not steady, so it has no gradient"):
        pullback([1.0, 0.0])
    with pytest.raises(odec.SolveError, match=r"no steady state found"):
        odec.steady_state_vjp(drift, [0.0, 1.0])


def test_cotangents_that_cannot_be_used():
    _, pullback = odec.steady_state_vjp(lotka_volterra, [2.5, 1.2])
    with pytest.raises(odec.ArgumentError, match=r"y_bar is nan for y\[1\]"):
        pullback([1.0, np.nan])
    with pytest.raises(odec.ShapeError, match="y_bar has shape"):
        pullback([1.0, 1.0, 1.0])
