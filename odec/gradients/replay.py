"""A step again, as a function of what it started from, and its derivatives: what discrete gradients are made of."""

from __future__ import annotations

import itertools

import numpy as np

from odec.graph.function import Function
from odec.graph.node import constant, input_node, line_is, structural_zero
from odec.graph.op import OPS
from odec.ops.call import call
from odec.ops.rearranging import along
from odec.ops.structure import stack
from odec.steppers.runge_kutta import evaluation, in_dtype
from odec.steppers.step import dense_function, estimates_function, of_one_order, step_function, taped_step_function
from odec.transforms.jvp import jvp
from odec.transforms.tape import taped, with_results
from odec.transforms.vjp import vjp

WRT = "t", "h", "y", "p"  # what a step is differentiated by


def replay_function(f, method, rows=False, terms=(), over=None):
    """One step of the method for f (t: (), y: (n,), p: (m,)) -> (n,), from its start alone.

    (t, h, y, p) -> y1 (n,), and with `rows` q (degree, n), the polynomial of step.py. The slope at the start is
    evaluated here: a step that is done again has none before it. A step of an order that was adapted is done again with
    the highest one: the terms that it left out are within the tolerance. With `terms` also terms (number of terms,), as
    terms_node says.
    """
    method = of_one_order(method)
    step, y, inputs = step_function(f, method), f.inputs["y"], _step_inputs(f)
    t, h, start, p = inputs.values()
    with line_is(None):
        tolerance = constant(np.ones(step.inputs["rtol"].shape), y.dtype)
        f0 = carried_at_start(f, method, t, start, p)
        found = step(t, h, start, p, f0, tolerance, tolerance)
        outputs = {"y1": found["y1"]}
        if rows:
            dense = dense_function(f, method)
            outputs["q"] = dense(t, h, start, p, f0, found["y1"], found["f1"], found["k"])["q"]
        if terms:
            outputs["terms"] = terms_node(estimates_function(f, method, over), terms, t, h, start, p, f0)
    return Function("replay", inputs, outputs)


def terms_node(estimates, terms, t, h, y, p, f0):
    """What a step adds to sums over steps, a node (number of terms,) in the dtype of y: "error" is the root mean square
    of its error estimate times |h|, "stiffness" its estimate of stiffness.

    estimates : estimates_function, of norms over its `over`; terms : these names
    """
    found = estimates(t, h, y, p, f0)
    values = {"error": lambda: found["error"] * OPS["abs"](h), "stiffness": lambda: found["stiffness"]}
    return stack([in_dtype(values[name](), y) for name in terms], (len(terms),))


def step_terms(f, method, terms, over=None):
    """The terms of a step, in the form of step_vjp so that what goes back over steps sums them: (t, h, y, p, y1_bar) ->
    t_bar, y_bar, p_bar (number of terms,), of which the last are the terms, and the others zeros."""
    replay = replay_function(f, method, terms=terms, over=over)
    return _summed("step_terms", replay.inputs, replay.outputs["terms"])


def kept_terms(f, method, terms, over=None):
    """As step_terms, of a step whose Residuals the loop has kept: (t, h, y, p, kept, y1_bar) -> t_bar, y_bar, p_bar."""
    replay, known, kept = _kept_replay(f, method, terms, over)
    found = _with_kept(Function("terms", replay.inputs, {"terms": replay.outputs["terms"]}), known)
    return _summed("kept_terms", replay.inputs | {"kept": kept}, found["terms"])


def _summed(name, inputs, values):
    y, zero = inputs["y"], structural_zero
    bars = {"t_bar": zero("float64", ()), "y_bar": zero(y.dtype, y.shape), "p_bar": values}
    return Function(name, inputs | {"y1_bar": input_node("y1_bar", y.shape, y.dtype)}, bars)


def carried_at_start(f, method, t, y, p):
    """What a step that has none before it is given as f0: the slope, zeros, or nothing."""
    if method.carries_slope:
        return evaluation(f, method.evaluations)(t, y, p)
    return constant(np.zeros(y.size if method.carries else 0), y.dtype)


def step_vjp(f, method, rows=False, timed=False, terms=(), over=None):
    """The discrete adjoint of a step: (t, h, y, p, y1_bar[, q_bar]) -> t_bar, y_bar, p_bar.

    rows : with the cotangent q_bar of the polynomial, and with q (degree, n) as an output
    timed : with h_bar
    terms, over : names of terms_node, and how many of the first elements of y their norms are over, None for all; p is
        then (m + number of terms,), the parameters and behind them the cotangents of the terms
    """
    wrt = _wrt(timed)
    with line_is(None):
        replay = taped(replay_function(f, method, rows, terms, over), wrt)
        pulled = vjp(replay, wrt)
        outputs = pulled.outputs | ({"q": replay.outputs["q"]} if rows else {})
        return weighed(Function("step_vjp", pulled.inputs, outputs))


