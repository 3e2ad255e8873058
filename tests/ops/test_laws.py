"""Laws over the table of ops: one value however it is computed, one derivative however it is found."""

import ctypes
import functools
import math

import numpy as np
import pytest
import strategies
import sympy
from hypothesis import given
from hypothesis import strategies as st
from op_cases import BUILDERS, ELEMENTWISE, SMOOTH, STRUCTURAL, apply, case_name, structural
from tracing import evaluated, python_of, run_python

from odec.codegen.compile import Library, object_code
from odec.codegen.lower_scalar import lower_scalar
from odec.codegen.print_llvm import print_llvm
from odec.codegen.targets import cpu_target
from odec.graph.function import Function
from odec.graph.node import input_node, structural_zero
from odec.graph.op import OPS, Op
from odec.ops.comparison import as_bool
from odec.ops.families import as_float
from odec.ops.structure import element, stack
from odec.transforms.jvp import jvp, tangents
from odec.transforms.taylor import Series
from odec.transforms.vjp import vjp

EPS = float(np.finfo(float).eps)
STEP = EPS ** (1 / 3)
CASES = {case_name(case): case for case in SMOOTH}
every_elementwise = pytest.mark.parametrize("case", SMOOTH, ids=case_name)


def once_for_each_case(made):
    """A function of a case that makes a graph: made once, evaluated at every point that is drawn."""
    of_name = functools.cache(lambda name: made(CASES[name]))
    return lambda case: of_name(case_name(case))


@once_for_each_case
def graph_of_case(case):
    """The op as a Function of x (arity,)."""
    x = input_node("x", (len(case[0].domain),), "float64")
    args = [element(x, k) for k in range(x.size)]
    return Function(case[0].name, {"x": x}, {"v": apply(case, args)})


jvp_of_case = once_for_each_case(lambda case: jvp(graph_of_case(case)))
vjp_of_case = once_for_each_case(lambda case: vjp(graph_of_case(case)))


def by_numpy(case, args):
    """The op's own evaluation on arrays of numbers, as the law's left side."""
    op, params = case
    args = [np.float64(a) for a in args]
    takes_truth = op.name in ("and", "or", "xor", "not", "to_float")
    if takes_truth or op.name == "where":
        count = len(args) if takes_truth else 1
        args[:count] = [np.bool_(a != 0) for a in args[:count]]
    params = {"dtype": "float64"} if op.name == "to_float" else params
    with np.errstate(all="ignore"):
        return float(op.evaluate(*args, **params))


# ---- one value, however it is computed ---------------------------------------------------------------


def all_of_them():
    """Every elementwise op as one Function of x (all arguments side by side)."""
    arity = sum(len(op.domain) for op, _ in ELEMENTWISE)
    x = input_node("x", (arity,), "float64")
    at, values = 0, []
    for op, params in ELEMENTWISE:
        values.append(apply((op, params), [element(x, at + k) for k in range(len(op.domain))]))
        at += len(op.domain)
    return Function("all_ops", {"x": x}, {"v": stack(values, (len(values),))})


@pytest.fixture(scope="module")
def graph():
    return all_of_them()


@pytest.fixture(scope="module")
def python(graph):
    return python_of(graph)


@pytest.fixture(scope="module")
def machine_code(graph):
    """{lanes: function of a list of points, one a lane} of the kernel that holds every elementwise op."""
    kernel = lower_scalar(graph, "all_ops")

    def compiled(lanes):
        library = Library(object_code(print_llvm([kernel], cpu_target(), lanes)))
        call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3)(library.address("all_ops"))

        def run(points):
            x = np.ascontiguousarray(np.transpose(points))
            out, work = np.empty((len(ELEMENTWISE), lanes)), np.empty(0)
            call(x.ctypes.data, out.ctypes.data, work.ctypes.data)
            assert library is not None
            return out.T

        return run

    return {lanes: compiled(lanes) for lanes in (1, 4)}


DRAWN = st.tuples(*(strategies.points(op.domain) for op, _ in ELEMENTWISE))
EDGES = st.tuples(*(strategies.edge_points(len(op.domain)) for op, _ in ELEMENTWISE))


