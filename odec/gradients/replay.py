"""A step again, as a function of what it started from, and its derivatives: what discrete gradients are made of."""

from __future__ import annotations

import itertools

import numpy as np

from odec.graph.function import Function
from odec.graph.node import constant, input_node, line_is
from odec.ops.call import call
from odec.ops.rearranging import along
from odec.steppers.runge_kutta import evaluation
from odec.steppers.step import dense_function, of_one_order, step_function, taped_step_function
from odec.transforms.jvp import jvp
from odec.transforms.tape import taped, with_results
from odec.transforms.vjp import vjp


def replay_function(f, method, rows=False):
    """One step of the method for f (t: (), y: (n,), p: (m,)) -> (n,), from its start alone.

    (t, h, y, p) -> y1 (n,), and with `rows` q (degree, n), the polynomial of step.py. The slope at the start is
    evaluated here: a step that is done again has none before it. A step of an order that was adapted is done again with
    the highest one: the terms that it left out are within the tolerance.
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
    return Function("replay", inputs, outputs)


def carried_at_start(f, method, t, y, p):
    """What a step that has none before it is given as f0: the slope, zeros, or nothing."""
    if method.carries_slope:
        return evaluation(f, method.evaluations)(t, y, p)
    return constant(np.zeros(y.size if method.carries else 0), y.dtype)


def step_vjp(f, method, rows=False, timed=False):
    """The discrete adjoint of a step: (t, h, y, p, y1_bar[, q_bar]) -> t_bar, y_bar, p_bar.

    rows : with the cotangent q_bar of the polynomial, and with q (degree, n) as an output
    timed : with h_bar
    """
    wrt = "t", *(("h",) if timed else ()), "y", "p"
    with line_is(None):
        replay = taped(replay_function(f, method, rows), wrt)
        pulled = vjp(replay, wrt)
    outputs = pulled.outputs | ({"q": replay.outputs["q"]} if rows else {})
    return Function("step_vjp", pulled.inputs, outputs)


def kept_vjp(f, method, timed=False):
    """The discrete adjoint of a step whose Residuals the loop has kept: (t, h, y, p, kept, y1_bar) -> t_bar, y_bar,
    p_bar. Nothing costly is computed again.

    timed : with h_bar
    kept : the residuals of the evaluation at the start, where the method carries its slope, and what the step left
    """
    step, y, n = taped_step_function(f, method), f.inputs["y"], f.inputs["y"].size
    callee, size = _evaluation_of(step)
    inputs = _step_inputs(f)
    t, h, start, p = inputs.values()
    with line_is(None):
        tolerance = constant(np.ones(step.inputs["rtol"].shape), y.dtype)
        heads = [call(callee, t, start, p)] if method.carries_slope else []
        f0 = along(heads[0], 0, 0, n) if heads else constant(np.empty(0), y.dtype)
        found = step(t, h, start, p, f0, tolerance, tolerance)
        results = _parts(found["residuals"])
        wrt = "t", *(("h",) if timed else ()), "y", "p"
        pulled = vjp(Function("replay", inputs, {"y1": found["y1"]}), wrt)
        behind = size * len(heads) + len(method.kept) * n
        kept = input_node("kept", (behind + sum(r.size for r in results),), y.dtype)
        places = [0] * len(heads) + [behind + k for k in itertools.accumulate([0, *(r.size for r in results[:-1])])]
        known = {id(r): along(kept, 0, k, k + r.size) for r, k in zip(heads + results, places, strict=True)}
        outputs = with_results(pulled, known)
    *given, bar = pulled.inputs.items()
    return Function("kept_vjp", {**dict(given), "kept": kept, **dict([bar])}, outputs)


def first_residuals(f, method):
    """(t, y, p) -> the residuals (head,) of the evaluation at the start."""
    callee, _ = _evaluation_of(taped_step_function(f, method))
    return Function("first_residuals", callee.inputs, callee.outputs)


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