def _wrt(timed):
    return WRT if timed else tuple(name for name in WRT if name != "h")


def weighed(function):
    """The Function whose input p holds the cotangents of terms behind the parameters, where there are terms: to what
    goes back over steps they are numbers like these."""
    weights, p = function.inputs.get("terms_bar"), function.inputs["p"]
    if weights is None:
        return function
    both = input_node("p", (p.size + weights.size,), p.dtype)
    outputs = function.substitute({p: along(both, 0, 0, p.size), weights: along(both, 0, p.size, both.size)})
    inputs = {name: both if name == "p" else node for name, node in function.inputs.items() if node is not weights}
    return Function(function.name, inputs, outputs)


def kept_vjp(f, method, timed=False, terms=(), over=None):
    """The discrete adjoint of a step whose Residuals the loop has kept: (t, h, y, p, kept, y1_bar) -> t_bar, y_bar,
    p_bar. Nothing costly is computed again.

    timed, terms, over : as in step_vjp
    kept : the residuals of the evaluation at the start, where the method carries its slope, and what the step left
    """
    replay, known, kept = _kept_replay(f, method, terms, over)
    with line_is(None):
        pulled = vjp(replay, _wrt(timed))
        outputs = _with_kept(pulled, known)
        bars = {name: node for name, node in pulled.inputs.items() if name not in replay.inputs}
        return weighed(Function("kept_vjp", {**replay.inputs, "kept": kept, **bars}, outputs))


def _with_kept(function, known):
    """The outputs of a Function, with what was kept of its nodes in their place."""
    return with_results(function, {id(node): kept for node, kept in known.items()})


def _kept_replay(f, method, terms=(), over=None):
    """(as replay_function, {node of it: what was kept of it}, the input `kept`)."""
    step, y, n = taped_step_function(f, method), f.inputs["y"], f.inputs["y"].size
    callee, size = _evaluation_of(step)
    inputs = _step_inputs(f)
    t, h, start, p = inputs.values()
    with line_is(None):
        tolerance = constant(np.ones(step.inputs["rtol"].shape), y.dtype)
        heads = [call(callee, t, start, p)] if method.carries_slope else []
        f0 = along(heads[0], 0, 0, n) if heads else constant(np.empty(0), y.dtype)
        found = step(t, h, start, p, f0, tolerance, tolerance)
        results, outputs = _parts(found["residuals"]), {"y1": found["y1"]}
        if terms:
            estimates = taped(estimates_function(f, method, over), WRT)
            outputs["terms"] = terms_node(estimates, terms, t, h, start, p, f0)
        behind = size * len(heads) + len(method.kept) * n
        kept = input_node("kept", (behind + sum(r.size for r in results),), y.dtype)
        places = [0] * len(heads) + [behind + k for k in itertools.accumulate([0, *(r.size for r in results[:-1])])]
        known = {r: along(kept, 0, k, k + r.size) for r, k in zip(heads + results, places, strict=True)}
    return Function("replay", inputs, outputs), known, kept


def first_residuals(f, method):
    """(t, y, p) -> the residuals (head,) of the evaluation at the start."""
    callee, _ = _evaluation_of(taped_step_function(f, method))
    inputs = {name: input_node(name, node.shape, node.dtype) for name, node in callee.inputs.items()}
    with line_is(None):
        return Function("first_residuals", inputs, {name: call(callee, *inputs.values()) for name in callee.outputs})


def residual_sizes(f, method):
    """(head, size) of the Residuals of a method's steps; None where its evaluations leave nothing worth keeping."""
    if method.sizes_itself:
        return None  # what it evaluates beside its series says whether a step is good, not where it leads
    try:
        step = taped_step_function(f, method)
    except ValueError:
        return None
    size = len(method.kept) * f.inputs["y"].size + step.outputs["residuals"].size
    return (_evaluation_of(step)[1] if method.carries_slope else 0), size


def _evaluation_of(step):
    """(callee, size of its result) of the evaluations of a taped step."""
    *_, last = _parts(step.outputs["residuals"])
    return last.params["function"], last.size


def _parts(residuals):
    return list(residuals.inputs) if residuals.op.name == "concatenate" else [residuals]


def _step_inputs(f):
    y, p = f.inputs["y"], f.inputs["p"]
    return {
        "t": input_node("t", (), "float64"), "h": input_node("h", (), "float64"),
        "y": input_node("y", y.shape, y.dtype), "p": input_node("p", p.shape, p.dtype),
    }  # fmt: skip


def step_jvp(f, method, rows=False):
    """The tangent of a step: (t, h, y, p, t_dot, h_dot, y_dot, p_dot) -> y1_dot[, q_dot]."""
    with line_is(None):
        pushed = jvp(replay_function(f, method, rows))
    return Function("step_jvp", pushed.inputs, pushed.outputs)
