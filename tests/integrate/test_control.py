"""The step-size controller: rough logarithms that are good enough, and factors within their bounds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracing import python_of

import odec
from odec.integrate import advance
from odec.integrate import slots as at
from odec.integrate.control import CONTROLLERS
from odec.ops.rough import np_rough_exp2, np_rough_log2

POSITIVE = st.floats(1e-300, 1e300, allow_subnormal=False)


@given(POSITIVE)
def test_rough_logarithm_is_within_its_claim(x):
    assert abs(np_rough_log2(x) - math.log2(x)) <= 0.0431


@given(st.floats(-1000.0, 1000.0))
def test_rough_power_is_within_its_claim(x):
    assert np_rough_exp2(x) == pytest.approx(2.0**x, rel=1.8e-3)


def test_claims_are_tight_over_an_octave():
    x = np.linspace(1.0, 2.0, 2001)
    assert 0.042 < np.abs(np_rough_log2(x) - np.log2(x)).max() < 0.0431
    z = np.linspace(-0.5, 0.5, 2001)
    assert 1e-3 < np.abs(np_rough_exp2(z) / 2.0**z - 1).max() < 1.8e-3


# ---- controllers ------------------------------------------------------------------------------------------


def after(controller, squared, exponent=5, log1=0.0, log2=0.0, ratio1=0.0, ratio2=0.0):
    """The slots after a try of size 1 with an error norm of this square."""
    now, rules, task = np.zeros(at.NOWS), np.zeros(at.RULES), np.zeros(at.TASKS)
    now[[at.H, at.LOG1, at.LOG2, at.RATIO1, at.RATIO2]] = 1.0, log1, log2, ratio1, ratio2
    gains = controller.gains(exponent)
    rules[at.GAINS : at.GAINS + len(gains)] = gains
    now[at.MOST_GROWTH] = at.FREE
    rules[[at.DIRECTION, at.STRETCH, at.MAX_STEP, at.MAX_STEPS]] = 1.0, 1.01, math.inf, 1e9
    task[[at.STOP, at.NEXT, at.LIVE]] = 1e6, math.inf, 1.0
    return CONTROL(now, task, rules, squared)[THEN]


GRAPH = advance.control_function()
CONTROL, THEN = python_of(GRAPH), list(GRAPH.outputs).index("then")


def factor(controller, squared, exponent=5, log1=0.0, log2=0.0, ratio1=0.0, ratio2=0.0):
    then = after(controller, squared, exponent, log1, log2, ratio1, ratio2)
    return then[at.H]


def rejected_factor(controller, squared, exponent):
    then = after(controller, squared, exponent)
    assert then[at.ACCEPTED] == 0.0
    return then[at.H]


EVERY = pytest.mark.parametrize("controller", CONTROLLERS.values(), ids=lambda c: c.name)
LOGS = st.floats(advance.LEAST_LOG, 0.0)
RATIOS = st.floats(-2.0, 3.0)


@EVERY
@given(st.floats(0.0, 1.0), LOGS, LOGS, RATIOS, RATIOS, st.integers(1, 9))
def test_factor_after_acceptance_is_bounded(controller, squared, log1, log2, ratio1, ratio2, exponent):
    found = factor(controller, squared, exponent, log1, log2, ratio1, ratio2)
    assert controller.least * (1 - 2e-3) <= found <= controller.most * (1 + 2e-3)


@EVERY
@given(st.floats(1.0, 1e300, exclude_min=True), st.integers(1, 9))
def test_factor_after_rejection_is_bounded_and_shrinks(controller, squared, exponent):
    assert controller.least * (1 - 2e-3) <= rejected_factor(controller, squared, exponent) < 1.0


@EVERY
@given(st.floats(1e-12, 1.0), LOGS, LOGS, RATIOS, RATIOS)
def test_factor_is_the_formula(controller, squared, log1, log2, ratio1, ratio2):
    """The product of powers of Söderlind's general filter, to the claims above."""
    c, k, error = controller, 5, math.sqrt(squared)
    gains = c.beta1 + c.beta2 + c.beta3
    exact = c.safety**gains * error ** (-c.beta1 / k) * 2.0 ** (-(c.beta2 * log1 + c.beta3 * log2) / k)
    exact *= 2.0 ** -(c.alpha2 * ratio1 + c.alpha3 * ratio2)
    found = factor(c, squared, k, log1, log2, ratio1, ratio2)
    assert found == pytest.approx(min(c.most, max(c.least, exact)), rel=0.015)


