"""Compiled kernels as users call them: on arrays, inside their own @njit code, and for another target."""

import numba
import numpy as np
import pytest

import odec
from odec.codegen.lower import lower
from odec.codegen.print_llvm import print_llvm
from odec.codegen.targets import CUDA


@odec.dynamics
def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
    x, v, z = y
    return [sigma * (v - x), x * (rho - z) - v, x * v - beta * z + np.sin(t)]


@odec.dynamics
def network(t, z, w1, w2):
    return np.tanh(z @ w1) @ w2


SYSTEM = lorenz.bind(np.ones(3))
P = np.array([10.0, 28.0, 8 / 3])


def test_a_kernel_runs_inside_njit():
    rhs = SYSTEM.compile("rhs")

    @numba.njit
    def euler(y, p, h, steps):
        slope = np.empty(3)
        for i in range(steps):
            rhs(i * h, y, p, slope)
            y = y + h * slope
        return y

    y = np.ones(3)
    for i in range(100):
        y = y + 1e-3 * SYSTEM.rhs(i * 1e-3, y, *P)
    np.testing.assert_allclose(euler(np.ones(3), P, 1e-3, 100), y, rtol=1e-12)


def test_two_kernels_of_one_name_do_not_mix_inside_njit():
    first = SYSTEM.compile("rhs")
    w1, w2 = np.arange(6.0).reshape(2, 3) / 10, np.ones((3, 2))
    other = network.bind(np.ones((1, 2)), (w1, w2))
    second = other.compile("rhs", layout="array")

    @numba.njit
    def both(y, p, z, q):
        a, b = np.empty(3), np.empty(2)
        first(0.0, y, p, a)
        second(0.0, z, q, b)
        return a, b

    a, b = both(np.ones(3), P, np.array([0.5, -1.0]), np.concatenate([w1.ravel(), w2.ravel()]))
    np.testing.assert_allclose(a, SYSTEM.rhs(0.0, np.ones(3), *P), rtol=1e-14)
    np.testing.assert_allclose(b, (np.tanh(np.array([[0.5, -1.0]]) @ w1) @ w2)[0], rtol=1e-12)


def test_wrong_arguments_inside_njit_are_said_when_compiling():
    rhs = SYSTEM.compile("rhs")

    @numba.njit
    def wrong(y, p, out):
        rhs(0.0, y, p, out)

    with pytest.raises(numba.core.errors.TypingError, match="y must be a contiguous float64 array"):
        wrong(np.ones(3, np.float32), P, np.empty(3))


def test_arrays_that_do_not_fit_are_refused():
    rhs = SYSTEM.compile("rhs")
    t, out = np.zeros(1), np.empty(3)
    with pytest.raises(TypeError, match="takes 4 arrays"):
        rhs(t, np.ones(3), P)
    with pytest.raises(TypeError, match="y must be a contiguous float64 array"):
        rhs(t, np.ones(6)[::2], P, out)
    with pytest.raises(ValueError, match="dydt needs 3"):
        rhs(t, np.ones(3), P, np.empty(2))


def test_the_same_emitter_prints_for_cuda():
    kernel = lower(SYSTEM.graph, "rhs")
    text = print_llvm([kernel], CUDA)
    assert "@__nv_sin(double" in text
    single = lorenz.bind(np.ones(3, np.float32)).graph
    assert "@__nv_sinf(float" in print_llvm([lower(single, "rhs")], CUDA)
