"""Method of Bogacki and Shampine."""

from __future__ import annotations

from odec.steppers.tableaus import ButcherTableau, exact_row, exact_rows


def bs3():
    """The 3(2) pair of four stages, the last of which is the first of the next step.

    Its authors' dense output is the cubic through both states and slopes.
    """
    return ButcherTableau(
        name="bs3", order=3, error_order=2, c=exact_row("0 1/2 3/4 1"),
        a=exact_rows("", "1/2", "0 3/4", "2/9 1/3 4/9"), b=exact_row("2/9 1/3 4/9 0"),
        b_error=exact_row("-5/72 1/12 1/9 -1/8"), source="Bogacki and Shampine, Appl. Math. Lett. 2 (1989) 321",
    )  # fmt: skip
