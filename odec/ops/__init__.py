"""What can be computed: one record an op, filled by families; importing this fills the tables."""

from odec.ops import (  # noqa: F401
    arithmetic,
    call,
    checks,
    comparison,
    elementary,
    formulas,
    indexing,
    interpolation,
    linalg,
    norms,
    products,
    rearranging,
    reduction,
    refusals,
    rough,
    shaping,
    statistics,
    structure,
    views,
)
