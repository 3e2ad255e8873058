"""Whatever users get wrong is said in a sentence: where, what was found, what is needed, what to do."""

import math
import re
import warnings

import numpy as np
import pytest
from scipy.linalg import expm

import odec
from odec import ArgumentError, MissingRuleError, ShapeError, SolveError, Status, TraceError

Y0 = [1.0, 1.0, 1.0]


@odec.dynamics
def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
    x, v, z = y
    return [sigma * (v - x), x * (rho - z) - v, x * v - beta * z]


@pytest.fixture(scope="module")
def system():
    return lorenz.bind(Y0)


def check(raised, kind, *words):
    """The exact type, and a message that names things and ends as a sentence."""
    assert raised.type is kind
    message = str(raised.value)
    for word in words:
        assert word in message, message
    assert message.endswith((".", "?")) and not re.search(r"\.\.$|[a-z] [A-Z][a-z]+ is one of|<odec|0x|%\d", message), (
        message
    )


# ---- y0 and params ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y0", "kind", "words"),
    [
        ([], ShapeError, ("lorenz: y0", "no elements")),
        (None, ArgumentError, ("lorenz: y0", "NoneType")),
        ("abc", ArgumentError, ("lorenz: y0", "str")),
        ([1j, 1, 1], ArgumentError, ("lorenz: y0", "complex", "real and imaginary parts")),
        ([[1, 2], [3]], ShapeError, ("lorenz: y0", "rows of equal length")),
        (np.array([1, None, 2], object), ArgumentError, ("lorenz: y0", "number")),
        ((v for v in Y0), ArgumentError, ("lorenz: y0", "generator")),
        ({1, 2, 3}, ArgumentError, ("lorenz: y0", "set")),
        ([1.0, math.nan, 1.0], ArgumentError, ("lorenz: y0[1] is nan", "finite")),
        (np.array([1.0, 1.0, -math.inf]), ArgumentError, ("lorenz: y0[2] is -inf", "finite")),
        ([1.0, 1.0], TraceError, ("lorenz (test_bad_input.py:", "x, v, z = y", "shape (2,)")),
        (np.ones((2, 3)), TraceError, ("lorenz (test_bad_input.py:", "x, v, z = y", "shape (2, 3)")),
    ],
)
def test_states(y0, kind, words):
    with pytest.raises(odec.OdecError) as raised:
        odec.solve(lorenz, (0.0, 1.0), y0)
    check(raised, kind, *words)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ((10.0, math.nan), ("lorenz: params['rho'] is nan", "finite")),
        ({"sigma": math.inf}, ("lorenz: params['sigma'] is inf", "finite")),
        ({"sigm": 1.0}, ("lorenz", "'sigm'", "did you mean 'sigma'", "sigma, rho, beta")),
        ({"zzz": 1.0}, ("lorenz", "'zzz'", "sigma, rho, beta")),
        ((1, 2, 3, 4), ("lorenz takes 3", "sigma, rho, beta", "4 were given")),
        (3.0, ("lorenz: params is float", "tuple", "dict")),
        (None, ("lorenz: params is NoneType", "tuple", "dict")),
        (np.ones(3), ("lorenz: params is ndarray", "(value,)")),
        ("abc", ("lorenz: params is str",)),
        (("a",), ("params['sigma']", "str")),
        ((None,), ("params['sigma']", "NoneType")),
        ((1j,), ("params['sigma']", "complex", "real and imaginary parts")),
    ],
)
def test_parameters(params, words):
    with pytest.raises(odec.OdecError) as raised:
        odec.solve(lorenz, (0.0, 1.0), Y0, params)
    check(raised, ArgumentError, *words)


def test_a_parameter_without_a_default():
    @odec.dynamics
    def growth(t, y, rate, limit=1.0):
        return rate * y * (limit - y)

    for params in ((), {"limit": 2.0}):
        with pytest.raises(odec.OdecError) as raised:
            odec.solve(growth, (0.0, 1.0), [0.1], params)
        check(raised, ArgumentError, "growth", "'rate'", "params")


