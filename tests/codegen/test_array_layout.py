"""The array layout: its Python text, its machine code, NumPy and the scalar layout give the same numbers."""

import functools
import re
from types import SimpleNamespace

import numpy as np
import pytest
from array_functions import FUNCTIONS, composed, traced
from hypothesis import given, settings
from hypothesis import strategies as st
from tracing import functions_of, loaded, machine_code

from odec.codegen import blas
from odec.codegen.compile import optimised
from odec.codegen.lower_array import lower_array
from odec.codegen.lower_scalar import lower_scalar
from odec.codegen.print_llvm import print_llvm
from odec.codegen.print_python import print_python, python_function
from odec.codegen.targets import cpu_target
from odec.codegen.workspace import ALIGNMENT
from odec.graph.function import Function
from odec.graph.node import input_node
from odec.ops.call import call
from odec.transforms.jvp import jvp
from odec.transforms.scalar import operation_count
from odec.transforms.taylor import taylor
from odec.transforms.vjp import vjp

# Results are sums of at most some thousand terms, in another order than NumPy's, and library functions
# differ by up to 4 ulp: a relative 1e-12 of the largest element holds in float64, 1e-4 in float32.
TOLERANCE = {"float64": 1e-12, "float32": 1e-4}


def drawn(graph, seed):
    random = np.random.default_rng(seed)
    return [random.normal(size=n.shape).astype(n.dtype) for n in graph.inputs.values()]


def outputs_of(run, graph, arrays):
    outputs = [np.full(n.shape, np.nan, n.dtype) for n in graph.outputs.values()]
    run(*arrays, *outputs)
    return outputs


def check_agreement(run, graph, arrays):
    """The outputs of a kernel are those that NumPy gives."""
    found, expected = outputs_of(run, graph, arrays), graph.evaluate(*arrays)
    for result, (name, value) in zip(found, expected.items(), strict=True):
        error = np.max(np.abs(result - value), initial=0.0)
        assert error <= TOLERANCE[result.dtype.name] * (1 + np.max(np.abs(value), initial=0.0)), (name, error)


@functools.cache
def compiled(name):
    """A function and its derivatives in the array layout: its case, that of its vjp and that of its jvp."""
    function, shapes, dtype = FUNCTIONS[name]
    graph = traced(function, shapes, dtype)
    graphs = {name: graph, f"{name}_vjp": vjp(graph), f"{name}_jvp": jvp(graph)}
    kernels = [lower_array(g, key) for key, g in graphs.items()]
    code, routines = machine_code(kernels)
    run = functions_of(kernels, code, routines)
    return [
        SimpleNamespace(graph=g, kernel=kernel, run=run[kernel.name], object_code=code)
        for g, kernel in zip(graphs.values(), kernels, strict=True)
    ]


@pytest.mark.parametrize("name", FUNCTIONS)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=5)
def test_machine_code_gives_what_numpy_gives(name, seed):
    for case in compiled(name):
        check_agreement(case.run, case.graph, drawn(case.graph, seed))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_python_text_gives_what_numpy_gives(name):
    for case in compiled(name)[:2]:
        check_agreement(python_function(case.kernel), case.graph, drawn(case.graph, 1))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_layouts_agree(name):
    graph = compiled(name)[0].graph
    if operation_count(graph) <= 5_000:
        check_agreement(python_function(lower_scalar(graph, name)), graph, drawn(graph, 2))


@given(
    seed=st.integers(0, 2**32 - 1),
    shapes=st.sampled_from([((3, 4), (4, 3)), ((6,), (6,)), ((2, 3, 2), (2,)), ((5, 5), ())]),
)
def test_compositions_give_what_numpy_gives(seed, shapes):
    graph = traced(composed(seed), dict(zip("yx", shapes, strict=True)))
    for g in (graph, vjp(graph)):
        check_agreement(python_function(lower_array(g, "composed")), g, drawn(g, seed))


def test_inputs_are_left_alone():
    case = compiled("systems")[0]
    arrays = drawn(case.graph, 3)
    before = [a.copy() for a in arrays]
    outputs_of(case.run, case.graph, arrays)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


def test_infinities_and_nan_go_the_way_numpy_sends_them():
    case = compiled("sums")[0]
    y = np.ones((3, 40))
    y[0, 3], y[1, 5], y[2, 7] = np.inf, np.nan, -np.inf
    for result, value in zip(outputs_of(case.run, case.graph, [y]), case.graph.evaluate(y).values(), strict=True):
        assert np.allclose(result, value, equal_nan=True)


@pytest.mark.parametrize("n", [3, 8])
def test_singular_system_gives_nan(n):
    def solved(a, b):
        return np.linalg.solve(a, b)

    graph = traced(solved, {"a": (n, n), "b": (n, 2)})
    (kernel,) = [lower_array(graph)]
    for run in (loaded([kernel])["solved"], python_function(kernel)):
        (x,) = outputs_of(run, graph, [np.zeros((n, n)), np.ones((n, 2))])
        assert not np.isfinite(x).any()


