"""How a solve ended, in words: where, why, and what to try.

For a right-hand side that is not finite, the failing step is done again in the reference target, and
the operation that gave the first such number is named with the user's line.
"""

from __future__ import annotations

import math

import numpy as np

from odec.errors import Status
from odec.graph.function import Function
from odec.graph.node import CONSTANT, INPUT, Data
from odec.graph.structure import component_names, component_paths
from odec.graph.trace import place, source_line
from odec.integrate.stiffness import HELD
from odec.ops.call import call
from odec.steppers.stability import real_stability_interval
from odec.steppers.step import of_one_order, step_function
from odec.steppers.taylor import TaylorMethod
from odec.transforms.singular import singular_point

TRIES = 5  # step sizes, each four times the one before, at which a failure is looked for again
LONGEST_QUOTE = 60  # characters of the user's line that a message repeats
LEAVES = (
    "The solution may leave where the model is defined: guard the operation with np.where, or end the solve there with "
    "a terminal event."
)
BLOWS_UP = "The solution may blow up in finite time: end t_span before that, or end the solve with a terminal event."
BESIDE = "Start beside that point, or take a method that needs no derivatives, such as dop853."
NO_SERIES = "the Taylor series of the solution is not finite"
# Operations that are no formula of one element, as a reader knows them.
KNOWN_AS = {
    "matmul": "a matrix product", "sum": "a sum", "put_add": "a sum", "cumsum": "np.cumsum",
    "solve": "np.linalg.solve", "det": "np.linalg.det", "pieces": "a table",
}  # fmt: skip


def message(system, method, out, rtol, atol, min_step):
    """One sentence for how a solve ended, and what to try.

    system : System; method : record; out : Outcome; rtol, atol : numbers or (n,); min_step : of the solve
    """
    if out.status in (Status.SUCCESS, Status.TERMINATED):
        return f"{out.status.sentence}; {_held(method, out)}" if _is_held(method, out) else out.status.sentence
    sentence, series = _sentence(method, out, min_step), _culprit_of_series(system, method, out)
    why, cure = series or _CAUSES[out.status](system, method, out, rtol, atol, min_step)
    steps = f"{out.steps:,} steps ({out.rejected:,} rejected)"
    return f"{system.name}: {NO_SERIES if series else sentence} at t = {out.t:.6g} after {steps}; {why}. {cure}"


def _sentence(method, out, min_step):
    """The status in words; a step of a given size was not made smaller before it failed."""
    if out.status is Status.STEP_UNDERFLOW and min_step:
        return f"the step size fell below min_step, {min_step:g},"
    return out.status.sentence if method.adaptive else out.status.sentence.removesuffix(" however small the step")


# ---- why, and what to do, for each status -----------------------------------------------------------------


def _not_finite_at_start(system, method, out, rtol, atol, min_step):
    worst = _fastest(out, rtol, atol)
    why, _ = _culprit_of_slope(system, out) or ("", "")
    because = f": {why}" if why else ""
    return f"d{_names(system)[worst]}/dt is {out.slope[worst]}{because}", "Check y0 and params."


def _not_finite(system, method, out, rtol, atol, min_step):
    found = _culprit_of_slope(system, out) or _culprit_of_step(system, method, out, rtol, atol)
    why, cure = found or (
        _changed_fastest(system, out, rtol, atol),
        "The solution may blow up in finite time, or leave where the model is defined.",
    )
    return why, cure if method.adaptive else f"The step may be too large for {method.name}: lower first_step."


def _out_of_steps(system, method, out, rtol, atol, min_step):
    if _is_held(method, out):
        return _held(method, out), (
            "Looser tolerances will not help and this version has no implicit methods: raise max_steps, shorten "
            "t_span, or put the fastest variables at their equilibrium."
        )
    longer = "loosen rtol and atol" if method.adaptive else "raise first_step"
    return _changed_fastest(system, out, rtol, atol), f"Raise max_steps, {longer}, or shorten t_span."


def _step_too_small(system, method, out, rtol, atol, min_step):
    which = _held(method, out) if _is_held(method, out) else _changed_fastest(system, out, rtol, atol)
    holds = f"the tolerances ask for more than {system.dtype} holds"
    if min_step:
        return which, f"Lower min_step, unless the solution blows up there or {holds}."
    return which, f"The solution may blow up there, or {holds}."