def check_parity(graph, python, machine_code, points, ulps):
    flat = [np.array([a for args in p for a in args]) for p in points]
    expected = [[by_numpy(case, args) for case, args in zip(ELEMENTWISE, p, strict=True)] for p in points]
    results = {
        "evaluate": [evaluated(graph, x)[0] for x in flat],
        "python": [python(x)[0] for x in flat],
        "scalar": [machine_code[1]([x])[0] for x in flat],
        "lanes": machine_code[4](flat),
    }
    for how, rows in results.items():
        for row, right, p in zip(rows, expected, points, strict=True):
            for case, found, value, args in zip(ELEMENTWISE, row, right, p, strict=True):
                tolerance = 4e-7 if case[1] == {"dtype": "float32"} else ulps * EPS
                close = found == value or math.isclose(found, value, rel_tol=tolerance, abs_tol=tolerance)
                assert close or (found != found and value != value), (how, case_name(case), args, found, value)


@given(points=st.tuples(DRAWN, DRAWN, DRAWN, DRAWN))
def test_numpy_python_scalar_code_and_lanes_agree(graph, python, machine_code, points):
    check_parity(graph, python, machine_code, points, ulps=16)


@given(points=st.tuples(EDGES, EDGES, EDGES, EDGES))
def test_they_agree_at_zeros_infinities_nan_and_huge_values(graph, python, machine_code, points):
    check_parity(graph, python, machine_code, points, ulps=64)


@pytest.mark.parametrize("name", ["neg", "abs", "copysign", "sign", "floor", "mul"])
def test_sign_of_zero_is_kept(name, machine_code):
    place = [op.name for op, _ in ELEMENTWISE].index(name)
    at = sum(len(op.domain) for op, _ in ELEMENTWISE[:place])
    for pair in ((0.0, 1.0), (-0.0, 1.0), (0.0, -1.0), (-0.0, -1.0)):
        x = np.ones(sum(len(op.domain) for op, _ in ELEMENTWISE))
        count = len(OPS[name].domain)
        x[at : at + count] = pair[:count]
        expected = np.signbit(OPS[name].evaluate(*map(np.float64, pair[:count])))
        assert np.signbit(machine_code[1]([x])[0][place]) == expected
        assert np.signbit(machine_code[4]([x] * 4)[2][place]) == expected


@every_elementwise
@given(drawn=st.data())
def test_sympy_evaluates_to_the_same_number(case, drawn):
    op, params = case
    assert callable(op.sympy)
    args = drawn.draw(strategies.points(op.domain))
    exact = [sympy.Float(a, 30) for a in args]
    if op.name in ("and", "or", "xor", "not", "to_float"):
        exact = [sympy.true if a else sympy.false for a in args]
    elif op.name == "where":
        exact[0] = sympy.true if args[0] else sympy.false
    params = {"dtype": "float64"} if op.name == "to_float" else params
    found = op.sympy(sympy, *exact, **params)
    found = float(found) if isinstance(found, sympy.Expr) else float(bool(found))
    assert math.isclose(found, by_numpy(case, args), rel_tol=32 * EPS, abs_tol=32 * EPS)


# ---- one derivative, however it is found ---------------------------------------------------------------


@every_elementwise
@given(drawn=st.data())
def test_jvp_is_the_central_difference(case, drawn):
    x = np.array(drawn.draw(strategies.points(case[0].domain)))
    direction = drawn.draw(strategies.directions(x.shape))
    graph = graph_of_case(case)
    if case[0].name in KINKED and near_kink(case, x):
        x = smooth_point(case)
    (found,) = evaluated(jvp_of_case(case), x, direction)
    there, back = (evaluated(graph, x + s * STEP * direction)[0] for s in (1, -1))
    scale = 1 + abs(there)
    np.testing.assert_allclose(found, (there - back) / (2 * STEP), rtol=2e-7, atol=2e-7 * scale)


