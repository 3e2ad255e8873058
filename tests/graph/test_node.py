"""Nodes: one object for one expression, exact folding and identities, lines and names."""

import gc
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import odec
from odec.graph.function import Function
from odec.graph.node import (
    CONSTANT,
    Data,
    coerce,
    constant,
    input_node,
    is_structural_zero,
    line_is,
    make,
    scalar_value,
    structural_zero,
    topological,
    value_of,
)
from odec.graph.op import OPS, Op
from odec.ops.structure import reshape, slice_
from odec.testing import models

SPECIAL = st.floats(width=64) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 0.5, np.inf, -np.inf, np.nan])


@pytest.fixture
def x():
    return input_node("x", (3,), "float64")


# ---- interning ------------------------------------------------------------------------------------------


@given(models(depth=2))
def test_tracing_twice_the_same_inputs_gives_the_same_nodes(example):
    graph = example.model.bind(example.y0, example.params).graph
    again = graph(*graph.inputs.values())["dydt"]
    assert again is graph.outputs["dydt"]


@given(models(depth=2))
def test_equal_models_have_equal_digests(example):
    first = example.model.bind(example.y0, example.params).graph
    second = odec.dynamics(example.model.function).bind(example.y0, example.params).graph
    assert first is not second and first.digest == second.digest


def test_expressions_are_one_object(x):
    assert OPS["sin"](x) is OPS["sin"](x)
    assert x * 2.0 is x * 2.0
    assert x * 2.0 is not x * 3.0
    assert input_node("x", (3,), "float64") is not x


def test_constants_are_one_object_by_value_sign_and_dtype():
    assert constant(1.5, "float64") is constant(1.5, "float64")
    assert constant(0.0, "float64") is not constant(-0.0, "float64")
    assert constant(np.nan, "float64") is constant(-np.nan, "float64")
    assert constant(1.5, "float64") is not constant(1.5, "float32")
    assert constant([1.0, 2.0], "float64") is constant(np.array([1, 2]), "float64")
    assert constant(1.0, "float64") is not constant(True, "bool")


def test_nodes_are_freed_with_their_last_user():
    x = input_node("x", (), "float64")
    before = id(OPS["sin"](OPS["cos"](x)))
    gc.collect()
    keep = [OPS["exp"](x * k) for k in range(50)]
    assert OPS["sin"](OPS["cos"](x)).op.name == "sin" and before and keep


def test_threads_intern_the_same_nodes(x):
    found = []
    work = lambda: found.append([OPS["sin"](x * float(k)) for k in range(200)])
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(a is b for row in found[1:] for a, b in zip(found[0], row, strict=True))


# ---- folding and identities -----------------------------------------------------------------------------


@given(st.sampled_from(["add", "sub", "mul", "div", "maximum", "pow"]), SPECIAL, SPECIAL)
def test_constants_fold_to_numpys_number(name, a, b):
    op = OPS[name]
    node = make(op, [constant(a, "float64"), constant(b, "float64")])
    with np.errstate(all="ignore"):
        expected = op.evaluate(np.float64(a), np.float64(b))
    assert node.op is CONSTANT
    np.testing.assert_array_equal(value_of(node), expected)


@given(st.sampled_from(["add", "sub", "mul", "div"]), SPECIAL, SPECIAL, st.booleans())
def test_identities_are_exact_in_floating_point(name, a, value, swapped):
    """op(x, c) with a constant is what NumPy computes, to the sign of zero, whatever it became."""
    x = input_node("x", (), "float64")
    c = constant(a, "float64")
    node = OPS[name](c, x) if swapped else OPS[name](x, c)
    with np.errstate(all="ignore"):
        pair = (np.float64(a), np.float64(value)) if swapped else (np.float64(value), np.float64(a))
        expected = OPS[name].evaluate(*pair)
        found = Function("f", {"x": x}, {"out": node}).evaluate(value)["out"]
    np.testing.assert_array_equal(found, expected)
    assert np.isnan(expected) or np.signbit(found) == np.signbit(expected)


