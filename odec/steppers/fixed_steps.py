"""What steps ask of a method whose steps have the size that the user gives."""

from __future__ import annotations


class FixedSteps:
    """A record of a method of fixed steps: nothing estimates its error, and its dense output is the cubic."""

    name: str
    order: int
    stages: int
    error_order = None
    adaptive = False
    carries_slope = False
    sizes_itself = False
    adapts_order = False
    kept = ()
    degree = 3

    def __repr__(self):
        return f"<{type(self).__name__} {self.name}: order {self.order}, {self.stages} stages>"

    @property
    def carries(self):
        """Whether a step hands n numbers on to the next."""
        return self.carries_slope

    @property
    def evaluations(self):
        """How often a step evaluates f."""
        return self.stages

    @property
    def dense_order(self):
        """The order of the cubic."""
        return min(3, self.order)

    @property
    def error_exponent(self):
        """The error of a step falls as h to this power."""
        return self.order + 1
