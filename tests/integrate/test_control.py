"""The step-size controller: rough logarithms that are good enough, and factors within their bounds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odec.codegen.machine import bits, from_bits
from odec.integrate import control
from odec.integrate.control import GROW, SHRINK, accepted_factor, exp2_rough, log2_rough, rejected_factor

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


@given(st.floats(0.0, 1.0), st.floats(control.LEAST_LOG, 0.0), st.integers(1, 8))
def test_factor_after_acceptance_is_bounded(squared, before, order):
    assert SHRINK <= accepted_factor(squared, before, order) <= GROW


@given(st.floats(1.0, 1e300), st.integers(1, 8))
def test_factor_after_rejection_is_bounded_and_shrinks(squared, order):
    assert SHRINK <= rejected_factor(squared, order) < 1.0


@given(st.floats(1e-12, 1.0), st.floats(control.LEAST_LOG, 0.0))
def test_factor_is_the_formula(squared, before):
    """0.9 err^-(1/5 - 3/4 0.04) err_before^0.04 for order 5 [hairer1996, IV.2], to the claims above."""
    exact = 0.9 * math.sqrt(squared) ** -(0.2 - 0.03) * 2.0 ** (0.04 * before)
    assert accepted_factor(squared, before, 5) == pytest.approx(min(GROW, max(SHRINK, exact)), rel=0.01)


def test_zero_error_grows_the_most():
    assert accepted_factor(0.0, 0.0, 5) == GROW


@given(st.floats(1e-9, 0.9), st.floats(1.01, 100.0))
def test_a_larger_error_never_gives_a_larger_step(squared, ratio):
    assert accepted_factor(min(squared * ratio, 1.0), 0.0, 5) <= accepted_factor(squared, 0.0, 5) * (1 + 4e-3)