def test_structures_that_do_not_fit():
    @odec.dynamics
    def pendulum(t, y, rod):
        return {"angle": y["speed"], "speed": -rod["g"] / rod["length"] * np.sin(y["angle"])}

    y0, rod = {"angle": 1.0, "speed": 0.0}, {"g": 9.81, "length": 1.0}
    bound = pendulum.bind(y0, (rod,))
    with pytest.raises(odec.OdecError) as raised:
        bound.rhs(0.0, {"angle": 1.0}, rod)
    check(raised, ShapeError, "pendulum: y is dict with ['angle']", "speed")
    with pytest.raises(odec.OdecError) as raised:
        bound.rhs(0.0, y0, {"g": 9.81, "length": np.ones(2)})
    check(raised, ShapeError, "pendulum: params['rod']['length'] has shape (2,)")
    with pytest.raises(odec.OdecError) as raised:
        odec.solve(pendulum, (0.0, 1.0), {"angle": math.nan, "speed": 0.0}, (rod,))
    check(raised, ArgumentError, "pendulum: y0['angle'] is nan")
    with pytest.raises(odec.OdecError) as raised:
        odec.solve(pendulum, (0.0, 1.0), y0, ({"g": 9.81, "length": math.inf},))
    check(raised, ArgumentError, "pendulum: params['rod']['length'] is inf")
    with pytest.raises(odec.OdecError) as raised:
        odec.solve(pendulum, (0.0, 1.0), {"angle": 1.0}, (rod,))
    check(raised, TraceError, "KeyError", "speed", 'y["speed"]')
    itself = {"angle": 1.0}
    itself["speed"] = itself
    with pytest.raises(odec.OdecError) as raised:
        pendulum.bind(itself, (rod,))
    check(raised, ArgumentError, "contains itself")


# ---- numbers that steer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["rtol", "atol"])
@pytest.mark.parametrize(
    "value",
    [0, -1e-6, math.nan, math.inf, -math.inf, "1e-6", "a", None, True, 1j, np.float64(-1.0), np.array(0.0)],
    ids=repr,
)  # fmt: skip
def test_tolerances_that_are_no_positive_numbers(what, value):
    with pytest.raises(odec.OdecError) as raised:
        odec.solve(lorenz, (0.0, 1.0), Y0, **{what: value})
    check(raised, ArgumentError, f"lorenz: {what} is", "positive")


@pytest.mark.parametrize("what", ["rtol", "atol"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1e-6, 1e-6], ("shape (2,)", "(3,)", "a number or shaped like y")),
        ([1e-6, 0, 1e-6], ("0.0", "positive")),
        ([1e-6, -2.0, math.nan], ("-2.0", "positive")),
        ([1e-6, 1e-6, math.inf], ("inf", "finite")),
        (["a", 1, 1], ("number",)),
        ({"x": 1.0}, ("number or shaped like y",)),
    ],
)
def test_tolerances_by_component(what, value, words):
    with pytest.raises(odec.OdecError) as raised:
        odec.solve(lorenz, (0.0, 1.0), Y0, **{what: value})
    check(raised, ArgumentError, f"lorenz: {what}", *words)


def test_a_tolerance_that_float32_cannot_hold():
    with pytest.raises(odec.OdecError) as raised:
        odec.solve(lorenz, (0.0, 1.0), np.array(Y0, np.float32), atol=1e-60)
    check(raised, ArgumentError, "lorenz: atol is 1e-60", "float32")


@pytest.mark.parametrize(
    ("span", "words"),
    [
        ((0.0, 0.0), ("starts and ends at 0.0",)),
        ((2, 2), ("starts and ends at 2.0",)),
        ((0.0, math.nan), ("nan", "finite")),
        ((0.0, math.inf), ("inf", "finite")),
        ((-math.inf, 0.0), ("-inf", "finite")),
        ((-1e308, 1e308), ("length", "shorten")),
        ((0.0,), ("two numbers",)),
        ((0.0, 1.0, 2.0), ("two numbers",)),
        (3.0, ("3.0", "two numbers")),
        (None, ("None", "two numbers")),
        ("01", ("'01'", "two numbers")),
        ((0.0, 1j), ("two numbers",)),
        ((0.0, [1.0]), ("two numbers",)),
    ],
)
def test_time_spans(span, words):
    with pytest.raises(odec.OdecError) as raised:
        odec.solve(lorenz, span, Y0)
    check(raised, ArgumentError, "lorenz: t_span", *words)


