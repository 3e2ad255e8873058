"""Random models, as a Hypothesis strategy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from odec.graph.op import OPS, zero
from odec.model import Model
from odec.ops.families import taylor_by_jvp
from odec.testing.points import hypothesis, plain


class RandomModel(NamedTuple):
    """A model with a point at which it is finite; prints as the source it stands for."""

    model: Model
    y0: Any
    params: dict

    def __repr__(self):
        return f"{self.model.__doc__}\n# y0 = {plain(self.y0)}, params = {plain(self.params)}"


def models(depth=4, smooth=False):
    """A Hypothesis strategy of random dynamics: RandomModel(model, y0, params).

    The right-hand side is a random expression in NumPy functions, of scalars and of arrays of rank up to 3 with
    axes up to 4; arguments are led into each function's domain, so that values stay finite near y0. The
    state is a number, an array (n,) or (2, 2), or a dict or tuple of such; params are k (a number) and c (3,).

    depth : how deep functions are nested
    smooth : leave out what has kinks or jumps (abs, floor, maximum, where, ...)
    """
    st = hypothesis().strategies
    return st.composite(_random_model)(depth, smooth)


STATES = {
    "y": [{"y": (3,)}, {"y": (1,)}, {"y": ()}, {"y": (2, 2)}],
    "dict": [{"y['a']": (), "y['b']": (2,)}],
    "tuple": [{"y[0]": (2,), "y[1]": (), "y[2]": (1, 3)}],
}
PARAMETERS = {"k": (), "c": (3,)}


@dataclass(frozen=True)
class Term:
    """A random expression: how it reads, its shape, and its value from the values of the sources."""

    text: str
    shape: tuple
    value: Callable


def _random_model(draw, depth, smooth):
    st = hypothesis().strategies
    kind = draw(st.sampled_from(sorted(STATES)))
    state = draw(st.sampled_from(STATES[kind]))
    sources = {**state, **PARAMETERS, "t": ()}
    growing = _Grower(draw, st, sources, smooth)
    terms = [growing.term(shape, depth, bare=False) for shape in state.values()]
    y0 = _packed(kind, [growing.array(shape) for shape in state.values()])
    params = {name: growing.array(shape) for name, shape in PARAMETERS.items()}
    texts = [term.text for term in terms]
    shown = {"y": "{}", "dict": "{{'a': {}, 'b': {}}}", "tuple": "({}, {}, {})"}[kind].format(*texts)

    def random_model(t, y, k, c):
        values = {"t": t, "k": k, "c": c, **_unpacked(kind, y)}
        return _packed(kind, [term.value(values) for term in terms])

    random_model.__doc__ = f"def random_model(t, y, k, c):\n    return {shown}"
    return RandomModel(Model(random_model), y0, params)


def _packed(kind, parts) -> Any:
    if kind == "y":
        return parts[0]
    return tuple(parts) if kind == "tuple" else dict(zip(("a", "b"), parts, strict=True))


def _unpacked(kind, y):
    if kind == "y":
        return {"y": y}
    return {f"y[{k!r}]": v for k, v in (enumerate(y) if kind == "tuple" else y.items())}


BOUNDED = ("sin", "cos", "tanh", "arctan", "neg", "abs", "add", "sub", "arcsinh", "sigmoid", "sign")
MOST_AXES, LONGEST_AXIS = 3, 4


class _Grower:
    """Draws terms of a wanted shape."""

    def __init__(self, draw, st, sources, smooth):
        self.draw, self.st, self.sources = draw, st, sources
        self.ops = _drawable_ops(smooth)
        self.smooth = smooth

    def choose(self, options):
        return self.draw(self.st.sampled_from(options))

    def number(self):
        return self.draw(self.st.integers(-96, 96)) / 64

    def array(self, shape):
        size = math.prod(shape)
        return np.array([self.number() for _ in range(size)]).reshape(shape) if shape else self.number()

    def term(self, shape, depth, bare=True):
        """A term of a shape, nested up to `depth` deep; `bare`: it may be a mere source."""
        if depth == 0 or (bare and self.draw(self.st.integers(0, 9)) == 9):
            return self.leaf(shape)
        ways = [self.elementwise] * 5 + [self.power, self.total]
        ways += [] if self.smooth else [self.selected]
        if shape:
            ways += [self.reversed_, self.running, self.reshaped, self.joined, self.shifted]
        if len(shape) <= 2:
            ways += [self.product, self.product]
        if len(shape) == 1:
            ways += [self.listed, self.solved]
        if len(shape) >= 2:
            ways += [self.transposed]
        if shape == ():
            ways += [self.determinant]
        return self.choose(ways)(shape, depth - 1)

    # ---- leaves

    def leaf(self, shape):
        name = self.choose([*self.sources, "number"])
        if name == "number":
            value = self.number()
            return self.full(value, shape) if shape else Term(f"{value!r}", (), lambda v: value)
        source = self.sources[name]
        if source == shape:
            return Term(name, shape, lambda v: v[name])
        if source == ():
            return Term(f"np.broadcast_to({name}, {shape})", shape, lambda v: np.broadcast_to(v[name], shape))
        index = np.array([self.draw(self.st.integers(0, math.prod(source) - 1)) for _ in range(math.prod(shape))], int)
        shown = index.reshape(shape).tolist() if shape else int(index[0])
        index = index.reshape(shape) if shape else index[0]
        return Term(
            f"np.ravel({name})[{'np.array(' + str(shown) + ')' if shape else shown}]",
            shape,
            lambda v: np.ravel(v[name])[index],
        )

    def full(self, value, shape):
        return Term(f"np.full({shape}, {value!r})", shape, lambda v: np.full(shape, value))

    # ---- functions of elements

    def elementwise(self, shape, depth):
        op, name, function = self.choose(self.ops)
        parts = []
        for k, domain in enumerate(op.domain):
            wanted = shape if k == 0 else self.choose([shape, shape, shape[1:]])
            part = self.term(wanted, depth)
            parts.append(part if op.name in BOUNDED else fitted(part, domain))
        text = f"{name}({', '.join(p.text for p in parts)})"
        return Term(text, shape, lambda v: function(*(p.value(v) for p in parts)))

    def power(self, shape, depth):
        x, n = fitted(self.term(shape, depth), (-1.5, 1.5)), self.choose([2, 3, 4])
        return Term(f"({x.text}) ** {n}", shape, lambda v: x.value(v) ** n)

    def selected(self, shape, depth):
        a, b, x, y = (self.term(shape, max(depth - 1, 0)) for _ in range(4))
        text = f"np.where({a.text} < {b.text}, {x.text}, {y.text})"
        return Term(text, shape, lambda v: np.where(a.value(v) < b.value(v), x.value(v), y.value(v)))

    # ---- functions of arrays

    def total(self, shape, depth):
        if len(shape) >= MOST_AXES:
            return self.elementwise(shape, depth)
        axis, extent = self.draw(self.st.integers(0, len(shape))), self.draw(self.st.integers(1, LONGEST_AXIS))
        x = self.term((*shape[:axis], extent, *shape[axis:]), depth)
        return Term(f"np.sum({x.text}, axis={axis})", shape, lambda v: np.sum(x.value(v), axis=axis))

    def running(self, shape, depth):
        x, axis = self.term(shape, depth), self.draw(self.st.integers(0, len(shape) - 1))
        return Term(f"np.cumsum({x.text}, axis={axis})", shape, lambda v: np.cumsum(x.value(v), axis=axis))

    def reversed_(self, shape, depth):
        x = self.term(shape, depth)
        return Term(f"({x.text})[::-1]", shape, lambda v: x.value(v)[::-1])

    def reshaped(self, shape, depth):
        x = self.term((math.prod(shape),), depth) if math.prod(shape) <= LONGEST_AXIS else self.term(shape[::-1], depth)
        return Term(f"np.reshape({x.text}, {shape})", shape, lambda v: np.reshape(x.value(v), shape))

    def transposed(self, shape, depth):
        x = self.term(shape[::-1], depth)
        return Term(f"({x.text}).T", shape, lambda v: x.value(v).T)

    def joined(self, shape, depth):
        if shape[0] < 2:
            return self.elementwise(shape, depth)
        a, b = self.term((1, *shape[1:]), depth), self.term((shape[0] - 1, *shape[1:]), depth)
        return Term(f"np.concatenate([{a.text}, {b.text}])", shape, lambda v: np.concatenate([a.value(v), b.value(v)]))

    def shifted(self, shape, depth):
        """Assignment into a part of an array."""
        x = self.term(shape, depth)

        def value(v):
            array = x.value(v) * 1.0
            array[:-1] += array[1:] * 0.5
            return array

        return Term(f"added_to_the_row_before({x.text})", shape, value)

    def listed(self, shape, depth):
        parts = [self.term((), depth) for _ in range(shape[0])]
        return Term(
            f"np.stack([{', '.join(p.text for p in parts)}])", shape, lambda v: np.stack([p.value(v) for p in parts])
        )

    def product(self, shape, depth):
        inner = self.draw(self.st.integers(1, LONGEST_AXIS))
        a, b = self.term((*shape[:1], inner), depth), self.term((inner, *shape[1:]), depth)
        return Term(f"({a.text}) @ ({b.text})", shape, lambda v: a.value(v) @ b.value(v))

    def solved(self, shape, depth):
        a, b, eye = self.term((shape[0], shape[0]), depth), self.term(shape, depth), 4.0 * np.eye(shape[0])
        text = f"np.linalg.solve(np.tanh({a.text}) + 4 * np.eye({shape[0]}), {b.text})"
        return Term(text, shape, lambda v: np.linalg.solve(np.tanh(a.value(v)) + eye, b.value(v)))

    def determinant(self, shape, depth):
        a, eye = self.term((2, 2), depth), np.eye(2)
        return Term(
            f"np.linalg.det(np.tanh({a.text}) + np.eye(2))", shape, lambda v: np.linalg.det(np.tanh(a.value(v)) + eye)
        )


def fitted(x, domain):
    """A term led smoothly into the interval `domain`."""
    low, high = domain
    middle, half = (low + high) / 2, (high - low) / 2
    return Term(f"({middle:g} + {half:g} * np.tanh({x.text}))", x.shape, lambda v: middle + half * np.tanh(x.value(v)))


def _drawable_ops(smooth):
    """[(op, its name in NumPy, function)] of elementwise ops that give numbers of numbers."""
    from odec import special

    found = []
    for name, op in sorted(OPS.items()):
        if op.family != "elementwise" or op.dtype(*["float64"] * len(op.domain), **_no_params(op)) == "bool":
            continue
        if smooth and (op.taylor is zero or op.taylor is taylor_by_jvp):
            continue
        function = op.numpy[0] if op.numpy else getattr(special, name, None)
        if function is not None and name not in ("to_float", "where"):
            prefix = "np" if op.numpy else "odec.special"
            found.append((op, f"{prefix}.{function.__name__}", function))
    return found


def _no_params(op):
    """Something for the parameters that the dtype of an op asks for."""
    import inspect

    asked = inspect.signature(op.dtype).parameters.values()
    return {p.name: "float64" for p in list(asked)[len(op.domain) :] if p.kind is p.POSITIONAL_OR_KEYWORD}
