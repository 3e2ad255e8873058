"""What the loop may assume of a step, whatever the method."""

from __future__ import annotations

from dataclasses import dataclass

from odec.graph.function import Function
from odec.steppers.tableaus import ButcherTableau


@dataclass(frozen=True)
class Step:
    """One step of a one-step method as a Function.

    function : (t: (), h: (), y: (n,), p: (m,), f0: (n,), rtol: (n,), atol: (n,)) ->
        y1 (n,)        the new state
        k (s - 1, n)   stages 2 .. s; the last is f at the new point, the next step's f0
        error ()       mean over i of (error_i / (atol_i + rtol_i max(|y_i|, |y1_i|)))², accepted up to 1
    tableau : its orders and dense output
    """

    function: Function
    tableau: ButcherTableau
