"""Fixed steps with a step kernel, run as Python."""

import numpy as np

from odec.codegen.lower_scalar import lower_scalar
from odec.codegen.print_python import python_function
from odec.steppers.step import dense_function, step_function


class FixedSteps:
    """A system and a method: y1, slopes, error² and polynomial of steps of given size, by generated Python."""

    def __init__(self, system, method, rtol=1e-6, atol=1e-6):
        self.method, self.n = method, system.y_structure.size
        kernel = lambda function, name: python_function(lower_scalar(function, name))
        self.rhs = kernel(system.graph, "rhs")
        self.step = kernel(step_function(system.graph, method), "step")
        self.dense = kernel(dense_function(system.graph, method), "dense")
        size = self.n if method.adaptive else 0
        self.rtol, self.atol = np.full(size, rtol), np.full(size, atol)

    def slope(self, t, y, p):
        out = np.empty(self.n)
        self.rhs(np.array([t]), y, p, out)
        return out if self.method.carries_slope else np.empty(0)

    def one(self, t, h, y, p, slope=None):
        """(y1, f1, k, error²)."""
        slope = self.slope(t, y, p) if slope is None else slope
        y1, f1, k, error = (
            np.empty(self.n),
            np.empty(len(slope)),
            np.empty((len(self.method.kept), self.n)),
            np.empty(1),
        )
        self.step(np.array([t]), np.array([h]), y, p, slope, self.rtol, self.atol, y1, f1, k, error)
        return y1, f1, k, error[0]

    def run(self, t0, t1, y, p, steps):
        h = (t1 - t0) / steps
        slope = self.slope(t0, y, p)
        for i in range(steps):
            y, slope, _, _ = self.one(t0 + i * h, h, y, p, slope)
        return y

    def interpolated(self, t, h, y, p):
        """theta -> the dense output of the step from (t, y)."""
        f0 = self.slope(t, y, p)
        y1, f1, k, _ = self.one(t, h, y, p, f0)
        q = np.empty((self.method.degree, self.n))
        self.dense(np.array([t]), np.array([h]), y, p, f0, y1, f1, k, q)
        inner = lambda theta: (2 * theta - 1) ** np.arange(len(q) - 1) @ q[1:]
        return lambda theta: y + theta * (q[0] + (1 - theta) * inner(theta))
