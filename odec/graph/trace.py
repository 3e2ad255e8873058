"""Calling the user's code on abstract arrays: the handles, and how NumPy reaches them.

A handle is mutable as an array is; the node behind it is not. NumPy's own protocols (NEP 13,
`__array_ufunc__`, and NEP 18, `__array_function__`) bring every call here.
"""

from __future__ import annotations

import contextlib
import linecache
import operator
import os
import sys
import threading

import numpy as np

from odec.errors import MissingRuleError, OdecError, TraceError, nearest
from odec.graph.node import Node, coerce, dtype_is, line_is
from odec.graph.op import TRACEABLE

_tracing = threading.local()
_INSIDE = tuple(os.path.dirname(os.path.abspath(f)) + os.sep for f in (os.path.dirname(__file__), np.__file__))  # odec/, numpy/
_internal: dict[object, bool] = {}


# ---- where the user is --------------------------------------------------------------------------------


def _is_internal(code):
    known = _internal.get(code)
    if known is None:
        name = code.co_filename
        known = _internal[code] = name.startswith(_INSIDE) or name.startswith("<frozen")
    return known


def user_frame():
    """The innermost frame that is neither odec's nor NumPy's."""
    frame = sys._getframe(1)
    while frame is not None and _is_internal(frame.f_code):
        frame = frame.f_back
    return frame


def _user_line():
    frame = user_frame()
    if frame is None:
        return None
    frames = getattr(_tracing, "frames", None)
    if frames is not None:
        frames.setdefault(id(frame), frame)
    return frame.f_code.co_filename, frame.f_lineno


def source_line(line):
    """The text of (file, number), stripped; '' where the source is not at hand."""
    return linecache.getline(*line).strip() if line else ""


def place(line):
    """'models.py:14' for messages and comments."""
    return f"{os.path.basename(line[0])}:{line[1]}" if line else "?"


def refuse(message, kind=TraceError):
    """An error that names the model and the user's line."""
    line = _user_line()
    return kind(f"{getattr(_tracing, 'model', 'model')} ({place(line)}): {message}")


def _needs_value(what):
    text = source_line(_user_line())
    return refuse(f'"{text}" asks for {what}. Tracing knows shapes, not numbers. {_cure(text)}')


def _cure(text):
    if text.startswith(("if ", "elif ", "while ", "assert ")) or " if " in text:
        return "Use np.where(condition, a, b)."
    if " and " in text or " or " in text or "not " in text:
        return "Use np.logical_and, np.logical_or, np.logical_not or & | ~ on conditions."
    if "math." in text:
        return "Use NumPy's function (np.sin for math.sin)."
    if "range(" in text or "zeros(" in text or "ones(" in text:
        return "Close over a Python int for sizes and ranges: parameters and states are floats known only when solving."
    if "float(" in text or "int(" in text or ".item(" in text:
        return "Leave the conversion out: a traced value is used as it is."
    if "]" in text.split("=")[0] and "=" in text:
        return "A plain NumPy array cannot hold traced values: make it with np.zeros_like(y), or return a list."
    if "np.array(" in text or "np.asarray(" in text:
        return "Use np.stack([dx, dy, dz]), or return the list."
    return "Use NumPy functions, np.where for choices, and np.zeros_like(y) or np.stack for arrays of traced values."


# ---- handles ----------------------------------------------------------------------------------------------


def wrap(result):
    """Handles for the nodes in a result (a node, or a list or tuple of them)."""
    if isinstance(result, Node):
        return TracedArray(result) if result.shape else TracedScalar(result)
    if isinstance(result, (list, tuple)):
        return type(result)(wrap(r) for r in result)
    return result


def unwrap(value):
    """Nodes for the handles in a value, however nested; plain numbers and arrays as they are."""
    if isinstance(value, Traced):
        return value.node
    if isinstance(value, (list, tuple)):
        items = [unwrap(v) for v in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, np.ndarray) and value.dtype == object:
        return coerce([_unwrapped_objects(value)])[0]
    return value


