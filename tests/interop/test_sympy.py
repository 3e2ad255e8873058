"""Models as SymPy expressions and back."""

import builtins
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings

import odec
from odec.errors import ArgumentError, MissingRuleError, ShapeError
from odec.graph.function import Function
from odec.graph.node import input_node
from odec.graph.op import OPS
from odec.interop.sympy import function_to_sympy, to_sympy
from odec.testing import models

T, X, V, A = sp.symbols("t x v a", real=True)


@odec.dynamics(state=("x", "v", "z"))
def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
    x, v, z = y
    return [sigma * (v - x), x * (rho - z) - v, x * v - beta * z]


def numbers(form, t, y, p):
    """The right-hand side of a SymbolicSystem at numbers."""
    point = dict(zip([form.t, *form.y_symbols, *form.p_symbols], [t, *y, *p], strict=True))
    return np.array([float(sp.sympify(e).subs(point)) for e in form.rhs])


# ---- laws -------------------------------------------------------------------------------------------------

POINTS = {
    1: (0.3, -0.7, 1.6),
    2: ((0.3, 0.8), (-0.7, 1.2), (1.6, 0.4), (0.5, 0.5)),
    3: ((1.0, 0.3, 0.9), (0.0, 0.3, 0.9)),
}


@pytest.mark.parametrize("name", [n for n, op in OPS.items() if op.family == "elementwise"])
def test_the_sympy_form_of_each_op_has_its_value(name):
    op = OPS[name]
    if not callable(op.sympy):
        assert op.sympy, "a reason is stated"
        return
    params = {"ipow": {"exponent": -3}, "cast": {"dtype": "float64"}, "to_float": {"dtype": "float64"},
              "pieces": {"edges": (0.0, 1.0), "values": (2.0, 3.0, 4.0)}}.get(name, {})  # fmt: skip
    logical = name in ("and", "or", "xor", "not", "to_float")
    compared = 0
    for raw in POINTS[len(op.domain)]:
        point = np.atleast_1d(raw).astype(float)
        point = [
            low + (high - low) * (0.5 + 0.25 * np.tanh(v)) for v, (low, high) in zip(point, op.domain, strict=True)
        ]
        args = [v > 0.5 for v in point] if logical else point
        if name == "where":
            args = [point[0] > 0.5, *point[1:]]
        expected = op.evaluate(*(np.asarray(a) for a in args), **params)
        given = [(sp.true if a else sp.false) if isinstance(a, (bool, np.bool_)) else sp.Float(float(a)) for a in args]
        found = op.sympy(sp, *given, **params)
        found = bool(found) if found in (sp.true, sp.false) else float(found)
        assert found == pytest.approx(expected, rel=1e-13, abs=1e-15)
        compared += 1
    assert compared


@settings(max_examples=20)
@given(models(depth=2))
def test_random_models_have_the_same_values_in_sympy(example):
    system = example.model.bind(example.y0, example.params)
    y, p = system.y_structure.flatten(example.y0, "y0"), system.p_structure.flatten(example.params, "p")
    expected = system.graph.evaluate(0.3, y, p)["dydt"]
    np.testing.assert_allclose(numbers(to_sympy(system), 0.3, y, p), expected, rtol=1e-9, atol=1e-10)


@settings(max_examples=15)
@given(models(depth=2, smooth=True))
def test_there_and_back_keeps_the_values(example):
    system = example.model.bind(example.y0, example.params)
    form = to_sympy(system, digits=17)
    again = odec.from_sympy(form.rhs, form.t, form.y_symbols, form.p_symbols)
    y, p = system.y_structure.flatten(example.y0, "y0"), system.p_structure.flatten(example.params, "p")
    graph = again.bind(y, tuple(p)).graph
    np.testing.assert_allclose(
        graph.evaluate(0.3, y, p)["dydt"], system.graph.evaluate(0.3, y, p)["dydt"], rtol=1e-8, atol=1e-10
    )


# ---- to_sympy ---------------------------------------------------------------------------------------------


def test_lorenz_in_sympy():
    form = lorenz.bind(np.ones(3)).to_sympy()
    x, v, z = form.y
    sigma, rho, beta = (form.params[n] for n in ("sigma", "rho", "beta"))
    assert [str(s) for s in (form.t, x, v, z, sigma)] == ["t", "x", "v", "z", "sigma"]
    expected = [sigma * (v - x), x * (rho - z) - v, x * v - beta * z]
    assert [sp.expand(e - f) for e, f in zip(form.rhs, expected, strict=True)] == [0, 0, 0]
    assert sp.Matrix(form.rhs).jacobian(form.y) == sp.Matrix([[-sigma, sigma, 0], [rho - z, -1, -x], [v, x, -beta]])


@dataclass
class Arm:
    length: float
    masses: np.ndarray


