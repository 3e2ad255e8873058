"""Interned nodes: one object for one expression, remembering the user's line."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from odec.graph.op import TRACEABLE, Op, zero

LARGE_CONSTANT = 256  # elements from which a repeated array is kept as the array and its repetition
_serial = itertools.count()
_interned: weakref.WeakValueDictionary = weakref.WeakValueDictionary()
_lock = threading.RLock()
_here = threading.local()


class Data:
    """An array as a parameter of a node: read-only, hashed and compared by content."""

    __slots__ = ("_hash", "array")

    def __init__(self, array):
        array = np.array(array, order="C")
        array.setflags(write=False)
        self.array = array
        self._hash = hash((array.shape, array.dtype.str, array.tobytes()))

    def __hash__(self):
        return self._hash

    def __eq__(self, other):
        same = isinstance(other, Data) and self.array.shape == other.array.shape
        return same and self.array.dtype == other.array.dtype and self.array.tobytes() == other.array.tobytes()

    def __repr__(self):
        return f"Data{self.array.shape}"


class Node:
    """One application of an op: `op(*inputs, **params)`, of a shape and a dtype.

    `dtype` is 'float64', 'float32' or 'bool'; `line` is (file, number) of the user's code or None;
    `name` is what the user called the value, if anything.
    """

    __slots__ = ("__weakref__", "dtype", "inputs", "line", "name", "op", "params", "serial", "shape")
    name: str | None

    def __init__(self, op, inputs, params, shape, dtype, line):
        self.op = op
        self.inputs = inputs
        self.params = params
        self.shape = shape
        self.dtype = dtype
        self.line = line
        self.name = None
        self.serial = next(_serial)

    @property
    def size(self):
        """Number of elements."""
        size = 1
        for extent in self.shape:
            size *= extent
        return size

    @property
    def ndim(self):
        return len(self.shape)

    def __repr__(self):
        return f"<{self.op.name} {self.dtype}{list(self.shape)}>"

    def __bool__(self):
        raise TypeError("a traced value has no truth value; use np.where")

    def __index__(self):
        raise TypeError("a traced value cannot be a size, an axis or an index; close over a Python int")

    # Operators serve the rules, which are written as formulas; the ops behind them install themselves.
    __array_ufunc__ = None

    def __add__(self, other) -> Node:
        return _operators["+"](self, other)

    def __radd__(self, other) -> Node:
        return _operators["+"](other, self)

    def __sub__(self, other) -> Node:
        return _operators["-"](self, other)

    def __rsub__(self, other) -> Node:
        return _operators["-"](other, self)

    def __mul__(self, other) -> Node:
        return _operators["*"](self, other)

    def __rmul__(self, other) -> Node:
        return _operators["*"](other, self)

    def __truediv__(self, other) -> Node:
        return _operators["/"](self, other)

    def __rtruediv__(self, other) -> Node:
        return _operators["/"](other, self)

    def __neg__(self) -> Node:
        return _operators["negate"](self)


_operators: dict[str, Callable[..., Node]] = {}


def install_operator(symbol, op):
    """Make an operator of nodes ('+', '-', '*', '/', 'negate') build `op`, so that rules read as formulas."""
    _operators[symbol] = op


def make(op, inputs, **params):
    """The node op(*inputs, **params): simplified where exact, interned, with the current line."""
    shape = op.shape(*[i.shape for i in inputs], **params)
    if op.simplify is not None:
        simpler = op.simplify(inputs, params)
        if simpler is not None:
            return simpler
    if inputs and all(i.op is CONSTANT for i in inputs) and not _grows(inputs, shape):
        return _folded(op, inputs, params, shape)
    return intern(op, inputs, params, shape, op.dtype(*[i.dtype for i in inputs], **params))


def _grows(inputs, shape):
    """Whether the result would hold more numbers than what it is made of: an array repeated many times."""
    return math.prod(shape) > LARGE_CONSTANT and all(
        i.size < math.prod(shape) and scalar_value(i) is None for i in inputs
    )


def _folded(op, inputs, params, shape):
    """The constant that an op of constants is; one number stays one number, whatever its shape."""
    dtype = op.dtype(*[i.dtype for i in inputs], **params)
    spread = op.family == "elementwise" and all(scalar_value(i) is not None for i in inputs)
    with np.errstate(all="ignore"):
        values = [np.asarray(scalar_value(i), i.dtype) if spread else value_of(i) for i in inputs]
        return constant(op.evaluate(*values, **params), dtype, shape if spread else None)


def intern(op, inputs, params, shape, dtype):
    key = (op.name, tuple(map(id, inputs)), tuple(params.items()), shape, dtype)
    with _lock:
        node = _interned.get(key)
        if node is None:
            node = _interned[key] = Node(op, tuple(inputs), params, shape, dtype, current_line())
    return node


def current_line():
    """(file, line) of the user's code that is being traced or transformed, or None."""
    line = getattr(_here, "line", None)
    return line() if callable(line) else line


