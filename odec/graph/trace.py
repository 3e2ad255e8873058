"""Calling the user's code on abstract arrays: the handles, and how NumPy reaches them.

A handle is mutable as an array is; the node behind it is not. NumPy's own protocols (NEP 13,
`__array_ufunc__`, and NEP 18, `__array_function__`) bring every call here.
"""

from __future__ import annotations

import contextlib
import linecache
import operator
import os
import re
import sys
import threading
from typing import Any

import numpy as np

from odec.errors import MissingRuleError, OdecError, TraceError, nearest
from odec.graph.node import Node, coerce, dtype_is, line_is
from odec.graph.op import TRACEABLE

_tracing = threading.local()
_INSIDE = tuple(os.path.dirname(os.path.abspath(f)) + os.sep for f in (os.path.dirname(__file__), np.__file__))
_internal: dict[object, bool] = {}


# ---- where the user is --------------------------------------------------------------------------------


def _is_internal(code):
    known = _internal.get(code)
    if known is None:
        name = code.co_filename
        inside = name.startswith(_INSIDE) or f"{os.sep}site-packages{os.sep}scipy{os.sep}" in name
        known = _internal[code] = inside or name.startswith("<frozen")
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


def refuse(message, kind=TraceError, line=None):
    """An error that names the model and the user's line."""
    line = line or _user_line()
    return kind(f"{getattr(_tracing, 'model', 'model')} ({place(line)}): {message}")


def _needs_value(what, cure=None, line=None):
    line = line or _user_line()
    text = source_line(line).rstrip(":")
    return refuse(f'"{text}" asks for {what}. Tracing knows shapes, not numbers. {cure or _cure(text)}', line=line)


_CLOSE_OVER = "Close over a Python int for sizes and ranges: parameters and states are floats known only when solving."


def _cure(text):
    """What to write instead of a line that asks for a value."""
    objects = _object_arrays()
    if objects:
        return f"{objects[0]} is a NumPy array of objects, made of traced values by np.array; use np.stack([...])."
    if text.startswith(("if ", "elif ", "while ", "assert ")) or " if " in text:
        return "Use np.where(condition, a, b)."
    if " and " in text or " or " in text or "not " in text:
        return "Use np.logical_and, np.logical_or, np.logical_not or & | ~ on conditions."
    if "math." in text:
        return "Use NumPy's function (np.sin for math.sin)."
    if re.search(r"(?<![.\w])(max|min)\(", text):
        return "Use np.max(y) or np.min(y) for an array, np.maximum(a, b) or np.minimum(a, b) for two values."
    if re.search(r"(?<![.\w])round\(", text):
        return "Use np.floor(x + 0.5), whose derivative is zero."
    if "array(" in text and "dtype" in text:
        return "Leave dtype out, or use np.stack([dx, dy, dz]), or return the list."
    if "range(" in text or "zeros(" in text or "ones(" in text:
        return _CLOSE_OVER
    if "float(" in text or "int(" in text or ".item(" in text:
        return "Leave the conversion out: a traced value is used as it is."
    if "]" in text.split("=")[0] and "=" in text:
        return "A plain NumPy array cannot hold traced values: make it with np.zeros_like(y), or return a list."
    if "array(" in text:
        return "Use np.stack([dx, dy, dz]), or return the list."
    return "Use NumPy functions, np.where for choices, and np.zeros_like(y) or np.stack for arrays of traced values."


def _object_arrays():
    """Names of the user's local variables that are NumPy arrays of traced values."""
    frame = user_frame()
    found = {} if frame is None else frame.f_locals
    return [name for name, value in found.items() if isinstance(value, np.ndarray) and is_traced(value)]


# ---- handles ----------------------------------------------------------------------------------------------


def wrap(result) -> Any:
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


def is_traced(value):
    """Whether a value is a handle, or a list, tuple or array of objects that holds one."""
    if isinstance(value, (list, tuple)):
        return any(map(is_traced, value))
    if isinstance(value, np.ndarray):
        return value.dtype == object and any(isinstance(v, Traced) for v in value.flat)
    return isinstance(value, Traced)


