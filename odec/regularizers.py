"""Terms that make dynamics easy to solve.

For `odec.regularize`: Taylor, Kinetic, JacobianFrobenius, integrals along the solution. For
`odec.solve_vjp(..., regularizers=[...])`: ErrorEstimate, Stiffness, sums of the solver's own estimates.
"""

from odec.gradients.estimates import ErrorEstimate, Stiffness
from odec.neural.regularizers import JacobianFrobenius, Kinetic, Taylor

__all__ = ["ErrorEstimate", "JacobianFrobenius", "Kinetic", "Stiffness", "Taylor"]
