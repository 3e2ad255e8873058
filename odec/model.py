"""`@odec.dynamics`: from the user's function to a Model, and with shapes to a System."""

from __future__ import annotations

import functools
import inspect
import pickle
import sys

import numpy as np

from odec.errors import ArgumentError, ShapeError, TraceError, nearest
from odec.graph.function import Function
from odec.graph.node import coerce, input_node
from odec.graph.op import OPS
from odec.graph.structure import Leaf, children_of, describe, step_text, structure_of
from odec.graph.trace import call_model, unwrap, wrap
from odec.ops.shaping import array
from odec.ops.structure import concatenate, reshape, slice_
from odec.system import System

FLOATS = ("float64", "float32")


def dynamics(function=None, *, state=None):
    """Decorator: dy/dt = f(t, y, *params), a NumPy function, becomes a Model.

    state : names of the components of y, for results, plots and printing
    """
    if function is None:
        return functools.partial(dynamics, state=state)
    return Model(function, state)


class Model:
    """A right-hand side without shapes yet. Called on numbers it runs the plain function."""

    def __init__(self, function, state=None):
        if isinstance(function, Model):
            function = function.function
        if not callable(function):
            raise ArgumentError(f"odec.dynamics needs a function f(t, y, *params), not {type(function).__name__}.")
        functools.update_wrapper(self, function)
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        self.state = _state_names(self.name, state)
        self.parameters = _parameters(self.name, function)
        self._systems = {}

    def __call__(self, t, y, *params, **named):
        return self.function(t, y, *params, **named)

    def __repr__(self):
        return f"<odec model {self.name}({', '.join(('t', 'y', *self.parameters))})>"

    def __reduce__(self):
        """As functions are pickled: by the name under which the other process can import it."""
        module, name = getattr(self.function, "__module__", None), getattr(self.function, "__qualname__", None)
        found = _importable(module, name)
        if found is self and name is not None:
            return name
        if found is not self.function and name is not None:
            raise pickle.PicklingError(
                f"{self.name} cannot be pickled: another process finds no {module}.{name}; define it at "
                "the top level of "
                f"its module, or send the system {self.name}.bind(y0, params), which carries its graph."
            )
        return Model, (self.function, self.state)

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def bind(self, y0, params=(), dtype=None):
        """The System of this model for the structure, shapes and dtype of `y0` and `params`.

        dtype : float64 or float32; None takes float32 only if every array of y0 is float32
        """
        return self.bind_values(y0, self.parameter_values(params), dtype)

    def bind_values(self, y0, values, dtype):
        """`bind` for parameters as `parameter_values` gives them."""
        y_structure = structure_of(y0, f"{self.name}: y0")
        p_structure = structure_of(values, f"{self.name}: params")
        dtype = _all_dtype(y0) if dtype is None else dtype_name(self.name, dtype)
        key = (y_structure, p_structure, dtype)
        system = self._systems.get(key)
        if system is None:
            if self.state is not None and len(self.state) != y_structure.size:
                raise ArgumentError(
                    f"{self.name}: state names {len(self.state)} components ({', '.join(self.state)}), "
                    f"but y0 has {y_structure.size}; name each of them."
                )
            system = self._systems[key] = System(self.name, trace(self, *key), *key, self.state)
        return system

    def parameter_values(self, params):
        """{name: value} from a tuple in signature order or a dict by name, defaults filled in."""
        known = self.parameters
        if isinstance(params, dict):
            unknown = [n for n in params if n not in known]
            if unknown:
                raise ArgumentError(
                    f"{self.name} has no parameter {unknown[0]!r}{nearest(unknown[0], known)} "
                    f"It has {', '.join(known) or 'none'}."
                )
            given = params
        elif isinstance(params, (tuple, list)):
            if len(params) > len(known) and known.get("*") is None:
                raise ArgumentError(
                    f"{self.name} takes {len(known)} parameters ({', '.join(known) or 'none'}), but "
                    f"{len(params)} were given; "
                    "leave out the last, or pass a dict by name."
                )
            names = [n for n in known if n != "*"]
            names += [f"{known['*']}_{k}" for k in range(len(params) - len(names))] if "*" in known else []
            given = dict(zip(names, params, strict=False))
        else:
            raise ArgumentError(
                f"{self.name}: params is {type(params).__name__}; pass a tuple in signature order, as "
                "(value,), or a dict by name."
            )
        return self._with_defaults(given)

    def _with_defaults(self, given):
        values = {}
        for name, default in self.parameters.items():
            if name == "*":
                continue
            if name not in given and default is inspect.Parameter.empty:
                raise ArgumentError(
                    f"{self.name} needs the parameter {name!r}, which has no default; give it in params."
                )
            values[name] = given.get(name, default)
        return values | {n: v for n, v in given.items() if n not in values}


def _state_names(model, state):
    """Names of the components as a tuple, or None."""
    if state is None:
        return None
    if isinstance(state, str) or not all(isinstance(name, str) for name in state):
        raise ArgumentError(f"{model}: state is {state!r}; a tuple of names is needed, as state=('x', 'y').")
    return tuple(state)


def _importable(module, name):
    """What `from module import name` gives, for a dotted name too, or None."""
    found = sys.modules.get(module) if module else None
    for part in (name or "").split("."):
        found = getattr(found, part, None)
    return found


def _parameters(model, function):
    """{name: default or Parameter.empty} of what follows (t, y); '*': the name of a starred rest."""
    try:
        given = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise ArgumentError(f"{model}: its signature cannot be read; wrap it as def f(t, y, ...): return ...") from None
    positional = [p for p in given if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind is p.VAR_KEYWORD for p in given):
        raise ArgumentError(f"{model} takes **{given[-1].name}; name every parameter in the signature.")
    if len(positional) < 2:
        raise ArgumentError(f"{model} must take the time and the state first: def {model}(t, y, ...).")
    rest = [p for p in given if p not in positional[:2]]
    return {
        ("*" if p.kind is p.VAR_POSITIONAL else p.name): (p.name if p.kind is p.VAR_POSITIONAL else p.default)
        for p in rest
    }