VIEWS: dict = {}  # NumPy callable -> what it does to a handle, where its result may share memory


def viewing(function):
    """Decorator: the function below, on handles, is what `function` does to a traced array."""

    def register(implementation):
        VIEWS[function] = implementation
        return implementation

    return register


def dotted(function):
    """'np.linalg.norm' for np.linalg.norm."""
    module = getattr(function, "__module__", None) or _owner(function)
    name = getattr(function, "__name__", str(function))
    return f"{module.replace('numpy', 'np', 1)}.{name}"


def _owner(function):
    """The module of a ufunc, which does not say: NumPy's, or SciPy's if that is where it is."""
    return "scipy.special" if function is _of_scipy(getattr(function, "__name__", "")) else "np"


def _of_scipy(name):
    return getattr(sys.modules.get("scipy.special"), name, None)


def _implementation(function):
    known = TRACEABLE.get(function)
    if known is None and isinstance(function, np.ufunc) and function is _of_scipy(function.__name__):
        known = BORROWED.get(function.__name__)
    return known


BORROWED: dict = {}  # name in scipy.special -> what it does to nodes; SciPy is not imported for it


def call_traceable(function, args, kwargs):
    """What `function` (a NumPy callable) gives on traced arguments, as handles."""
    implementation = _implementation(function)
    if implementation is None:
        known = {getattr(f, "__name__", ""): f for f in TRACEABLE}
        raise refuse(
            f"{dotted(function)} is not an odec op{nearest(function.__name__, known) or '.'} "
            "odec.supported() lists what is; docs/adding_an_op.md shows how to add one.",
            MissingRuleError,
        )
    try:
        if function in VIEWS and args and isinstance(args[0], TracedArray):
            return VIEWS[function](*args, **kwargs)
        result = wrap(implementation(*map(unwrap, args), **{k: unwrap(v) for k, v in kwargs.items()}))
    except TraceError:
        raise
    except (OdecError, TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        text = _sentence(error).removeprefix(f"{function.__name__}: ").removeprefix(f"{dotted(function)}: ")
        raise refuse(f"{dotted(function)}: {text}") from None
    if isinstance(result, TracedArray) and len(result.node.shape) > 1:
        result._scattered = any(isinstance(a, TracedArray) and a._is_permuted() for a in args)
    return result


def _sentence(error):
    """The text of an error, with a full stop, and with the cure where odec's own error has none."""
    text = str(error).rstrip(".")
    if "values are not supported" in text:
        text += "; return real and imaginary parts as a structure"
    if "unexpected keyword argument" in text:
        text = text.split("()", 1)[1].strip() + " that can be traced; leave it out"
    return text + "."


class Traced(np.lib.mixins.NDArrayOperatorsMixin):
    """What the model's code sees as an array or a number: a shape, a dtype, no values."""

    __slots__ = ("_frozen", "_get", "_look", "_node", "_parent", "_put", "_scattered", "_seen")
    _frozen: str | None
    _get: Any
    _put: Any
    _look: Any

    def __init__(self, node, parent=None, get=None, put=None, look=None):
        self._node = node
        self._parent = parent  # the handle this one is a view of
        self._get = get  # parent's node -> this node
        self._put = put  # parent's node, new node -> parent's new node; None: assignment is refused
        self._seen = None if parent is None else parent.node
        self._look = look  # an ndarray laid out as the parent -> this view of it
        self._scattered = False  # whether NumPy may have laid this array out in another order than C's
        self._frozen = None  # why assignment is refused

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

    def _memory(self):
        """An ndarray laid out in memory as NumPy would lay this one out, or None where that is not known."""
        if self._parent is None:
            return None if self._scattered else np.empty(self.node.shape, np.int8)
        base = self._parent._memory()
        return None if base is None else self._look(base)

    def _is_permuted(self):
        """Whether NumPy would give the result of an elementwise function of this array in another order than C's."""
        if self._parent is None and not self._scattered:
            return False
        memory = self._memory()
        return memory is None or not np.empty_like(memory).flags.c_contiguous

    # ---- NumPy's protocols

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        if method == "reduce" and ufunc in _REDUCTIONS:
            kwargs.setdefault("axis", 0)
            return call_traceable(_REDUCTIONS[ufunc], inputs, kwargs)
        if method == "accumulate" and ufunc in _ACCUMULATIONS:
            return call_traceable(_ACCUMULATIONS[ufunc], inputs, {"axis": 0} | kwargs)
        if method == "outer" and ufunc is np.multiply:
            return call_traceable(np.multiply.outer, inputs, kwargs)
        if method == "at" and ufunc.at in TRACEABLE:
            if not isinstance(inputs[0], TracedArray):
                raise refuse(
                    f"np.{ufunc.__name__}.at writes a traced value into a plain NumPy array. "
                    "Make that array with np.zeros_like(y)."
                )
            return inputs[0]._add_at(ufunc.at, *inputs[1:])
        if method != "__call__":
            name = f"np.{ufunc.__name__}"
            raise refuse(f"{name}.{method} is not an odec op. Call {name} itself.", MissingRuleError)
        if kwargs.get("dtype") is not None and np.dtype(kwargs["dtype"]).kind == "f":
            del kwargs["dtype"]
        kwargs = {k: v for k, v in kwargs.items() if k not in ("casting", "order", "subok")}
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
            if target._parent is None:
                return result
            target._assign(result.node)  # an array of no axes: x = a[0, ...]; x += 1 reaches a
            return target
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
        raise _needs_value("a traced value as an integer", _CLOSE_OVER)

    def __round__(self, digits=None):
        raise _needs_value("the number in a traced value")

    def item(self, *args):
        raise _needs_value("the number in a traced value")

    def __hash__(self):
        raise TypeError("a traced value cannot be hashed: == on it is an array, not a truth")

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

    def transpose(self, *axes):
        order = axes[0] if len(axes) == 1 and not isinstance(axes[0], (int, np.integer)) else axes or None
        return call_traceable(np.transpose, (self, order), {})

    def reshape(self, *shape, **kwargs):
        return call_traceable(np.reshape, (self, shape[0] if len(shape) == 1 else shape), kwargs)

    def flatten(self, order="C"):
        return wrap(TRACEABLE[np.ravel](self.node, order))

    def copy(self, order="C"):
        return wrap(self.node)

    def __copy__(self):
        return wrap(self.node)

    def __deepcopy__(self, memo):
        return wrap(self.node)

    def astype(self, dtype, *args, **kwargs):
        name = np.dtype(dtype).name
        if name not in ("float64", "float32", "bool"):
            raise refuse(f"astype({name}) cannot be traced: values are real. Use np.floor, or a comparison for truth.")
        return wrap(TRACEABLE[Traced.astype](self.node, name))

    def tolist(self):
        return [v.tolist() for v in self] if isinstance(self, TracedArray) else self

    def __repr__(self):
        return f"<traced {self.node.dtype}{list(self.shape)}>"

    def __format__(self, spec):
        return repr(self)


def _is_int(value):
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def shared(handle, look, there, back):
    """`there` of a handle: a view where NumPy's own result, `look` of an ndarray laid out as the handle,
    shares memory with it, else a copy. `back` (base node, new node -> new base node) assigns through it."""
    memory, node = handle._memory(), there(handle.node)
    if memory is None:
        result = wrap(node)
        result._frozen = (
            "assigns into what may be a view or a copy, "
            "for NumPy lays the results of transposed arrays out as it likes. Use .copy() first."
        )
        return result
    if node.size and not np.may_share_memory(look(memory), memory):
        return wrap(node)
    return _view_class(node)(node, handle, there, back, look)


def _view_class(node):
    return TracedArray if node.shape else TracedScalar


def _method(name):
    function = getattr(np, name)

    def method(self, *args, **kwargs):
        return call_traceable(function, (self, *args), kwargs)

    method.__name__ = name
    return method


for _name in ("sum", "mean", "prod", "var", "std", "max", "min", "cumsum", "cumprod", "dot", "clip", "take", "repeat",
              "squeeze", "trace", "any", "all", "ravel", "swapaxes", "diagonal", "round", "argmax", "argmin", "sort",
              "argsort", "nonzero", "searchsorted", "compress"):  # fmt: skip
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

    def __getattr__(self, name):
        raise AttributeError(f"a traced array has no attribute {name!r}; use a function of NumPy")

    def __array__(self, dtype=None, copy=None):
        """An array of objects, for np.array and np.asarray. Where NumPy would share memory there are two arrays
        now, so neither may be assigned to."""
        values = np.empty(self.shape, object)
        for index in np.ndindex(*self.shape):
            values[index] = self[index]
        if not copy:
            values.setflags(write=False)
            root = self
            while root._parent is not None:
                root = root._parent
            root._frozen = root._frozen or "assigns into an array that np.asarray was called on. Leave np.asarray out."
        return values if dtype is None else values.astype(dtype)

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
            if not _is_basic(index) or not (node.shape or _has_dots(index)):
                return wrap(node)
        except (IndexError, TypeError, ValueError) as error:
            raise refuse(f"indexing an array of shape {self.shape}: {_sentence(error)}") from None
        setitem = TRACEABLE[operator.setitem]
        there, back = lambda base: getitem(base, index), lambda base, new: setitem(base, index, new)
        return _view_class(node)(node, self, there, back, lambda memory: memory[index])

    def __setitem__(self, index, value):
        self._write(operator.setitem, _checked_index(unwrap(index), assigning=True), value)

    def _add_at(self, function, index, value):
        self._write(function, _checked_index(unwrap(index)), value)

    def _write(self, function, index, value):
        """Do what `function` (node, index, value) makes of this array to it."""
        try:
            new = TRACEABLE[function](self.node, index, unwrap(value))
        except OdecError:
            raise
        except (IndexError, TypeError, ValueError) as error:
            raise refuse(f"assigning into an array of shape {self.shape}: {_sentence(error)}") from None
        self._assign(new)

    def fill(self, value):
        self[...] = value


def _is_basic(index):
    items = index if isinstance(index, tuple) else (index,)
    return all(i is None or i is Ellipsis or _is_int(i) or isinstance(i, slice) for i in items)


def _has_dots(index):
    """Whether an index holds `...`, with which NumPy gives an array of no axes rather than a number."""
    return any(i is Ellipsis for i in (index if isinstance(index, tuple) else (index,)))


def _checked_index(index, assigning=False):
    for item in index if isinstance(index, tuple) else (index,):
        if isinstance(item, Node):
            if item.dtype != "bool":
                raise refuse(
                    "an index that is a traced value cannot be traced. "
                    "Use integers known when tracing, or np.interp for a table."
                )
            if not assigning:
                raise refuse(
                    "a boolean mask of traced values gives a shape that depends on values. Use np.where(mask, a, b)."
                )
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
            if "expected a sequence of integers" in str(error):  # NumPy's words where a size is no integer
                raise _needs_value("a traced value as an integer", _CLOSE_OVER, line) from None
            text = f"{model} ({place(line)}): raised {type(error).__name__}: {error} while being traced."
            if source_line(line):
                text += f' The line is "{source_line(line)}".'
            text += " The body runs once on arrays without values; see docs/writing_models.md."
            raise TraceError(text) from error


def _line_of(error):
    """The last frame of a traceback that is the user's."""
    line, frame = None, error.__traceback__
    while frame is not None:
        if not _is_internal(frame.tb_frame.f_code):
            line = (frame.tb_frame.f_code.co_filename, frame.tb_lineno)
        frame = frame.tb_next
    return line