@pytest.mark.parametrize(
    ("t_eval", "words"),
    [
        ([2.0], ("2.0", "outside", "(0.0, 1.0)")),
        ([-1e-9, 0.5], ("-1e-09", "outside")),
        ([0.5, np.nextafter(1.0, 2.0)], ("1.0000000000000002", "outside")),
        ([0.5, 0.2], ("not sorted", "rising")),
        ([math.nan], ("nan",)),
        ([0.5, math.inf], ("inf",)),
        ("ab", ("'ab'", "times")),
        (["a"], ("['a']", "times")),
        ([1j], ("[1j]", "times")),
        ([None], ("[None]", "times")),
        ([[0.1], [0.2, 0.3]], ("times",)),
        ([[0.1, 0.2]], ("shape (1, 2)", "one-dimensional")),
        (0.5, ("shape ()", "one-dimensional")),
    ],
)
def test_output_times(t_eval, words):
    with pytest.raises(odec.OdecError) as raised:
        odec.solve(lorenz, (0.0, 1.0), Y0, t_eval=t_eval)
    check(raised, ArgumentError, "lorenz: t_eval", *words)


def test_output_times_backward():
    with pytest.raises(odec.OdecError) as raised:
        odec.solve(lorenz, (1.0, 0.0), Y0, t_eval=[0.2, 0.5])
    check(raised, ArgumentError, "not sorted", "falling from 1.0 to 0.0")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        *[({name: v}, (f"{name} is",)) for name in ("first_step", "max_step") for v in (0, -1.0, math.nan, "a", True)],
        *[({"min_step": v}, ("min_step is",)) for v in (-1.0, math.nan, math.inf, "a", None)],
        *[({"max_steps": v}, ("max_steps is", "positive integer")) for v in (0, -3, 1.5, 1e3, True, "a", None)],
        ({"first_step": math.inf}, ("first_step is inf",)),
        ({"min_step": 1.0, "max_step": 0.1}, ("min_step is 1.0", "max_step", "0.1")),
        ({"dtype": "float16"}, ("float16", "float64 or float32")),
        ({"dtype": complex}, ("complex128", "float64 or float32")),
        ({"dtype": int}, ("int64", "float64 or float32")),
        ({"dtype": "foo"}, ("'foo'", "float64 or float32")),
    ],
)
def test_options(options, words):
    with pytest.raises(odec.OdecError) as raised:
        odec.solve(lorenz, (0.0, 1.0), Y0, **options)
    check(raised, ArgumentError, "lorenz: ", *words)


def test_keywords_that_do_not_exist():
    with pytest.raises(TypeError, match=r"no keyword 'rtoll'; did you mean 'rtol'"):
        odec.solve(lorenz, (0.0, 1.0), Y0, rtoll=1e-6)


