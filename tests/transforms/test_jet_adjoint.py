"""Reverse mode of Taylor coefficients by its own recurrence, against reverse mode of the unrolled graph."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import odec
from odec.codegen.compile import program
from odec.codegen.kernel import Call
from odec.codegen.lower import lower
from odec.codegen.print_python import python_function
from odec.steppers.taylor import INLINE
from odec.testing import models
from odec.transforms.jet_adjoint import JetAdjoint
from odec.transforms.scalar import operation_count
from odec.transforms.taylor import taylor
from odec.transforms.vjp import vjp

T = 0.3
NAMES = "t", "y", "p"


def unrolled(jet, *arrays):
    """What JetAdjoint gives, by the vjp of the unrolled graph."""
    bars = vjp(jet, NAMES).evaluate(*arrays)
    names = JetAdjoint(jet, NAMES).names
    return np.concatenate([bars[f"{name}_bar"].reshape(-1) for name in names])


def point(jet, seed):
    """(t, y, p, cotangents) of a Jet."""
    rng, shape = np.random.default_rng(seed), jet.outputs["coefficients"].shape
    y, p = (rng.uniform(0.5, 1.5, jet.inputs[name].shape) for name in ("y", "p"))
    return np.array(T), y, p, rng.normal(size=shape)


@given(drawn=models(depth=3), order=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_the_recurrence_gives_the_cotangents_of_random_models(drawn, order, seed):
    system = drawn.model.bind(drawn.y0, drawn.params)
    jet = taylor(system.graph, order)
    y, p = system.y_structure.flatten(drawn.y0, "y0"), system.flat_parameters(tuple(drawn.params.values()))
    arrays = T, y, p, point(jet, seed)[-1]
    expected = unrolled(jet, *arrays)
    found = JetAdjoint(jet, NAMES).evaluate(*arrays)["bars"]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10 * (1 + np.abs(expected).max(initial=0.0)))


MIXING = np.linspace(-1.0, 1.0, 100).reshape(10, 10)


@odec.dynamics
def springs(t, y, a):
    """Everything at once: matrix products, pairs, time, a choice, parameters."""
    hidden, apart = np.tanh(MIXING @ y + a[0] * t), y[:, None] - y[None]
    pull = np.sum(apart / (1 + apart * apart) ** 1.5, axis=1)
    return a[1] * (MIXING @ hidden) + pull + np.where(y > 1, a[2] * y, np.sin(y))


@pytest.mark.parametrize("order", [1, 2, 6])
def test_the_loop_over_the_orders_gives_the_same(order):
    jet = taylor(springs.bind(np.ones(10), (np.ones(3),)).graph, order)
    adjoint = JetAdjoint(jet, NAMES)
    assert adjoint.names == ("y", "t", "p")
    t, y, p, bar = point(jet, order)
    expected = unrolled(jet, t, y, p, bar)
    kernel = lower(adjoint, "jet_adjoint", "array")
    machine = program(f"test of jet_adjoint {adjoint.digest}", lambda: [kernel]).kernels["jet_adjoint"]
    for run in (python_function(kernel), machine.run):
        found = np.full(14, np.nan)
        run(t.reshape(1), y, p, bar.reshape(-1), found)
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13 * np.abs(expected).max())


def test_what_does_not_move_has_no_cotangent():
    system = odec.dynamics(lambda t, y, a: y * y).bind(np.ones(2), (1.0,))
    adjoint = JetAdjoint(taylor(system.graph, 3), NAMES)
    assert adjoint.names == ("y",) and adjoint.outputs["bars"].shape == (2,)


def test_the_adjoint_of_a_large_step_does_not_grow_with_the_order():
    """Its code is that of one order, whatever their number; unrolled, order 16 took minutes to compile."""
    system = springs.bind(np.ones(10), (np.ones(3),))
    lengths = []
    for order in (24, 48):  # both so long that sums come in blocks of orders
        assert operation_count(taylor(system.graph, order)) > INLINE
        kernel = lower(JetAdjoint(taylor(system.graph, order), NAMES), "jet_adjoint")
        assert any(isinstance(s, Call) for s in kernel.body)
        lengths.append(len(kernel.body) + sum(len(callee.body) for callee in kernel.callees))
    assert lengths[0] == lengths[1]
