"""Layers: what they compute, on numbers and traced; how large their first parameters are; refusals."""

import numpy as np
import pytest

import odec
from odec import nn

X = np.array([[0.3, -1.2], [0.5, 0.1], [2.0, -0.4]])


@odec.dynamics
def network(t, z, layers):
    return nn.mlp(layers, nn.with_time(t, z), activation=odec.special.softplus)


@odec.dynamics
def squashed(t, z, first, last):
    return nn.concat_squash(last, t, np.tanh(nn.concat_squash(first, t, z)))


@pytest.mark.parametrize(
    ("weights", "variance"),
    [(nn.glorot_uniform, 2 / (40 + 60)), (nn.lecun_normal, 1 / 40), (nn.he_normal, 2 / 40)],
)
def test_first_weights_have_the_variance_that_they_say(weights, variance):
    w = np.stack([weights(seed, (40, 60)) for seed in range(40)])
    assert w.mean() == pytest.approx(0.0, abs=4 * np.sqrt(variance / w.size))
    assert w.var() == pytest.approx(variance, rel=0.02)
    single = weights(0, (40, 60), np.float32)
    assert single.dtype == np.float32 and np.array_equal(single, w[0].astype(np.float32))


def test_layers_are_affine_with_activations_between():
    (w, b), (v, c) = params = nn.layers(3, (2, 5, 4))
    assert [a.shape for a in (w, b, v, c)] == [(2, 5), (5,), (5, 4), (4,)]
    np.testing.assert_array_equal(nn.mlp(params, X), np.tanh(X @ w + b) @ v + c)
    np.testing.assert_array_equal(nn.mlp(params, X[0]), nn.mlp(params, X[:1])[0])
    np.testing.assert_array_equal(nn.mlp(params[:1], X), X @ w + b)


def test_networks_trace_to_what_they_compute():
    rng = np.random.default_rng(1)
    for model, params in (
        (network, (nn.layers(rng, (3, 8, 8, 2), nn.he_normal),)),
        (squashed, (nn.concat_squash_layer(rng, (2, 6)), nn.concat_squash_layer(rng, (6, 2)))),
    ):
        system = model.bind(X, params)
        flat = system.y_structure.flatten(X, "y"), system.p_structure.flatten(model.parameter_values(params), "p")
        found = system.graph.evaluate(0.7, *flat)["dydt"].reshape(X.shape)
        np.testing.assert_allclose(found, model(0.7, X, *params), rtol=1e-14)


def test_time_stands_last():
    np.testing.assert_array_equal(nn.with_time(0.5, X), [[*row, 0.5] for row in X])
    np.testing.assert_array_equal(nn.with_time(0.5, X[0]), [0.3, -1.2, 0.5])


def test_time_opens_and_moves_a_layer():
    w, b, gate, gate_b, shift = layer = nn.concat_squash_layer(5, (2, 3))
    np.testing.assert_allclose(nn.concat_squash(layer, 0.0, X), (X @ w + b) / 2)
    t = 1.3
    expected = (X @ w + b) / (1 + np.exp(-(gate * t + gate_b))) + shift * t
    np.testing.assert_allclose(nn.concat_squash(layer, t, X), expected, rtol=1e-14)


@pytest.mark.parametrize(
    "refused",
    [
        lambda: nn.layers(0, (3,)), lambda: nn.layers(0, (3, 0)), lambda: nn.layers(0, (2, 4.0)),
        lambda: nn.glorot_uniform(0, 3), lambda: nn.he_normal(0, (True, 2)),
        lambda: nn.concat_squash_layer(0, (1, 2, 3)),
    ],
)  # fmt: skip
def test_sizes_that_are_none_are_refused(refused):
    with pytest.raises(odec.ArgumentError, match=r"odec\.nn\.\w+: .*; .* needed.*, as \(2, 64"):
        refused()