# ---- names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("tsit6", ("'tsit6'", "did you mean 'tsit5'")),
        ("dopri", ("'dopri'", "did you mean 'dopri5'")),
        ("RK45", ("'RK45'", "dopri5")),
        ("", ("''",)),
        (None, ("None",)),
        (5, ("5",)),
        (["tsit5"], ("['tsit5']",)),
    ],
)
def test_methods(method, words):
    with pytest.raises(odec.OdecError) as raised:
        odec.solve(lorenz, (0.0, 1.0), Y0, method=method)
    check(raised, ArgumentError, *words, "tsit5", "ButcherTableau")


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda s: s.source("stp"), ("'stp'", "did you mean 'step'", "rhs, jvp, vjp, jacobian")),
        (lambda s: s.source("xyz"), ("'xyz'", "rhs, jvp, vjp, jacobian")),
        (lambda s: s.source(["rhs"]), ("['rhs']",)),
        (lambda s: s.source("rhs", "pyton"), ("'pyton'", "did you mean 'python'", "llvm, asm")),
        (lambda s: s.source("rhs", None), ("None", "llvm, asm")),
        (lambda s: s.compile("rhs", target="gpu"), ("'gpu'", "cpu, python")),
        (lambda s: s.compile("rsh"), ("'rsh'", "did you mean 'rhs'")),
        (lambda s: s.compile("rhs", layout="scaler"), ("'scaler'", "did you mean 'scalar'", "auto, scalar, array")),
        (lambda s: s.compile("rhs", color=1), ("'rhs'", "'color'")),
        (lambda s: s.source("step", order=3), ("'step'", "'order'", "method")),
        (lambda s: s.source("step", method="tsit"), ("'tsit'", "did you mean 'tsit5'")),
        (lambda s: s.source("taylor", order=-1), ("order is -1", "non-negative integer")),
        (lambda s: s.source("taylor", order=2.5), ("order is 2.5", "non-negative integer")),
        (lambda s: s.source("jacobian", wrt="sigm"), ("'sigm'", "did you mean 'sigma'", "y, t, sigma, rho, beta")),
        (lambda s: s.source("jvp", wrt=("q",)), ("'q'", "t, y, p")),
        (lambda s: s.taylor(0.0, Y0, 1.0, 2.0, 3.0, order=True), ("order is True",)),
        (lambda s: s.jacobian(0.0, Y0, 1.0, 2.0, 3.0, wrt="rh"), ("'rh'", "did you mean 'rho'")),
        (lambda s: s.jacobian_sparsity(wrt="rh"), ("'rh'", "did you mean 'rho'")),
        (lambda s: s.rhs(0.0, Y0, 1.0, 2.0), ("takes 3", "sigma, rho, beta", "2 were given")),
        (lambda s: s.rhs("a", Y0, 1.0, 2.0, 3.0), ("t is 'a'", "real number")),
        (lambda s: s.jvp(0.0, Y0, 1.0, 2.0, 3.0, tangents=(1, 2, 3, 4)), ("tangents", "(dt, dy, dparams)")),
        (lambda s: s.jvp(0.0, Y0, 1.0, 2.0, 3.0, tangents=Y0), ("tangents", "(dt, dy, dparams)")),
        (lambda s: s.jvp(0.0, Y0, 1.0, 2.0, 3.0, tangents=(None, None, {"sigm": 1.0})), ("'sigm'", "'sigma'")),
        (lambda s: odec.solve(s, (0.0, 1.0), Y0), ("takes 3", "0 were given")),
        (lambda s: odec.solve(s, (0.0, 1.0), Y0, 3.0), ("params is 3.0", "tuple")),
        (lambda s: odec.solve(s, (0.0, 1.0), Y0, {"sigma": 1.0, "rho": 1.0, "bet": 1.0}), ("'bet'", "'beta'")),
        (lambda s: odec.solve(s, (0.0, 1.0), Y0, {"sigma": 1.0, "rho": 1.0}), ("'beta'", "params")),
        (lambda s: odec.solve(s, (0.0, 1.0), Y0, (1.0, 2.0, 3.0), dtype="float32"), ("float32", "float64")),
    ],
)  # fmt: skip
def test_what_systems_are_asked(system, ask, words):
    with pytest.raises(odec.OdecError) as raised:
        ask(system)
    check(raised, ArgumentError, *words)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda s: s.rhs(0.0, [1.0, 1.0], 1.0, 2.0, 3.0), ("lorenz: y has shape (2,)", "(3,)")),
        (lambda s: s.vjp(0.0, Y0, 1.0, 2.0, 3.0, cotangent=[1.0, 2.0]), ("lorenz: cotangent has shape (2,)", "(3,)")),
        (lambda s: s.jvp(0.0, Y0, 1.0, 2.0, 3.0, tangents=(None, [1.0], None)), ("lorenz: dy has shape (1,)", "(3,)")),
        (lambda s: odec.solve(s, (0.0, 1.0), [1.0, 1.0], (1.0, 2.0, 3.0)), ("lorenz: y0 has shape (2,)", "(3,)")),
        (lambda s: s.rhs(0.0, Y0, 1.0, np.ones(2), 3.0), ("params['rho'] has shape (2,)",)),
    ],
)
def test_shapes_that_systems_are_given(system, ask, words):
    with pytest.raises(odec.OdecError) as raised:
        ask(system)
    check(raised, ShapeError, *words)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: odec.dynamics(3), ("int", "f(t, y, *params)")),
        (lambda: odec.dynamics(lambda y: y), ("time and the state first",)),
        (lambda: odec.dynamics(lambda t, y, **rest: y), ("**rest", "name every parameter")),
        (lambda: odec.dynamics(lambda t, y: y, state="xy"), ("state is 'xy'", "tuple of names")),
        (lambda: odec.dynamics(lambda t, y: y, state=("a", "b")).bind([1.0]), ("names 2", "(a, b)", "has 1")),
        (lambda: odec.solve(lambda t, y: y, (0, 1), [1.0]), ("not an odec model", "@odec.dynamics")),
        (lambda: odec.solve(None, (0, 1), [1.0]), ("NoneType", "@odec.dynamics")),
    ],
)
def test_models(make, words):
    with pytest.raises(odec.OdecError) as raised:
        make()
    check(raised, ArgumentError, *words)


# ---- what cannot be traced -----------------------------------------------------------------------------------


