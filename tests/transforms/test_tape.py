"""Reverse mode of calls: one call backward for each forward, which computes nothing costly again."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import odec
from odec.codegen.lower_array import lower_array
from odec.codegen.lower_scalar import lower_scalar
from odec.codegen.print_python import print_python, python_function
from odec.graph.function import Function
from odec.graph.node import input_node
from odec.ops.call import call
from odec.ops.structure import slice_
from odec.steppers.step import step_function
from odec.testing import models
from odec.transforms.jvp import jvp
from odec.transforms.tape import taped
from odec.transforms.vjp import vjp

SUBSETS = st.sampled_from([("t", "y", "p"), ("y", "p"), ("p",), ("y",), ("t",)])


def network(t, z, p):
    joined = np.concatenate([z, np.full((z.shape[0], 1), t)], 1)
    return np.tanh(joined @ p[0] + p[1]) @ p[2] + p[3]


def network_graph(state=2, hidden=50, batch=20, dtype=np.float64):
    shapes = (state + 1, hidden), (hidden,), (hidden, state), (state,)
    weights = tuple(np.zeros(s) for s in shapes)
    return odec.dynamics(network).bind(np.zeros((batch, state)), (weights,), dtype=dtype).graph


def two_stages(f, evaluate):
    """y + f(t + 0.1, y + 0.5 f(t, y, p), p) by calls or inlined."""
    t, y, p = f.inputs.values()
    k1 = evaluate(t, y, p)
    return Function("two_stages", f.inputs, {"y1": y + evaluate(t + 0.1, y + 0.5 * k1, p)})


def called(f):
    return two_stages(f, lambda *args: call(f, *args))


def inlined(f):
    return two_stages(f, lambda *args: next(iter(f(*args).values())))


def drawn(graph, seed=1, size=0.5):
    random = np.random.default_rng(seed)
    return [(size * random.normal(size=n.shape)).astype(n.dtype) for n in graph.inputs.values()]


def check_equal(graph, other, arrays, rtol=1e-11):
    for found, expected in zip(graph.evaluate(*arrays).values(), other.evaluate(*arrays).values(), strict=True):
        np.testing.assert_allclose(found, expected, rtol, rtol * (1 + np.max(np.abs(expected), initial=0.0)))


def callees(graph):
    return [node.params["function"] for node in graph.nodes if node.op is call]


def ops_of(function):
    return [node.op.name for node in function.nodes]


# ---- laws --------------------------------------------------------------------------------------------------


@given(models(depth=3), SUBSETS, st.integers(0, 1000))
def test_vjp_of_taped_calls_is_the_vjp_of_the_inlined_graph(example, wrt, seed):
    system = example.model.bind(example.y0, example.params)
    f = system.graph
    y, p = system.y_structure.flatten(example.y0, "y0"), system.p_structure.flatten(example.params, "params")
    graph, expected = vjp(taped(called(f), wrt), wrt), vjp(inlined(f), wrt)
    cotangent = np.random.default_rng(seed).normal(size=y.shape)
    check_equal(graph, expected, (np.float64(0.3), y, p, cotangent), 1e-10)


@given(models(depth=3), st.integers(0, 1000))
def test_taping_changes_no_result(example, seed):
    f = example.model.bind(example.y0, example.params).graph
    arrays = drawn(f, seed)
    (found,), (expected,) = (g.evaluate(*arrays).values() for g in (taped(called(f)), called(f)))
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=10)
@given(models(depth=2, smooth=True), SUBSETS)
def test_every_transform_of_a_taped_graph_is_that_of_the_plain_one(example, wrt):
    f = example.model.bind(example.y0, example.params).graph
    for transform in (jvp, lambda g: jvp(vjp(g, wrt)), lambda g: vjp(vjp(g, wrt)), lambda g: vjp(jvp(g, ["y"]), wrt)):
        graph, expected = transform(taped(called(f), wrt)), transform(inlined(f))
        check_equal(graph, expected, drawn(graph, 3, 0.3), 1e-9)


@pytest.mark.parametrize("wrt", [("t", "y", "p"), ("y", "p")])
def test_kernels_of_a_taped_graph_give_what_its_inlined_graph_gives(wrt):
    f = network_graph(2, 3, 2)
    graph, expected = vjp(taped(called(f), wrt), wrt), vjp(inlined(f), wrt)
    arrays = drawn(graph)
    values = list(expected.evaluate(*arrays).values())
    for kernel in (lower_array(graph), lower_scalar(graph)):
        outputs = [np.full(n.shape, np.nan) for n in graph.outputs.values()]
        python_function(kernel)(*arrays, *outputs)
        for found, value in zip(outputs, values, strict=True):
            np.testing.assert_allclose(found, value, 1e-12, 1e-12)


def test_float32_states_with_float64_time():
    f = network_graph(dtype=np.float32)
    graph, expected = vjp(taped(called(f))), vjp(inlined(f))
    assert graph.outputs["t_bar"].dtype == "float64"
    check_equal(graph, expected, drawn(graph), 1e-4)


# ---- what is computed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrt", [("t", "y", "p"), ("y", "p")])
def test_a_call_backward_computes_no_product_or_function_again(wrt):
    f = network_graph()
    taped_callee, backward = dict.fromkeys(callees(vjp(taped(called(f), wrt), wrt)))
    assert [ops_of(taped_callee).count(op) for op in ("matmul", "tanh")] == [2, 1]
    assert [ops_of(backward).count(op) for op in ("matmul", "tanh")] == [4, 0]
    assert taped_callee.outputs["packed"].size == 20 * 2 + 20 * 50


def test_only_products_that_the_wanted_cotangents_need():
    f = network_graph()
    t, y, p = f.inputs.values()
    graph = vjp(taped(Function("once", f.inputs, {"dydt": call(f, t, y, p)}), ["y"]), ["y"])
    assert ops_of(callees(graph)[-1]).count("matmul") == 2


@pytest.mark.parametrize("tape", [lambda g: g, taped])
def test_one_call_backward_for_each_call_forward(tape):
    graph = called(network_graph())
    _, *behind = dict.fromkeys(callees(vjp(tape(graph))))
    assert len(behind) == 1 and callees(vjp(tape(graph))).count(behind[0]) == len(callees(graph)) == 2


@pytest.mark.parametrize("name", ["tsit5", "dopri5"])
def test_a_step_backward_has_its_stages_once_and_no_copies(name):
    f = network_graph(784, 100, 100)
    (method,) = (m for m in odec.methods() if m.name == name)
    step = step_function(f, method)
    y1 = Function("step", step.inputs, {"y1": step.outputs["y1"]})
    kernel = lower_array(vjp(taped(y1, ("y", "p", "f0")), ("y", "p", "f0")))
    text = print_python(kernel)
    products = {c.name: print_python(c).count("gemm(") for c in kernel.callees}
    assert sorted(products.values()) == [2, 4]
    assert {name: len(re.findall(rf"^    {name}\(", text, re.M)) for name in products} == dict.fromkeys(products, 5)
    body = text[text.index("def step_vjp") :]
    assert not re.search(r"^ +\w+\[[^]]*\] = \w+\[[^]]*\]$", body, re.M), "a slice is a view, nothing is copied"
    assert body.count("for i in range(157784)") == 1, "the weights' cotangents are summed in one pass"


def test_gradients_of_weights_are_products_with_a_flag_not_with_a_copy():
    """In both callees backward: the first stage's, and the second's, which has the cotangent of y too."""
    kernel = lower_array(vjp(taped(called(network_graph(784, 100, 100)), ["p"]), ["p"]))
    text = print_python(kernel)
    assert len(re.findall(r"gemm\(True, False, 784, 100, 100, y, 784, \w+, 100, bars", text)) == 2
    assert len(re.findall(r"gemm\(True, False, 100, 784, 100, packed\[78400:\], 100, dydt_bar, 784, bars", text)) == 2


def test_the_residual_that_is_the_result_is_kept_once():
    f = odec.dynamics(lambda t, y, w: np.tanh(w @ y)).bind(np.zeros(3), (np.zeros((3, 3)),)).graph
    (forward, backward) = dict.fromkeys(callees(vjp(taped(called(f)))))
    assert forward.outputs["packed"].size == 3 and "tanh" not in ops_of(backward)


def test_an_autonomous_callee_has_no_cotangent_of_time():
    f = odec.dynamics(lambda t, y, w: np.tanh(w @ y)).bind(np.zeros(3), (np.zeros((3, 3)),)).graph
    *_, backward = callees(vjp(taped(called(f))))
    assert backward.outputs["bars"].size == 3 + 9
    graph = vjp(taped(called(f), ["t"]), ["t"])
    assert callees(graph) == []
    assert graph.evaluate(*drawn(graph))["t_bar"] == 0.0


def test_calls_of_cheap_functions_stay_as_they_are():
    f = odec.dynamics(lambda t, y, p: p * y - y[::-1] * y).bind(np.zeros(4), (np.zeros(4),)).graph
    assert callees(taped(called(f))) == [f, f]


def test_a_result_that_is_read_by_slices_still_reads_residuals():
    f = odec.dynamics(lambda t, y, w: np.tanh(w @ y)[::-1] * y).bind(np.zeros(4), (np.zeros((4, 4)),)).graph
    t, y, p = f.inputs.values()
    halves = [slice_(call(f, t, y, p), starts=(k,), steps=(1,), shape=(2,)) for k in (0, 2)]
    graph = Function("halves", f.inputs, {"out": halves[0] * halves[1]})
    pulled = vjp(taped(graph))
    assert len(callees(pulled)) == 2 and "tanh" not in ops_of(callees(pulled)[-1])
    check_equal(pulled, vjp(graph), drawn(pulled))


def test_a_cotangent_of_the_residuals_themselves_takes_the_plain_rule():
    f = odec.dynamics(lambda t, y, w: np.tanh(w @ y) * y).bind(np.zeros(4), (np.zeros((4, 4)),)).graph
    forward = callees(taped(called(f)))[0]
    inputs = {name: input_node(name, n.shape, n.dtype) for name, n in f.inputs.items()}
    graph = Function("packed", inputs, {"out": call(forward, *inputs.values())})
    check_equal(vjp(graph), vjp(forward), drawn(vjp(graph)))
