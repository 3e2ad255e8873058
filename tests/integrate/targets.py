"""One problem through the loop as Python and as machine code, and a count of what is evaluated."""

import numpy as np

from odec.codegen.lower_scalar import lower_scalar
from odec.codegen.print_python import python_function
from odec.event import event_functions, event_table, with_series
from odec.integrate.advance import advance_function
from odec.integrate.problem import Problem
from odec.integrate.run import Solver
from odec.steppers.methods import method_named
from odec.steppers.step import dense_function


class Counted:
    """A Python kernel as the loop calls it, with the workspace last; counts calls, keeps the inputs it saw."""

    def __init__(self, function):
        self.function, self.calls, self.seen = function, 0, []

    def __call__(self, *buffers):
        self.calls += 1
        self.function(*buffers[:-1])
        self.seen.append([np.array(b).ravel()[0] for b in buffers[:2]])


def python_solver(system, method="tsit5", rhs=None, advance=None):
    """The loop and the kernels as plain Python."""
    record = method_named(method)
    rhs = Counted(rhs or python_kernel(system.graph, "rhs"))
    graphs = {"advance": lambda: advance_function(system.graph, record, commits=False),
              "dense": lambda: dense_function(system.graph, record)}  # fmt: skip
    given = {"advance": advance}
    make = lambda name, lanes, shared, keeps, tapes: Counted(given.get(name) or python_kernel(graphs[name](), name))
    sizes = system.y_structure.size, system.p_structure.size
    return Solver(rhs, make, record, sizes, system.dtype, python=True)


def python_kernel(function, name):
    """A Function as readable Python, run."""
    return python_function(lower_scalar(function, name))


def python_events(system, events, method=None):
    """The kernels of events as plain Python, as the loop calls them in the steps of a method."""
    functions = with_series(event_functions(system, events), method)
    kernels = {name: Counted(python_kernel(f, name)) for name, f in functions.items()}
    return event_table(kernels, events)


def run(solver, span, y, p=(), t_eval=None, **how):
    """The Outcome of a solve with the defaults of odec.solve."""
    y, p = np.asarray(y, solver.dtype).ravel(), np.asarray(p, solver.dtype).ravel()
    times = None if t_eval is None else np.array(t_eval, float)
    return solver.run(Problem(span, y, p, t_eval=times, **{"max_steps": 100_000} | how))