# Ops whose domain box holds points without a derivative: they are moved off them.
KINKED = ["maximum", "minimum", "fmax", "fmin", "pieces", "lt", "le", "gt", "ge",
          "eq", "ne", "where", "to_float", "and", "or", "xor", "not"]  # fmt: skip


def near_kink(case, x):
    if case[0].name == "pieces":
        return any(abs(x[0] - e) < 1e-3 for e in case[1]["edges"])
    return len(x) > 1 and abs(x[0] - x[1]) < 1e-3


def smooth_point(case):
    return np.linspace(0.4, 1.3, len(case[0].domain))


@every_elementwise
@given(drawn=st.data())
def test_vjp_is_the_adjoint_of_jvp(case, drawn):
    x = np.array(drawn.draw(strategies.points(case[0].domain)))
    direction, weight = drawn.draw(strategies.directions(x.shape)), drawn.draw(strategies.directions(()))
    (forward,) = evaluated(jvp_of_case(case), x, direction)
    (backward,) = evaluated(vjp_of_case(case), x, weight)
    scale = 1 + float(np.abs(weight * backward).sum() + abs(weight * forward))
    assert abs(weight * forward - backward @ direction) <= 32 * EPS * scale


def curve_of(graph, order):
    """The Function of the coefficients of v along x(s) = x + c1 s + ... (inputs x, c1 .. c_order), 0 .. order."""
    (x,) = graph.inputs.values()
    (v,) = graph.outputs.values()
    changes = {f"c{k}": input_node(f"c{k}", x.shape, x.dtype) for k in range(1, order + 1)}
    series = Series({x: [x, *changes.values()]})
    found = {f"v{k}": series(v, k) for k in range(order + 1)}
    zero = structural_zero(v.dtype, v.shape)
    return Function("series", {"x": x, **changes}, {n: zero if c is None else c for n, c in found.items()})


def derivatives_along(graph, order):
    """The Function of the derivatives of v along the same curve, 0 .. order, by nested jvp: x moves by c1, and c_k by
    (k + 1) c_(k+1).
    """
    (x,), (value,) = graph.inputs.values(), graph.outputs.values()
    changes = {f"c{k}": input_node(f"c{k}", x.shape, x.dtype) for k in range(1, order + 1)}
    inputs, outputs = {"x": x, **changes}, {"v0": value}
    seeds = {x: changes["c1"]} | {changes[f"c{k}"]: (k + 1.0) * changes[f"c{k + 1}"] for k in range(1, order)}
    for k in range(1, order + 1):
        found = tangents(Function("along", inputs, {"v": value}).nodes, seeds)
        value = found[id(value)] if id(value) in found else structural_zero(value.dtype, value.shape)
        outputs[f"v{k}"] = value
    return Function("along", inputs, outputs)


ORDER = 4


def check_taylor(curve, derivatives, x, changes, tolerance=1e-10):
    found, expected = evaluated(curve, x, *changes), evaluated(derivatives, x, *changes)
    for k, (coefficient, derivative) in enumerate(zip(found, expected, strict=True)):
        wanted = derivative / math.factorial(k)
        np.testing.assert_allclose(coefficient, wanted, rtol=tolerance, atol=tolerance * (1 + np.abs(wanted).max()))


curve_of_case = once_for_each_case(lambda case: curve_of(graph_of_case(case), ORDER))
derivatives_of_case = once_for_each_case(lambda case: derivatives_along(graph_of_case(case), ORDER))


@every_elementwise
@given(drawn=st.data())
def test_taylor_is_nested_jvp(case, drawn):
    x = np.array(drawn.draw(strategies.points(case[0].domain)))
    changes = [drawn.draw(strategies.directions(x.shape)) for _ in range(ORDER)]
    check_taylor(curve_of_case(case), derivatives_of_case(case), x, changes)


# ---- ops that are not elementwise ---------------------------------------------------------------------------

every_structural = pytest.mark.parametrize("name", STRUCTURAL)


def test_every_structural_op_has_an_example():
    assert set(STRUCTURAL) == set(BUILDERS)


