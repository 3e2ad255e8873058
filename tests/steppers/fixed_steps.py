"""Fixed steps with a step kernel, run as Python."""

from fractions import Fraction as F

import numpy as np

from odec import ButcherTableau
from odec.codegen.lower_scalar import lower_scalar
from odec.codegen.print_python import python_function
from odec.steppers.runge_kutta import runge_kutta_step

HEUN_EULER = ButcherTableau(
    name="heun_euler", order=2, error_order=1, c=(0, 1), a=((), (1,)), b=("1/2", "1/2"), b_error=("-1/2", "1/2"),
    dense=((1, "-1/2"), (0, "1/2")), dense_order=2, source="Heun 1900",
)  # fmt: skip
# Bogacki and Shampine 1989; FSAL. The dense output is the cubic through both ends and their slopes.
BS3 = ButcherTableau(
    name="bs3", order=3, error_order=2, c=(0, "1/2", "3/4", 1), a=((), ("1/2",), (0, "3/4"), ("2/9", "1/3", "4/9")),
    b=("2/9", "1/3", "4/9", 0), b_error=(F(2, 9) - F(7, 24), F(1, 3) - F(1, 4), F(4, 9) - F(1, 3), F(-1, 8)),
    dense=((1, "-4/3", "5/9"), (0, 1, "-2/3"), (0, "4/3", "-8/9"), (0, -1, 1)), dense_order=3,
    source="Bogacki and Shampine, Appl. Math. Lett. 2 (1989) 321",
)  # fmt: skip


class FixedSteps:
    """A system and a tableau: y1, k and error² of steps of given size, by the Python text of the step."""

    def __init__(self, system, tableau, rtol=1e-6, atol=1e-6):
        self.tableau, self.n = tableau, system.y_structure.size
        self.rhs = python_function(lower_scalar(system.graph, "rhs"))
        self.step = python_function(lower_scalar(runge_kutta_step(system.graph, tableau).function, "step"))
        self.rtol, self.atol = np.full(self.n, rtol), np.full(self.n, atol)

    def slope(self, t, y, p):
        out = np.empty(self.n)
        self.rhs(np.array([t]), y, p, out)
        return out

    def one(self, t, h, y, p, slope=None):
        """(y1, k (stages, n) with the first and the last slope, error²)."""
        stages = len(self.tableau.dense_matrix)
        slope = self.slope(t, y, p) if slope is None else slope
        y1, k, error = np.empty(self.n), np.empty((stages - 1, self.n)), np.empty(1)
        self.step(np.array([t]), np.array([h]), y, p, slope, self.rtol, self.atol, y1, k, error)
        return y1, np.vstack([slope, k]), error[0]

    def run(self, t0, t1, y, p, steps):
        h = (t1 - t0) / steps
        slope = self.slope(t0, y, p)
        for i in range(steps):
            y, k, _ = self.one(t0 + i * h, h, y, p, slope)
            slope = k[-1]
        return y

    def interpolated(self, theta, h, y, k):
        powers = theta ** np.arange(1, self.tableau.dense_matrix.shape[1] + 1)
        return y + h * (self.tableau.dense_matrix @ powers) @ k
