"""Listing, drawing, and saving a graph; hostile documents end in a LoadError."""

import copy
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from structured_values import Arm, Body

import odec
from odec.errors import ArgumentError, LoadError
from odec.graph import draw as drawing
from odec.graph import saved
from odec.graph.draw import draw
from odec.graph.function import Function
from odec.graph.node import Data, constant, input_node, structural_zero
from odec.graph.op import CHECKS, OPS
from odec.graph.saved import (
    from_json,
    parse,
    structure_from_json,
    structure_to_json,
    system_from_json,
    system_to_json,
    to_json,
)
from odec.graph.show import listing
from odec.graph.structure import structure_of
from odec.ops.structure import reshape, slice_, take
from odec.testing import models
from odec.transforms.jacobian import jacobian_values
from odec.transforms.jvp import jvp
from odec.transforms.taylor import taylor
from odec.transforms.vjp import vjp


@odec.dynamics(state=("x", "v", "z"))
def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
    x, v, z = y
    return [sigma * (v - x), x * (rho - z) - v, x * v - beta * z]


LORENZ = lorenz.bind(np.ones(3))


def there_and_back(function):
    return from_json(parse(json.dumps(to_json(function))))


# ---- laws of the round trip -----------------------------------------------------------------------------


@given(models(depth=3))
def test_round_trip_keeps_the_digest_of_any_model(example):
    graph = example.model.bind(example.y0, example.params).graph
    assert there_and_back(graph).digest == graph.digest


@given(models(depth=2))
def test_round_trip_keeps_the_digest_of_derivatives(example):
    graph = example.model.bind(example.y0, example.params).graph
    for f in (jvp(graph), vjp(graph), taylor(graph, 2), jacobian_values(graph, "y"), jvp(vjp(graph, ["y"]), ["y"])):
        back = there_and_back(f)
        assert back.digest == f.digest
        assert [n.name for n in back.nodes] == [n.name for n in f.nodes]


@given(st.floats(width=64) | st.sampled_from([0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324]))
def test_floats_survive_bit_for_bit(value):
    x = input_node("x", (2,), "float64")
    f = Function("f", {"x": x}, {"number": constant(value, "float64"), "array": constant([value, 1.0], "float64")})
    back = there_and_back(f).evaluate(np.zeros(2))
    for name, expected in f.evaluate(np.zeros(2)).items():
        assert back[name].tobytes() == expected.tobytes()


def test_weights_and_tables_of_any_length_come_back():
    weights = np.random.default_rng(3).normal(size=(60, 50))
    f = odec.dynamics(lambda t, y: weights @ y[np.arange(200) % 50 - 1][:50] - y.sum()).bind(np.ones(60)).graph
    assert there_and_back(f).digest == f.digest


def test_structural_zeros_stay_structural():
    f = Function("f", {"x": input_node("x", (), "float64")}, {"z": structural_zero("float32", (3,))})
    assert there_and_back(f).outputs["z"] is f.outputs["z"]


def test_every_op_with_parameters_has_a_check():
    for name, op in OPS.items():
        plain = op.family == "leaf" or (op.family == "elementwise" and _has_no_parameters(op))
        assert plain or name in CHECKS, f"{name} needs a check in odec/ops/checks.py"


def _has_no_parameters(op):
    try:
        op.dtype(*["float64"] * len(op.domain))
        op.shape(*[()] * len(op.domain))
    except TypeError:
        return False
    return True


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_calls_of_functions_keep_their_digest(dtype):
    f = lorenz.bind(np.ones(3), dtype=dtype).graph
    inputs = {name: input_node(name, n.shape, n.dtype) for name, n in f.inputs.items()}
    t, y, p = inputs.values()
    twice = Function("twice", inputs, {"out": OPS["call"](f, t, OPS["call"](f, t, y, p), p)})
    back = there_and_back(twice)
    assert back.digest == twice.digest
    point = 0.0, np.arange(3.0), np.ones(3)
    np.testing.assert_array_equal(back.evaluate(*point)["out"], twice.evaluate(*point)["out"])


def test_lines_keep_file_name_and_number_only():
    node = next(n for n in LORENZ.graph.nodes if n.op.name == "mul")
    assert node.line[0].endswith("test_show.py")
    back = next(n for n in to_json(LORENZ.graph)["nodes"] if n["op"] == "mul")
    assert back["line"] == ["test_show.py", node.line[1]]


# ---- structures -----------------------------------------------------------------------------------------