def test_structures_keep_their_form():
    def model(t, y, arm, t_):
        return {"angle": y["rate"][0] * t_, "rate": -np.sin(y["angle"]) * arm.masses / arm.length}

    form = odec.dynamics(model).bind({"angle": 0.1, "rate": np.zeros(2)}, (Arm(2.0, np.ones(2)), 1.0)).to_sympy()
    arm = form.params["arm"]
    assert form.rhs == [form.y["rate"][0] * form.params["t_"], *(-sp.sin(form.y["angle"]) * arm.masses / arm.length)]
    every = [form.t, *form.y_symbols, *form.p_symbols]
    assert len(set(map(str, every))) == len(every) == 8


def test_names_that_meet_stay_apart():
    form = odec.dynamics(lambda t, y, x, y0: x * y + y0, state=("x", "y0")).bind(np.ones(2), (1.0, 2.0)).to_sympy()
    names = [str(s) for s in (form.t, *form.y_symbols, *form.p_symbols)]
    assert len(set(names)) == 5


@pytest.mark.parametrize("y0", [1.0, np.ones(2), np.ones((2, 2))])
def test_array_states_are_lists_in_flat_order(y0):
    form = odec.dynamics(lambda t, y: np.exp(-y) * t).bind(y0).to_sympy()
    assert form.y == form.y_symbols and form.rhs == [form.t * sp.exp(-s) for s in form.y]


def test_numbers_are_shown_short_or_exactly():
    system = odec.dynamics(lambda t, y: 2.0 * y + 0.1).bind(1.0)
    (short,), (long,) = to_sympy(system).rhs, to_sympy(system, digits=40).rhs
    assert str(short) == "2*y + 0.1"
    assert long.as_coeff_Add()[0] == sp.Float(0.1, 40) and sp.Rational(0.1) == sp.Rational(str(sp.Float(0.1, 60)))


def test_matrices_in_sympy():
    def model(t, y):
        m = np.stack([y, y[::-1]]) + 3 * np.eye(2)
        return np.linalg.solve(m, y) + np.linalg.det(m) * (m @ y) + np.cumsum(y)[[0, 0]]

    system = odec.dynamics(model).bind(np.ones(2))
    np.testing.assert_allclose(
        numbers(to_sympy(system), 0.0, [0.3, 0.7], []), system.graph.evaluate(0.0, [0.3, 0.7], [])["dydt"], rtol=1e-13
    )


def test_adding_into_places_in_sympy():
    x = input_node("x", (3,), "float64")
    added = OPS["put_add"](OPS["take"](x, index=np.array([2, 0, 2])), index=_table([0, 0, 3]), shape=(4,))
    (found,) = function_to_sympy(Function("f", {"x": x}, {"out": added}), [_objects(sp.symbols("a b c"))]).values()
    a, _, c = sp.symbols("a b c")
    assert found.tolist() == [a + c, 0, 0, c]


def _table(values):
    from odec.graph.node import Data

    return Data(np.array(values, np.int64))


