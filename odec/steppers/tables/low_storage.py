"""Methods in two registers."""

from __future__ import annotations

from odec.steppers.low_storage import LowStorageTableau
from odec.steppers.tableaus import exact_row


def carpenter_kennedy54():
    """Order four in five stages; the order conditions hold to 1e-25."""
    return LowStorageTableau(
        name="carpenter_kennedy54", order=4,
        a=exact_row("0 -567301805773/1357537059087 -2404267990393/2016746695238 -3550918686646/2091501179385 "
                    "-1275806237668/842570457699"),
        b=exact_row("1432997174477/9575080441755 5161836677717/13612068292357 1720146321549/2090206949498 "
                    "3134564353537/4481467310338 2277821191437/14882151754819"),
        source="Carpenter and Kennedy, NASA TM 109112 (1994), solution 3",
    )  # fmt: skip
