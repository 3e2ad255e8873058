"""The step-size controller: rough logarithms that are good enough, and factors within their bounds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import odec
from odec.codegen.machine import bits, from_bits
from odec.integrate import control
from odec.integrate import slots as at
from odec.integrate.control import CONTROLLERS, accepted_log, exp2_rough, log2_rough, rejected_factor

POSITIVE = st.floats(1e-300, 1e300, allow_subnormal=False)


@given(POSITIVE)
def test_rough_logarithm_is_within_its_claim(x):
    assert abs(log2_rough(x) - math.log2(x)) <= 0.0431


@given(st.floats(-1000.0, 1000.0))
def test_rough_power_is_within_its_claim(x):
    assert exp2_rough(x) == pytest.approx(2.0**x, rel=1.8e-3)


def test_claims_are_tight_over_an_octave():
    x = np.linspace(1.0, 2.0, 2001)
    assert 0.042 < max(abs(log2_rough(v) - math.log2(v)) for v in x) < 0.0431
    z = np.linspace(-0.5, 0.5, 2001)
    assert 1e-3 < max(abs(exp2_rough(v) / 2.0**v - 1) for v in z) < 1.8e-3


@given(st.floats(allow_nan=False))
def test_bits_go_there_and_back(x):
    assert from_bits(bits(x)) == x


# ---- controllers ------------------------------------------------------------------------------------------


def slots_of(controller, exponent):
    real = np.zeros(at.REALS)
    gains = controller.gains(exponent)
    real[at.GAINS : at.GAINS + len(gains)] = gains
    return real


def factor(controller, squared, exponent=5, log1=0.0, log2=0.0, ratio1=0.0, ratio2=0.0):
    real = slots_of(controller, exponent)
    return exp2_rough(accepted_log(0.5 * log2_rough(squared), log1, log2, ratio1, ratio2, real))


EVERY = pytest.mark.parametrize("controller", CONTROLLERS.values(), ids=lambda c: c.name)
LOGS = st.floats(control.LEAST_LOG, 0.0)
RATIOS = st.floats(-2.0, 3.0)


@EVERY
@given(st.floats(0.0, 1.0), LOGS, LOGS, RATIOS, RATIOS, st.integers(1, 9))
def test_factor_after_acceptance_is_bounded(controller, squared, log1, log2, ratio1, ratio2, exponent):
    found = factor(controller, squared, exponent, log1, log2, ratio1, ratio2)
    assert controller.least * (1 - 2e-3) <= found <= controller.most * (1 + 2e-3)


@EVERY
@given(st.floats(1.0, 1e300), st.integers(1, 9))
def test_factor_after_rejection_is_bounded_and_shrinks(controller, squared, exponent):
    assert controller.least * (1 - 2e-3) <= rejected_factor(squared, slots_of(controller, exponent)) < 1.0


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
        error = min(1.0, h**k)
        log_factor = accepted_log(math.log2(error), *logs, *ratios, slots_of(controller, k))
        logs, ratios = [math.log2(error), logs[0]], [log_factor, ratios[0]]
        h *= 2.0**log_factor
    assert abs(log_factor) < 1e-3 and h == pytest.approx(controller.safety, rel=1e-2)


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
