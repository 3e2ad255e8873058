"""Strong-stability-preserving methods: convex combinations of forward Euler steps of up to h / ssp."""

from __future__ import annotations

from odec.steppers.tableaus import ButcherTableau, exact_row, exact_rows

SHU_OSHER = "Shu and Osher, J. Comput. Phys. 77 (1988) 439"


def ssprk22():
    """Order two in two stages: the mean of y and of two Euler steps on."""
    return ButcherTableau(
        name="ssprk22", order=2, c=exact_row("0 1"), a=exact_rows("", "1"), b=exact_row("1/2 1/2"), ssp=1.0,
        source=SHU_OSHER,
    )  # fmt: skip


def ssprk33():
    """Order three in three stages."""
    return ButcherTableau(
        name="ssprk33", order=3, c=exact_row("0 1 1/2"), a=exact_rows("", "1", "1/4 1/4"),
        b=exact_row("1/6 1/6 2/3"), ssp=1.0, source=SHU_OSHER,
    )  # fmt: skip


def ssprk43():
    """The 3(2) pair of four stages that allows steps of two forward Euler steps."""
    return ButcherTableau(
        name="ssprk43", order=3, error_order=2, c=exact_row("0 1/2 1 1/2"),
        a=exact_rows("", "1/2", "1/2 1/2", "1/6 1/6 1/6"),
        b=exact_row("1/6 1/6 1/6 1/2"), b_error=exact_row("-1/12 -1/12 -1/12 1/4"), ssp=2.0,
        source="Kraaijevanger, BIT 31 (1991) 482; pair: Conde, Fekete and Shadid, arXiv:1806.08693 (2018)",
    )  # fmt: skip
