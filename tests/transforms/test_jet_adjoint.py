"""Reverse mode of Taylor coefficients by its own recurrence, against reverse mode of the unrolled graph."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import odec
from odec.testing import models
from odec.transforms.jet_adjoint import JetAdjoint
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


def test_what_does_not_move_has_no_cotangent():
    system = odec.dynamics(lambda t, y, a: y * y).bind(np.ones(2), (1.0,))
    adjoint = JetAdjoint(taylor(system.graph, 3), NAMES)
    assert adjoint.names == ("y",) and adjoint.outputs["bars"].shape == (2,)
