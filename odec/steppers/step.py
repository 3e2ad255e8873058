"""One step of a method, and its dense output, as graphs: what the loop may assume of every method.

step  : (t, h, y, p, f0, rtol, atol[, last]) -> y1, f1, k, error
    y1 (n,)      the new state
    f1 (n,)      f at the new state, the next step's f0
    k (kept, n)  stages that the dense output needs beside f0 and f1
    error ()     mean over i of (error_i / (atol_i + rtol_i max(|y_i|, |y1_i|)))², float64, accepted up to 1;
                 0 for methods of fixed steps; not finite where a stage is not
dense : (t, h, y, p, f0, y1, f1, k) -> q (degree, n), for theta from 0 to 1
    y(t + theta h) = y + theta (q_0 + (1 - theta) sum_m q_m (2 theta - 1)^(m - 1)), m from 1; q_0 = y1 - y

t, h are float64 numbers; f0 and f1 have no elements for a method that carries nothing from step to step, rtol and
atol none for a method of fixed steps. The Taylor method carries what rounding has left out of y instead of a slope;
0 at a start; where it adapts its order, a step is told that, as `last`.
"""

from __future__ import annotations

from odec.graph.function import Function
from odec.graph.node import input_node, line_is
from odec.ops.call import call
from odec.ops.structure import concatenate, reshape, slice_
from odec.steppers.low_storage import LowStorageTableau, low_storage_dense, low_storage_step
from odec.steppers.runge_kutta import estimated, runge_kutta_dense, runge_kutta_estimates, runge_kutta_step
from odec.steppers.symplectic import SymplecticTableau, check_separable, symplectic_dense, symplectic_step
from odec.steppers.tableaus import ButcherTableau
from odec.steppers.taylor import TaylorMethod, taylor_dense, taylor_size, taylor_step
from odec.transforms.tape import taped, taped_calls

STEPS = {
    ButcherTableau: runge_kutta_step, LowStorageTableau: low_storage_step, SymplecticTableau: symplectic_step,
    TaylorMethod: taylor_step,
}  # fmt: skip
DENSE = {
    ButcherTableau: runge_kutta_dense, LowStorageTableau: low_storage_dense, SymplecticTableau: symplectic_dense,
    TaylorMethod: taylor_dense,
}  # fmt: skip
SIZES = {TaylorMethod: taylor_size}  # of methods whose steps know their size themselves
CHECKS = {SymplecticTableau: check_separable}  # of methods that not every model suits


def check_fits(method, system):
    """ArgumentError where the method cannot step a System: for its state, or for what depends on what."""
    check = CHECKS.get(type(method))
    if check is not None:
        check(method, system)


def of_one_order(method):
    """The method itself; of one that adapts its order, that of the highest."""
    return method.highest if method.adapts_order else method


def step_function(f, method):
    """One step of the method for f (t: (), y: (n,), p: (m,)) -> (n,), as a Function."""
    inputs = _inputs(f, method, "t h y p f0 rtol atol" + " last" * method.adapts_order)
    with line_is(None):
        return STEPS[type(method)](f, method, **inputs)


def own_size(f, method, t, y, p, rtol, atol):
    """The size that a step of the method finds for itself, a positive number; None where the loop chooses it."""
    size = SIZES.get(type(method))
    return None if size is None else size(f, method, t, y, p, rtol, atol)


def estimates_of(method):
    """Names of the outputs that `estimates_function` has for a method."""
    return estimated(method) if isinstance(method, ButcherTableau) else ()


def estimates_function(f, method, over=None):
    """(t, h, y, p, f0) -> error (), stiffness (), float64: what a step of a Runge-Kutta method says of the model, as
    runge_kutta_estimates. With the step it shares the stages.

    over : how many of the first elements of y the norms are over; None for all
    """
    inputs = _inputs(f, method, "t h y p f0")
    with line_is(None):
        return runge_kutta_estimates(f, method, **inputs, over=over or f.inputs["y"].size)


def taped_step_function(f, method):
    """As step_function, with one more output, residuals (size,): the states within the step that it evaluates f at, and
    the results of its evaluations one after another, that of f1 last, each with what reverse mode needs of it again
    (transforms/tape.py). ValueError where there is nothing to keep.
    """
    step = taped(step_function(f, method), ("t", "h", "y", "p"))
    calls = taped_calls(step)
    if not calls:
        raise ValueError(f"the evaluations of {f.name} leave nothing to keep")
    if method.carries_slope:
        carried = _evaluated(step.outputs["f1"])
        calls.sort(key=lambda node: node is carried)
    known = {*map(id, step.inputs.values()), id(step.outputs["y1"])}
    states = {id(state): state for state in map(_state_of, calls) if id(state) not in known}
    return Function(step.name, step.inputs, step.outputs | {"residuals": concatenate(*states.values(), *calls, axis=0)})


def _state_of(evaluation):
    """The state at which a call evaluates f (t, y, p)."""
    return evaluation.inputs[list(evaluation.params["function"].inputs).index("y")]


def _evaluated(slope):
    """The call whose result is a slope; ValueError where there is no one call."""
    node = slope
    while node.op is reshape or (node.op is slice_ and node.params["starts"] == (0,)):
        node = node.inputs[0]
    if node.op is not call:
        raise ValueError("the slope that is carried on is no evaluation by itself")
    return node


def dense_function(f, method):
    """The polynomial of a step of the method that has just been taken, as a Function."""
    inputs = _inputs(f, method, "t h y p f0 y1 f1 k")
    with line_is(None):
        return DENSE[type(method)](f, method, **inputs)


def _inputs(f, method, names):
    n, dtype = f.inputs["y"].size, f.inputs["y"].dtype
    slope, tolerance = (n if method.carries else 0,), (n if method.adaptive else 0,)
    shapes = {
        "t": (), "h": (), "y": (n,), "y1": (n,), "p": f.inputs["p"].shape, "f0": slope, "f1": slope,
        "rtol": tolerance, "atol": tolerance, "k": (len(method.kept), n), "last": (),
    }  # fmt: skip
    return {
        name: input_node(name, shapes[name], "float64" if name in ("t", "h", "last") else dtype)
        for name in names.split()
    }