def test_an_element_does_not_depend_on_where_it_stands():
    def curve(y):
        return np.tanh(y) * np.exp(y)

    graphs = [traced(curve, {"y": (n,)}) for n in range(1, 10)]
    kernels = [lower_array(g, f"curve{k}") for k, g in enumerate(graphs)]
    code = loaded(kernels)
    values = {
        value for k, g in enumerate(graphs[1:], 1)
        for value in outputs_of(code[f"curve{k}"], g, [np.full(g.inputs["y"].shape, 0.7)])[0]
    }  # fmt: skip
    assert len(values) == 1


# ---- what the code looks like ------------------------------------------------------------------------------


def text_of(function, **shapes):
    return print_python(lower_array(traced(function, shapes)))


def test_stencil_is_one_loop_without_copies():
    def heat(y):
        d = np.zeros_like(y)
        d[1:-1] = y[2:] - 2 * y[1:-1] + y[:-2]
        return d

    text = text_of(heat, y=(100,))
    assert text.count("for ") == 1 and "work" not in text
    assert "out[i + 1] = " in text


def test_periodic_stencil_needs_no_copies():
    def ring(y):
        return np.roll(y, 1) - 2 * y + np.roll(y, -1)

    text = text_of(ring, y=(100,))
    assert text.count("for ") == 1 and "work" not in text


def test_neighbouring_loops_are_joined():
    def product(y, x):
        return y * x + 1.0

    assert text_of(product, y=(7, 8, 9), x=(7, 8, 9)).count("for ") == 1


def test_rows_are_gathered_with_one_index_each():
    pairs = np.triu_indices(40, 1)
    text = print_python(lower_array(traced(lambda y: y[pairs[1]] - y[pairs[0]], {"y": (40, 3)})))
    assert "for i in range(780):" in text and "for j in range(3):" in text
    assert re.search(r"y\[\w+\[i\] \+ j\] - y\[\w+\[i\] \+ j\]", text)


def test_rows_that_are_added_to_one_sum_take_turns():
    targets = np.repeat([0, 1], 400)

    def pulls(x):
        sums = np.zeros_like(x[:2])
        np.add.at(sums, targets, x)
        return sums

    text = print_python(lower_array(traced(pulls, {"x": (800, 3)})))
    assert "work[0:24]" in text and "for i in range(24):" in text  # four sums of 2 rows of 3


def test_functions_are_computed_once():
    text = re.sub("#.*", "", print_python(compiled("shared_values")[0].kernel))
    assert text.count("np.tanh") == 1


def test_products_read_views_in_place():
    def network(z, w1, b1, w2):
        return np.tanh(z[:, 2:] @ w1 + b1) @ w2.T

    text = text_of(network, z=(40, 34), w1=(32, 50), b1=(50,), w2=(60, 50))
    calls = re.findall(r"gemm\(.*\)", text)
    assert calls[0].startswith("gemm(False, False, 40, 50, 32, z[2:], 34, w1, 50")
    assert calls[1].startswith("gemm(False, True, 40, 60, 50") and calls[1].endswith("out, 60)")
    assert text.count("for ") == 2  # the layer between the products


def test_cotangents_of_slices_are_written_where_they_belong():
    def layer(y, p):
        return y.reshape(40, 50) @ p[:3000].reshape(50, 60) + p[3000:]

    text = print_python(lower_array(vjp(traced(layer, {"y": (2000,), "p": (3060,)}), ["p"])))
    assert "work" not in text and re.search(r"gemm\(True, False, 50, 60, 40, .*p_bar, 60\)", text)


def test_buffers_are_used_again():
    def chain(y):
        for _ in range(6):
            y = np.tanh(y @ y)
        return y

    kernel = lower_array(traced(chain, {"y": (32, 32)}))
    assert kernel.work_size <= 2 * 32 * 32 + ALIGNMENT


@pytest.mark.parametrize("name", FUNCTIONS)
def test_kernels_allocate_nothing(name):
    """Object code names what it calls."""
    code = compiled(name)[0].object_code
    assert name.encode() in code
    assert not re.findall(rb"\w*(?:alloc|free|_Znw)\w*", code)


def test_loops_over_the_workspace_are_vectorised_without_checks():
    def chain(y):
        a, b = y @ y, y @ y.T
        return (a * a + b) @ y

    text = str(optimised(print_llvm([lower_array(traced(chain, {"y": (32, 32)}))], cpu_target())))
    assert "vector.body" in text and "memcheck" not in text


# ---- matrix routines ---------------------------------------------------------------------------------------


def test_routines_of_scipy_stand_in_for_openblas(monkeypatch):
    monkeypatch.setattr(blas, "_openblas", dict)
    cases = [compiled(n)[0] for n in ("large_products", "stacked_products", "systems", "single_precision")]
    text = print_llvm([c.kernel for c in cases], cpu_target())
    assert {name.split("_")[0] for name in blas.symbols_in(text)} == {"odec32"}
    code = loaded([c.kernel for c in cases])
    for case in cases:
        check_agreement(code[case.kernel.name], case.graph, drawn(case.graph, 4))