def test_identities_leave_the_operand(x):
    assert x * 1.0 is x and x / 1.0 is x and x - 0.0 is x and OPS["neg"](-x) is x
    assert x + (-0.0) is x
    assert x + 0.0 is not x, "-0.0 + 0.0 is 0.0"
    assert (x * 0.0).op is OPS["mul"], "0 * inf is nan"


def test_structural_zero_vanishes(x):
    zero = structural_zero("float64", (3,))
    assert x + zero is x and is_structural_zero(x * zero) and is_structural_zero(-zero)
    assert not is_structural_zero(constant(0.0, "float64", (3,)))


def test_views_of_views_are_one_view(x):
    assert reshape(reshape(x, shape=(3, 1)), shape=(3,)) is x
    flipped = slice_(x, starts=(2,), steps=(-1,), shape=(3,))
    assert slice_(flipped, starts=(2,), steps=(-1,), shape=(3,)) is x


def test_one_number_stays_one_number_in_any_shape():
    big = make(OPS["add"], [constant(1.0, "float64", (1000, 1000)), constant(2.0, "float64", (1000, 1000))])
    assert scalar_value(big) == 3.0 and big.shape == (1000, 1000)


def test_dead_code_is_not_in_a_function(x):
    dead = OPS["sin"](x)
    function = Function("f", {"x": x}, {"out": OPS["cos"](x)})
    assert dead not in function.nodes


# ---- functions --------------------------------------------------------------------------------------------


@given(models(depth=3))
def test_nodes_follow_what_they_need(example):
    graph = example.model.bind(example.y0, example.params).graph
    seen = set()
    for node in graph.nodes:
        assert all(id(i) in seen for i in node.inputs)
        seen.add(id(node))


def test_deep_graphs_need_no_recursion():
    x = input_node("x", (), "float64")
    node = x
    for _ in range(20_000):
        node = OPS["sin"](node)
    assert len(topological([node])) == 20_001
    assert Function("deep", {"x": x}, {"out": node}).digest


def test_foreign_inputs_are_refused(x):
    with pytest.raises(ValueError, match="foreign input 'x'"):
        Function("f", {}, {"out": x}).nodes  # noqa: B018


def test_evaluate_refuses_another_shape(x):
    with pytest.raises(ValueError, match=r"input x has shape \(2,\), needs \(3,\)"):
        Function("f", {"x": x}, {"out": x}).evaluate(np.zeros(2))


def test_digest_depends_on_every_part(x):
    digests = {
        Function("f", {"x": x}, outputs).digest
        for outputs in ({"a": x}, {"b": x}, {"a": x + 1.0}, {"a": x + 2.0}, {"a": x * 2.0}, {"a": x, "b": x})
    }
    assert len(digests) == 6


# ---- lines, names, data -----------------------------------------------------------------------------------


def test_nodes_remember_the_line_they_were_made_at(x):
    with line_is(("model.py", 7)):
        node = OPS["arctan"](x)
    with line_is(("other.py", 9)):
        assert OPS["arctan"](x) is node
    assert node.line == ("model.py", 7)


def test_traced_values_carry_the_users_names():
    def model(t, y):
        speed = np.sqrt(y * y + 1.0)
        return -speed

    graph = odec.dynamics(model).bind(np.ones(2)).graph
    assert any(node.name == "speed" and node.op.name == "sqrt" for node in graph.nodes)


def test_data_compares_by_content_and_is_read_only():
    a, b = Data(np.arange(3)), Data(np.arange(3))
    assert a == b and hash(a) == hash(b) and a != Data(np.arange(3.0)) and a != Data(np.arange(4))
    with pytest.raises(ValueError, match="read-only"):
        a.array[0] = 1


def test_a_node_has_no_truth_value(x):
    with pytest.raises(TypeError, match=r"np\.where"):
        bool(x)


def test_complex_constants_are_refused():
    with pytest.raises(TypeError, match="complex"):
        coerce([1j])


def test_an_incomplete_op_record_is_refused():
    with pytest.raises(TypeError, match=r"leaves shape, dtype, .* blank"):
        Op("blank", "elementwise", "nothing said")
    assert "blank" not in OPS
