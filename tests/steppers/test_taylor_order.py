"""The Taylor method whose order changes from step to step."""

import numpy as np
import pytest
from tracing import loaded

import odec
from odec.codegen import targets
from odec.codegen.lower import lower
from odec.codegen.print_llvm import print_llvm
from odec.codegen.print_python import print_python, python_function
from odec.errors import CompileError
from odec.transforms.taylor import taylor


@odec.dynamics
def pendulum(t, y, g):
    angle, rate = y
    return [rate, -g * np.sin(angle) + 0.1 * np.cos(t)]


@odec.dynamics
def oscillator(t, y, rate):
    return [rate * y[1], -rate * y[0]]


# ---- coefficients up to an order that the kernel is told -----------------------------------------------------------


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-13), ("float32", 1e-5)])
def test_coefficients_end_at_the_order_that_a_kernel_is_told(dtype, tolerance):
    y, p = np.array([1.0, 0.3], dtype), np.array([9.81], dtype)
    graph = pendulum.bind(y, (p[0],)).graph
    whole, jet = taylor(graph, 11).evaluate(0.3, y, p)["coefficients"], taylor(graph, 11, told=True)
    kernel = lower(jet, f"told_{dtype}")
    for run in (python_function(kernel), loaded([kernel])[kernel.name]):
        for last in (2, 3, 7, 11):
            expected = np.where(np.arange(12)[:, None] <= last, whole, 0.0)
            np.testing.assert_array_equal(jet.evaluate(0.3, y, p, last)["coefficients"], expected)
            found = np.full((12, 2), np.nan, dtype)
            run(np.array([0.3]), y, p, np.array([float(last)]), found)
            np.testing.assert_allclose(found, expected, rtol=tolerance)
            assert not found[last + 1 :].any()


def test_a_kernel_that_is_told_its_order_takes_one_trajectory_at_a_time():
    """The orders of neighbouring lanes differ, also where no sum of products refuses lanes."""
    kernel = lower(taylor(oscillator.bind([1.0, 0.0], (1.0,)).graph, 8, told=True), "told")
    assert "for order in range(int(count)):" in print_python(kernel)
    assert "fptosi" in print_llvm([kernel], targets.CUDA)
    with pytest.raises(CompileError, match="lanes=1"):
        print_llvm([kernel], targets.CUDA, lanes=4)
