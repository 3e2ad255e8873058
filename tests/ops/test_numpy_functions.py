"""Every NumPy function that odec traces does what NumPy does: values, derivatives, scalar code."""

import warnings

import numpy as np
import pytest
from numpy_calls import CALLS
from tracing import evaluated, graph_of, run_python

import odec.special
from odec.ops.catalogue import supported
from odec.transforms.jvp import jvp
from odec.transforms.vjp import vjp

STEP = 6e-6  # about eps^(1/3): where truncation and rounding of a central difference meet
ROUNDING = 1e-13


def label(call):
    return getattr(call[0], "__name__", str(call[0]))


every_call = pytest.mark.parametrize("call", CALLS, ids=label)


def by_numpy(call, *arrays):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = call(*(np.array(a) for a in arrays))
    results = result if isinstance(result, tuple) else [result]
    return [np.asarray(r, float) for r in results]


def directions(arrays, seed=3):
    random = np.random.default_rng(seed)
    return [random.uniform(-1, 1, np.shape(a)) for a in arrays]


def same(found, expected, tolerance=ROUNDING):
    assert len(found) == len(expected)
    for f, e in zip(found, expected, strict=True):
        assert f.shape == e.shape
        np.testing.assert_allclose(f, e, rtol=tolerance, atol=tolerance)


@every_call
def test_value_is_numpy_s(call):
    _, function, arrays = call
    same(evaluated(graph_of(function, *arrays), *arrays), by_numpy(function, *arrays))


@every_call
def test_scalar_code_gives_the_value(call):
    _, function, arrays = call
    same(run_python(graph_of(function, *arrays), *arrays), by_numpy(function, *arrays))


@every_call
def test_jvp_is_the_slope_of_numpy_s_function(call):
    _, function, arrays = call
    tangents = directions(arrays)
    found = evaluated(jvp(graph_of(function, *arrays)), *arrays, *tangents)
    there = by_numpy(function, *(a + STEP * d for a, d in zip(arrays, tangents, strict=True)))
    back = by_numpy(function, *(a - STEP * d for a, d in zip(arrays, tangents, strict=True)))
    slopes = [(p - m) / (2 * STEP) for p, m in zip(there, back, strict=True)]
    for f, s, p in zip(found, slopes, there, strict=True):
        np.testing.assert_allclose(f, s, rtol=3e-8, atol=3e-8 * (1 + np.abs(p).max(initial=0)))


@every_call
def test_vjp_is_the_adjoint_of_jvp(call):
    _, function, arrays = call
    graph = graph_of(function, *arrays)
    tangents = directions(arrays)
    weights = directions([np.zeros(n.shape) for n in graph.outputs.values()], seed=4)
    forward = evaluated(jvp(graph), *arrays, *tangents)
    backward = evaluated(vjp(graph), *arrays, *weights)
    left = sum(np.vdot(w, f) for w, f in zip(weights, forward, strict=True))
    right = sum(np.vdot(b, d) for b, d in zip(backward, tangents, strict=True))
    scale = sum(np.abs(b).sum() for b in backward) + 1
    assert abs(left - right) <= 1e-13 * scale


@every_call
def test_float32_stays_float32(call):
    _, function, arrays = call
    graph = graph_of(function, *arrays, dtype="float32")
    assert {n.dtype for n in graph.nodes} <= {"float32", "bool"}


def test_every_supported_name_is_called():
    def named(name):
        _, *path = name.split(".")
        value = odec if name.startswith("odec.") else np
        for part in path:
            value = getattr(value, part)
        return value

    called = {function for function, _, _ in CALLS}
    assert [n for n in supported() if named(n) not in called] == []


def test_supported_names_are_sorted_and_public():
    names = supported()
    assert names == sorted(set(names))
    assert {"np.sin", "np.linalg.norm", "np.multiply.outer", "odec.special.erf"} <= set(names)
    assert "np.argmax" not in names


def test_an_array_of_one_traced_number_is_no_join_of_many():
    function = graph_of(lambda t, y: np.concatenate([y, np.full((500, 1), t)], axis=1), 0.5, np.ones((500, 2)))
    assert len(function.nodes) < 10
