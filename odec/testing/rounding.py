"""What rounding can do to the numbers of a graph: the tolerance of every comparison."""

from __future__ import annotations

import numpy as np

from odec.graph.node import CONSTANT, value_of
from odec.graph.op import zero
from odec.ops.families import taylor_by_jvp

RUNS = 6


def rounding_spread(function, inputs, eps):
    """For each output, the largest change that random relative changes of 4 eps cause, made to every input
    and every operation: the condition of the computation, kinks and cancellation included [vignes1993]."""
    exact = list(function.evaluate(*inputs).values())
    rng = np.random.default_rng(0)
    spreads = [np.zeros(np.shape(e)) for e in exact]
    for _ in range(RUNS):
        moved = _perturbed(function, inputs, 4 * eps, rng)
        for k, (e, v) in enumerate(zip(exact, moved, strict=True)):
            with np.errstate(invalid="ignore"):
                spreads[k] = np.fmax(spreads[k], np.where(np.isfinite(v), np.abs(v - e), np.inf))
    return spreads


def _rounds(op):
    """Whether an op computes new numbers; one that picks among its inputs is exact, and masks rely on it."""
    if op.family == "elementwise":
        return op.taylor is not zero and op.taylor is not taylor_by_jvp
    return op.family != "linear" or op.name in ("sum", "cumsum", "put_add")


def _perturbed(function, inputs, eps, rng):
    def move(array, floor):
        array = np.asarray(array)
        if array.dtype.kind != "f":
            return array
        return array + eps * (np.abs(array) + floor) * rng.uniform(-1, 1, array.shape)

    values = {id(n): move(np.asarray(a, float), 1e-3) for n, a in zip(function.inputs.values(), inputs, strict=True)}
    with np.errstate(all="ignore"):
        for node in function.nodes[len(function.inputs) :]:
            if node.op is CONSTANT:
                values[id(node)] = np.asarray(value_of(node), bool if node.dtype == "bool" else float)
            else:
                result = np.asarray(node.op.evaluate(*(values[id(i)] for i in node.inputs), **node.params))
                values[id(node)] = move(result, 0.0) if _rounds(node.op) else result
    return [values[id(n)] for n in function.outputs.values()]
