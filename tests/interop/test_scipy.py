"""`odec.solve_ivp` beside `scipy.integrate.solve_ivp`, with the same arguments."""

import numpy as np
import pytest
import scipy.integrate
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate._ivp.ivp import OdeResult

import odec
from odec.errors import ArgumentError, TraceError
from odec.interop.scipy import METHODS

TIGHT = {"rtol": 1e-9, "atol": 1e-12}


def oscillator(t, y, k=1.0):
    return [y[1], -k * y[0]]


def lotka_volterra(t, y, a, b, c, d):
    prey, predators = y
    return np.array([a * prey - b * prey * predators, d * prey * predators - c * predators])


def forced(t, y):
    return np.cos(t) - 0.1 * y


PROBLEMS = {
    "oscillator": (oscillator, (0.0, 7.0), [1.0, 0.0], None),
    "backwards": (oscillator, (3.0, -2.0), [1, 0], (4.0,)),
    "lotka-volterra": (lotka_volterra, (0, 10), [10.0, 5.0], (1.5, 1, 3.0, np.float64(1.0))),
    "forced": (forced, (0.0, 5.0), np.arange(4), None),
}


def both(fun, span, y0, **how):
    return odec.solve_ivp(fun, span, y0, **how), scipy.integrate.solve_ivp(fun, span, y0, **how)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_numbers_and_shapes_are_scipys(problem):
    fun, span, y0, args = PROBLEMS[problem]
    mine, theirs = both(fun, span, y0, args=args, t_eval=np.linspace(*span, 11), **TIGHT)
    assert isinstance(mine, OdeResult) and set(mine) == set(theirs)
    np.testing.assert_array_equal(mine.t, theirs.t)
    np.testing.assert_allclose(mine.y, theirs.y, rtol=1e-6, atol=1e-6)
    assert mine.y.shape == theirs.y.shape == (len(y0), 11) and mine.y.dtype == theirs.y.dtype
    assert (mine.status, mine.success, mine.t_events, mine.y_events, mine.sol) == (0, True, None, None, None)
    assert 0 < mine.nfev < 2 * theirs.nfev and (mine.njev, mine.nlu) == (0, 0)


