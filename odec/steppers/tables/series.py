"""The Taylor series method."""

from __future__ import annotations

from odec.steppers.taylor import TaylorMethod


def taylor():
    return TaylorMethod()
