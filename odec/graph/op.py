"""The record of one operation, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

OPS: dict[str, Op] = {}
TRACEABLE: dict[Callable, Callable] = {}  # NumPy callable -> what to call on traced values
CHECKS: dict[str, Callable] = {}  # op name -> (*shapes, **params), raises where a node from a file makes no sense
BLANK: Any = object()


def zero(node, *_):
    """The stated value of a rule whose result is zero everywhere."""
    return None


@dataclass(frozen=True, eq=False)
class Op:
    """One operation: everything the compiler knows about it.

    `inputs` of a rule are nodes; `node` is the application whose rule is asked for.
    A field left out is refused here, so no transform can meet a blank later.
    """

    name: str
    family: str
    doc: str
    shape: Callable = BLANK  # (*shapes, **params) -> shape
    dtype: Callable = BLANK  # (*dtypes, **params) -> dtype
    evaluate: Callable = BLANK  # (*arrays, **params) -> array, by NumPy
    scalarise: Callable = BLANK  # the same on object arrays of scalar nodes
    build: Callable = BLANK  # (op, *args, **params) -> Node: coercion and broadcasting
    jvp: Callable = BLANK  # (node, tangents) -> tangent or None; a tangent may be None (zero)
    vjp: Callable = BLANK  # (node, cotangent) -> cotangents of the inputs, None for zero
    taylor: Callable = BLANK  # (node, series) -> its Recurrence (ops/recurrence.py), None for zero
    simplify: Callable | None = BLANK  # (inputs, params) -> Node or None, exact in floating point
    python: str | Callable | None = BLANK  # expression of an elementwise op
    llvm: Callable | None = BLANK  # (emitter, *operands) -> operand, of an elementwise op
    reach: Callable = BLANK  # (node, masks) -> masks: which input elements each output element depends on
    cost: Callable = BLANK  # (node) -> scalar operations in straight-line code, roughly
    lower: Callable | None = BLANK  # (lowering, node) for an op that is not elementwise
    sympy: Callable | str = BLANK  # (*sympy arguments) -> expression, or why there is none
    domain: tuple = BLANK  # per argument (low, high): where it is defined and smooth
    numpy: tuple = ()  # NumPy callables that trace to it

    def __post_init__(self):
        blanks = [f.name for f in fields(self) if getattr(self, f.name) is BLANK]
        if blanks:
            raise TypeError(f"op {self.name!r} leaves {', '.join(blanks)} blank; state each, None included")
        if self.name in OPS:
            raise TypeError(f"op {self.name!r} is defined twice")
        OPS[self.name] = self
        for function in self.numpy:
            TRACEABLE[function] = self

    def __call__(self, *args, **params):
        return self.build(self, *args, **params)

    def __repr__(self):
        return f"<op {self.name}>"

    def __reduce__(self):
        return _op_named, (self.name,)


def _op_named(name):
    return OPS[name]


def traceable(*functions):
    """Decorator: the function below is what traced values do for these NumPy callables."""

    def register(implementation):
        for function in functions:
            TRACEABLE[function] = implementation
        return implementation

    return register