STRUCTURES = [
    1.0, np.zeros((2, 3)), [np.zeros(2), 1.0], (1.0, np.zeros(3)), {"a": 1.0, "b": {"c": np.zeros(2)}},
    Body(np.zeros(2), 1.0), Arm(1.0, Body(np.zeros(3), 2.0)), {1: 0.0, ("x", 2): 1.0}, {},
]  # fmt: skip


@pytest.mark.parametrize("value", STRUCTURES, ids=lambda v: type(v).__name__)
def test_structures_come_back_and_take_the_same_values(value):
    structure = structure_of(value, "value")
    back = structure_from_json(parse(json.dumps(structure_to_json(structure))))
    assert back.leaves == structure.leaves and back.size == structure.size
    np.testing.assert_array_equal(back.flatten(value, "value"), structure.flatten(value, "value"))
    again = back.unflatten(np.arange(float(back.size)))
    np.testing.assert_array_equal(back.flatten(again, "again"), np.arange(float(back.size)))


def test_a_key_that_has_no_form_in_a_file_is_named():
    with pytest.raises(ArgumentError, match="frozenset has no form"):
        structure_to_json(structure_of({frozenset({1}): 1.0}, "value"))


def test_systems_come_back():
    saved = system_from_json(parse(json.dumps(system_to_json(LORENZ))))
    assert saved.name == "lorenz" and saved.state == ("x", "v", "z") and saved.dtype == "float64"
    assert saved.graph.digest == LORENZ.graph.digest
    assert saved.y_structure == LORENZ.y_structure and saved.p_structure == LORENZ.p_structure


# ---- hostile documents -----------------------------------------------------------------------------------


def _rich_document():
    """A document in which every kind of field occurs."""

    @odec.dynamics
    def rich(t, y, c):
        w = np.where(y["a"] > 0.5, np.sin(y["a"]) ** 3, np.array([1.0, np.inf, -0.0]) * y["a"])
        m = np.linalg.solve(np.outer(w, w) + np.eye(3), c[[2, 0, 1]])
        return {"a": np.cumsum(m)[::-1], "b": np.sum(w) + np.interp(t, [0.0, 1.0, 3.0], [1.0, 4.0, 2.0])}

    return system_to_json(rich.bind({"a": np.ones(3), "b": 1.0}, (np.arange(3.0),)))


RICH = _rich_document()


def _places(item, path=()):
    """The path of every part of a document."""
    yield path
    parts = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    for key, part in parts:
        yield from _places(part, (*path, key))


PLACES = [p for p in _places(RICH) if p]
TEXTS = ["float64", "float32", "bool", "take", "input", "constant", "nan", "0x1p+0", "a\nb", "structural zero"]
ODD = [
    {"float": "zzz"}, {"tuple": [-1]}, {"tuple": [{"float": "nan"}]}, {"data": "AAAA", "dtype": "int64", "shape": [1]},
    {"float": None}, {"op": None}, {"data": None},
]  # fmt: skip
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 40), st.just(2**63), st.just(10**30), st.floats(), st.text(max_size=5),
    st.sampled_from(TEXTS), st.lists(st.integers(-2, 5), max_size=3), st.sampled_from(ODD),
)  # fmt: skip


def _put(document, path, value):
    *lead, last = path
    for key in lead:
        document = document[key]
    document[last] = value


def _drop(document, path):
    *lead, last = path
    for key in lead:
        document = document[key]
    del document[last]


def loads_or_refuses(document):
    """Whatever is loaded evaluates within its arrays; all else is refused in one sentence."""
    try:
        saved = system_from_json(document)
    except LoadError as error:
        assert ("\n" not in str(error) and ";" in str(error)) or "." in str(error)
        return
    n, m = saved.y_structure.size, saved.p_structure.size
    if n + m < 100 and all(node.size < 1000 for node in saved.graph.nodes):
        (rate,) = saved.graph.evaluate(0.5, np.ones(n), np.ones(m)).values()
        assert rate.shape == (n,)


@given(st.sampled_from(PLACES), JUNK)
@example(("graph", "nodes", 0, "op"), "constant")
def test_a_document_with_a_part_replaced(path, value):
    document = copy.deepcopy(RICH)
    _put(document, path, value)
    loads_or_refuses(document)


@given(st.sampled_from(PLACES))
def test_a_document_with_a_part_missing(path):
    document = copy.deepcopy(RICH)
    _drop(document, path)
    loads_or_refuses(document)


@given(st.sampled_from(PLACES), st.sampled_from(PLACES))
def test_a_document_with_two_parts_exchanged(a, b):
    document = copy.deepcopy(RICH)
    value = RICH
    for key in b:
        value = value[key]
    _put(document, a, copy.deepcopy(value))
    loads_or_refuses(document)