def dtype_name(model, dtype):
    """'float64' or 'float32' for what NumPy takes as that dtype; ArgumentError for any other."""
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = repr(dtype)
    if name not in FLOATS:
        raise ArgumentError(f"{model}: dtype {name} is not supported; use float64 or float32.")
    return name


def _all_dtype(y0):
    return "float32" if _all_float32(y0) else "float64"


def _all_float32(value):
    if isinstance(value, (tuple, list)):
        return bool(value) and all(_all_float32(v) for v in value)
    if isinstance(value, dict):
        return bool(value) and all(_all_float32(v) for v in value.values())
    if hasattr(value, "__dataclass_fields__"):
        return all(_all_float32(getattr(value, n)) for n in value.__dataclass_fields__)
    return getattr(value, "dtype", None) == np.float32


# ---- tracing ----------------------------------------------------------------------------------------------


def trace(model, y_structure, p_structure, dtype):
    """The right-hand side as a Function (t: (), y: (n,), p: (m,)) -> dydt (n,)."""
    if y_structure.size == 0:
        raise ShapeError(f"{model.name}: y0 has no elements; a state of at least one number is needed.")
    t = input_node("t", (), "float64")
    y = input_node("y", (y_structure.size,), dtype)
    p = input_node("p", (p_structure.size,), dtype)
    time = t if dtype == "float64" else OPS["cast"](t, dtype=dtype)
    state = _handles(
        y_structure,
        y,
        "y",
        f"{model.name} assigns into the state y, which belongs to the solver. Use y = y.copy() first.",
    )
    values = _handles(p_structure, p, "", f"{model.name} assigns into a parameter. Use a copy of it.")
    try:
        result = call_model(_calling(model), model.name, (wrap(time), state, values), dtype)
    except TraceError as error:
        if error.__cause__ is None:
            raise
        root = y_structure.root
        shape = f"has shape {root.shape}" if isinstance(root, Leaf) else f"is {describe(root)}"
        raise TraceError(f"{error} Here y {shape}.") from error.__cause__
    rate = _flat_result(model.name, y_structure, result, dtype)
    return Function("rhs", {"t": t, "y": y, "p": p}, {"dydt": rate})


def _calling(model):
    named = [n for n in model.parameters if n != "*"]

    def call(t, y, values):
        extra = [v for n, v in values.items() if n not in named]
        if extra:
            return model.function(t, y, *[values[n] for n in named], *extra)
        return (
            model.function(t, y, **values) if _keyword_only(model.function) else model.function(t, y, *values.values())
        )

    return call


def _keyword_only(function):
    return any(p.kind is p.KEYWORD_ONLY for p in inspect.signature(function).parameters.values())


def _handles(structure, flat, name, frozen):
    """The structure with a handle on a part of the flat input for each leaf."""
    paths = {leaf.offset: path for path, leaf in structure.leaves}

    def handle(leaf):
        part = slice_(flat, starts=(leaf.offset,), steps=(1,), shape=(leaf.size,)) if leaf.size else flat
        node = reshape(part, shape=leaf.shape)
        path = paths.get(leaf.offset, "")
        label = name + path.replace("['", ".").replace("']", "")
        if node.name is None and label.strip("."):
            node.name = label.strip(".")
        handle = wrap(node)
        handle._frozen = frozen
        return handle

    return structure.map(handle)


def _flat_result(model, structure, result, dtype):
    """What the model returned, checked against the structure of y, as one flat node."""
    if result is None:
        raise TraceError(
            f"{model} returned None; dynamics must return dy/dt with the shape of y (is the return missing?)."
        )
    parts = []
    _collect(model, structure.root, unwrap(result), "", parts, dtype)
    flat = [reshape(p, shape=(p.size,)) for p in parts]
    return concatenate(*flat, axis=0)


def _collect(model, item, value, path, parts, dtype):
    if isinstance(item, Leaf):
        if isinstance(value, (str, bytes)) or (children_of(value) is not None and not isinstance(value, (list, tuple))):
            raise ShapeError(
                f"{model} returned{path} a {type(value).__name__}, but y{path} has shape {item.shape}; "
                "dynamics must return dy/dt in the structure of y."
            )
        try:
            node = coerce([array(value)], dtype)[0]
        except (TypeError, ValueError) as error:
            raise ShapeError(
                f"{model} returned{path} no array: {error}; dynamics must return dy/dt with the shape of y."
            ) from None
        node = OPS["to_float"](node) if node.dtype == "bool" else node
        if node.shape != item.shape:
            where = f" for y{path}" if path else ""
            raise ShapeError(
                f"{model} returned shape {node.shape}{where}, but y{path} has shape {item.shape}; "
                "dynamics must return dy/dt with the shape of y."
            )
        parts.append(node)
        return
    found = children_of(value)
    if found is None or set(found[1]) != set(item.keys):
        what = f"a {type(value).__name__}" if found is None else f"a {found[0]} of ({', '.join(map(str, found[1]))})"
        raise ShapeError(
            f"{model} returned {what}, but y{path} is {describe(item)}; dynamics must return dy/dt in "
            "the structure of y."
        )
    by_key = dict(zip(found[1], found[2], strict=True))
    for key, child in zip(item.keys, item.children, strict=True):
        _collect(model, child, by_key[key], path + step_text(item.kind, key), parts, dtype)
