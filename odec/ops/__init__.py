"""What can be computed: one record an op, filled by families; importing this fills the table."""

from odec.ops import arithmetic, comparison, elementary, indexing, linalg, reduction, shaping, structure  # noqa: F401