@given(st.integers(0, len(json.dumps(RICH)) - 1))
def test_a_truncated_text_is_refused(end):
    with pytest.raises(LoadError):
        system_from_json(parse(json.dumps(RICH)[:end]))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_any_other_document_is_refused(document):
    for reader in (from_json, system_from_json):
        with pytest.raises(LoadError):
            reader(document)


def test_nesting_that_exhausts_the_stack_is_refused():
    with pytest.raises(LoadError):
        parse("[" * 1_000_000)
    item = {"leaf": []}
    for _ in range(100):
        item = {"kind": "list", "keys": [0], "children": [item]}
    with pytest.raises(LoadError, match="nested deeper"):
        structure_from_json(item)
    value = 1
    for _ in range(100):
        value = {"tuple": [value]}
    with pytest.raises(LoadError, match="nested deeper"):
        from_json(
            _document({"op": "reshape", "inputs": [0], "shape": [2], "dtype": "float64", "params": {"shape": value}})
        )


def _document(*nodes, shape=(2,)):
    """A function of x of a shape, whose last node is the output."""
    ports = [{"name": "x", "shape": list(shape), "dtype": "float64"}]
    head = {"format": "odec function", "version": 1, "name": "f", "inputs": ports}
    return {**head, "nodes": list(nodes), "outputs": [["out", len(nodes)]]}


def _ints(*values):
    return {"tuple": list(values)}


def _table(*values):
    array = Data(np.array(values, np.int64))
    return saved._value_out(array)


def _node(op, shape, dtype="float64", inputs=(0,), **rest):
    return {"op": op, "inputs": list(inputs), "shape": list(shape), "dtype": dtype, **rest}


def _slice(start, step, length):
    return _node("slice", [length], params={"starts": _ints(start), "steps": _ints(step), "shape": _ints(length)})


def _array(data, dtype, *shape):
    return _node("constant", shape, value={"data": data, "dtype": dtype, "shape": list(shape)})


SCALAR_FUNCTION = {
    "name": "g",
    "inputs": [{"name": "x", "shape": [], "dtype": "float64"}],
    "nodes": [],
    "outputs": [["x", 0]],
}
HOSTILE = {
    "refers to itself": _node("sin", [2], inputs=[1]),
    "refers to what follows": _node("sin", [2], inputs=[7]),
    "negative reference": _node("sin", [2], inputs=[-1]),
    "truth as a reference": _node("sin", [2], inputs=[False]),
    "unknown op": _node("sine", [2]),
    "another input": _node("input", [2], inputs=[]),
    "too many inputs": _node("sin", [2], inputs=[0, 0, 0]),
    "no inputs": _node("sin", [2], inputs=[]),
    "no inputs to join": _node("concatenate", [2], inputs=[], params={"axis": 0}),
    "wrong shape": _node("sin", [3]),
    "wrong dtype": _node("sin", [2], "bool"),
    "unknown parameter": _node("sin", [2], params={"a": 1}),
    "missing parameter": _node("ipow", [2]),
    "code as an exponent": _node("ipow", [2], params={"exponent": "__import__('os')"}),
    "code as a dtype": _node("cast", [2], params={"dtype": "float64(0) or f"}),
    "code in a line": _node("sin", [2], line=["a.py\nimport os", 1]),
    "code in a name": _node("sin", [2], name="x\nimport os"),
    "a huge exponent": _node("ipow", [2], params={"exponent": 10**9}),
    "a slice past the end": _slice(1, 1, 2),
    "a slice before the start": _slice(-2, 1, 1),
    "a far slice of one": _slice(100, -200, 1),
    "a slice that stands still": _slice(0, 0, 2),
    "an index past the end": _node("take", [1], params={"index": _table(2)}),
    "a negative index": _node("take", [1], params={"index": _table(-1)}),
    "a scatter past the end": _node("put_add", [2], params={"index": _table(0, 2), "shape": _ints(2)}),
    "a reshape of another size": _node("reshape", [4], params={"shape": _ints(4)}),
    "axes twice": _node("sum", [], params={"axes": _ints(0, 0)}),
    "an array of 10^12": _node("constant", [10**6, 10**6], value={"float": "0x1p+0"}),
    "bytes that do not fit": _array("AAAA", "float64", 2),
    "no base64": _array("?", "float64", 2),
    "an array of objects": _array("AAAAAAAAAAA=", "object", 1),
    "a call of other shapes": _node("call", [], params={"function": {"function": SCALAR_FUNCTION}}),
    "a call of a number": _node("call", [2], params={"function": 1}),
    "a number for a truth": _node("constant", [], "bool", value={"float": "0x1p+0"}),
}


