"""The rough logarithm and power: their derivatives are those of the lines and parabolas that they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odec.graph.function import Function
from odec.graph.node import input_node
from odec.ops.rough import LEAST_OCTAVE, UNIT, np_rough_exp2, np_rough_log2, rough_exp2, rough_log2
from odec.transforms.jvp import jvp


def derivative(op):
    x = input_node("x", (), "float64")
    pushed = jvp(Function("f", {"x": x}, {"v": op(x)}))
    return lambda x: float(pushed.evaluate(x, 1.0)["v_dot"])


LOG, POWER = derivative(rough_log2), derivative(rough_exp2)


@given(st.integers(-800, 800), st.floats(1.0, 1.45), st.floats(1.5, 1.99))
def test_logarithm_is_a_line_over_an_octave(octave, left, right):
    a, b = left * 2.0**octave, right * 2.0**octave
    rise = np_rough_log2(b) - np_rough_log2(a)
    assert LOG(a) == LOG(b) == 2.0**-octave
    assert rise == pytest.approx(right - left, abs=2 * UNIT)


@given(st.integers(-900, 900), st.floats(-0.49, 0.49))
def test_power_is_a_parabola_around_a_whole_number(whole, rest):
    x, e = whole + rest, 2.0**-20
    slope = (np_rough_exp2(x + e) - np_rough_exp2(x - e)) / (2 * e)
    assert POWER(x) == pytest.approx(slope, rel=1e-6)


def test_slope_at_no_error_is_finite():
    assert LOG(0.0) == 2.0**-LEAST_OCTAVE
    assert np.isfinite(LOG(1e-320))
