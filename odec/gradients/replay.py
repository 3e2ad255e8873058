"""A step again, as a function of what it started from, and its derivatives: what discrete gradients are made of."""

from __future__ import annotations

import numpy as np

from odec.graph.function import Function
from odec.graph.node import constant, input_node, line_is
from odec.steppers.runge_kutta import evaluation
from odec.steppers.step import dense_function, step_function
from odec.transforms.jvp import jvp
from odec.transforms.tape import taped
from odec.transforms.vjp import vjp


def replay_function(f, method, rows=False):
    """One step of the method for f (t: (), y: (n,), p: (m,)) -> (n,), from its start alone.

    (t, h, y, p) -> y1 (n,), and with `rows` q (degree, n), the polynomial of step.py. The slope at the start is
    evaluated here: a step that is done again has none before it.
    """
    step, y = step_function(f, method), f.inputs["y"]
    inputs = {
        "t": input_node("t", (), "float64"), "h": input_node("h", (), "float64"),
        "y": input_node("y", y.shape, y.dtype), "p": input_node("p", f.inputs["p"].shape, f.inputs["p"].dtype),
    }  # fmt: skip
    t, h, start, p = inputs.values()
    with line_is(None):
        tolerance = constant(np.ones(step.inputs["rtol"].shape), y.dtype)
        rhs = evaluation(f, method.evaluations)
        f0 = rhs(t, start, p) if method.carries_slope else constant(np.empty(0), y.dtype)
        found = step(t, h, start, p, f0, tolerance, tolerance)
        outputs = {"y1": found["y1"]}
        if rows:
            dense = dense_function(f, method)
            outputs["q"] = dense(t, h, start, p, f0, found["y1"], found["f1"], found["k"])["q"]
    return Function("replay", inputs, outputs)


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


def step_jvp(f, method, rows=False):
    """The tangent of a step: (t, h, y, p, t_dot, h_dot, y_dot, p_dot) -> y1_dot[, q_dot]."""
    with line_is(None):
        pushed = jvp(replay_function(f, method, rows))
    return Function("step_jvp", pushed.inputs, pushed.outputs)
