"""`odec.hessian_vector_product`: the second derivative of a function of a solve's rows, along one direction."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from odec.direction import direction_of
from odec.errors import ArgumentError, ShapeError
from odec.gradients.checkpoints import recorded_run
from odec.gradients.discrete import Discrete
from odec.gradients.forward import FROM_INPUT
from odec.graph.function import Function
from odec.graph.node import coerce
from odec.graph.structure import Branch, Structure
from odec.graph.trace import unwrap
from odec.integrate.run import all_finite
from odec.ops.shaping import array
from odec.ops.structure import reshape
from odec.solving import parameters_by_name
from odec.tracing import traced
from odec.transforms.jvp import jvp
from odec.transforms.vjp import vjp
from odec.variation import (
    check_options,
    point_of,
    posed_with_tangents,
    solution_of_state,
    tolerances_of_y,
    with_axis,
)


class Cotangent(NamedTuple):
    """A derivative of one number by y0 and by params, in their structure; it can be given as `tangents`.

    y0 : as y0; params : a tuple in signature order, or a dict by name where params was one
    """

    y0: Any
    params: Any


def hessian_vector_product(model, t_span, y0, params=(), *, loss, tangents, rtol=1e-6, atol=1e-9, dtype=None,
                           progress=False, **options):  # fmt: skip
    """(sol, gradient, product): the Solution, and of L = loss(sol.ys) the gradient g and H v, its Hessian times v.

    v is a direction of y0 and params together, and H v the derivative of g along it. Both are those of the computed
    numbers, the step sizes held fixed: the discrete adjoint of the variational equations, whose steps are those of
    `odec.solve`. It costs a few times what a gradient does, however many parameters there are.

    Parameters
    ----------
    model, t_span, y0, params, rtol, atol, dtype, progress : as for `odec.solve`
    loss : loss(ys) -> a number, a NumPy function of rows in the structure of sol.ys, traced as dynamics are
    tangents : v = (dy0, dparams), in the structure of y0, and a tuple in signature order or a dict by name; None, and a
        missing name, is zero
    options : as for `odec.solve`, without events

    Returns
    -------
    Solution, and two pairs (y0, params), each a `Cotangent`: units of L over that of the input, and those times v over
    that of the input

    Raises
    ------
    ArgumentError, ShapeError, TraceError : the arguments, the model or the loss cannot be used
    SolveError : the solve stopped early; `.solution` holds what was reached

    References: [griewank2008] ch. 5 (second-order adjoints)
    """
    check_options("hessian_vector_product", options)
    values = parameters_by_name(model, params, "hessian_vector_product")
    system, y, p = point_of(model, y0, values, dtype)
    if options["events"]:
        raise ArgumentError(
            f"{system.name}: events are not differentiated twice; leave events out, and end t_span where the event "
            "would."
        )
    dy, dp = direction_of(system, tangents)
    directions = (FROM_INPUT,) if p.size else (None,)
    states, inputs = np.stack([y, dy], axis=1), np.stack([p, np.zeros_like(p) if dp is None else dp], axis=1)
    limits = tolerances_of_y(system, rtol, atol, np.zeros(1), False)
    task = posed_with_tangents(system, t_span, states, inputs, directions, limits, options, records=True)
    start = task.problem.y.copy()
    out = task.run(progress, how=lambda solver, problem: recorded_run(solver, problem, None))
    solution = solution_of_state(task, out, system, inputs, (rtol, atol), throw=True)
    bars = _cotangents_of_rows(system, loss, out.ys.reshape(len(out.ts), y.size, 2))
    found = Discrete(task.system, task.record, task.problem, out, start).pull(bars.reshape(len(bars), -1))
    by_name = isinstance(params, dict)
    product, gradient = (
        _cotangent(system, found.y.reshape(-1, 2)[:, k], found.p.reshape(-1, 2)[:, k], by_name) for k in (0, 1)
    )
    return solution, gradient, product


def _cotangent(system, y, p, by_name):
    values = system.p_structure.unflatten(np.ascontiguousarray(p))
    return Cotangent(
        system.y_structure.unflatten(np.ascontiguousarray(y)), values if by_name else tuple(values.values())
    )


# ---- the loss ---------------------------------------------------------------------------------------------


def _cotangents_of_rows(system, loss, rows):
    """(m, n, 2) of rows (m, n, 2), y and its tangent s: the gradient by both of <grad loss(y), s>."""
    structure, lead = system.y_structure, len(rows)
    wide = with_axis(structure, lead, first=True)
    y, s = (wide.flatten(structure.unflatten(rows[:, :, k], (lead,)), system.name, system.dtype) for k in (0, 1))
    t, p = 0.0, np.empty(0, system.dtype)
    gradient = vjp(_traced_loss(system, loss, wide), ("y",))
    one = np.ones((), system.dtype)
    (bar,) = gradient.evaluate(t, y, p, one).values()
    (bar_dot,) = jvp(gradient, ("y",)).evaluate(t, y, p, one, s).values()
    for what, flat in (("gradient", bar), ("second derivative", bar_dot)):
        if not all_finite(flat):
            raise ArgumentError(
                f"{system.name}: the {what} of loss has {flat[~np.isfinite(flat)][0]} at the rows of this solve; "
                "finite numbers are needed: check the loss."
            )
    return np.stack([structure.flatten_members(wide.unflatten(v), "", system.dtype, lead) for v in (bar_dot, bar)], -1)


def _traced_loss(system, loss, rows):
    """The loss as a Function (t: (), y: (m n,), p: (0,)) -> value ()."""
    name = f"loss of {system.name}"
    if not callable(loss):
        raise ArgumentError(f"{system.name}: loss is {loss!r}; a function loss(ys) of the rows is needed.")
    nothing = Structure(Branch("dict", (), ()), 0)
    inputs, result, _ = traced(lambda t, ys, values: loss(ys), name, rows, nothing, system.dtype)
    try:
        value = coerce([array(unwrap(result))], system.dtype)[0]
    except (TypeError, ValueError) as error:
        raise ShapeError(f"{name} returned no number: {error}; one number to differentiate is needed.") from None
    if value.size != 1 or value.dtype == "bool":
        raise ShapeError(
            f"{name} returned {value.dtype} of shape {value.shape}; one number to differentiate is needed, such as "
            "np.sum((ys - data) ** 2)."
        )
    return Function("loss", inputs, {"loss": reshape(value, shape=())})