def if_on_a_value(t, y):
    if y[0] > 0:
        return y
    return -y


def conditional_on_time(t, y):
    return y if t > 0 else -y


def math_module(t, y):
    return [math.sin(y[0]), y[1], y[2]]


def conversion(t, y):
    return float(y[0]) * y


def plain_zeros(t, y):
    dy = np.zeros(3)
    dy[0] = y[1]
    return dy


def plain_sum(t, y):
    dy = np.zeros(3)
    dy += y
    return dy


def shape_from_values(t, y):
    return y[y > 0]


def indices_from_values(t, y):
    return y[np.nonzero(y)[0]]


def unsupported(t, y):
    return np.linalg.eigvals(np.diag(y)).real


def from_scipy(t, y):
    return expm(np.diag(y)) @ y


def built_in_max(t, y):
    return max(y) * y


def chained(t, y):
    return (y[0] > 0 and y[1] > 0) * y


def loops_while(t, y):
    while y[0] > 1:
        y = y / 2
    return y


def size_from_a_parameter(t, y, n=3):
    return sum(y for _ in range(n))


def zeros_from_a_parameter(t, y, n=3):
    return np.zeros(n) + y


def writes_the_state(t, y):
    y[0] = 3.0
    return y


def writes_a_parameter(t, y, w=np.ones(3)):  # noqa: B008
    w[0] = 3.0
    return y


def complex_values(t, y):
    return 1j * y


def out_of_range(t, y):
    return [y[0], y[1], y[3]]


def unequal_shapes(t, y):
    return y + np.ones(4)


def raises_itself(t, y):
    raise RuntimeError("no such table")


def misspelled(t, y):
    return yy * 2  # noqa: F821


def unpacked_wrongly(t, y):
    a, b = y
    return [a, b, a]


def rounded(t, y):
    return round(y[0]) * y


def array_with_dtype(t, y):
    return np.array([y[1], y[2], y[0]], dtype=float)


def asserted(t, y):
    assert y[0] > 0
    return y


REFUSED = [
    (if_on_a_value, TraceError, ("if y[0] > 0", "value", "np.where")),
    (conditional_on_time, TraceError, ("y if t > 0 else -y", "np.where")),
    (math_module, TraceError, ("math.sin", "np.sin")),
    (conversion, TraceError, ("float(y[0])", "Leave the conversion out")),
    (plain_zeros, TraceError, ("dy[0] = y[1]", "np.zeros_like(y)")),
    (plain_sum, TraceError, ("plain NumPy array", "np.zeros_like(y)")),
    (shape_from_values, TraceError, ("mask", "shape", "np.where")),
    (indices_from_values, TraceError, ("np.nonzero", "shape", "np.where")),
    (unsupported, MissingRuleError, ("np.linalg.eigvals", "odec.supported()", "docs/adding_an_op.md")),
    (from_scipy, TraceError, ("expm(np.diag(y)) @ y",)),
    (built_in_max, TraceError, ("max(y) * y", "np.max(y)", "np.maximum(a, b)")),
    (chained, TraceError, ("and", "np.logical_and")),
    (loops_while, TraceError, ("while y[0] > 1", "np.where")),
    (size_from_a_parameter, TraceError, ("range(n)", "Close over a Python int")),
    (zeros_from_a_parameter, TraceError, ("np.zeros(n)", "Close over a Python int")),
    (writes_the_state, TraceError, ("state y", "y.copy()")),
    (writes_a_parameter, TraceError, ("parameter", "copy")),
    (complex_values, TraceError, ("complex", "real")),
    (out_of_range, TraceError, ("(3,)", "3")),
    (unequal_shapes, TraceError, ("(3,)", "(4,)")),
    (raises_itself, TraceError, ("RuntimeError: no such table", "raise RuntimeError")),
    (misspelled, TraceError, ("NameError", "'yy'", "return yy * 2")),
    (unpacked_wrongly, TraceError, ("a, b = y", "shape (3,)")),
    (rounded, TraceError, ("round(y[0])", "np.floor")),
    (array_with_dtype, TraceError, ("dtype=float", "Leave dtype out")),
    (asserted, TraceError, ("assert y[0] > 0", "np.where")),
]


