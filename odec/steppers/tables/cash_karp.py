"""Method of Cash and Karp."""

from __future__ import annotations

from odec.steppers.tableaus import ButcherTableau, exact_row, exact_rows


def cash_karp():
    """The 5(4) pair of six stages; of its solutions of orders one to five, five goes on and four is compared."""
    return ButcherTableau(
        name="cash_karp", order=5, error_order=4, c=exact_row("0 1/5 3/10 3/5 1 7/8"),
        a=exact_rows(
            "", "1/5", "3/40 9/40", "3/10 -9/10 6/5", "-11/54 5/2 -70/27 35/27",
            "1631/55296 175/512 575/13824 44275/110592 253/4096",
        ),
        b=exact_row("37/378 0 250/621 125/594 0 512/1771"),
        b_error=exact_row("-277/64512 0 6925/370944 -6925/202752 -277/14336 277/7084"),
        source="Cash and Karp, ACM Trans. Math. Softw. 16 (1990) 201",
    )  # fmt: skip