def test_the_defaults_are_scipys():
    mine, theirs = both(oscillator, (0.0, 7.0), [1.0, 0.0])
    loose = odec.solve(odec.dynamics(oscillator), (0.0, 7.0), [1.0, 0.0], method="dopri5", rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(mine.t, loose.ts, rtol=1e-9)
    np.testing.assert_allclose(mine.y, loose.ys.T, rtol=1e-9)
    assert mine.t[0] == 0.0 and mine.t[-1] == 7.0 and abs(len(mine.t) - len(theirs.t)) < 10


def test_no_times_to_keep_keeps_none():
    mine = odec.solve_ivp(oscillator, (0.0, 1.0), [1.0, 0.0], t_eval=[])
    assert mine.t.shape == (0,) and mine.y.shape == (2, 0)


def test_a_number_is_given_to_every_component():
    mine, theirs = both(lambda t, y: np.sin(t) - y[0], (0.0, 1.0), [1.0, 2.0], t_eval=[1.0], **TIGHT)
    np.testing.assert_allclose(mine.y, theirs.y, rtol=1e-8)
    np.testing.assert_allclose(odec.solve_ivp(lambda t, y: 2.0, (0.0, 1.0), [1.0, 2.0]).y[:, -1], [3.0, 4.0])


@pytest.mark.parametrize(
    "fun", [oscillator, lambda t, y: np.array([[0.0, 1.0], [-1.0, 0.0]]) @ y, lambda t, y: np.array([y[1], -y[0]])]
)
def test_vectorized_functions_get_columns(fun):
    mine, theirs = both(fun, (0.0, 1.0), [1.0, 0.0], vectorized=True, t_eval=[1.0], **TIGHT)
    np.testing.assert_allclose(mine.y, theirs.y, rtol=1e-8)


def test_arguments_that_decide_are_constants():
    def decides(t, y, rate, sign, powers, kind):
        total = sum(rate * y**k for k in range(1, powers))
        return sign * total if kind == "grows" else -sign * total

    args = (0.5, 1, 3, "decays")
    mine, theirs = both(decides, (0.0, 1.0), [1.0], args=args, t_eval=[1.0], **TIGHT)
    np.testing.assert_allclose(mine.y, theirs.y, rtol=1e-8)


def test_other_numbers_for_arguments_need_no_compiling():
    def decay(t, y, rate, infinite):
        return -rate * y + (0.0 if infinite == np.inf else 1.0)

    texts = set()
    for rate in (1.0, 2.0):
        found = odec.solve_ivp(decay, (0.0, 1.0), [1.0], args=(rate, np.inf), t_eval=[1.0], **TIGHT)
        texts.add(float(np.log(found.y[0, 0])).__round__(6))
    assert texts == {-1.0, -2.0}


def test_what_a_closure_holds_may_change_between_solves():
    held = {"rate": 1.0}

    def decay(t, y):
        return -held["rate"] * y

    first = odec.solve_ivp(decay, (0.0, 1.0), [1.0]).y[0, -1]
    held["rate"] = 3.0
    assert odec.solve_ivp(decay, (0.0, 1.0), [1.0]).y[0, -1] < 0.2 < first


def test_models_and_their_parameters_are_taken():
    model = odec.dynamics(lotka_volterra, state=("prey", "predators"))
    args = (1.5, 1.0, 3.0, 1.0)
    plain = odec.solve_ivp(lotka_volterra, (0.0, 5.0), [10.0, 5.0], args=args)
    np.testing.assert_array_equal(odec.solve_ivp(model, (0.0, 5.0), [10.0, 5.0], args=args).y, plain.y)
    system = model.bind([10.0, 5.0], args)
    np.testing.assert_array_equal(odec.solve_ivp(system, (0.0, 5.0), [10.0, 5.0], args=args).y, plain.y)


@pytest.mark.parametrize(
    "method", ["tsit5", next(m for m in odec.methods() if m.name == "tsit5"), "dopri5", scipy.integrate.RK45]
)
def test_methods_of_both_are_known(method):
    found = odec.solve_ivp(oscillator, (0.0, 1.0), [1.0, 0.0], method, t_eval=[1.0], **TIGHT)
    np.testing.assert_allclose(found.y[0], np.cos(1.0), rtol=1e-8)


@settings(max_examples=20)
@given(st.floats(0.1, 3.0), st.floats(-2.0, 2.0), st.booleans())
def test_steps_obey_their_limit(limit, start, backwards):
    span = (start, start - 5.0) if backwards else (start, start + 5.0)
    found = odec.solve_ivp(oscillator, span, [1.0, 0.0], max_step=limit, first_step=limit / 8)
    assert np.abs(np.diff(found.t)).max() <= limit * (1 + 1e-12)
    assert abs(found.t[1] - found.t[0]) <= limit / 8 * (1 + 1e-12) and found.t[-1] == span[1]


# ---- events and dense output ----------------------------------------------------------------------------------------


def crosses(level, terminal=None, direction=0):
    """A SciPy event: the first component passes a level."""

    def event(t, y, *args):
        return y[0] - level

    event.terminal, event.direction = terminal, direction
    return event


def hits(t, y, k):
    return k * y[1] - 1.0


EVENTS = {
    "one function": (crosses(0.5), 0),
    "none happens": ([crosses(7.0)], 0),
    "two directions": ([crosses(0.5, direction=1), crosses(0.5, direction=-1.0)], 0),
    "terminal": ([crosses(0.3), crosses(-0.5, terminal=True)], 1),
    "terminal after three": (crosses(0.25, terminal=3), 1),
    "terminal never reached": (crosses(0.25, terminal=30), 0),
    "with arguments": ([hits, crosses(0.25)], 0),
}


@pytest.mark.parametrize("t_eval", [None, np.linspace(0.0, 9.0, 31)], ids=["every step", "t_eval"])
@pytest.mark.parametrize("case", EVENTS)
def test_events_are_scipys(case, t_eval):
    events, status = EVENTS[case]
    how = {"events": events, "args": (1.5,), "t_eval": t_eval, "dense_output": True, **TIGHT}
    mine, theirs = both(oscillator, (0.0, 9.0), [1.0, 0.0], **how)
    assert (mine.status, mine.success) == (theirs.status, theirs.success) == (status, True)
    assert len(mine.t_events) == len(theirs.t_events)
    for e in range(len(theirs.t_events)):
        np.testing.assert_allclose(mine.t_events[e], theirs.t_events[e], atol=1e-6)
        if len(theirs.t_events[e]):
            np.testing.assert_allclose(mine.y_events[e], theirs.y_events[e], atol=1e-6)
    assert mine.t[-1] == pytest.approx(theirs.t[-1], abs=1e-6) and mine.y.shape == (2, len(mine.t))
    assert t_eval is None or len(mine.t) == len(theirs.t)
    np.testing.assert_allclose(mine.y[:, -1], theirs.y[:, -1], atol=1e-6)
    assert mine.sol.t_max == pytest.approx(theirs.sol.t_max, abs=1e-6)


def test_records_of_odec_are_events_too():
    floor = odec.Event(lambda t, y, g: y[0], direction=-1, reset=lambda t, y, g: [0.0, -0.8 * y[1]])
    found = odec.solve_ivp(lambda t, y, g: [y[1], -g], (0.0, 2.0), [1.0, 0.0], events=floor, args=(9.81,), **TIGHT)
    fall = np.sqrt(2 / 9.81)
    assert found.t_events[0][:2] == pytest.approx([fall, 2.6 * fall], rel=1e-8)


@pytest.mark.parametrize("span", [(0.0, 7.0), (3.0, -2.0)])
def test_sol_is_called_as_scipys(span):
    mine, theirs = both(oscillator, span, [1.0, 0.0], dense_output=True, **TIGHT)
    times = np.linspace(*span, 13)
    assert mine.sol(1.5).shape == theirs.sol(1.5).shape == (2,)
    assert mine.sol(times).shape == theirs.sol(times).shape == (2, 13)
    np.testing.assert_allclose(mine.sol(times), theirs.sol(times), rtol=1e-6, atol=1e-6)
    assert (mine.sol.t_min, mine.sol.t_max) == (theirs.sol.t_min, theirs.sol.t_max) == (min(span), max(span))
    np.testing.assert_array_equal(mine.sol.ts, mine.t)
    with pytest.raises(ArgumentError, match="outside what was solved"):
        mine.sol(100.0)
    with pytest.raises(ArgumentError, match=r"not shape \(1, 1\)"):
        mine.sol([[1.0]])


@pytest.mark.parametrize("method, order", [("RK23", 3), ("RK45", 5), ("DOP853", 8)])
def test_scipys_names_mean_methods_of_that_order(method, order):
    mine, theirs = both(oscillator, (0.0, 5.0), [1.0, 0.0], method=method, t_eval=[5.0], rtol=1e-6, atol=1e-8)
    assert np.abs(mine.y - theirs.y).max() < 1e-4 and mine.nfev < 1.5 * theirs.nfev
    assert next(m.order for m in odec.methods() if m.name == METHODS[method]) == order


# ---- refusals -----------------------------------------------------------------------------------------------------


def test_zero_atol_asks_for_a_relative_error():
    found = odec.solve_ivp(lambda t, y: -y, (0.0, 60.0), [1.0, 2.0], atol=[0.0, 1e-6], rtol=1e-6)
    assert found.y[0, -1] == pytest.approx(np.exp(-60.0), rel=1e-3)
    found = odec.solve_ivp(lambda t, y: -y, (0.0, 60.0), [1.0], atol=0)
    assert found.y[0, -1] == pytest.approx(np.exp(-60.0), rel=0.1)


def test_a_solve_that_stops_early_says_so_as_scipy_does():
    with np.errstate(all="ignore"):
        mine, theirs = both(lambda t, y: y**2, (0.0, 2.0), [1.0])
    assert mine.status == theirs.status == -1 and not mine.success
    assert (
        mine.t[-1] == pytest.approx(1.0, abs=1e-2) and mine.y.shape == (1, len(mine.t)) and "<lambda>" in mine.message
    )
    found = odec.solve_ivp(oscillator, (0.0, 100.0), [1.0, 0.0], max_steps=10)
    assert found.status == -1 and len(found.t) <= 11 and "max_steps" in found.message


@pytest.mark.parametrize("name", ["jac", "jac_sparsity", "lband", "maxstep"])
def test_options_without_a_use_are_ignored_with_a_warning(name):
    with pytest.warns(UserWarning, match=f"'RK45' has no use for {name}, which is ignored"):
        odec.solve_ivp(oscillator, (0.0, 1.0), [1.0, 0.0], **{name: None})


def test_an_rtol_below_rounding_is_raised_with_a_warning():
    with pytest.warns(UserWarning, match=r"rtol is below 2\.2e-14"):
        found = odec.solve_ivp(oscillator, (0.0, 1.0), [1.0, 0.0], rtol=1e-20)
    assert found.success


@pytest.mark.parametrize(
    "how, error, words",
    [
        ({"method": "BDF"}, ArgumentError, ["'BDF'", "stiff", "scipy.integrate.solve_ivp"]),
        ({"method": scipy.integrate.Radau}, ArgumentError, ["'Radau'"]),
        ({"method": "RK46"}, ArgumentError, ["RK46"]),
        ({"y0": 1.0}, ArgumentError, ["y0 has shape ()", "one dimension"]),
        ({"y0": np.ones((2, 2))}, ArgumentError, ["(2, 2)", "odec.solve"]),
        ({"y0": [1.0, 1j]}, ArgumentError, ["complex128", "real"]),
        ({"args": 2.0}, TypeError, ["args=(2.0,)"]),
        ({"fun": 3.0}, ArgumentError, ["fun is float"]),
        ({"fun": lambda t, y: [float(y[0]), y[1]]}, TraceError, ["test_scipy.py", "<lambda>"]),
        ({"fun": lambda t, y: [y[0]]}, odec.ShapeError, ["shape (1,)", "(2,)"]),
        ({"t_eval": [0.0, 2.0]}, ArgumentError, ["t_eval has 2.0"]),
        ({"atol": -1.0}, ArgumentError, ["atol"]),
        ({"atol": [1.0, 1.0, 1.0]}, odec.OdecError, ["atol"]),
    ],
)
def test_what_cannot_be_used_gets_a_sentence(how, error, words):
    arguments = {"fun": oscillator, "t_span": (0.0, 1.0), "y0": [1.0, 0.0]} | how
    with pytest.raises(error) as raised:
        odec.solve_ivp(**arguments)
    for word in words:
        assert word in str(raised.value)
