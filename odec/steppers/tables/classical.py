"""The methods of the textbooks: fixed steps, and the pair of Euler's and Heun's methods.

Their dense output is the cubic through both states and slopes.
"""

from __future__ import annotations

from odec.steppers.tableaus import ButcherTableau, exact_row, exact_rows

RUNGE = "Runge, Math. Ann. 46 (1895) 167"
HEUN = "Heun, Z. Math. Phys. 45 (1900) 23"
KUTTA = "Kutta, Z. Math. Phys. 46 (1901) 435"


def euler():
    """One slope: y1 = y + h f(t, y)."""
    return ButcherTableau(
        name="euler", order=1, ssp=1.0, c=exact_row("0"), a=exact_rows(""), b=exact_row("1"),
        source="Euler, Institutionum calculi integralis I (1768), chapter VII",
    )  # fmt: skip


def midpoint():
    """The slope at the middle of an Euler step of h / 2."""
    return ButcherTableau(
        name="midpoint", order=2, c=exact_row("0 1/2"), a=exact_rows("", "1/2"), b=exact_row("0 1"), source=RUNGE,
    )  # fmt: skip


def heun():
    """The mean of the slopes at both ends of an Euler step: the explicit trapezoidal rule."""
    return ButcherTableau(
        name="heun", order=2, ssp=1.0, c=exact_row("0 1"), a=exact_rows("", "1"), b=exact_row("1/2 1/2"), source=HEUN,
    )  # fmt: skip


def ralston():
    """The method of two stages with the smallest bound of its local error."""
    return ButcherTableau(
        name="ralston", order=2, ssp=0.5, c=exact_row("0 2/3"), a=exact_rows("", "2/3"), b=exact_row("1/4 3/4"),
        source="Ralston, Math. Comp. 16 (1962) 431",
    )  # fmt: skip


def rk4():
    """The method of four stages."""
    return ButcherTableau(
        name="rk4", order=4, c=exact_row("0 1/2 1/2 1"), a=exact_rows("", "1/2", "0 1/2", "0 0 1"),
        b=exact_row("1/6 1/3 1/3 1/6"), source=KUTTA,
    )  # fmt: skip


def rk38():
    """The 3/8 rule: four stages, with a smaller error than rk4's."""
    return ButcherTableau(
        name="rk38", order=4, c=exact_row("0 1/3 2/3 1"), a=exact_rows("", "1/3", "-1/3 1", "1 -1 1"),
        b=exact_row("1/8 3/8 3/8 1/8"), source=KUTTA,
    )  # fmt: skip


def heun_euler():
    """The 2(1) pair: Heun's method, less Euler's."""
    return ButcherTableau(
        name="heun_euler", order=2, error_order=1, ssp=1.0, c=exact_row("0 1"), a=exact_rows("", "1"),
        b=exact_row("1/2 1/2"), b_error=exact_row("-1/2 1/2"), source=HEUN,
    )  # fmt: skip