def _unwrapped_objects(array):
    out = np.empty(array.shape, object)
    for index in np.ndindex(*array.shape):
        out[index] = unwrap(array[index])
    return out


def call_traceable(function, args, kwargs):
    """What `function` (a NumPy callable) gives on traced arguments, as handles."""
    implementation = TRACEABLE.get(function)
    name = getattr(function, "__name__", str(function))
    if implementation is None:
        known = [getattr(f, "__name__", "") for f in TRACEABLE]
        module = getattr(function, "__module__", None) or "numpy"
        full = f"{module.replace('numpy', 'np', 1)}.{name}"
        raise refuse(
            f"{full} is not an odec op{nearest(name, known)} odec.supported() lists what is; "
            "docs/adding_an_op.md shows how to add one.",
            MissingRuleError,
        )
    try:
        return wrap(implementation(*map(unwrap, args), **{k: unwrap(v) for k, v in kwargs.items()}))
    except OdecError as error:
        if isinstance(error, TraceError):
            raise
        raise refuse(f"np.{name}: {error}") from None
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise refuse(f"np.{name}: {error}") from None


class Traced(np.lib.mixins.NDArrayOperatorsMixin):
    """What the model's code sees as an array or a number: a shape, a dtype, no values."""

    __slots__ = ("_frozen", "_get", "_node", "_parent", "_put", "_seen")

    def __init__(self, node, parent=None, get=None, put=None, frozen=None):
        self._node = node
        self._parent = parent  # the handle this one is a view of
        self._get = get  # parent's node -> this node
        self._put = put  # parent's node, new node -> parent's new node; None: assignment is refused
        self._seen = None if parent is None else parent.node
        self._frozen = frozen  # why assignment is refused

    @property
    def node(self):
        """The node that this handle means now; a view follows its base."""
        if self._parent is not None:
            base = self._parent.node
            if base is not self._seen:
                self._node, self._seen = self._get(base), base
        return self._node

    def _assign(self, new):
        if self._frozen:
            raise refuse(self._frozen)
        if self._parent is not None:
            self._parent._assign(self._put(self._parent.node, new))
        else:
            self._node = new

    # ---- NumPy's protocols

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        if method == "reduce" and ufunc in _REDUCTIONS:
            kwargs.setdefault("axis", 0)
            return call_traceable(_REDUCTIONS[ufunc], inputs, kwargs)
        if method == "accumulate" and ufunc in _ACCUMULATIONS:
            return call_traceable(_ACCUMULATIONS[ufunc], inputs, {"axis": 0} | kwargs)
        if method == "outer" and ufunc is np.multiply:
            return call_traceable(np.multiply.outer, inputs, kwargs)
        if method != "__call__":
            raise refuse(f"np.{ufunc.__name__}.{method} is not an odec op. Call np.{ufunc.__name__} itself.", MissingRuleError)
        kwargs = {k: v for k, v in kwargs.items() if k not in ("dtype", "casting", "order", "subok")}
        if kwargs:
            raise refuse(f"np.{ufunc.__name__} with {', '.join(kwargs)}= cannot be traced. Use np.where on the result.")
        result = call_traceable(ufunc, inputs, {})
        if out is None:
            return result
        target = out[0]
        if isinstance(target, TracedArray):
            target[...] = result
            return target
        if isinstance(target, TracedScalar):
            return result
        raise refuse(
            f"{ufunc.__name__} writes a traced value into a plain NumPy array. "
            "Make that array with np.zeros_like(y), or write a = a + b instead of a += b."
        )

    def __array_function__(self, function, types, args, kwargs):
        return call_traceable(function, args, kwargs)

    # ---- what needs a value

    def __bool__(self):
        raise _needs_value("the value of a traced array")

    def __float__(self):
        raise _needs_value("the number in a traced value")

    def __int__(self):
        raise _needs_value("the number in a traced value")

    def __complex__(self):
        raise _needs_value("the number in a traced value")

    def __index__(self):
        raise _needs_value("a traced value as an integer")

    def __round__(self, digits=None):
        raise _needs_value("the number in a traced value")

    def item(self, *args):
        raise _needs_value("the number in a traced value")

    __hash__ = None  # type: ignore[assignment]

    # ---- attributes and methods of arrays

    @property
    def shape(self):
        return self.node.shape

    @property
    def ndim(self):
        return len(self.node.shape)

    @property
    def size(self):
        return self.node.size

    @property
    def dtype(self):
        return np.dtype(self.node.dtype)

    @property
    def T(self):
        return self.transpose()

    @property
    def real(self):
        return self

    def _view(self, function, inverse):
        """A view of this handle through `function` of nodes, assigned to through `inverse`."""
        node = self.node
        seen = function(node)
        if not isinstance(self, TracedArray):
            return wrap(seen)
        return TracedArray(seen, self, function, inverse)

    def transpose(self, *axes):
        axes = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        order = tuple(reversed(range(self.ndim))) if not axes else tuple(axes)
        return call_transpose(self, order)

    def swapaxes(self, a, b):
        order = list(range(self.ndim))
        order[a], order[b] = order[b], order[a]
        return call_transpose(self, tuple(order))

    def reshape(self, *shape, **kwargs):
        shape = shape[0] if len(shape) == 1 else shape
        before = self.shape
        there = lambda node: TRACEABLE[np.reshape](node, shape, **kwargs)
        return self._view(there, lambda base, new: TRACEABLE[np.reshape](new, before))

    def ravel(self, order="C"):
        return self.reshape(-1) if order == "C" else call_traceable(np.ravel, (self, order), {})

    def flatten(self, order="C"):
        return call_traceable(np.ravel, (self, order), {})

    def copy(self, order="C"):
        return wrap(self.node)

    def __copy__(self):
        return wrap(self.node)

    def __deepcopy__(self, memo):
        return wrap(self.node)

    def astype(self, dtype, *args, **kwargs):
        kind = np.dtype(dtype).kind
        if kind == "f":
            return wrap(TRACEABLE[Traced.astype](self.node, False))
        if kind == "b":
            return wrap(TRACEABLE[Traced.astype](self.node, True))
        raise refuse(f"astype({np.dtype(dtype)}) cannot be traced: values are real. Use np.floor, or a comparison for truth.")

    def tolist(self):
        return [v.tolist() if isinstance(v, TracedArray) else v for v in self] if self.ndim else self

    def __repr__(self):
        return f"<traced {self.node.dtype}{list(self.shape)}>"


