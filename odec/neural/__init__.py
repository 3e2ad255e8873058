"""What neural dynamics are trained with: quantities integrated along a solution, from a model's own graph.

A model of (y, r) is made in three parts: `quadrature.with_quadratures` joins the graph of dy/dt with a node for dr/dt;
a plan (as regularizers.Regularizers) says what that node is, of which shape r is, and which parameters it needs; and
`odec.augmented.Augmented` is the Model that binds both.
"""
