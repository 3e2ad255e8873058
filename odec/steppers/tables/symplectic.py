"""Symplectic methods for separable models."""

from __future__ import annotations

from fractions import Fraction as F

from odec.steppers.symplectic import SymplecticTableau
from odec.steppers.tableaus import exact_row

BLANES_MOAN = "Blanes and Moan, J. Comput. Appl. Math. 142 (2002) 313"


def semi_implicit_euler():
    """Order one: a kick, then a drift with the new velocity."""
    return SymplecticTableau(
        name="semi_implicit_euler", order=1, kicks=exact_row("1 0"), drifts=exact_row("1"),
        source="de Vogelaere, Univ. of Notre Dame (1956); [hairer2006], I.1",
    )  # fmt: skip


def velocity_verlet():
    """Order two: half a kick, a drift, half a kick."""
    return SymplecticTableau(
        name="velocity_verlet", order=2, kicks=exact_row("1/2 1/2"), drifts=exact_row("1"),
        source="Swope, Andersen, Berens and Wilson, J. Chem. Phys. 76 (1982) 637",
    )  # fmt: skip


def blanes_moan4():
    """Order four in six stages, of small error."""
    return _symmetric(
        name="blanes_moan4", order=4, source=f"{BLANES_MOAN}, S6",
        kicks="0.0792036964311956694336634958882688733080195575 0.353172906049773988481061311573121056530370873 "
              "-0.0420650803577195353681102983025170387204097164",
        drifts="0.209515106613362021274072640029501016902138216 -0.143851773179818008275115057856527725648238471",
    )  # fmt: skip


def blanes_moan6():
    """Order six in ten stages, of small error."""
    return _symmetric(
        name="blanes_moan6", order=6, source=f"{BLANES_MOAN}, S10",
        kicks="0.050262764400392686021221654402074109406012751 0.413514300428343815063063720133884438975269397 "
              "0.045079889794398062968897052124513471161718025 -0.188054853819568914799128488918870542487818855 "
              "0.541960678450780134831414740933072496348172756",
        drifts="0.148816447901043231920901005535577588877396722 -0.132385865767783647448845426598939921574489316 "
               "0.0673076046921844581502578965926010468993631407 0.432666402578173597527667970883545298058183948",
    )  # fmt: skip


def _symmetric(name, order, source, kicks, drifts):
    """The method whose coefficients read the same from both ends, from those that are free.

    They are published to 15 digits; these are the nearest numbers for which the order conditions hold to 40.
    """
    kicks, drifts = exact_row(kicks), exact_row(drifts)
    middle, half = F(1) - 2 * sum(kicks, F(0)), (*drifts, F(1, 2) - sum(drifts, F(0)))
    return SymplecticTableau(name, order, (*kicks, middle, *kicks[::-1]), (*half, *half[::-1]), source)