@every_structural
@given(drawn=st.data())
def test_scalar_code_is_numpy_s_evaluation(name, drawn):
    graph, arrays = drawn.draw(structural(name))
    (found,), (expected,) = run_python(graph, *arrays), evaluated(graph, *arrays)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * (1 + np.abs(expected).max()))


@every_structural
@given(drawn=st.data())
def test_structural_jvp_is_the_central_difference(name, drawn):
    graph, arrays = drawn.draw(structural(name))
    tangents = [drawn.draw(strategies.directions(a.shape)) for a in arrays]
    (found,) = evaluated(jvp(graph), *arrays, *tangents)
    there, back = (
        evaluated(graph, *(a + s * STEP * d for a, d in zip(arrays, tangents, strict=True)))[0] for s in (1, -1)
    )
    np.testing.assert_allclose(found, (there - back) / (2 * STEP), rtol=1e-7, atol=1e-8 * (1 + np.abs(there).max()))


@every_structural
@given(drawn=st.data())
def test_structural_vjp_is_the_adjoint_of_jvp(name, drawn):
    graph, arrays = drawn.draw(structural(name))
    tangents = [drawn.draw(strategies.directions(a.shape)) for a in arrays]
    (forward,) = evaluated(jvp(graph), *arrays, *tangents)
    weight = drawn.draw(strategies.directions(forward.shape))
    backward = evaluated(vjp(graph), *arrays, weight)
    right = sum(np.vdot(b, d) for b, d in zip(backward, tangents, strict=True))
    scale = 1 + sum(np.abs(b).sum() for b in backward)
    assert abs(np.vdot(weight, forward) - right) <= 1e-13 * scale


@every_structural
@given(drawn=st.data())
def test_structural_taylor_is_nested_jvp(name, drawn):
    graph, arrays = drawn.draw(structural(name))
    flat = np.concatenate([a.ravel() for a in arrays])
    x = input_node("x", flat.shape, "float64")
    at, parts = 0, []
    for a in arrays:
        piece = OPS["slice"](x, starts=(at,), steps=(1,), shape=(a.size,))
        parts.append(OPS["reshape"](piece, shape=a.shape))
        at += a.size
    joined = Function(name, {"x": x}, graph(*parts))
    changes = [drawn.draw(strategies.directions(flat.shape)) for _ in range(ORDER)]
    check_taylor(curve_of(joined, ORDER), derivatives_along(joined, ORDER), flat, changes, tolerance=1e-9)


# ---- the record ---------------------------------------------------------------------------------------------


def test_a_record_with_a_blank_is_refused():
    with pytest.raises(TypeError, match=r"op 'half' leaves .*jvp.* blank"):
        Op("half", "elementwise", "x / 2", shape=lambda s: s)
    assert "half" not in OPS


def test_a_second_record_of_a_name_is_refused():
    record = {f: getattr(OPS["sin"], f) for f in OPS["sin"].__dataclass_fields__}
    with pytest.raises(TypeError, match="'sin' is defined twice"):
        Op(**record)


@pytest.mark.parametrize("op", list(OPS.values()), ids=lambda op: op.name)
def test_record_says_what_it_is(op):
    assert op.doc and op.family in ("leaf", "elementwise", "linear", "bilinear", "nonlinear", "call")
    assert callable(op.sympy) or op.sympy
    if op.family == "elementwise":
        assert op.python and callable(op.llvm) and op.domain
        assert all(low < high for low, high in op.domain)
    elif op.family != "leaf":
        assert op.lower is not None


def test_truth_becomes_a_number_of_the_model_s_precision():
    x = input_node("x", (), "float32")
    assert as_float(OPS["and"](1.0, as_bool(x))).dtype == "float32"


def test_jvp_of_jvp_keeps_its_inputs_apart():
    x = input_node("x", (), "float64")
    twice = jvp(jvp(Function("cube", {"x": x}, {"v": x * x * x})))
    assert len(twice.inputs) == 4
    (found,) = evaluated(twice, 2.0, 1.0, 1.0, 0.0)  # x, its tangent, then the tangents of both
    assert found == 6 * 2.0