def call_transpose(handle, order):
    """The axes of a handle in another order, as a view."""
    order = tuple(a % len(order) for a in order)
    inverse = tuple(order.index(d) for d in range(len(order)))
    permute = TRACEABLE[np.transpose]
    return handle._view(lambda node: permute(node, order), lambda base, new: permute(new, inverse))


def _method(name):
    function = getattr(np, name)

    def method(self, *args, **kwargs):
        return call_traceable(function, (self, *args), kwargs)

    method.__name__ = name
    return method


for _name in ("sum", "mean", "prod", "var", "std", "max", "min", "cumsum", "cumprod", "dot", "clip", "take", "repeat",
              "squeeze", "trace", "any", "all", "ptp"):  # fmt: skip
    setattr(Traced, _name, _method(_name))

_REDUCTIONS = {
    np.add: np.sum, np.multiply: np.prod, np.maximum: np.max, np.minimum: np.min, np.logical_and: np.all,
    np.logical_or: np.any,
}  # fmt: skip
_ACCUMULATIONS = {np.add: np.cumsum, np.multiply: np.cumprod}


class TracedScalar(Traced):
    """A traced number. It has no length and no `__array__`, so np.array([a, b]) keeps it as an object,
    and NumPy then calls x.sin() for np.sin on such an array: every traceable ufunc is a method."""

    __slots__ = ()

    def __getattr__(self, name):
        ufunc = getattr(np, name, None) if not name.startswith("_") else None
        if isinstance(ufunc, np.ufunc):
            return lambda *args: call_traceable(ufunc, (self, *args), {})
        raise AttributeError(f"a traced number has no attribute {name!r}")


