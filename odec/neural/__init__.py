"""What neural dynamics are trained with: quantities integrated along a solution, from a model's own graph."""