def _chattering(system, method, out, rtol, atol, min_step):
    last = int(out.fired_e[-1])
    times = int(np.count_nonzero(out.fired_e == last))
    return (
        f"the last was events[{last}], which happened {times:,} times",
        "Make it terminal, or let its reset bring the state to rest.",
    )


_CAUSES = {
    Status.STEP_LIMIT: _out_of_steps,
    Status.STEP_UNDERFLOW: _step_too_small,
    Status.NON_FINITE: _not_finite,
    Status.NON_FINITE_START: _not_finite_at_start,
    Status.CHATTERING: _chattering,
}


def _names(system):
    return component_names(system.y_structure, system.state)


def _changed_fastest(system, out, rtol, atol):
    return f"{_names(system)[_fastest(out, rtol, atol)]} changed fastest"


def _fastest(out, rtol, atol):
    """The component whose slope is largest in tolerances; one that is not finite before all others."""
    bad = np.flatnonzero(~np.isfinite(out.slope) | ~np.isfinite(out.y))
    if bad.size:
        return int(bad[0])
    with np.errstate(all="ignore"):
        return int(np.argmax(np.abs(out.slope) / (atol + rtol * np.abs(out.y))))


# ---- stiffness --------------------------------------------------------------------------------------------


def _is_held(method, out):
    """Whether the steps were held down by stability: as long as the method allows for the fastest mode."""
    return out.reach is not None and out.reach > 1.0 and out.reach >= HELD * real_stability_interval(method)


def _held(method, out):
    limit, h = real_stability_interval(method), abs(out.h)
    return (
        f"the steps are held down by stability, not by accuracy (h = {h:.3g} times the fastest rate, "
        f"{out.reach / h:.3g}, is at {method.name}'s limit of {limit:.3g}): the problem is stiff for an explicit method"
    )


# ---- what was not finite first, and what to try -------------------------------------------------------------


def _culprit_of_slope(system, out):
    """(why, cure) where dy/dt at the end of a solve is not finite, else None."""
    origin = system.graph.first_non_finite(out.t, out.y, out.p)
    return None if origin is None else _culprit(system, origin, "")


def _culprit_of_step(system, method, out, rtol, atol):
    """(why, cure) for the step that failed, or None where it is finite when done again."""
    taylor = isinstance(method, TaylorMethod)
    step = step_function(system.graph if taylor else _called(system.graph), of_one_order(method))
    for given in _tries(step, np.zeros_like(out.y) if taylor else out.slope, out, rtol, atol):
        origin = step.first_non_finite(*given.values())
        if origin is not None:
            return _overflowed(system, origin) if taylor else _culprit_in_step(system, method, step, origin)
        found = _culprit_at_end(system, step, given) if taylor else None
        if found is not None:
            return found
    return None


def _tries(step, carried, out, rtol, atol):
    """Inputs of the failed step, and of some longer ones: machine code may round otherwise than NumPy."""
    for k in range(TRIES):
        given = {"t": out.t, "h": 4.0**k * out.h, "y": out.y, "p": out.p, "f0": carried, "rtol": rtol, "atol": atol}
        yield {i: np.broadcast_to(given[i], n.shape) if n.size else np.empty(n.shape) for i, n in step.inputs.items()}


def _culprit_of_series(system, method, out):
    """(why, cure) where a Taylor method found no series to step along, else None."""
    if not isinstance(method, TaylorMethod) or out.status not in (Status.NON_FINITE, Status.STEP_UNDERFLOW):
        return None
    found = singular_point(system.graph, method.known_order, out.t, out.y, out.p)
    if found is None:
        return None
    what, origin = _quoted(found.origin, short=True), found.origin
    where = f" (in the equation of {_names(system)[origin.output_place]})"
    if found.overflows:
        return f"the coefficient of order {found.order} of {what} overflowed{where}", BLOWS_UP
    return f"{what} has no Taylor series there{_element(origin)}{where}", BESIDE