def _objects(values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def test_calls_go_through_their_function():
    f = lorenz.bind(np.ones(3)).graph
    inputs = {n: input_node(n, i.shape, i.dtype) for n, i in f.inputs.items()}
    outer = Function("outer", inputs, {"out": OPS["call"](f, *inputs.values())})
    names = [sp.Symbol("t"), _objects(sp.symbols("x v z")), _objects(sp.symbols("s r b"))]
    assert function_to_sympy(outer, names)["out"].tolist() == function_to_sympy(f, names)["dydt"].tolist()


def test_an_input_of_another_shape_is_refused():
    f = lorenz.bind(np.ones(3)).graph
    with pytest.raises(ShapeError, match=r"input y has shape \(2,\); shape \(3,\) is needed"):
        function_to_sympy(f, [T, _objects([X, V]), _objects([A, A, A])])


# ---- from_sympy ---------------------------------------------------------------------------------------------

VALUES = [0.3, 0.8, 1.7, -0.6]
EXPRESSIONS = [
    X * V + 2 * A - X / V,
    X**3 + X**-2,
    sp.sqrt(X**2 + 1),
    (X**2 + 1) ** sp.Rational(-3, 2),
    sp.cbrt(X**2),
    (X**2 + 1) ** sp.Rational(2, 5),
    sp.exp(-X) * sp.log(V**2),
    (X**2) ** A,
    2**X,
    sp.sin(X) + sp.cos(V) * sp.tan(X / 2),
    sp.asin(X / 3) + sp.acos(X / 3) + sp.atan(V) + sp.atan2(X, V),
    sp.sinh(X) + sp.cosh(X) + sp.tanh(X),
    sp.asinh(X) + sp.acosh(X**2 + 2) + sp.atanh(X / 3),
    sp.Abs(X) + sp.sign(V),
    sp.Max(X, V, 0) - sp.Min(X, 1),
    sp.Piecewise((X**2, X < 0), (V, sp.And(X < 1, V > 0)), (A, True)),
    sp.Piecewise((1, sp.Or(X > 1, sp.Not(sp.Eq(V, 2)))), (2, True)),
    sp.Piecewise((X, sp.Ne(X, V)), (0, True)),
    sp.Piecewise((X, sp.ITE(X > 0, V > 1, V < 1)), (0, True)),
    sp.floor(3 * X) + sp.ceiling(V),
    sp.erf(X) + sp.erfc(V),
    sp.Mod(X, 2),
    sp.Heaviside(X) + sp.Heaviside(V, 1),
    sp.pi * X + sp.E + sp.GoldenRatio,
    sp.cot(X) + sp.sec(X) + sp.csc(V),
    sp.coth(X) + sp.sech(X) + sp.csch(V),
    sp.sinc(X),
    sp.Integer(3),
    T * X + sp.Rational(1, 3),
    sp.log(X**2 + 2, 3),
    (X**2 + 1) ** sp.Float(0.3),
    (X + V) ** 2 * sp.sin((X + V) ** 2),
]


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=str)
def test_expressions_keep_their_values(expression):
    model = odec.from_sympy([expression, -V], T, [X, V], [A])
    graph = model.bind(np.ones(2), (1.0,)).graph
    for t, x, v, a in ((0.5, *VALUES[:3]), (0.5, *VALUES[1:]), (0.0, -0.4, 0.6, 1.2)):
        expected = float(expression.subs({T: t, X: x, V: v, A: a}))
        with np.errstate(all="ignore"):
            plain = model(t, [x, v], a)
        np.testing.assert_allclose([float(p) for p in plain], [expected, -v], rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(graph.evaluate(t, [x, v], [a])["dydt"], [expected, -v], rtol=1e-12, atol=1e-15)


def test_cube_roots_are_real():
    model = odec.from_sympy([sp.Symbol("x") ** sp.Rational(1, 3)], T, [sp.Symbol("x")])
    assert float(model(0.0, [-8.0])[0]) == -2.0


def test_functions_of_time_matrices_and_defaults():
    x, v = sp.Function("x")(T), sp.Function("v")(T)
    model = odec.from_sympy(sp.Matrix([v, -A * x]), T, [x, v], {A: 4})
    assert model.state == ("x", "v") and model.parameters == {"a": 4.0}
    assert [float(r) for r in model(0.0, [1.0, 2.0])] == [2.0, -4.0]
    assert [float(r) for r in model(0.0, [1.0, 2.0], a=2.0)] == [2.0, -2.0]
    solution = odec.solve(model, (0.0, np.pi), [1.0, 0.0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(solution.y1, [1.0, 0.0], atol=1e-7)


def test_a_scalar_state():
    model = odec.from_sympy(-A * X, T, X, [A])
    assert model.bind(1.0, (2.0,)).rhs(0.0, 3.0, 2.0) == -6.0


def test_common_parts_are_shared():
    part = sp.sin(X * V)
    graph = odec.from_sympy([part**2 + part, part * V], T, [X, V]).bind(np.ones(2)).graph
    assert sum(node.op.name == "sin" for node in graph.nodes) == 1


def test_a_model_from_sympy_can_be_pickled():
    model = pickle.loads(pickle.dumps(odec.from_sympy([-A * X], T, [X], {A: 2.0})))
    assert model(0.0, [3.0]) == [-6.0]


BAD = {
    "gamma": (
        lambda: odec.from_sympy([sp.gamma(X)], T, [X]),
        MissingRuleError,
        r"gamma in 'gamma\(x\)' has no odec op; rewrite it",
    ),
    "a function": (lambda: odec.from_sympy([sp.Function("g")(X)], T, [X]), MissingRuleError, r"g in 'g\(x\)'"),
    "imaginary": (lambda: odec.from_sympy([sp.I * X], T, [X]), MissingRuleError, "ImaginaryUnit"),
    "an integral": (lambda: odec.from_sympy([sp.Integral(X, (X, 0, V)), X], T, [X, V]), MissingRuleError, "Integral"),
    "a foreign symbol": (
        lambda: odec.from_sympy([A * X], T, [X]),
        MissingRuleError,
        "'a' in 'a\\*x' is neither t, nor in y",
    ),
    "too few expressions": (lambda: odec.from_sympy([X], T, [X, V]), ShapeError, "1 expressions for 2 state variables"),
    "a symbol twice": (lambda: odec.from_sympy([X], T, [X], [X]), ArgumentError, "used twice"),
    "no name": (lambda: odec.from_sympy([X], T, [X], [sp.Symbol("k 1")]), ArgumentError, "'k 1' is no name"),
    "a taken name": (
        lambda: odec.from_sympy([X], T, [X], [sp.Symbol("y")]),
        ArgumentError,
        "'y' is no name of its own",
    ),
}


@pytest.mark.parametrize(("call", "kind", "message"), BAD.values(), ids=BAD)
def test_what_cannot_become_a_model_is_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_without_sympy_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "sympy":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install odec\[sympy\]"):
        lorenz.bind(np.ones(3)).to_sympy()
