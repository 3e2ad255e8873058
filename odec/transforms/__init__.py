"""Graph -> graph: derivatives, Taylor coefficients, sparsity; each gives a Function again."""
