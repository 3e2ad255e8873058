"""A step's adjoint as the lanes of an ensemble take it, of which some do not step."""

from __future__ import annotations

from odec.graph.function import Function
from odec.graph.node import input_node, line_is
from odec.graph.op import OPS


def lane_vjp(pulled):
    """A step's adjoint for lanes, of which some do not step: (t, h, y, p, y1_bar[, q_bar], taken, t_sum,
    p_sum) -> t_sum1[, h_bar], y_bar, p_sum1[, q]; where taken is 0, y_bar is y1_bar and sums stay.

    pulled : Function, replay.step_vjp
    """
    made, y, p = pulled.outputs, pulled.inputs["y"], pulled.inputs["p"]
    sums = {
        "taken": input_node("taken", (), "float64"), "t_sum": input_node("t_sum", (), "float64"),
        "p_sum": input_node("p_sum", p.shape, p.dtype),
    }  # fmt: skip
    where = OPS["where"]
    with line_is(None):
        steps = OPS["gt"](sums["taken"], 0.0)
        outputs = {
            "t_sum1": where(steps, sums["t_sum"] + made["t_bar"], sums["t_sum"]),
            **{name: made[name] for name in ("h_bar",) if name in made},
            "y_bar": where(steps, made["y_bar"], pulled.inputs["y1_bar"]) if y.size else made["y_bar"],
            "p_sum1": where(steps, sums["p_sum"] + made["p_bar"], sums["p_sum"]) if p.size else made["p_bar"],
            **{name: made[name] for name in ("q",) if name in made},
        }  # fmt: skip
    return Function("lane_vjp", pulled.inputs | sums, outputs)