def test_pi_is_that_of_dopri5():
    """0.9 err^-(1/5 - 3/4 0.04) err_before^0.04 for order 5 [hairer1996, IV.2]."""
    pi = CONTROLLERS["PI"]
    assert (pi.beta1 / 5, pi.beta2 / 5) == pytest.approx((0.17, -0.04))


@EVERY
def test_a_steady_error_settles_where_the_safety_puts_it(controller):
    """With error norm (h / h0)^k the step size tends to a constant: the closed loop is stable."""
    k, h, logs, ratios = 5, 0.3, [0.0, 0.0], [0.0, 0.0]
    for _ in range(200):
        then = after(controller, min(1.0, h**k) ** 2, k, *logs, *ratios)
        logs, ratios = then[[at.LOG1, at.LOG2]], then[[at.RATIO1, at.RATIO2]]
        h *= 2.0 ** ratios[0]
    assert abs(ratios[0]) < 1e-3 and h == pytest.approx(controller.safety, rel=1e-2)


def test_zero_error_grows_the_most():
    assert factor(CONTROLLERS["PI"], 0.0) == pytest.approx(10.0, rel=2e-3)


@given(st.floats(1e-9, 0.9), st.floats(1.01, 100.0))
def test_a_larger_error_never_gives_a_larger_step(squared, ratio):
    pi = CONTROLLERS["PI"]
    assert factor(pi, min(squared * ratio, 1.0)) <= factor(pi, squared) * (1 + 4e-3)


@odec.dynamics
def swinging(t, y, k=4.0):
    return [y[1], -k * np.sin(y[0])]


@EVERY
def test_every_controller_keeps_the_tolerance(controller):
    exact = odec.solve(swinging, (0.0, 20.0), [1.0, 0.0], method="vern9", rtol=1e-12, atol=1e-13).y1
    sol = odec.solve(swinging, (0.0, 20.0), [1.0, 0.0], rtol=1e-7, atol=1e-9, controller=controller.name)
    assert sol.y1 == pytest.approx(exact, abs=2e-5)
    assert sol.stats["rejected"] <= sol.stats["steps"] / 2


def test_a_controller_of_ones_own_is_used():
    careful = odec.Controller("careful", 0.7, -0.4, safety=0.5, most=1.5)
    sol = odec.solve(swinging, (0.0, 20.0), [1.0, 0.0], controller=careful)
    usual = odec.solve(swinging, (0.0, 20.0), [1.0, 0.0])
    assert sol.stats["steps"] > 1.2 * usual.stats["steps"]
    sizes = np.diff(sol.ts)[:-1]
    assert (sizes[1:] / sizes[:-1]).max() <= 1.5 * (1 + 3e-3)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"beta1": -1.0}, "beta1 is -1.0"), ({"beta1": "1"}, "beta1 is '1'"), ({"beta2": math.nan}, "beta2 is nan"),
        ({"safety": 1.5}, "safety is 1.5"), ({"least": 1.0}, "least is 1.0"), ({"most": 0.5}, "most is 0.5"),
        ({"alpha2": None}, "alpha2 is None"),
    ],
)  # fmt: skip
def test_controllers_that_cannot_be_are_refused(fields, words):
    with pytest.raises(odec.ArgumentError, match=f"controller mine: .*{words}"):
        odec.Controller("mine", **{"beta1": 0.7} | fields)


def test_unknown_controllers_are_refused_with_the_nearest():
    with pytest.raises(odec.ArgumentError, match="controller 'H211' is not known; did you mean 'H211b'"):
        odec.solve(swinging, (0.0, 1.0), [1.0, 0.0], controller="H211")
