"""The variational equations: a model together with its derivatives along some directions, as one larger model."""

from __future__ import annotations

import numpy as np

from odec.codegen.lower import is_small
from odec.graph.function import Function
from odec.graph.node import constant, input_node, structural_zero
from odec.ops.structure import concatenate, element, reshape, slice_, stack
from odec.transforms.jvp import jvp, tangents
from odec.transforms.scalar import expand

FROM_INPUT = "input"  # in `directions`: the tangent of p is given beside p


def variational(f, directions):
    """dy/dt = f(t, y, p), ds_k/dt = (df/dy) s_k + (df/dp) dp_k, as a Function of the augmented state.

    In the augmented state (and p, where it is augmented) every number is followed by its tangents: y as (n, 1 + c),
    flat. So halves of y (positions, velocities) are halves of the augmented state, too.

    Parameters
    ----------
    f : Function (t: (), y: (n,), p: (m,)) -> (n,)
    directions : for each s_k the place in p of the one parameter that moves, or None where none does; or
        (FROM_INPUT,) * c, for tangents dp_k that are given with p, as (m, 1 + c), flat

    Returns
    -------
    Function (t: (), y: (n (1 + c),), p: (m,) or (m (1 + c),)) -> dydt (n (1 + c),), in the units of y and of y over
    those of the directions, over that of t

    References: [hairer1993] I.14, eq. (14.11)
    """
    t, y, p = f.inputs.values()
    width, seeded = 1 + len(directions), FROM_INPUT in directions
    inputs = {
        "t": input_node("t", (), t.dtype), "y": input_node("y", (y.size * width,), y.dtype),
        "p": input_node("p", (p.size * (width if seeded else 1),), p.dtype),
    }  # fmt: skip
    columns = _by_elements if is_small(f) else _by_arrays
    return Function("rhs", inputs, {"dydt": columns(f, directions, *inputs.values())})


def _by_elements(f, directions, t, y, p):
    """The rates of small models, scalar by scalar, so that no operation with a structural zero is left."""
    width, seeded = 1 + len(directions), FROM_INPUT in directions
    n = y.size // width
    states = np.array([element(y, i) for i in range(y.size)], object).reshape(n, width)
    values = _boxed([element(p, j) for j in range(p.size)]).reshape(-1, width if seeded else 1)
    given, trail = dict(zip(f.inputs.values(), (_boxed([t]).reshape(()), states[:, 0], values[:, 0]))), []
    (rates,) = expand(f, given, trail).values()
    one, columns = constant(1.0, y.dtype), [list(rates)]
    for k, direction in enumerate(directions, 1):
        seeds = dict(zip(states[:, 0], states[:, k]))
        if direction == FROM_INPUT:
            seeds |= dict(zip(values[:, 0], values[:, k]))
        elif direction is not None:
            seeds[values[direction, 0]] = one
        found = tangents(trail, seeds)
        columns.append([found.get(id(rate), structural_zero(y.dtype)) for rate in rates])
    return stack([rate for row in zip(*columns) for rate in row], (y.size,))


def _boxed(nodes):
    boxed = np.empty(len(nodes), object)
    boxed[:] = nodes
    return boxed


def _by_arrays(f, directions, t, y, p):
    """The rates of large models, whose arrays stay arrays."""
    width, seeded = 1 + len(directions), FROM_INPUT in directions
    states = _columns(y, width)
    values = _columns(p, width) if seeded else [p]
    along_y, along_both = jvp(f, ("y",)), jvp(f, ("y", "p"))
    (rate,) = f(t, states[0], values[0]).values()
    rates = [rate]
    for k, direction in enumerate(directions, 1):
        if direction is None:
            (rate,) = along_y(t, states[0], values[0], states[k]).values()
        else:
            dp = values[k] if seeded else constant(np.eye(1, p.size, direction)[0], p.dtype)
            (rate,) = along_both(t, states[0], values[0], states[k], dp).values()
        rates.append(rate)
    joined = concatenate(*(reshape(rate, shape=(rate.size, 1)) for rate in rates), axis=1)
    return reshape(joined, shape=(y.size,))


def _columns(x, width):
    """The columns (n,) of a flat (n, width)."""
    rows = reshape(x, shape=(x.size // width, width))
    return [
        reshape(slice_(rows, starts=(0, k), steps=(1, 1), shape=(rows.shape[0], 1)), shape=(rows.shape[0],))
        for k in range(width)
    ]
