"""Models as SymPy expressions, and SymPy expressions as models."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from odec.errors import ArgumentError, MissingRuleError, ShapeError
from odec.graph.node import CONSTANT, INPUT, scalar_value, value_of
from odec.model import Model


def _sympy() -> Any:
    try:
        import sympy
    except ImportError:
        raise ImportError("odec: SymPy is not installed, which this needs; pip install odec[sympy].") from None
    return sympy


# ---- a model as SymPy -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SymbolicSystem:
    """A bound model as SymPy expressions.

    t : Symbol
    y : list of Symbols (n,) in flat order for an array state, else the structure of y with Symbols and arrays of them
    params : dict name -> Symbol, array of Symbols, or structure of them
    rhs : list of expressions (n,), dy/dt in flat order
    y_symbols, p_symbols : all Symbols of y (n,) and of the parameters (m,), in flat order
    """

    t: Any
    y: Any
    params: dict
    rhs: list
    y_symbols: list
    p_symbols: list


def to_sympy(system, digits=15):
    """The right-hand side of a System as SymPy expressions: a SymbolicSystem.

    digits : decimal digits of its constants; with 40, every float64 is written exactly enough to compute with 30

    Raises
    ------
    MissingRuleError : an op has no SymPy form
    """
    sp = _sympy()
    taken: set[str] = set()
    t = _symbol(sp, "t", taken)
    p_flat = _symbols(sp, system.p_structure, _parameter_paths(system.p_structure), taken)
    y_flat = _symbols(sp, system.y_structure, _state_names(system), taken)
    found = function_to_sympy(system.graph, [t, _object_array(y_flat), _object_array(p_flat)], digits)
    (rate,) = found.values()
    y = list(y_flat) if system.y_structure.is_array else _shaped(system.y_structure, y_flat)
    return SymbolicSystem(t, y, _shaped(system.p_structure, p_flat), list(rate), list(y_flat), list(p_flat))


def _symbol(sp, wish, taken):
    """A real symbol of a name that is free: the wish itself, or the wish with underscores after it."""
    name = "".join(c if c.isalnum() or c == "_" else "_" for c in wish).strip("_") or "v"
    while name in taken:
        name += "_"
    taken.add(name)
    return sp.Symbol(name, real=True)


def _symbols(sp, structure, names, taken):
    """One symbol for each number of a structure, in flat order."""
    symbols = []
    for name, (_, leaf) in zip(names, structure.leaves, strict=True):
        if isinstance(name, list):
            symbols += [_symbol(sp, n, taken) for n in name]
        elif leaf.shape == ():
            symbols.append(_symbol(sp, name, taken))
        else:
            symbols += [_symbol(sp, "_".join([name, *map(str, index)]), taken) for index in np.ndindex(*leaf.shape)]
    return symbols


def _parameter_paths(structure):
    return [path for path, _ in structure.leaves]


def _state_names(system):
    """For each leaf of y a name, or a list with a name for each of its numbers."""
    structure = system.y_structure
    if system.state is not None and structure.is_array and len(system.state) == structure.size:
        return [list(system.state)]
    if structure.is_array:
        leaf = structure.root
        return ["y"] if leaf.shape == () else [["y" + "_".join(map(str, index)) for index in np.ndindex(*leaf.shape)]]
    return ["y_" + path.strip("[]'.") if path.strip("[]'.").isdigit() else path for path, _ in structure.leaves]


def _shaped(structure, symbols):
    """The structure with a symbol for each number leaf and an object array for each array leaf."""

    def part(leaf):
        if leaf.shape == ():
            return symbols[leaf.offset]
        return _object_array(symbols[leaf.offset : leaf.offset + leaf.size]).reshape(leaf.shape)

    return structure.map(part)


def _object_array(values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def function_to_sympy(function, inputs, digits=15):
    """The outputs of a Function as object arrays of SymPy expressions, by name.

    inputs : one SymPy expression or object array of them for each input, of its shape
    """
    sp = _sympy()
    values = {}
    for (name, node), given in zip(function.inputs.items(), inputs, strict=True):
        array = np.empty(node.shape, object)
        if np.shape(given) != node.shape:
            raise ShapeError(
                f"{function.name}: input {name} has shape {np.shape(given)}; shape {node.shape} is needed."
            )
        array[...] = given
        values[id(node)] = array
    for node in function.nodes:
        if node.op is CONSTANT:
            values[id(node)] = _constant_expressions(sp, node, digits)
        elif node.op is not INPUT:
            values[id(node)] = _applied(sp, node, [values[id(i)] for i in node.inputs], digits)
    return {name: values[id(node)] for name, node in function.outputs.items()}


def _constant_expressions(sp, node, digits):
    result = np.empty(node.shape, object)
    known = scalar_value(node)
    if known is not None:
        result.fill(_expression_of(sp, known, digits))
        return result
    for index, value in np.ndenumerate(value_of(node)):
        result[index] = _expression_of(sp, value.item(), digits)
    return result


def _expression_of(sp, value, digits):
    """A number as SymPy shows it best: integers as such, the rest as Floats of the same binary value."""
    if isinstance(value, bool):
        return sp.true if value else sp.false
    if value != value:
        return sp.nan
    if math.isinf(value):
        return sp.oo if value > 0 else -sp.oo
    return sp.Integer(int(value)) if value == int(value) and abs(value) < 1e15 else sp.Float(value, digits)


def _applied(sp, node, parts, digits):
    op = node.op
    if op.family == "elementwise":
        if not callable(op.sympy):
            raise MissingRuleError(f"to_sympy: {op.name} has no SymPy form ({op.sympy}); leave it out of the model.")
        result = np.empty(node.shape, object)
        flat = result.reshape(-1)
        for k, args in enumerate(zip(*(p.reshape(-1) for p in parts), strict=True)):
            flat[k] = op.sympy(sp, *args, **node.params)
        return result
    if op.name in _BY_MATRIX:
        return _BY_MATRIX[op.name](sp, *parts)
    if op.name == "put_add":
        return _put_add(sp, *parts, **node.params)
    if op.name == "call":
        return _called(parts, node.params["function"], digits)
    result = np.empty(node.shape, object)
    result[...] = op.evaluate(*parts, **node.params)
    return result


def _called(parts, function, digits):
    """The one output of the function that a call node applies."""
    (result,) = function_to_sympy(function, parts, digits).values()
    return result


def _solve(sp, a, b):
    return np.array(sp.Matrix(a.tolist()).LUsolve(sp.Matrix(b.tolist())).tolist(), dtype=object).reshape(b.shape)


def _det(sp, a):
    result = np.empty((), object)
    result[()] = sp.Matrix(a.tolist()).det(method="berkowitz")
    return result


_BY_MATRIX = {"solve": _solve, "det": _det}


def _put_add(sp, x, index, shape):
    result = np.full(math.prod(shape), sp.Integer(0), object)
    for place, value in zip(index.array.ravel(), x.ravel(), strict=True):
        result[place] = result[place] + value
    return result.reshape(shape)


# ---- SymPy as a model -------------------------------------------------------------------------------------


def from_sympy(rhs, t, y, params=()):
    """The Model dy/dt = rhs(t, y, params) of SymPy expressions.

    Parameters
    ----------
    rhs : list or Matrix of n expressions
    t : Symbol of the time
    y : n Symbols, or functions of t such as x(t); one Symbol for a scalar state
    params : Symbols, or a dict Symbol -> default

    Returns
    -------
    Model f(t, y, *params), the parameters under the names of their symbols, y of shape (n,)

    States are real: x**(1/3) is the real cube root.

    Raises
    ------
    MissingRuleError : a function that odec has not, or a symbol that is neither t, y nor a parameter
    """
    sp = _sympy()
    scalar = not isinstance(y, (list, tuple, sp.MatrixBase, np.ndarray))
    state = [sp.sympify(s) for s in ([y] if scalar else list(y))]
    expressions = [sp.sympify(e) for e in ([rhs] if scalar and not _is_sequence(sp, rhs) else list(rhs))]
    if len(expressions) != len(state):
        raise ShapeError(
            f"from_sympy: {len(expressions)} expressions for {len(state)} state variables; give one for each."
        )
    defaults = dict(params) if isinstance(params, dict) else {s: inspect.Parameter.empty for s in params}
    stand_ins = {s: sp.Dummy(str(s)) for s in state if not s.is_Symbol}  # x(t) is a function to SymPy
    expressions = [e.xreplace(stand_ins) for e in expressions]
    leaves = [t, *(stand_ins.get(s, s) for s in state), *defaults]
    _check_leaves(sp, expressions, leaves, state)
    shared, results = sp.cse(expressions, list=True)
    for e in (*(e for _, e in shared), *results):
        _check_functions(sp, e)
    function = RightHandSide(leaves, shared, results, scalar, _signature(defaults))
    names = tuple(str(s if s.is_Symbol else getattr(s, "func", s)) for s in state)
    return Model(function, state=None if scalar else names)


class RightHandSide:
    """dy/dt as a function of t, y and the parameters, by NumPy on the trees of SymPy expressions."""

    def __init__(self, leaves, shared, results, scalar, signature):
        self.leaves, self.shared, self.results, self.scalar = leaves, shared, results, scalar
        self.__name__ = "from_sympy"  # and no __qualname__: a Model of it is pickled with it, not by a name
        self.__signature__ = signature

    def __call__(self, t, y, *params, **named):
        given = self.__signature__.bind(t, y, *params, **named)
        given.apply_defaults()
        t, y, *params = given.arguments.values()
        known = dict(zip(self.leaves, [t, *([y] if self.scalar else list(y)), *params], strict=True))
        for symbol, e in self.shared:
            known[symbol] = evaluate_expression(e, known, NUMPY)
        rates = [evaluate_expression(e, known, NUMPY) for e in self.results]
        return rates[0] if self.scalar else rates


def _is_sequence(sp, value):
    return isinstance(value, (list, tuple, sp.MatrixBase, np.ndarray))


def _signature(defaults):
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    taken, parameters = {"t", "y"}, [inspect.Parameter(n, kind) for n in ("t", "y")]
    ordered = sorted(defaults.items(), key=lambda item: item[1] is not inspect.Parameter.empty)
    if [s for s, _ in ordered] != list(defaults):
        raise ArgumentError(
            "from_sympy: a parameter without a default follows one with a default; give all of them defaults."
        )
    for symbol, default in ordered:
        name = str(symbol)
        if not name.isidentifier() or name in taken:
            raise ArgumentError(
                f"from_sympy: the parameter {name!r} is no name of its own for an argument; rename the symbol."
            )
        taken.add(name)
        default = float(default) if default is not inspect.Parameter.empty and np.ndim(default) == 0 else default
        parameters.append(inspect.Parameter(name, kind, default=default))
    return inspect.Signature(parameters)


def _check_leaves(sp, expressions, leaves, state):
    if len(set(leaves)) != len(leaves):
        raise ArgumentError("from_sympy: a symbol is used twice among t, y and params; give each its own.")
    for e in expressions:
        unknown = sorted(map(str, e.free_symbols - set(leaves)))
        if unknown:
            raise MissingRuleError(
                f"from_sympy: {unknown[0]!r} in {str(e)[:80]!r} is neither t, nor in y, nor in params; "
                "add it to params, or substitute a number for it."
            )


def _check_functions(sp, expression):
    for part in sp.preorder_traversal(expression):
        if not part.is_Symbol and not _is_number(part) and type(part).__name__ not in KNOWN:
            known = ", ".join(sorted(k for k in KNOWN if k[0].islower()))
            raise MissingRuleError(
                f"from_sympy: {type(part).__name__} in {str(part)[:80]!r} has no odec op; rewrite it, "
                f"by .rewrite() or .doit(), with arithmetic and {known}."
            )


def _is_number(part):
    return any(getattr(part, kind, False) for kind in ("is_Number", "is_NumberSymbol")) or type(part).__name__ in TRUTHS


def evaluate_expression(expression, values, library):
    """The value of a SymPy expression from its tree, each distinct part once.

    values : {expression: value}, at least of the symbols; the values of all parts are added
    library : what computes, NUMPY or another dict with the same keys
    """
    stack = [expression]
    while stack:
        part = stack[-1]
        if part in values:
            stack.pop()
            continue
        if _is_number(part):
            values[part] = library["number"](part)
            stack.pop()
            continue
        needed = _needed(part)
        missing = [a for a in needed if a not in values]
        if missing:
            stack.extend(missing)
            continue
        values[part] = _apply(part, [values[a] for a in needed], library)
        stack.pop()
    return values[expression]


def _needed(part):
    """The parts whose values a part is made of; the exponent of a number power is no such part."""
    if type(part).__name__ == "Piecewise":
        return [x for pair in part.args for x in pair.args]
    if type(part).__name__ == "Pow" and part.exp.is_Rational:
        return [part.base]
    return list(part.args)


def _apply(part, args, library):
    name = type(part).__name__
    if name == "Pow" and part.exp.is_Rational:
        return _rational_power(args[0], part.exp, library)
    if name == "Piecewise":
        return _piecewise([(args[k], args[k + 1]) for k in range(0, len(args), 2)], library)
    if name not in library:
        raise MissingRuleError(
            f"{name} in {str(part)[:80]!r} has no odec op; rewrite it with functions that odec.supported() lists."
        )
    return library[name](*args)


def _rational_power(base, exponent, library):
    p, q = int(exponent.p), int(exponent.q)
    if q == 1:
        return library["Pow"](base, p)
    if q not in (2, 3):
        return library["Pow"](base, library["number"](exponent))
    root = library["sqrt" if q == 2 else "cbrt"](base)
    return root if p == 1 else library["Pow"](root, p)


def _piecewise(pairs, library):
    result = library["nan"]
    for value, condition in reversed(pairs):
        result = value if condition is True else library["where"](condition, value, result)
    return result


def _fold(function):
    def folded(*args):
        result = args[0]
        for a in args[1:]:
            result = function(result, a)
        return result

    return folded


def _numpy_number(part):
    if part.is_Boolean:
        return bool(part)
    return int(part) if part.is_Integer and abs(int(part)) < 2**53 else float(part)


def _log(x, base=None):
    return np.log(x) if base is None else np.log(x) / np.log(base)


def _if_then_else(condition, a, b):
    """A choice between truth values."""
    return np.logical_or(np.logical_and(condition, a), np.logical_and(np.logical_not(condition), b))


def _numpy_library():
    from odec import special

    return {
        "number": _numpy_number, "nan": float("nan"), "where": np.where,
        "Add": _fold(lambda a, b: a + b), "Mul": _fold(lambda a, b: a * b), "Pow": lambda a, b: a**b,
        "exp": np.exp, "log": _log, "sqrt": np.sqrt, "cbrt": np.cbrt,
        "sin": np.sin, "cos": np.cos, "tan": np.tan,
        "cot": lambda x: 1 / np.tan(x), "sec": lambda x: 1 / np.cos(x), "csc": lambda x: 1 / np.sin(x),
        "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "atan2": np.arctan2,
        "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh,
        "coth": lambda x: 1 / np.tanh(x), "sech": lambda x: 1 / np.cosh(x), "csch": lambda x: 1 / np.sinh(x),
        "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
        "Abs": np.abs, "sign": np.sign, "Max": _fold(np.maximum), "Min": _fold(np.minimum),
        "floor": np.floor, "ceiling": np.ceil, "Mod": np.mod, "Heaviside": lambda x, h0=0.5: np.heaviside(x, h0),
        "erf": special.erf, "erfc": lambda x: 1 - special.erf(x), "sinc": lambda x: np.sinc(x / np.pi),
        "StrictLessThan": np.less, "LessThan": np.less_equal, "StrictGreaterThan": np.greater,
        "GreaterThan": np.greater_equal, "Equality": np.equal, "Unequality": np.not_equal,
        "And": _fold(np.logical_and), "Or": _fold(np.logical_or), "Not": np.logical_not, "Xor": _fold(np.logical_xor),
        "ITE": _if_then_else,
    }  # fmt: skip


TRUTHS = ("BooleanTrue", "BooleanFalse")
NUMPY = _numpy_library()
KNOWN = frozenset(NUMPY) - {"number", "nan", "where"} | {"Piecewise", "ExprCondPair"}
