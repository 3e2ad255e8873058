"""Graph -> graph: derivatives, Taylor coefficients, sparsity; each gives a Function again."""

from odec.transforms import callee  # noqa: F401  states the rules of the op `call`