def test_only_programs_that_need_routines_look_them_up():
    case = compiled("laplacian")[0]
    assert blas.symbols_in(print_llvm([case.kernel], cpu_target())) == []


# ---- calls of other kernels --------------------------------------------------------------------------------


def rate_and_steps():
    """A right-hand side, and two stages of it by calls and inlined."""
    shapes = {"t": (), "y": (6,), "p": (6,)}

    def rhs(t, y, p):
        return np.sin(t) * y * p + np.tanh(y[::-1])

    f = traced(rhs, shapes)
    t, y, p = f.inputs.values()
    k1 = call(f, t, y, p)
    calls = Function("calls", f.inputs, {"y1": y + call(f, t + 0.1, y + 0.5 * k1, p)})
    inner = f(t, y, p)["out"]
    inlined = Function("inlined", f.inputs, {"y1": y + f(t + 0.1, y + 0.5 * inner, p)["out"]})
    return f, calls, inlined


@pytest.mark.parametrize("transform", [lambda f: f, jvp, vjp, lambda f: vjp(jvp(f), ["y"]), lambda f: jvp(vjp(f))])
def test_transforms_of_a_call_are_those_of_the_callee(transform):
    _, calls, inlined = rate_and_steps()
    left, right = transform(calls), transform(inlined)
    arrays = drawn(left, 5)
    for a, b in zip(left.evaluate(*arrays).values(), right.evaluate(*arrays).values(), strict=True):
        assert np.allclose(a, b, rtol=1e-13, atol=1e-13)


def test_taylor_coefficients_go_through_a_call():
    f, _, _ = rate_and_steps()
    t, y, p = f.inputs.values()
    called = taylor(Function("called", f.inputs, {"dydt": call(f, t, y, p)}), 5)
    arrays = drawn(f, 6)
    (expected,) = taylor(f, 5).evaluate(*arrays).values()
    (found,) = called.evaluate(*arrays).values()
    assert np.allclose(found, expected, rtol=1e-13, atol=1e-13)


def test_calls_share_one_callee_and_run():
    _, calls, _ = rate_and_steps()
    graphs = [calls, vjp(calls), jvp(calls)]
    kernels = [lower_array(g) for g in graphs]
    assert len(kernels[0].callees) == 1
    code = loaded(kernels)
    for graph, kernel in zip(graphs, kernels, strict=True):
        arrays = drawn(graph, 7)
        check_agreement(code[kernel.name], graph, arrays)
        check_agreement(python_function(kernel), graph, arrays)
        check_agreement(python_function(lower_scalar(graph, "scalar")), graph, arrays)


def test_call_of_an_array_kernel_has_its_own_workspace():
    def network(y, w):
        return np.tanh(y @ w) @ w

    f = traced(network, {"y": (40, 30), "w": (30, 30)})
    y, w = f.inputs.values()
    graph = Function("twice", f.inputs, {"out": y + call(f, call(f, y, w) + y, w)})
    kernel = lower_array(graph)
    assert kernel.work_size > kernel.callees[0].work_size > 0
    check_agreement(loaded([kernel])["twice"], graph, drawn(graph, 8))
    check_agreement(python_function(kernel), graph, drawn(graph, 8))


def test_double_precision_time_in_single_precision_code():
    t, y = input_node("t", (), "float64"), input_node("y", (40,), "float32")

    def moved(t, y):
        return np.sin(t) * y + np.arange(40.0)

    from odec.graph.op import OPS
    from odec.graph.trace import call_model, unwrap, wrap

    time = OPS["cast"](t * 2.0, dtype="float32")
    rate = unwrap(call_model(moved, "moved", (wrap(time), wrap(y)), "float32"))
    f = Function("moved", {"t": t, "y": y}, {"out": rate})
    graph = Function("step", f.inputs, {"y1": y + call(f, t + 0.1, y)})
    kernel = lower_array(graph)
    check_agreement(loaded([kernel])["step"], graph, drawn(graph, 9))
    check_agreement(python_function(kernel), graph, drawn(graph, 9))


def test_a_product_with_few_columns_is_computed_where_it_is_read():
    graph = traced(lambda y, w: np.tanh(y @ w), {"y": (40, 3), "w": (3, 20)})
    text = print_python(lower_array(graph))
    assert "gemm" not in text and text.count("for ") == 2


def test_a_state_with_time_beside_it_is_copied_neither_for_a_product_nor_for_its_cotangents():
    def layer(t, z, w):
        return np.concatenate([z, np.full((40, 1), t)], axis=1) @ w

    graph = traced(layer, {"t": (), "z": (40, 50), "w": (51, 60)})
    text = print_python(lower_array(graph))
    assert re.search(r"gemm\(False, False, 40, 60, 50, z, 50, w, 60, ", text) and "z[" not in text
    text = print_python(lower_array(vjp(graph)))
    assert re.search(r"gemm\(False, True, 40, 50, 60, out_bar, 60, w, 60, z_bar, 50\)", text)
    assert re.search(r"gemm\(True, False, 50, 60, 40, z, 50, out_bar, 60, w_bar, 60\)", text) and "z[" not in text