def _culprit_at_end(system, step, given):
    """(why, cure) where the right-hand side is not finite at the end of a Taylor step, else None."""
    y1, end = step.evaluate(*given.values())["y1"], float(given["t"] + given["h"])
    origin = system.graph.first_non_finite(end, y1, given["p"])
    return origin and _culprit(system, origin, f", at the end of the step at t = {end:.6g}")


def _called(f):
    """f with its graph behind one node, so that the operations of a step and those of its stages are apart."""
    return Function(f.name, f.inputs, {"dydt": call(f, *f.inputs.values())})


def _culprit_in_step(system, method, step, origin):
    calls = sorted((node for node in step.nodes if node.op is call), key=lambda node: node.serial)
    if origin.node.op is not call:
        return _overflowed(system, origin)
    parts = max(1, len(calls) // method.evaluations)  # of a stage, where a method evaluates f in parts
    stage = calls.index(origin.node) // parts + 1 + method.carries_slope
    where = f", in stage {stage} of {method.stages}" if stage <= method.stages else ", at the end of the step"
    time = float(origin.inputs[0])
    while origin.node.op is call:
        origin = origin.node.params["function"].first_non_finite(*origin.inputs)
    return _culprit(system, origin, f"{where} at t = {time:.6g}")


def _overflowed(system, origin):
    names = _names(system)
    what = "the error estimate" if origin.output == "error" else names[origin.output_place % len(names)]
    return f"{what} overflowed within the step, though the slopes it was made of are finite", BLOWS_UP


def _culprit(system, origin, stage):
    """('np.log(-0.03) at models.py:12 gave nan first, in stage 4 of 7 at t = 1.25 (in the equation of y[0])', cure)."""
    node, value = origin.node, origin.value
    where = f"{stage} (in the equation of {_names(system)[origin.output_place]})"
    if node.op is INPUT:
        return f"{_input_name(system, origin)} is {value}{where}", "Check params, and what resets of events return."
    if node.op is CONSTANT:
        return f"{_quoted(origin)} is {value}{where}", "Check what the model closes over."
    cure = LEAVES if math.isnan(value) else BLOWS_UP
    return f"{_quoted(origin)} gave {value} first{_element(origin)}{where}", cure


def _quoted(origin, short=False):
    """'np.log(-0.03) at models.py:12 ("return np.log(y)")', as much of it as is known; short : never in all digits."""
    text, line = source_line(origin.node.line), origin.node.line
    at = f" at {place(line)}" if line else ""
    quoted = f' ("{text}")' if 0 < len(text) <= LONGEST_QUOTE else ""
    return f"{'a constant' if origin.node.op is CONSTANT else _operation(origin, short)}{at}{quoted}"


def _input_name(system, origin):
    name = origin.node.params["name"]
    if name == "y":
        return _names(system)[origin.place]
    return "t" if name == "t" else f"params{list(component_paths(system.p_structure))[origin.place]}"


def _element(origin):
    """', at index [2, 0]' of an array."""
    if origin.node.size == 1:
        return ""
    return f", at index {[int(i) for i in np.unravel_index(origin.place, origin.node.shape)]}"


def _operation(origin, short):
    """The operation with its operands as a user would write it: 'np.log(-0.03)', '1 / 0', 'a matrix product'."""
    node = origin.node
    if node.op.family != "elementwise" or any(isinstance(v, Data) for v in node.params.values()):
        largest = max((float(np.max(np.abs(x))) for x in origin.inputs if x.size), default=0.0)
        return f"{KNOWN_AS.get(node.op.name, node.op.name)} of numbers up to {largest:.6g} in size"
    values = [float(x.reshape(-1)[origin.place]) for x in origin.inputs]
    shown = [f"{v:.6g}" for v in values] if short else _shown(node, values)
    between = not node.op.python.endswith(")")  # operators need their negative operands in parentheses
    operands = [f"({text})" if between and text.startswith("-") else text for text in shown]
    return node.op.python.format(*operands, **node.params)


def _shown(node, values):
    """The operands in six digits, or in all of them where the operation of the rounded ones would be finite."""
    short = [f"{v:.6g}" for v in values]
    with np.errstate(all="ignore"):
        again = node.op.evaluate(*(np.array(float(v), i.dtype) for v, i in zip(short, node.inputs)), **node.params)
    return short if not math.isfinite(again) else [repr(v) for v in values]
