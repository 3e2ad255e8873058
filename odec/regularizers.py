"""Terms for `odec.regularize`, which make dynamics easy to solve: Taylor, Kinetic, JacobianFrobenius."""

from odec.neural.regularizers import JacobianFrobenius, Kinetic, Taylor

__all__ = ["JacobianFrobenius", "Kinetic", "Taylor"]