class TracedArray(Traced):
    """A traced array of one or more axes."""

    __slots__ = ()

    def __len__(self):
        return self.node.shape[0]

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __contains__(self, value):
        raise _needs_value("whether a traced array contains a value")

    def __getitem__(self, index):
        index = _checked_index(unwrap(index))
        getitem = TRACEABLE[operator.getitem]
        try:
            node = getitem(self.node, index)
            if not node.shape or not _is_basic(index):
                return wrap(node)
        except (IndexError, TypeError, ValueError) as error:
            raise refuse(f"indexing an array of shape {self.shape}: {error}") from None
        setitem = TRACEABLE[operator.setitem]
        return TracedArray(node, self, lambda base: getitem(base, index), lambda base, new: setitem(base, index, new))

    def __setitem__(self, index, value):
        index = _checked_index(unwrap(index), assigning=True)
        try:
            new = TRACEABLE[operator.setitem](self.node, index, unwrap(value))
        except OdecError:
            raise
        except (IndexError, TypeError, ValueError) as error:
            raise refuse(f"assigning into an array of shape {self.shape}: {error}") from None
        self._assign(new)

    def fill(self, value):
        self[...] = value


def _is_basic(index):
    items = index if isinstance(index, tuple) else (index,)
    return all(isinstance(i, (int, np.integer, slice)) or i is None or i is Ellipsis for i in items)


def _checked_index(index, assigning=False):
    for item in index if isinstance(index, tuple) else (index,):
        if isinstance(item, Node):
            if item.dtype != "bool":
                raise refuse("an index that is a traced value cannot be traced. Use integers known when tracing, or np.interp for a table.")
            if not assigning:
                raise refuse("a boolean mask of traced values gives a shape that depends on values. Use np.where(mask, a, b).")
    return index


# ---- tracing ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def tracing(model, dtype):
    """Inside, calls on handles build nodes that carry the user's lines; `model` names them in errors."""
    before = getattr(_tracing, "model", None), getattr(_tracing, "frames", None)
    _tracing.model, _tracing.frames = model, {}
    try:
        with line_is(_user_line), dtype_is(dtype):
            yield
    finally:
        _name_nodes(_tracing.frames.values())
        _tracing.model, _tracing.frames = before


def _name_nodes(frames):
    """Give nodes the names of the user's local variables that held them."""
    for frame in frames:
        for name, value in frame.f_locals.items():
            if isinstance(value, Traced) and value._node is not None and value.node.name is None:
                value.node.name = name


def call_model(function, model, args, dtype):
    """`function(*args)` on handles; whatever goes wrong becomes a TraceError at the user's line."""
    with tracing(model, dtype):
        try:
            return function(*args)
        except OdecError:
            raise
        except Exception as error:
            line = _line_of(error)
            text = f"{model} ({place(line)}): raised {type(error).__name__}: {error} while being traced."
            if source_line(line):
                text += f' The line is "{source_line(line)}".'
            raise TraceError(text + " The body runs once on arrays without values; see docs/writing_models.md.") from error


def _line_of(error):
    """The last frame of a traceback that is the user's."""
    line, frame = None, error.__traceback__
    while frame is not None:
        if not _is_internal(frame.tb_frame.f_code):
            line = (frame.tb_frame.f_code.co_filename, frame.tb_lineno)
        frame = frame.tb_next
    return line