@pytest.mark.parametrize(("function", "kind", "words"), REFUSED, ids=lambda v: getattr(v, "__name__", None))
def test_bodies_that_cannot_be_traced(function, kind, words):
    with pytest.raises(odec.OdecError) as raised:
        odec.dynamics(function).bind(Y0)
    code = function.__code__
    check(raised, kind, f"{function.__name__} (test_bad_input.py:", *words)
    line = int(re.search(r"test_bad_input.py:(\d+)\)", str(raised.value))[1])
    last = max(n for _, _, n in code.co_lines() if n)
    assert code.co_firstlineno < line <= last  # the user's line, not odec's


def test_an_error_of_the_body_is_the_cause():
    with pytest.raises(TraceError) as raised:
        odec.dynamics(raises_itself).bind(Y0)
    assert isinstance(raised.value.__cause__, RuntimeError)


@pytest.mark.parametrize(
    ("result", "kind", "words"),
    [
        (lambda y: y[:2], ShapeError, ("shape (2,)", "shape (3,)")),
        (lambda y: y[None], ShapeError, ("shape (1, 3)", "shape (3,)")),
        (lambda y: y[0], ShapeError, ("shape ()", "shape (3,)")),
        (lambda y: [y[0], y[1]], ShapeError, ("shape (2,)", "shape (3,)")),
        (lambda y: [y[0], [y[1]], y[2]], ShapeError, ("different shapes",)),
        (lambda y: {"a": y}, ShapeError, ("a dict", "shape (3,)")),
        (lambda y: "abc", ShapeError, ("a str", "shape (3,)")),
        (lambda y: None, TraceError, ("None", "return")),
        (lambda y: 7.0, ShapeError, ("shape ()", "shape (3,)")),
    ],
)
def test_results_of_the_wrong_shape_or_structure(result, kind, words):
    @odec.dynamics
    def wrong(t, y):
        return result(y)

    with pytest.raises(odec.OdecError) as raised:
        wrong.bind(Y0)
    check(raised, kind, "wrong returned", "dynamics must return dy/dt", *words)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda y: {"a": y["a"]}, ("a dict of (a)",)),
        (lambda y: {"a": y["a"], "b": np.ones(2)}, ("shape (2,)", "y['b']", "shape ()")),
        (lambda y: [y["a"], y["b"]], ("a list",)),
        (lambda y: y["a"], ("y is a dict",)),
    ],
)
def test_results_of_the_wrong_structure(result, words):
    @odec.dynamics
    def wrong(t, y):
        return result(y)

    with pytest.raises(odec.OdecError) as raised:
        wrong.bind({"a": 1.0, "b": 2.0})
    check(raised, ShapeError, "wrong returned", *words)


def test_a_failed_trace_leaves_nothing_behind():
    model = odec.dynamics(if_on_a_value)
    for _ in range(2):
        with pytest.raises(TraceError, match="if_on_a_value"):
            model.bind(Y0)
    assert lorenz.bind(Y0).rhs(0.0, Y0, 10.0, 28.0, 1.0) == pytest.approx([0.0, 26.0, 0.0])


# ---- solves that stop early: exact messages in words ------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "options", "status", "words"),
    [
        (lambda t, y: y**2, {}, None, ("t = 1", "y[0]", "blow up")),
        (lambda t, y: np.log(0.5 - t) + 0 * y, {}, Status.NON_FINITE, ("non-finite", "t = 0.5", "y[0]")),
        (lambda t, y: 1 / (y - 1), {}, Status.NON_FINITE_START, ("not finite at the start", "dy[0]/dt is inf", "y0")),
        (lambda t, y: np.sin(1e6 * t) + y, {"max_steps": 10}, Status.STEP_LIMIT, ("max_steps", "Raise max_steps")),
        (lambda t, y: -1e3 * y, {"min_step": 0.1}, Status.STEP_UNDERFLOW, ("min_step", "Lower min_step")),
    ],
)
def test_solves_that_stop_early(model, options, status, words):
    model = odec.dynamics(model)
    with pytest.raises(odec.OdecError) as raised:
        odec.solve(model, (0.0, 2.0), [1.0], **options)
    check(raised, SolveError, "<lambda>: ", "steps (", *words)
    partial = raised.value.solution
    assert status in (None, partial.status) and not partial.success
    assert np.isfinite(partial.ys).all() and len(partial.ts) == len(partial.ys)


def test_no_input_warns():
    """Overflow inside kernels and messages is an outcome, not a NumPy warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for y0 in (1e300, 1e-300, 1e154):
            odec.solve(odec.dynamics(lambda t, y: y**3 - y), (0.0, 1.0), [y0], throw=False, max_steps=100)
