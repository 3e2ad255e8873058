"""One problem through the loop as Python and as machine code, and a count of what is evaluated."""

import numpy as np

from odec.codegen.lower_scalar import lower_scalar
from odec.codegen.print_python import python_function
from odec.integrate.run import Solver
from odec.steppers.runge_kutta import runge_kutta_step
from odec.steppers.tableaus import tableau_named


class Counted:
    """A Python kernel as the loop calls it, with the workspace last; counts calls, keeps the inputs it saw."""

    def __init__(self, function):
        self.function, self.calls, self.seen = function, 0, []

    def __call__(self, *buffers):
        self.calls += 1
        self.function(*buffers[:-1])
        self.seen.append([np.array(b).ravel()[0] for b in buffers[:2]])


def python_solver(system, method="tsit5", rhs=None, step=None):
    """The loop and the kernels as plain Python."""
    tableau = tableau_named(method)
    rhs = rhs or python_function(lower_scalar(system.graph, "rhs"))
    step = step or python_function(lower_scalar(runge_kutta_step(system.graph, tableau).function, "step"))
    sizes = system.y_structure.size, system.p_structure.size
    return Solver(Counted(rhs), Counted(step), tableau, sizes, system.dtype, 0, python=True)


def run(solver, span, y, p=(), rtol=1e-6, atol=1e-9, t_eval=None, first_step=0.0, min_step=0.0, max_step=np.inf,
        max_steps=100_000):  # fmt: skip
    """The Outcome of a solve with the defaults of odec.solve."""
    y, p = np.asarray(y, solver.dtype).ravel(), np.asarray(p, solver.dtype).ravel()
    times = None if t_eval is None else np.asarray(t_eval, float)
    return solver.run(span, y, p, rtol, atol, times, first_step, (min_step, max_step), max_steps)
