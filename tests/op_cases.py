"""Every op with parameters and arguments to apply it to: what the laws over the table of ops are about."""

import math

import numpy as np
import strategies
from hypothesis import strategies as st

from odec.graph.function import Function
from odec.graph.node import Data, input_node
from odec.graph.op import OPS
from odec.ops.families import as_float

PARAMS = {
    "ipow": ({"exponent": 3}, {"exponent": -2}, {"exponent": 7}),
    "cast": ({"dtype": "float64"}, {"dtype": "float32"}),
    "pieces": ({"edges": (-1.0, 0.25, 2.0), "values": (0.5, -1.5, 3.0, 4.0)},),
}
ELEMENTWISE = [
    (op, params) for op in OPS.values() if op.family == "elementwise" for params in PARAMS.get(op.name, ({},))
]
ROUGH = ("rough_log2", "rough_exp2")  # for step sizes only: no SymPy form; derivatives in test_rough.py
SMOOTH = [(op, p) for op, p in ELEMENTWISE if p != {"dtype": "float32"} and op.name not in ROUGH]


def case_name(case):
    op, params = case
    return "-".join([op.name, *(str(v) for v in params.values() if not isinstance(v, tuple))])


def apply(case, args):
    """The op on float nodes, its result as a float64 node."""
    op, params = case
    result = as_float(op(*args, **params))
    return OPS["cast"](result, dtype="float64")


# ---- ops that are not elementwise ----------------------------------------------------------------------------


@st.composite
def structural(draw, name):
    """(Function of its inputs, arrays) of an op at a random shape."""
    shape = draw(strategies.SHAPES)
    if name in ("slice", "update", "transpose", "concatenate", "sum", "cumsum") and not shape:
        shape = (draw(st.integers(1, 4)),)
    arrays, call = BUILDERS[name](draw, shape)
    inputs = {f"x{k}": input_node(f"x{k}", a.shape, "float64") for k, a in enumerate(arrays)}
    return Function(name, inputs, {"v": call(*inputs.values())}), arrays


def _slices(draw, shape):
    drawn = [draw(strategies.slices_of(n)) for n in shape]
    starts, steps, extents = (tuple(p) for p in zip(*drawn, strict=True))
    return starts, steps, extents


def _slice(draw, shape):
    starts, steps, extents = _slices(draw, shape)
    return [draw(strategies.arrays(shape))], lambda x: OPS["slice"](x, starts=starts, steps=steps, shape=extents)


def _update(draw, shape):
    starts, steps, extents = _slices(draw, shape)
    arrays = [draw(strategies.arrays(shape)), draw(strategies.arrays(extents))]
    return arrays, lambda x, y: OPS["update"](x, y, starts=starts, steps=steps)


def _reshape(draw, shape):
    return [draw(strategies.arrays(shape))], lambda x: OPS["reshape"](x, shape=(1, *shape[::-1]))


def _transpose(draw, shape):
    axes = tuple(draw(st.permutations(range(len(shape)))))
    return [draw(strategies.arrays(shape))], lambda x: OPS["transpose"](x, axes=axes)


def _broadcast(draw, shape):
    source = tuple(draw(st.sampled_from((1, n))) for n in shape)[draw(st.integers(0, len(shape))) :]
    return [draw(strategies.arrays(source))], lambda x: OPS["broadcast"](x, shape=shape)


def _concatenate(draw, shape):
    axis = draw(st.integers(0, len(shape) - 1))
    other = tuple(draw(st.integers(1, 3)) if d == axis else n for d, n in enumerate(shape))
    arrays = [draw(strategies.arrays(shape)), draw(strategies.arrays(other))]
    return arrays, lambda x, y: OPS["concatenate"](x, y, x, axis=axis)


def _take(draw, shape):
    places = draw(st.lists(st.integers(0, math.prod(shape) - 1), min_size=1, max_size=5))
    return [draw(strategies.arrays(shape))], lambda x: OPS["take"](x, index=np.array(places))


def _put_add(draw, shape):
    places = np.array(draw(st.lists(st.integers(0, 5), min_size=math.prod(shape), max_size=math.prod(shape))))
    index = Data(places.reshape(shape).astype(np.int64))
    return [draw(strategies.arrays(shape))], lambda x: OPS["put_add"](x, index=index, shape=(2, 3))


def _sum(draw, shape):
    axes = draw(strategies.axes_of(len(shape)))
    return [draw(strategies.arrays(shape))], lambda x: OPS["sum"](x, axes=axes)


def _cumsum(draw, shape):
    axis = draw(st.integers(0, len(shape) - 1))
    return [draw(strategies.arrays(shape))], lambda x: OPS["cumsum"](x, axis=axis)


def _matmul(draw, shape):
    n, k, m = (draw(st.integers(1, 4)) for _ in range(3))
    lead = shape[:1]
    return [draw(strategies.arrays((*lead, n, k))), draw(strategies.arrays((*lead, k, m)))], OPS["matmul"]


def _solve(draw, shape):
    n, m = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    return [draw(strategies.well_conditioned(n)), draw(strategies.arrays((n, m)))], OPS["solve"]


def _det(draw, shape):
    return [draw(strategies.well_conditioned(draw(st.integers(1, 4))))], OPS["det"]


def _call(draw, shape):
    u, w = (input_node(name, shape, "float64") for name in "uw")
    callee = Function("callee", {"u": u, "w": w}, {"v": OPS["sin"](u) * w + u})
    return [draw(strategies.arrays(shape)), draw(strategies.arrays(shape))], lambda x, y: OPS["call"](callee, x, y)


BUILDERS = {
    "slice": _slice, "update": _update, "reshape": _reshape, "transpose": _transpose, "broadcast": _broadcast,
    "concatenate": _concatenate, "take": _take, "put_add": _put_add, "sum": _sum, "cumsum": _cumsum,
    "matmul": _matmul, "solve": _solve, "det": _det, "call": _call,
}  # fmt: skip
STRUCTURAL = [name for name, op in OPS.items() if op.family not in ("elementwise", "leaf")]
