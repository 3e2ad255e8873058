"""Functions and bound models as JSON, out and in.

Reading runs no code and trusts nothing: every node is made anew, so what a file says of shapes and types
is checked by the ops themselves.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
from typing import Any, NamedTuple

import numpy as np

from odec.errors import ArgumentError, LoadError, OdecError, nearest
from odec.graph.function import Function
from odec.graph.node import CONSTANT, INPUT, Data, Node, constant, input_node, intern, line_is, structural_zero
from odec.graph.op import CHECKS, OPS
from odec.graph.structure import Branch, Leaf, Structure

# ---- JSON out ---------------------------------------------------------------------------------------------

FUNCTION_FORMAT, SYSTEM_FORMAT, VERSION = "odec function", "odec system", 1


def to_json(function):
    """The graph as a JSON document (a dict); `from_json` makes an equal graph of it.

    Floats are hexadecimal texts and arrays base64 of little-endian bytes, so every bit survives.
    """
    return {"format": FUNCTION_FORMAT, "version": VERSION, **_function_out(function)}


def _function_out(function):
    number = {id(node): k for k, node in enumerate(function.nodes)}
    return {
        "name": function.name,
        "inputs": [{"name": name, "shape": list(n.shape), "dtype": n.dtype} for name, n in function.inputs.items()],
        "nodes": [_node_out(node, number) for node in function.nodes[len(function.inputs) :]],
        "outputs": [[name, number[id(node)]] for name, node in function.outputs.items()],
    }


def _node_out(node, number):
    out: dict[str, Any] = {"op": node.op.name, "shape": list(node.shape), "dtype": node.dtype}
    if node.op is CONSTANT:
        structural = node.params["key"] == "structural"
        out["value"] = "structural zero" if structural else _value_out(node.params["value"])
    else:
        out["inputs"] = [number[id(i)] for i in node.inputs]
        if node.params:
            out["params"] = {key: _value_out(value) for key, value in node.params.items()}
    if node.line is not None:
        out["line"] = [_on_one_line(os.path.basename(str(node.line[0]))), int(node.line[1])]
    if node.name is not None:
        out["name"] = _on_one_line(node.name)
    return out


def _on_one_line(text):
    return "".join(c if c.isprintable() else "?" for c in text)[:LONGEST_TEXT]


def _value_out(value):
    """A parameter: None, bool, int and str as they are; {"float"}, {"tuple"}, {"data"}, {"function"} for the rest."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return {"float": float(value).hex()}
    if isinstance(value, tuple):
        return {"tuple": [_value_out(v) for v in value]}
    if isinstance(value, Data):
        little = value.array.astype(value.array.dtype.newbyteorder("<"))
        text = base64.b64encode(little.tobytes()).decode()
        return {"data": text, "dtype": value.array.dtype.name, "shape": list(value.array.shape)}
    if isinstance(value, Function):
        return {"function": _function_out(value)}
    raise ArgumentError(f"saving: {type(value).__name__} has no form in a file; use numbers, texts and tuples of them.")


def system_to_json(system):
    """A bound model as a JSON document (a dict): name, dtype, structures, names of the state, graph."""
    return {
        "format": SYSTEM_FORMAT,
        "version": VERSION,
        "name": _on_one_line(system.name),
        "dtype": system.dtype,
        "state": None if system.state is None else [_on_one_line(str(name)) for name in system.state],
        "y": structure_to_json(system.y_structure),
        "p": structure_to_json(system.p_structure),
        "graph": to_json(system.graph),
        **{name: value for name in COUNTS if (value := getattr(system, name))},
    }


COUNTS = ("measured", "quadratures")  # of numbers of y, written where they are not 0 or None


def structure_to_json(structure):
    """A Structure as JSON: {"leaf": shape} or {"kind", "keys", "children"}; classes go by their field names."""
    return _item_out(structure.root)


def _item_out(item):
    if isinstance(item, Leaf):
        return {"leaf": list(item.shape)}
    return {
        "kind": item.kind,
        "keys": [_value_out(key) for key in item.keys],
        "children": [_item_out(child) for child in item.children],
    }


# ---- JSON in ----------------------------------------------------------------------------------------------

MOST_NODES = 2_000_000
MOST_ELEMENTS = 1 << 31  # of one array
MOST_AXES = 32
LONGEST_TEXT = 1000
DEEPEST = 40  # functions, tuples and structures within each other
DTYPES = ("float64", "float32", "bool")
DATA_DTYPES = (*DTYPES, "int64", "int32")
KINDS = ("tuple", "list", "dict", "namedtuple", "dataclass")
_WRONG = (OdecError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, MemoryError)


