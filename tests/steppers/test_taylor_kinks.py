"""Where a model is not analytic, a Taylor step that goes over it is rejected."""

import numpy as np
import pytest

import odec
from odec.graph.trace import source_line
from odec.transforms.taylor import kink


@odec.dynamics
def tank(t, y):
    """Torricelli's law: empty at t = 2, of which the series at the start knows nothing."""
    return -np.sqrt(y)


@odec.dynamics
def rubbing(t, y):
    return [y[1], -y[0] - 0.03 * np.sign(y[1])]


@odec.dynamics
def kepler(t, y):
    q, v = y[:2], y[2:]
    return np.concatenate([v, -q * (q @ q) ** -1.5])


@pytest.mark.parametrize(
    ("model", "y0", "line"),
    [(tank, 1.0, "np.sqrt(y)"), (rubbing, [1.0, 0.0], "np.sign"), (kepler, [1.0, 0.0, 0.0, 1.0], None)],
    ids=["tank", "rubbing", "kepler"],
)
def test_kinks_are_known(model, y0, line):
    found = kink(model.bind(y0).graph)
    assert found is None if line is None else line in source_line(found.line)


def test_a_series_is_not_trusted_beyond_a_branch_point():
    sol = odec.solve(tank, (0.0, 2.5), 1.0, method="taylor", rtol=1e-6, atol=1e-8, throw=False)
    assert sol.ts[-1] < 2.1 or abs(float(sol.y1)) < 1e-6
    before = odec.solve(tank, (0.0, 1.9), 1.0, method="taylor", rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(before.y1, 0.05**2, rtol=1e-8)


def test_friction_is_followed_from_turn_to_turn():
    """Each half swing ends 0.06 closer, for sign(y[1]) moves the middle by 0.03."""
    sol = odec.solve(rubbing, (0.0, 3 * np.pi), [1.0, 0.0], method="taylor", rtol=1e-9, atol=1e-11, t_eval=[])
    assert sol.stats["rejected"] > 0
    np.testing.assert_allclose(sol.y1[0], -(1.0 - 3 * 0.06), atol=1e-7)
