"""Forms that neither overflow nor give nan where the naive ones do, and what happens at ties and ends."""

import numpy as np
import pytest
from tracing import evaluated, graph_of, run_python

import odec.special
from odec.graph.node import input_node
from odec.graph.op import OPS
from odec.transforms.jvp import jvp
from odec.transforms.sparsity import dependencies
from odec.transforms.vjp import vjp

FAR = np.array([-1000.0, -750.0, -40.0, 0.0, 40.0, 750.0, 1000.0])
LIMITS = {  # function: (values, slopes) at FAR, where they are exact in floating point; None in between
    "sigmoid": (odec.special.sigmoid, [0, 0, None, 0.5, 1, 1, 1], [0, 0, None, 0.25, None, 0, 0]),
    "softplus": (odec.special.softplus, [0, 0, None, np.log(2), 40, 750, 1000], [0, 0, None, 0.5, 1, 1, 1]),
    "tanh": (np.tanh, [-1, -1, -1, 0, 1, 1, 1], [0, 0, 0, 1, 0, 0, 0]),
    "logaddexp": (lambda x: np.logaddexp(x, 0.0), [0, 0, None, np.log(2), 40, 750, 1000], [0, 0, None, 0.5, 1, 1, 1]),
    "erf": (odec.special.erf, [-1, -1, -1, 0, 1, 1, 1], [0, 0, 0, 2 / np.sqrt(np.pi), 0, 0, 0]),
}


@pytest.mark.parametrize("name", LIMITS)
def test_far_values_and_slopes_are_right(name):
    function, values, slopes = LIMITS[name]
    graph = graph_of(function, FAR)
    first = jvp(graph)
    for run in (evaluated, run_python):
        (found,), (slope,) = run(graph, FAR), run(first, FAR, np.ones(7))
        assert np.all(np.isfinite(found)) and np.all(np.isfinite(slope))
        for f, s, value, rate in zip(found, slope, values, slopes, strict=True):
            assert value is None or f == pytest.approx(value, abs=1e-300, rel=4e-16)
            assert rate is None or s == pytest.approx(rate, abs=1e-300, rel=4e-16)


@pytest.mark.parametrize("name", LIMITS)
def test_far_values_stay_finite_in_reverse_mode(name):
    graph = graph_of(LIMITS[name][0], FAR)
    assert np.all(np.isfinite(evaluated(vjp(graph), FAR, np.ones(7))[0]))


@pytest.mark.parametrize("name", ["sigmoid", "softplus", "relu", "erf"])
def test_special_functions_take_plain_numbers_and_arrays(name):
    function = getattr(odec.special, name)
    x = np.array([[-800.0, -1.5], [0.0, 2.5]])
    with np.errstate(all="raise", under="ignore"):
        found = function(x)
    np.testing.assert_allclose(found, evaluated(graph_of(function, x), x)[0], rtol=1e-15)
    assert function(2) == function(2.0) == function([2.0])[0]
    assert function(x.astype(np.float32)).dtype == np.float32


def test_power_of_zero_has_finite_slopes():
    graph = jvp(graph_of(lambda x, n: x**n, 0.0, 2.5))
    assert evaluated(graph, 0.0, 2.5, 1.0, 1.0) == [0.0]


def test_extrema_split_no_derivative_at_a_tie():
    for function in (np.maximum, np.minimum, np.fmax, np.fmin):
        (slope,) = evaluated(jvp(graph_of(function, 1.0, 1.0)), 1.0, 1.0, 1.0, 1.0)
        assert slope == 1.0
    assert evaluated(vjp(graph_of(np.max, np.ones(5))), np.ones(5), 1.0)[0].sum() == 1.0
    assert evaluated(jvp(graph_of(odec.special.relu, 0.0)), 0.0, 1.0) == [0.0]


def test_sinc_has_every_derivative_at_zero():
    second = jvp(jvp(graph_of(np.sinc, 0.0), wrt=["x0"]), wrt=["x0"])
    value = dict(zip(second.inputs, (0.0, 1.0, 1.0), strict=True))
    (found,) = evaluated(second, *value.values())
    assert found == pytest.approx(-(np.pi**2) / 3, rel=1e-14)


def test_interp_takes_a_large_table_in_few_operations():
    xp = np.linspace(0.0, 1.0, 10_000)
    graph = graph_of(lambda t: np.interp(t, xp, np.sin(9 * xp)), 0.3)
    assert len(graph.nodes) < 25
    assert evaluated(graph, 0.31234)[0] == pytest.approx(np.interp(0.31234, xp, np.sin(9 * xp)), rel=1e-15)


def test_interp_outside_its_table_is_constant_and_keeps_nan():
    x = np.array([-np.inf, -9.0, 9.0, np.inf, np.nan])
    for table in ([0.5, 1.5, -2.0], None):
        fp = np.array([0.5, 1.5, -2.0])
        arrays = (x,) if table else (x, fp)
        function = lambda x, f=fp: np.interp(x, [0.0, 1.0, 2.0], f)
        np.testing.assert_array_equal(evaluated(graph_of(function, *arrays), *arrays)[0], np.interp(x, [0, 1, 2], fp))
        slopes = evaluated(jvp(graph_of(function, *arrays), wrt=["x0"]), *arrays, np.ones(5))[0]
        np.testing.assert_array_equal(slopes[:4], 0.0)


def test_reductions_of_long_axes_are_shallow():
    x = np.linspace(0.5, 1.5, 1000)
    for function in (np.max, np.prod, np.cumprod):
        assert len(graph_of(function, x).nodes) < 60


def test_cast_brings_time_to_the_precision_of_the_model():
    t = input_node("t", (), "float64")
    short = OPS["cast"](t, dtype="float32")
    assert short.dtype == "float32" and OPS["cast"](short, dtype="float32") is short
    (back,) = short.op.vjp(short, short)
    assert back.dtype == "float64"


def test_assigned_elements_and_steps_leave_no_dependence():
    def assigned(y):
        dy = 2.0 * y
        dy[[0, 2]] = 5.0
        return dy

    y = np.ones(3)
    patterns = {function: list(dependencies(graph_of(function, y), "x0")["out0"]) for function in (assigned, np.floor)}
    assert patterns == {assigned: [0, 0b010, 0], np.floor: [0, 0, 0]}
    triangle = dependencies(graph_of(lambda y: np.tril(np.ones((3, 3)) * y), y), "x0")["out0"]
    assert triangle[0].tolist() == [0b001, 0, 0]


def test_determinant_of_a_singular_matrix_is_zero_in_straight_line_code():
    graph = graph_of(lambda a: np.linalg.det(a), np.zeros((4, 4)))
    for matrix in (np.zeros((4, 4)), np.ones((4, 4)), np.diag([1.0, 2.0, 0.0, 3.0])):
        (found,) = run_python(graph, matrix)
        assert found == 0.0