def parse(text):
    """The document in a JSON text (str or bytes).

    Raises
    ------
    LoadError : no JSON, or nested too deep
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LoadError(f"file: not JSON ({error}); give a file that System.save() wrote.") from None


def from_json(document):
    """The Function that `to_json` wrote. Nothing in the document is run.

    Raises
    ------
    LoadError : anything else than what `to_json` writes
    """
    _check_head(document, FUNCTION_FORMAT)
    return _Reader().function(document, "graph", 0)


class SavedSystem(NamedTuple):
    """What a saved bound model holds, in the order in which a System is made of it."""

    name: str
    graph: Function
    y_structure: Structure
    p_structure: Structure
    dtype: str
    state: tuple | None
    measured: int | None
    quadratures: int


def system_from_json(document):
    """The SavedSystem that `system_to_json` wrote. Nothing in the document is run.

    A NamedTuple or dataclass comes back as a dict with its field names as keys, for making the class
    would mean running code.

    Raises
    ------
    LoadError : anything else than what `system_to_json` writes
    """
    _check_head(document, SYSTEM_FORMAT)
    name, dtype = _text(document, "name", "model"), _one_of(document, "dtype", FLOATS, "model")
    y, p = (structure_from_json(_field(document, k, dict, "model"), k) for k in ("y", "p"))
    state = document.get("state")
    if state is not None:
        names = _field(document, "state", list, "model")
        state = tuple(_text({"state": s}, "state", "model") for s in names)
    if not isinstance(p.root, Branch) or p.root.kind != "dict" or not all(isinstance(k, str) for k in p.root.keys):
        raise LoadError("p: the parameters are not a dict by name; save the model again.")
    graph = from_json(_field(document, "graph", dict, "model"))
    _check_ports(graph, y.size, p.size, dtype)
    counts = {k: _field(document, k, int, "model") for k in COUNTS if k in document}
    for key, count in counts.items():
        if not 0 < count <= y.size:
            raise LoadError(f"model: {key} is {count}, but y has {y.size} elements; save the model again.")
    return SavedSystem(name, graph, y, p, dtype, state, counts.get("measured"), counts.get("quadratures", 0))


FLOATS = ("float64", "float32")


def _check_ports(graph, y_size, p_size, dtype):
    """A right-hand side takes t (), y (n,), p (m,) and gives dydt (n,)."""
    expected = {"t": ((), "float64"), "y": ((y_size,), dtype), "p": ((p_size,), dtype)}
    found = {name: (node.shape, node.dtype) for name, node in graph.inputs.items()}
    results = {name: (node.shape, node.dtype) for name, node in graph.outputs.items()}
    if found != expected or list(results.values()) != [((y_size,), dtype)]:
        raise LoadError("graph: its inputs and outputs are not those of a right-hand side; save the model again.")


def structure_from_json(document, what="structure"):
    """The Structure that `structure_to_json` wrote; LoadError for anything else."""
    offset = [0]
    root = _item_in(document, what, offset, 0)
    return Structure(root, offset[0])


def _item_in(item, where, offset, depth):
    if depth > DEEPEST:
        raise LoadError(f"{where}: nested deeper than {DEEPEST}; save a flatter structure.")
    if not isinstance(item, dict):
        raise LoadError(f"{where}: {type(item).__name__} is no structure; save the model again.")
    if "leaf" in item:
        leaf = Leaf(_shape(item, "leaf", where), offset[0])
        offset[0] += leaf.size
        _limit(offset[0], where)
        return leaf
    kind = _one_of(item, "kind", KINDS, where)
    keys = tuple(_key(k, where) for k in _field(item, "keys", list, where))
    parts = _field(item, "children", list, where)
    if len(keys) != len(parts) or len(set(keys)) != len(keys):
        raise LoadError(f"{where}: {len(keys)} keys for {len(parts)} parts, or a key twice; save the model again.")
    if kind in ("tuple", "list") and keys != tuple(range(len(keys))):
        raise LoadError(f"{where}: a {kind} whose parts are not numbered 0, 1, ...; save the model again.")
    if kind in ("namedtuple", "dataclass") and not all(isinstance(k, str) for k in keys):
        raise LoadError(f"{where}: fields that are no names; save the model again.")
    children = tuple(_item_in(p, f"{where}[{k!r}]"[:80], offset, depth + 1) for k, p in zip(keys, parts, strict=True))
    return Branch(kind, keys, children)


def _key(key, where):
    key = _Reader().value(key, where, DEEPEST - 2)
    if isinstance(key, (Data, Function)):
        raise LoadError(f"{where}: an array cannot be a key; save the model again.")
    return key


def _check_head(document, expected):
    if not isinstance(document, dict) or document.get("format") != expected:
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise LoadError(f"file: {str(found)[:60]!r} is not {expected!r}; give a file that System.save() wrote.")
    version = document.get("version")
    if type(version) is not int or version != VERSION:
        raise LoadError(
            f"file: version {str(version)[:20]} is not {VERSION}, which this odec reads; save it again with this odec."
        )


def _field(item, key, kind, where):
    value = item.get(key) if isinstance(item, dict) else None
    if type(value) is not kind:
        found = "nothing" if value is None else type(value).__name__
        raise LoadError(
            f"{where}: {key!r} is {found}, not {_KIND_NAMES[kind]}; the file is damaged, save the model again."
        )
    return value


_KIND_NAMES = {dict: "an object", list: "a list", str: "a text", int: "an integer"}


def _text(item, key, where):
    """A text of one line: names stand in comments of generated code."""
    text = _field(item, key, str, where)
    if not text.isprintable() or len(text) > LONGEST_TEXT:
        raise LoadError(f"{where}: {key!r} is no name on one line; the file is damaged, save the model again.")
    return text


def _identifier(item, key, where):
    text = _text(item, key, where)
    if not (text.isidentifier() and text.isascii()):
        raise LoadError(f"{where}: {text[:40]!r} cannot name an input or output; save the model again.")
    return text


def _one_of(item, key, allowed, where):
    value = _field(item, key, str, where)
    if value not in allowed:
        raise LoadError(f"{where}: {key} {value[:40]!r} is none of {', '.join(allowed)}; save the model again.")
    return value


def _limit(size, where):
    if size > MOST_ELEMENTS:
        raise LoadError(f"{where}: {size:,} elements; at most {MOST_ELEMENTS:,} are read. Save a smaller model.")


def _shape(item, key, where):
    shape = _field(item, key, list, where)
    if len(shape) > MOST_AXES or not all(type(n) is int and 0 <= n <= MOST_ELEMENTS for n in shape):
        raise LoadError(f"{where}: {key} {str(shape)[:60]} is no shape; save the model again.")
    _limit(math.prod(shape), where)
    return tuple(shape)


class _Reader:
    """Makes Functions of documents; counts nodes over all of them."""

    def __init__(self):
        self.count = 0

    def function(self, document, where, depth):
        if depth > DEEPEST:
            raise LoadError(f"{where}: functions within functions deeper than {DEEPEST}; save the model again.")
        name = _text(document, "name", where)
        inputs = {}
        for item in _field(document, "inputs", list, where):
            port = _identifier(item, "name", where)
            if port in inputs:
                raise LoadError(f"{where}: two inputs are called {port[:40]!r}; save the model again.")
            inputs[port] = input_node(port, _shape(item, "shape", where), _one_of(item, "dtype", DTYPES, where))
        nodes = list(inputs.values())
        entries = _field(document, "nodes", list, where)
        self.count += len(entries)
        if self.count > MOST_NODES:
            raise LoadError(f"{where}: {self.count:,} nodes; at most {MOST_NODES:,} are read. Save a smaller model.")
        for k, item in enumerate(entries):
            nodes.append(self.node(item, nodes, f"node {k + len(inputs)}", depth))
        outputs = self.outputs(document, nodes, where)
        return Function(name, inputs, outputs)

    def outputs(self, document, nodes, where):
        outputs = {}
        for item in _field(document, "outputs", list, where):
            if type(item) is not list or len(item) != 2:
                raise LoadError(f"{where}: an output is not a name with a number; save the model again.")
            port = _identifier({"name": item[0]}, "name", where)
            if port in outputs:
                raise LoadError(f"{where}: two outputs are called {port[:40]!r}; save the model again.")
            outputs[port] = _earlier(item[1], nodes, f"{where}: output {port[:40]!r}")
        if not outputs:
            raise LoadError(f"{where}: no outputs; save the model again.")
        return outputs

    def node(self, item, nodes, where, depth):
        name, shape = _text(item, "op", where), _shape(item, "shape", where)
        dtype = _one_of(item, "dtype", DTYPES, where)
        op = OPS.get(name)
        if op is None or op is INPUT:
            raise LoadError(
                f"{where}: {name[:40]!r} is not an op of this odec{nearest(name[:40], OPS)} "
                "Save the model with this odec."
            )
        with line_is(_line(item, where)):
            node = self.constant(item, shape, dtype, where) if op is CONSTANT else self.application(
                op, item, nodes, shape, dtype, where, depth
            )  # fmt: skip
        if item.get("name") is not None and node.name is None:
            node.name = _text(item, "name", where)
        return node

    def constant(self, item, shape, dtype, where):
        value = self.value(item.get("value"), where, 0)
        if type(value) is str and value == "structural zero" and dtype != "bool":
            return structural_zero(dtype, shape)
        if isinstance(value, Data):
            if value.array.shape != shape or value.array.dtype.name != dtype or not shape:
                raise LoadError(f"{where}: an array that does not fit its shape and dtype; save the model again.")
            return constant(value.array, dtype)
        if type(value) is not (bool if dtype == "bool" else float):
            raise LoadError(
                f"{where}: the value of a {dtype} constant is {type(value).__name__}; save the model again."
            )
        return constant(value, dtype, shape)

    def application(self, op, item, nodes, shape, dtype, where, depth):
        inputs = [_earlier(k, nodes, where) for k in _field(item, "inputs", list, where)]
        params = item.get("params", {})
        if type(params) is not dict:
            raise LoadError(f"{where}: 'params' is {type(params).__name__}, not an object; save the model again.")
        params = {key: self.value(value, where, depth) for key, value in params.items()}
        try:
            _check_node(op, inputs, params)
            found = op.shape(*[i.shape for i in inputs], **params), op.dtype(*[i.dtype for i in inputs], **params)
        except _WRONG as error:
            raise LoadError(
                f"{where}: {op.name} refuses its inputs ({_first_line(error)}); save the model again."
            ) from None
        if found != (shape, dtype):
            raise LoadError(
                f"{where}: {op.name} of these inputs is not {dtype} of shape {shape}; save the model again."
            )
        # Not make(): the graph was simplified when it was traced, and shall come back as it was saved.
        return intern(op, inputs, params, shape, dtype)

    def value(self, item, where, depth):
        """A parameter as `_value_out` writes it."""
        if depth > DEEPEST:
            raise LoadError(f"{where}: a parameter nested deeper than {DEEPEST}; save the model again.")
        if item is None or type(item) in (bool, str, int):
            return item
        if type(item) is dict:
            if item.keys() == {"float"}:
                return _float(item, where)
            if item.keys() == {"tuple"}:
                return tuple(self.value(v, where, depth + 1) for v in _field(item, "tuple", list, where))
            if item.keys() == {"data", "dtype", "shape"}:
                return _data(item, where)
            if item.keys() == {"function"}:
                return self.function(_field(item, "function", dict, where), where, depth + 1)
        raise LoadError(f"{where}: a parameter in no form that odec writes; the file is damaged, save the model again.")


def _earlier(k, nodes, where) -> Node:
    """The k-th node: only earlier ones can be meant, so a graph in a file has no cycle."""
    if type(k) is not int or not 0 <= k < len(nodes):
        raise LoadError(f"{where}: refers to node {str(k)[:20]}, which does not come before it; save the model again.")
    return nodes[k]


def _line(item, where):
    line = item.get("line")
    if line is None:
        return None
    if type(line) is not list or len(line) != 2 or type(line[1]) is not int:
        raise LoadError(f"{where}: its line is not [file, number]; save the model again.")
    return os.path.basename(_text({"file": line[0]}, "file", where)), line[1]


def _float(item, where):
    text = _text(item, "float", where)
    try:
        return float.fromhex(text)
    except (ValueError, OverflowError):
        raise LoadError(f"{where}: {text[:40]!r} is no hexadecimal number; save the model again.") from None


def _data(item, where):
    shape, dtype = _shape(item, "shape", where), np.dtype(_one_of(item, "dtype", DATA_DTYPES, where))
    text = _field(item, "data", str, where)
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise LoadError(f"{where}: an array that is not base64; the file is damaged, save the model again.") from None
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise LoadError(
            f"{where}: {len(raw):,} bytes for an array of shape {shape}; the file is damaged, save the model again."
        )
    if dtype.kind == "b" and raw.strip(b"\x00\x01"):
        raise LoadError(f"{where}: a truth value that is neither 0 nor 1; the file is damaged, save the model again.")
    return Data(np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype).reshape(shape))


def _check_node(op, inputs, params):
    """ValueError or TypeError where shapes, dtypes or parameters are not what the op takes."""
    shapes, dtypes = [i.shape for i in inputs], [i.dtype for i in inputs]
    callee = next((v for v in params.values() if isinstance(v, Function)), None)
    if callee is not None and [n.dtype for n in callee.inputs.values()] != dtypes:
        raise ValueError("inputs of other dtypes than its function takes")
    if callee is None and len(set(dtypes) - {"bool"}) > 1:
        raise ValueError("inputs of several dtypes")
    if op.family == "elementwise":
        if len(inputs) != len(op.domain) or len(set(shapes)) != 1:
            raise ValueError(f"{len(op.domain)} inputs of one shape are needed")
        if op.name in CHECKS or params:
            _check_of(op)(shapes[0], **params)
    else:
        _check_of(op)(*shapes, **params)


def _check_of(op):
    if op.name not in CHECKS:
        raise ValueError("it has no check for graphs from files")
    return CHECKS[op.name]


def _first_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
