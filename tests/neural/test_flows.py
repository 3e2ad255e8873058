"""Flows against dense Jacobians, quadrature and the determinants of flow maps; samples, probes, refusals."""

import numpy as np
import pytest
from hypothesis import given

import odec
import odec.neural.flows
from odec.testing import models
from odec.transforms.jvp import jvp
from odec.transforms.simplify import array_form
from odec.transforms.sparsity import diagonal_colouring

RNG = np.random.default_rng(7)
SPAN = (0.0, 1.0)
TIGHT = {"rtol": 1e-11, "atol": 1e-12}


@odec.dynamics
def network(t, z, w, c, b, v):
    return np.tanh(z @ w + c * t + b) @ v


@odec.dynamics
def separable(t, z, a=0.8):
    return np.sin(a * z) * t


def layers(numbers, units):
    """Parameters of `network` for samples of so many numbers."""
    w, v = RNG.normal(size=(numbers, units)), RNG.normal(size=(units, numbers))
    return {"w": w, "c": RNG.normal(size=units), "b": RNG.normal(size=units), "v": v / units}


PARAMS = layers(2, 8)
Z = RNG.normal(size=(4, 2))


def rate(model, t, z, params=()):
    """dlogp/dt at (t, z), by NumPy."""
    return model(t, model.start(z), **dict(params))[1]


def traces(model, t, z, params):
    """The trace of the block of each sample of the dense Jacobian."""
    dense = model.bind(z, params).jacobian(t, z, *params.values()).reshape(z.shape * 2)
    return np.einsum("iaia->i", dense)


def normal(z):
    """log of the standard normal density of each row."""
    return -(z**2).sum(axis=-1) / 2 - z.shape[-1] * np.log(2 * np.pi) / 2


@pytest.mark.parametrize(("samples", "numbers"), [(3, 2), (40, 2), (30, 5), (1, 3)])
def test_exact_trace_is_that_of_the_block_of_each_sample(samples, numbers):
    z, params = RNG.normal(size=(samples, numbers)), layers(numbers, 16)
    model = odec.cnf(network)
    expected = -traces(network, 0.3, z, params)
    assert rate(model, 0.3, z, params) == pytest.approx(expected, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("small", [0, 10**6], ids=["by arrays", "by elements"])
@given(found=models(depth=3, smooth=True))
def test_trace_of_any_model_is_that_of_its_jacobian(small, found):
    model = odec.cnf(found.model, batch_axis=None)
    system = found.model.bind(found.y0, found.params, np.float64)
    y, p = system.y_structure.flatten(found.y0, "y"), system.p_structure.flatten(found.params, "p")
    tangent = jvp(system.graph, ["y"])
    columns = [tangent.evaluate(0.2, y, p, unit)["dydt_dot"] for unit in np.eye(y.size)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(odec.neural.flows, "SMALL", small)
        got = model(0.2, model.start(found.y0), **found.params)[1]
    np.testing.assert_allclose(got, -np.trace(columns), rtol=1e-9, atol=1e-12 * (1 + np.abs(columns).max()))


def test_a_hidden_layer_is_left_once_for_each_number_and_entered_once():
    graph = array_form(odec.cnf(network).bind(odec.cnf(network).start(np.ones((200, 2))), layers(2, 64)).graph)
    shapes = [node.shape for node in graph.nodes if node.op.name == "matmul"]
    assert sorted(shapes) == [(200, 1), (200, 1), (200, 2)]  # the trace takes as many multiplications as f


def test_numbers_that_do_not_meet_share_a_tangent():
    def colours(entries, count):
        rows, columns = np.array(entries).T
        return diagonal_colouring(rows, columns, count).tolist()

    assert colours([(k, k) for k in range(5)], 5) == [0] * 5
    assert max(colours([(i, j) for i in range(4) for j in range(4)], 4)) == 3
    assert colours([(0, 1), (1, 0)], 2) == [-1, -1]
    found = colours([(0, 0), (1, 1), (2, 2), (1, 0), (2, 1)], 3)
    assert found[0] != found[1] != found[2] and max(found) == 1
    tangents_of = [
        node.op.name for node in odec.cnf(separable).bind(odec.cnf(separable).start(np.ones((90, 64)))).graph.nodes
    ]
    assert tangents_of.count("cos") == 1


def test_quadratures_and_rotations_keep_the_density():
    @odec.dynamics
    def rotation(t, z):
        return np.stack([z[:, 1], -z[:, 0]], axis=1)

    np.testing.assert_array_equal(rate(odec.cnf(rotation), 0.0, Z), np.zeros(4))


def test_probes_that_are_orthogonal_average_to_the_trace():
    flow = odec.cnf(network, "hutchinson")
    assert list(flow.parameters)[-1] == "probe"
    found = [rate(flow, 0.3, Z, PARAMS | {"probe": np.tile(e, (4, 1))}) for e in ([1.0, 1.0], [1.0, -1.0])]
    assert np.mean(found, axis=0) == pytest.approx(-traces(network, 0.3, Z, PARAMS), rel=1e-13)
    fixed = odec.cnf(network, "hutchinson", probe=np.ones((4, 2)))
    np.testing.assert_array_equal(rate(fixed, 0.3, Z, PARAMS), found[0])


def density(z, params, **how):
    """log p of samples z (n, 2) at t = 0, where p is standard normal at t = 1."""
    flow = odec.cnf(network)
    end, logp = odec.solve(flow, SPAN, flow.start(z), params, t_eval=[], **(TIGHT | how)).y1
    return normal(end) - logp


def test_density_integrates_to_one():
    side = np.linspace(-9.0, 9.0, 91)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    p = np.exp(density(grid, PARAMS, rtol=1e-8, atol=1e-9))
    assert p.sum() * (side[1] - side[0]) ** 2 == pytest.approx(1.0, abs=1e-7)
    assert np.ptp(p / np.exp(normal(grid))) > 0.5  # it is no normal density


def test_log_density_is_that_of_the_determinant_of_the_flow_map():
    h, weights = 1e-2, {-3: -1, -2: 9, -1: -45, 1: 45, 2: -9, 3: 1}  # central differences of order 6
    shifts = np.array([k * h * e for e in np.eye(2) for k in weights])
    moved = (Z[:, None] + shifts).reshape(-1, 2)
    ends = odec.solve(network, SPAN, moved, PARAMS, t_eval=[], **TIGHT).y1.reshape(4, 2, 6, 2)
    slopes = np.einsum("sdkj,k->sjd", ends, np.array(list(weights.values())) / (60 * h))
    _, logdet = np.linalg.slogdet(slopes)
    end = odec.solve(network, SPAN, Z, PARAMS, t_eval=[], **TIGHT).y1
    assert density(Z, PARAMS) == pytest.approx(normal(end) + logdet, abs=1e-8)


def test_sampling_goes_backward_and_carries_the_density():
    flow = odec.cnf(network)
    x, logp = odec.solve(flow, SPAN[::-1], (Z, normal(Z)), PARAMS, t_eval=[], **TIGHT).y1
    assert logp == pytest.approx(density(x, PARAMS), abs=1e-9)