@pytest.mark.parametrize("node", HOSTILE.values(), ids=HOSTILE)
def test_hostile_nodes_are_refused(node):
    with pytest.raises(LoadError) as caught:
        from_json(_document(node))
    assert "\n" not in str(caught.value)


def test_too_many_nodes_are_refused(monkeypatch):
    monkeypatch.setattr(saved, "MOST_NODES", 3)
    node = {"op": "sin", "inputs": [0], "shape": [2], "dtype": "float64"}
    assert from_json(_document(*[node] * 3)).outputs
    with pytest.raises(LoadError, match="4 nodes; at most 3"):
        from_json(_document(*[node] * 4))


@pytest.mark.parametrize("change", [{"version": 2}, {"version": True}, {"format": "odec system"}, {"format": None}])
def test_other_formats_and_versions_are_refused(change):
    with pytest.raises(LoadError, match=r"System\.save|save it again"):
        from_json({**to_json(LORENZ.graph), **change})


def test_ports_of_a_system_must_be_those_of_a_right_hand_side():
    document = system_to_json(LORENZ)
    document["y"] = {"leaf": [4]}
    with pytest.raises(LoadError, match="right-hand side"):
        system_from_json(document)


# ---- listing and drawing ----------------------------------------------------------------------------------


def test_listing_of_lorenz():
    text = str(LORENZ.graph)
    assert text == listing(LORENZ.graph)
    first, *rows, last = text.splitlines()
    assert first == "rhs(t: f64, y: f64[3], p: f64[3]) -> dydt: f64[3]"
    assert last == "  return dydt = %23"
    assert len(rows) == 24
    line = lorenz.function.__code__.co_firstlineno + 3
    assert any(row.startswith("  %6: f64 = sub(%3, %5)") and row.endswith(f"# test_show.py:{line}") for row in rows)


def test_listing_shows_numbers_in_place_and_arrays_short():
    x = input_node("x", (6,), "float32")
    f = Function("f", {"x": x}, {"out": OPS["add"](OPS["mul"](2.5, x), np.arange(6.0))})
    rows = [row.split("#")[0].rstrip() for row in str(f).splitlines()]
    assert rows == [
        "f(x: f32[6]) -> out: f32[6]",
        "  %0: f32[6] = mul(2.5, x)",
        "  %1: f32[6] = [0, 1, 2, 3, ...]",
        "  %2: f32[6] = add(%0, %1)",
        "  return out = %2",
    ]


@pytest.fixture(params=["graphviz when present", "own layout"])
def layout(request, monkeypatch):
    if request.param == "own layout":
        monkeypatch.setattr(drawing, "_by_graphviz", lambda *_: None)


def _texts(svg):
    root = ET.fromstring(svg)
    return ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]


def test_drawing_shows_ops_names_and_shapes(layout):
    svg = LORENZ.graph.draw()
    texts = _texts(svg)
    assert svg._repr_svg_() == svg and svg.startswith("<svg")
    for word in ("dydt", "sub", "x: f64", "sigma: f64", "f64[3]", "concatenate"):
        assert word in texts, word


def test_drawing_escapes_what_users_name(layout):
    x = input_node("x", (), "float64")
    node = OPS["sin"](x)
    node.name = '<script>&"'
    svg = Function("<f> & co", {"x": x}, {"out": node}).draw()
    assert "<script" not in svg
    assert '<script>&": f64' in _texts(svg) and "<f> & co" in _texts(svg)


def test_drawing_without_graphviz(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "concatenate" in _texts(LORENZ.graph.draw())


def test_drawing_an_output_that_is_an_input_or_a_number(layout):
    x = input_node("x", (4,), "float64")
    f = Function("f", {"x": x}, {"same": x, "number": constant(1.5, "float64"), "row": reshape(x, shape=(2, 2))})
    assert "number = 1.5" in _texts(f.draw())


def test_large_graphs_are_not_drawn(monkeypatch):
    monkeypatch.setattr(drawing, "MOST_DRAWN", 5)
    with pytest.raises(ArgumentError, match="at most 5 are drawn"):
        draw(LORENZ.graph)


def test_a_negative_step_is_saved_and_read():
    x = input_node("x", (3,), "float64")
    parts = {"back": slice_(x, starts=(2,), steps=(-1,), shape=(3,)), "some": take(x, index=np.array([[0, 2], [1, 1]]))}
    back = there_and_back(Function("f", {"x": x}, parts)).evaluate(np.arange(3.0))
    assert back["back"].tolist() == [2.0, 1.0, 0.0] and back["some"].tolist() == [[0.0, 2.0], [1.0, 1.0]]
