"""What `odec.sensitivities` returns."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from odec.direction import by_input
from odec.ensemble_solution import EnsembleSolution
from odec.graph.structure import Structure
from odec.solution import Solution


@dataclass(frozen=True)
class SensitivitySolution(Solution):
    """A Solution with derivatives of its rows, and of its events.

    sensitivities : by name of the input, d ys / d input, (m, *y.shape, *input.shape); where y or the input is a
        structure, the structure of y, in each leaf the structure of the input
    t_event_sensitivities, y_event_sensitivities : for each event such dicts, of its times, (k, *input.shape), and of
        its states, (k, *y.shape, *input.shape), the moving of its times included; None without events
    """

    sensitivities: dict[str, Any] = field(default_factory=dict)
    t_event_sensitivities: list | None = None
    y_event_sensitivities: list | None = None


@dataclass(frozen=True, eq=False, repr=False)
class EnsembleSensitivities(EnsembleSolution):
    """An EnsembleSolution with derivatives of its rows; of a member that failed, nan where its rows are.

    sensitivities : by name of the input, d ys / d input, (N, m, *y.shape, *input.shape), the input as one member has
        it; where y or the input is a structure, the structure of y, in each leaf the structure of the input
    flat_sensitivities : by name the Structure of the input, in a vector of its own, and (N, m, n, its size)

    `ensemble[i]` is one member as a SensitivitySolution, without derivatives of the times of events.
    """

    flat_sensitivities: dict[str, tuple[Structure, np.ndarray]] = field(default_factory=dict)

    @property
    def sensitivities(self) -> dict[str, Any]:
        """{name: d ys / d input}, (N, m, *y.shape, *input.shape) in the structures of both."""
        return {name: by_input(self.structure, *found) for name, found in self.flat_sensitivities.items()}

    def __getitem__(self, i):
        """Member i as a SensitivitySolution, from what was kept."""
        alone, place = super().__getitem__(i), self._place(i)
        own = {
            name: by_input(self.structure, inner, values[place, : len(alone.ts)])
            for name, (inner, values) in self.flat_sensitivities.items()
        }
        return SensitivitySolution(**{f.name: getattr(alone, f.name) for f in fields(alone)}, sensitivities=own)
