"""Derivative kernels: NumPy on the graph = the Python text = compiled scalar code."""

import numpy as np
import pytest

import odec
from odec.codegen.lower_scalar import lower_scalar


def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
    x, v, z = y
    return [sigma * (v - x), x * (rho - z) - v, x * v - beta * z]


def pendulum(t, y, length=2.0):
    return [y[1], -9.81 / length * np.sin(y[0]) + np.cos(t) * np.exp(-t)]


def network(t, z, w1, w2):
    return np.tanh(w1 @ z + 0.1) @ w2


def mass_matrix(t, y):
    mass = np.array([[2.0, np.cos(y[0] - y[1])], [np.cos(y[0] - y[1]), 1.0]])
    return np.concatenate([y[2:], np.linalg.solve(mass, -np.sin(y[:2]))])


def switched(t, y):
    return np.where(y > 0.5, np.maximum(y, t) ** 1.5, np.abs(y) / (1.0 + y * y))


MODELS = {
    "lorenz": (lorenz, np.array([1.0, 2.0, 3.0]), ()),
    "pendulum": (pendulum, np.array([0.5, 0.1]), ()),
    "network": (network, np.array([0.3, -0.4]), (np.arange(6.0).reshape(3, 2) / 5, np.ones((3, 2)))),
    "mass matrix": (mass_matrix, np.array([0.3, 0.5, 0.0, 0.1]), ()),
    "switched": (switched, np.array([0.2, 0.9]), ()),
}
KERNELS = {"rhs": {}, "jvp": {}, "vjp": {}, "jacobian": {}, "taylor": {"order": 3}, "divergence": {}}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", MODELS)
def test_three_ways_of_running_a_derivative_agree(name, kernel):
    function, y0, params = MODELS[name]
    system = odec.dynamics(function).bind(y0, params)
    graph = system.derivative(kernel, **KERNELS[kernel])
    rng = np.random.default_rng(3)
    point = {
        "t": np.full((), 0.4),
        "y": y0,
        "p": system.flat_parameters(params or list(system.p_structure.map(lambda _: 1.5).values())),
    }
    inputs = [np.array(point.get(n, rng.normal(size=i.shape)), float) for n, i in graph.inputs.items()]
    expected = list(graph.evaluate(*inputs).values())
    for target in ("python", "cpu"):
        run = system.compile(kernel, target, layout="scalar", **KERNELS[kernel])
        found = [np.empty(e.shape) for e in expected]
        run(*inputs, *found)
        for f, e in zip(found, expected, strict=True):
            np.testing.assert_allclose(f, e, rtol=1e-12, atol=1e-13)


# ---- what is computed once --------------------------------------------------------------------------------


@odec.dynamics
def attracted(t, y):
    """Three bodies on a line and a height, every distance from both ends."""
    x, h = y[:3], y[3:]
    pulls = []
    for i in range(3):
        pull = 0.0
        for j in range(3):
            if i != j:
                dx, dh = x[j] - x[i], h[j] - h[i]
                pull = pull + dx / np.sqrt(dx * dx + dh**2 + (dx * dh) ** 4)
        pulls.append(pull)
    return [*pulls, *(-p for p in pulls)]


def test_a_distance_is_computed_once_from_either_end():
    kernel = lower_scalar(attracted.bind(np.ones(6)).graph, "rhs")
    roots = [s for s in kernel.body if getattr(getattr(s, "op", None), "name", None) == "sqrt"]
    assert len(roots) == 3
    y = np.array([0.3, -1.2, 2.0, 0.1, 0.4, -0.7])
    found = attracted.bind(y).rhs(0.0, y)
    assert found == pytest.approx(attracted(0.0, y), rel=1e-15)
