"""`@odec.dynamics`: from the user's function to a Model, and with shapes to a System."""

from __future__ import annotations

import functools
import inspect
import pickle
import sys

import numpy as np

from odec.errors import ArgumentError, ShapeError, counted, nearest
from odec.graph.function import Function
from odec.graph.structure import structure_of
from odec.system import System
from odec.tracing import flat_result, traced

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
        given = {k: v for k, v in self.parameters.items() if k != "*"}
        missing = any(v is inspect.Parameter.empty for v in given.values())
        self._defaults = None if missing else given

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
        dtype = dtype_of_state(y0) if dtype is None else dtype_name(self.name, dtype)
        key = (y_structure, p_structure, dtype)
        system = self._systems.get(key)
        if system is None:
            if self.state is not None and len(self.state) != y_structure.size:
                raise ArgumentError(
                    f"{self.name}: state names {len(self.state)} components ({', '.join(self.state)}), "
                    f"but y0 has {y_structure.size}; name each of them."
                )
            system = self._systems[key] = self.system_of(*key)
        return system

    def system_of(self, y_structure, p_structure, dtype):
        """The System for structures of y and of the parameters, a dict by name, made anew."""
        return System(
            self.name, trace(self, y_structure, p_structure, dtype), y_structure, p_structure, dtype, self.state
        )

    def parameter_values(self, params):
        """{name: value} from a tuple in signature order or a dict by name, defaults filled in."""
        known = self.parameters
        if isinstance(params, tuple) and not params and self._defaults is not None:
            return self._defaults
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
                    f"{self.name} takes {counted(len(known), 'parameter')} ({', '.join(known) or 'none'}), but "
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


def dtype_of_state(y0):
    """'float32' where every array of a state is of that dtype, else 'float64'."""
    return "float32" if _all_float32(y0) else "float64"


def _all_float32(value):
    if isinstance(value, (tuple, list)):
        return bool(value) and all(_all_float32(v) for v in value)
    if isinstance(value, dict):
        return bool(value) and all(_all_float32(v) for v in value.values())
    if hasattr(value, "__dataclass_fields__"):
        return all(_all_float32(getattr(value, n)) for n in value.__dataclass_fields__)
    return getattr(value, "dtype", None) == np.float32


def trace(model, y_structure, p_structure, dtype):
    """The right-hand side as a Function (t: (), y: (n,), p: (m,)) -> dydt (n,)."""
    if y_structure.size == 0:
        raise ShapeError(f"{model.name}: y0 has no elements; a state of at least one number is needed.")
    inputs, result, _ = traced(_calling(model), model.name, y_structure, p_structure, dtype)
    rate = flat_result(model.name, y_structure, result, dtype, "y", "dynamics must return dy/dt")
    return Function("rhs", inputs, {"dydt": rate})


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
