"""Methods of Fehlberg. The solution of higher order is the one that goes on: local extrapolation."""

from __future__ import annotations

from odec.steppers.tableaus import ButcherTableau, exact_row, exact_rows

SOURCE = "Fehlberg, NASA TR R-315 (1969)"


def fehlberg2():
    """The 2(1) pair of three stages; the third is at the end of the step of order one."""
    return ButcherTableau(
        name="fehlberg2", order=2, error_order=1, c=exact_row("0 1/2 1"),
        a=exact_rows("", "1/2", "1/256 255/256"),
        b=exact_row("1/512 255/256 1/512"), b_error=exact_row("-1/512 0 1/512"), source=SOURCE,
    )  # fmt: skip


def rkf45():
    """The 5(4) pair of six stages. Fehlberg goes on with order four; here order five does, and four is compared."""
    return ButcherTableau(
        name="rkf45", order=5, error_order=4, c=exact_row("0 1/4 3/8 12/13 1 1/2"),
        a=exact_rows(
            "", "1/4", "3/32 9/32", "1932/2197 -7200/2197 7296/2197", "439/216 -8 3680/513 -845/4104",
            "-8/27 2 -3544/2565 1859/4104 -11/40",
        ),
        b=exact_row("16/135 0 6656/12825 28561/56430 -9/50 2/55"),
        b_error=exact_row("1/360 0 -128/4275 -2197/75240 1/50 2/55"),
        source=SOURCE + "; Computing 6 (1970) 61",
    )  # fmt: skip