@contextlib.contextmanager
def line_is(line):
    """Nodes made inside carry this line: a (file, number), None, or a function that finds it."""
    before = getattr(_here, "line", None)
    _here.line = line
    try:
        yield
    finally:
        _here.line = before


def set_line(line):
    """Unscoped form of `line_is` for loops over many nodes; the caller restores."""
    _here.line = line


# ---- leaves ----------------------------------------------------------------------------------


def _leaf_build(op, *args, **params):
    raise TypeError(f"{op.name} nodes are made by input_node() and constant()")


def _no_scalar_form(*args, **params):
    raise TypeError("a leaf has no inputs to expand")


_LEAF: dict[str, Any] = dict(
    shape=lambda shape, **_: shape, dtype=lambda: "float64", evaluate=_no_scalar_form, scalarise=_no_scalar_form,
    build=_leaf_build, jvp=zero, vjp=lambda node, g: (), taylor=zero, simplify=None, python=None, llvm=None,
    reach=_no_scalar_form, cost=lambda node: 0, lower=None, sympy="a leaf", domain=(),
)  # fmt: skip
INPUT = Op("input", "leaf", "an argument of the function", **_LEAF)
CONSTANT = Op("constant", "leaf", "a number or an array known when the model is traced", **_LEAF)


def input_node(name, shape, dtype):
    """A fresh argument: no two are the same object, so graphs of different traces never mix."""
    with line_is(None):
        node = Node(INPUT, (), {"name": name}, tuple(shape), dtype, None)
    node.name = name
    return node


def constant(value, dtype, shape=None):
    """The constant `value` in `dtype`; with `shape`, a scalar spread over that shape."""
    array = np.asarray(value)
    if dtype == "bool":
        array = array.astype(bool)
    else:
        array = array.astype(dtype)
    if array.ndim == 0:
        data = array.item()
        key = (data, np.signbit(array).item()) if dtype != "bool" else data  # 0.0 == -0.0 but they differ
        shape = () if shape is None else tuple(shape)
        if data != data:
            key = "nan"
        return intern(CONSTANT, (), {"value": data if data == data else np.nan, "key": key}, shape, dtype)
    return intern(CONSTANT, (), {"value": Data(array), "key": "array"}, array.shape, dtype)


def structural_zero(dtype, shape=()):
    """Zero by structure: x + 0 is x and x * 0 is 0 even where x is -0.0, infinite or nan."""
    return intern(CONSTANT, (), {"value": 0.0, "key": "structural"}, tuple(shape), dtype)


def is_structural_zero(node):
    return node.op is CONSTANT and node.params["key"] == "structural"


def spread(node, shape):
    """A constant that is one number everywhere, in another shape; None for any other node."""
    if scalar_value(node) is None:
        return None
    return intern(CONSTANT, (), node.params, tuple(shape), node.dtype)


def value_of(node):
    """The ndarray of a constant node (broadcast to its shape), or None for any other node."""
    if node.op is not CONSTANT:
        return None
    value = node.params["value"]
    if isinstance(value, Data):
        return value.array
    return np.broadcast_to(np.asarray(value, node.dtype), node.shape)


def scalar_value(node):
    """The number that every element of a constant node has, or None."""
    if node.op is not CONSTANT or isinstance(node.params["value"], Data):
        return None
    return node.params["value"]


def coerce(args, dtype=None):
    """Nodes from nodes, numbers, arrays and nested lists of them; a number takes the dtype of the
    nodes beside it, else the dtype of the trace."""
    if dtype is None:
        dtype = next((a.dtype for a in args if isinstance(a, Node) and a.dtype != "bool"), None) or trace_dtype()
    return [a if isinstance(a, Node) else _coerced(a, dtype) for a in args]


def _coerced(value, dtype):
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.dtype == object):
        return TRACEABLE[np.array](value)
    value = np.asarray(value)
    if value.dtype.kind not in "biuf":
        raise TypeError(f"{value.dtype} values are not supported; odec computes with real numbers")
    return constant(value, "bool" if value.dtype == bool else dtype)


def trace_dtype():
    """The dtype that constants take while a model is traced: 'float64' unless said otherwise."""
    return getattr(_here, "dtype", "float64")


@contextlib.contextmanager
def dtype_is(dtype):
    """Constants made inside that stand beside no node take this dtype."""
    before = trace_dtype()
    _here.dtype = dtype
    try:
        yield
    finally:
        _here.dtype = before


def topological(outputs):
    """Every node that `outputs` need, inputs before users; the order depends on the graph only."""
    seen, order = set(), []
    for output in outputs:
        stack = [(output, False)]
        while stack:
            node, expanded = stack.pop()
            if expanded:
                order.append(node)
            elif id(node) not in seen:
                seen.add(id(node))
                stack.append((node, True))
                stack.extend((i, False) for i in reversed(node.inputs) if id(i) not in seen)
    return order
