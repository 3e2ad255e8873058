"""The variational equations: a model together with its derivatives along some directions, as one larger model."""

from __future__ import annotations

import numpy as np

from odec.codegen.lower import FEW_ELEMENTS, is_small
from odec.graph.function import Function
from odec.graph.node import constant, input_node, line_is, structural_zero, topological
from odec.graph.op import OPS
from odec.ops.families import broadcast_to
from odec.ops.structure import concatenate, element, reshape, slice_, stack
from odec.steppers.runge_kutta import evaluation
from odec.transforms.jvp import jvp, tangents
from odec.transforms.scalar import expand, operation_count

FROM_INPUT = "input"  # in `directions`: the tangent of p is given beside p
OPERATIONS = 3_000  # scalar operations of the tangents, roughly, up to which straight-line code is soon compiled


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
    columns = _by_elements if is_by_elements(f, len(directions)) else _by_arrays
    return Function("rhs", inputs, {"dydt": columns(f, directions, *inputs.values())})


def is_by_elements(f, count):
    """Whether `variational` writes scalars for `count` directions: for a small model, unless its arrays are shorter."""
    operations = operation_count(f)
    return is_small(f) and (2 * count * operations <= OPERATIONS or operations <= FEW_ELEMENTS * len(f.nodes))


def _by_elements(f, directions, t, y, p):
    """The rates of small models, scalar by scalar, so that no operation with a structural zero is left."""
    width, seeded = 1 + len(directions), FROM_INPUT in directions
    n = y.size // width
    states = np.array([element(y, i) for i in range(y.size)], object).reshape(n, width)
    values = _boxed([element(p, j) for j in range(p.size)]).reshape(-1, width if seeded else 1)
    given = dict(zip(f.inputs.values(), (_boxed([t]).reshape(()), states[:, 0], values[:, 0])))
    (rates,) = expand(f, given).values()
    nodes, one, columns = topological(rates), constant(1.0, y.dtype), [list(rates)]
    for k, direction in enumerate(directions, 1):
        seeds = dict(zip(states[:, 0], states[:, k]))
        if direction == FROM_INPUT:
            seeds |= dict(zip(values[:, 0], values[:, k]))
        elif direction is not None:
            seeds[values[direction, 0]] = one
        found = tangents(nodes, seeds)
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
            dp = values[k] if seeded else _unit(p, direction)
            (rate,) = along_both(t, states[0], values[0], states[k], dp).values()
        rates.append(rate)
    return _joined(rates)


def _columns(x, width):
    """The columns (n,) of a flat (n, width)."""
    rows = reshape(x, shape=(x.size // width, width))
    return [
        reshape(slice_(rows, starts=(0, k), steps=(1, 1), shape=(rows.shape[0], 1)), shape=(rows.shape[0],))
        for k in range(width)
    ]


def _joined(columns):
    """Columns (n,) as one flat (n, width)."""
    joined = concatenate(*(reshape(x, shape=(x.size, 1)) for x in columns), axis=1)
    return reshape(joined, shape=(joined.size,))


# ---- events -----------------------------------------------------------------------------------------------


def variational_events(larger, directions, functions):
    """The functions of a model's events for its variational equations: the same events, and resets that carry the
    derivatives across.

    An event at time tau, where g(tau, y, p) = 0, moves by dtau_k = -(g_y s_k + g_p dp_k) / (g_t + g_y f-), and with
    the reset r the derivatives after it are s_k+ = r_y (s_k + f- dtau_k) + r_t dtau_k + r_p dp_k - f+ dtau_k.

    Parameters
    ----------
    larger : Function, `variational(f, directions)`
    functions : Functions by name: events (t, y, p) -> values (n_events,), reset0, ... (t, y, p) -> y_new, p_new

    Returns
    -------
    dict of Functions of the augmented (t, y, p): events, rates, and the resets

    References: Hiskens and Pai, Trajectory sensitivity analysis of hybrid systems, IEEE Trans. Circuits Syst. I 47
    (2000)
    """
    inputs = {name: input_node(name, node.shape, node.dtype) for name, node in larger.inputs.items()}
    t, y, p = inputs.values()
    width, seeded = 1 + len(directions), FROM_INPUT in directions
    point = t, _columns(y, width)[0], _columns(p, width)[0] if seeded else p
    with line_is(None):
        slope = evaluation(larger, 1)
        events = Function("events", inputs, functions["events"](*point))
        (rates,) = jvp(events, ("t", "y"))(t, y, p, constant(1.0, "float64"), slope(t, y, p)).values()
        found = {"events": events, "rates": Function("rates", inputs, {"rates": rates})}
        for name, reset in functions.items():
            if name.startswith("reset"):
                rate = _entry(rates, int(name.removeprefix("reset")))
                outputs = _carried(slope, directions, functions["events"], reset, rate, name, (t, y, p))
                found[name] = Function("reset", inputs, outputs)
    return found


def _carried(slope, directions, events, reset, rate, name, at):
    """The outputs of a reset of the augmented state, by name."""
    (t, y, p), width, seeded = at, 1 + len(directions), FROM_INPUT in directions
    states, values = _columns(y, width), _columns(p, width) if seeded else [p]
    point, which = (t, states[0], values[0]), int(name.removeprefix("reset"))
    before = _columns(slope(t, y, p), width)[0]
    along_g, along_r = jvp(events, ("y", "p")), jvp(reset, ("t", "y", "p"))
    y_new, p_new = reset(*point).values()
    shifts, ys, ps = [], [], [p_new]
    for k, direction in enumerate(directions, 1):
        dp = values[k] if seeded else _unit(p, direction)
        (dg,) = along_g(*point, states[k], dp).values()
        shift = -(_entry(dg, which) / rate)
        dt = shift if y.dtype == "float64" else OPS["cast"](shift, dtype="float64")
        dy, dp_new = along_r(*point, dt, states[k] + broadcast_to(shift, before.shape) * before, dp).values()
        shifts, ys, ps = [*shifts, shift], [*ys, dy], [*ps, dp_new]
    p_out, zero = _joined(ps) if seeded else p, structural_zero(y.dtype, y_new.shape)
    after = _columns(slope(t, _joined([y_new, *(zero for _ in directions)]), p_out), width)[0]
    carried = [dy - broadcast_to(shift, after.shape) * after for dy, shift in zip(ys, shifts)]
    return {"y_new": _joined([y_new, *carried]), "p_new": p_out}


def _unit(p, direction):
    """The constant direction of one parameter, or of none."""
    if direction is None:
        return structural_zero(p.dtype, p.shape)
    return constant(np.eye(1, p.size, direction)[0], p.dtype)


def _entry(x, place):
    return reshape(slice_(x, starts=(place,), steps=(1,), shape=(1,)), shape=())
