"""What dynamics need of neural networks: layers and their first parameters, in plain NumPy that traces.

Parameters are nested tuples of arrays, which odec takes as they are. Optimisers come from PyTorch (`odec.torch`), or
optax (`odec.jax`).
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from odec.errors import ArgumentError
from odec.special import sigmoid

__all__ = [
    "concat_squash", "concat_squash_layer", "glorot_uniform", "he_normal", "layers", "lecun_normal", "mlp", "with_time",
]  # fmt: skip


def glorot_uniform(rng, shape, dtype: Any = np.float64):
    """A matrix (m, n), uniform between ±√(6 / (m + n)): for tanh, whose signals keep their size both ways [glorot2010].

    rng : numpy.random.Generator, or a seed; dtype : float64 or float32
    """
    m, n = _checked("glorot_uniform", shape)
    limit = np.sqrt(6.0 / (m + n))
    return np.random.default_rng(rng).uniform(-limit, limit, (m, n)).astype(dtype)


def lecun_normal(rng, shape, dtype: Any = np.float64):
    """A matrix (m, n) of normal numbers of variance 1 / m, which keeps the size of what enters [lecun2012].

    rng : numpy.random.Generator, or a seed; dtype : float64 or float32
    """
    m, n = _checked("lecun_normal", shape)
    return (np.random.default_rng(rng).normal(size=(m, n)) * np.sqrt(1.0 / m)).astype(dtype)


def he_normal(rng, shape, dtype: Any = np.float64):
    """A matrix (m, n) of normal numbers of variance 2 / m: for relu and softplus, which let half through [he2015].

    rng : numpy.random.Generator, or a seed; dtype : float64 or float32
    """
    m, n = _checked("he_normal", shape)
    return (np.random.default_rng(rng).normal(size=(m, n)) * np.sqrt(2.0 / m)).astype(dtype)


def layers(rng, sizes, weights=None, dtype: Any = np.float64):
    """The parameters of `mlp`: for each layer (W, b), W (m, n) as `weights(rng, (m, n), dtype)` makes it, b (n,) zeros.

    weights : glorot_uniform, lecun_normal, he_normal or a function like them; None is the first

    rng : numpy.random.Generator, or a seed; sizes : how many numbers enter, how many each hidden layer has, how many
    leave

    Raises
    ------
    ArgumentError : fewer than two sizes, or one that is no integer above zero
    """
    rng, sizes, weights = np.random.default_rng(rng), tuple(sizes), weights or glorot_uniform
    if len(sizes) < 2:
        raise ArgumentError(f"odec.nn.layers: sizes is {sizes}; two sizes at least are needed, as (2, 64, 2).")
    shapes = [_checked("layers", shape) for shape in itertools.pairwise(sizes)]
    return tuple((weights(rng, shape, dtype), np.zeros(shape[1], dtype)) for shape in shapes)


def mlp(layers, x, activation=np.tanh):
    """x (..., m) through layers activation(x W + b), the last of them without activation: (..., n).

    layers : ((W, b), ...), as `odec.nn.layers` makes them; activation : a NumPy function, or one of odec.special
    """
    *hidden, (w, b) = layers
    for inner, offset in hidden:
        x = activation(x @ inner + offset)
    return x @ w + b


def with_time(t, x):
    """x (..., m) with the time t () beside it: (..., m + 1), t last. A layer of such is one that depends on time."""
    return np.concatenate([x, np.full_like(x[..., :1], t)], axis=-1)


def concat_squash_layer(rng, shape, weights=None, dtype: Any = np.float64):
    """The parameters (W, b, gate, gate_b, shift) of `concat_squash`: W (m, n) as in `layers`, the others (n,).

    rng : numpy.random.Generator, or a seed; b and gate_b begin as zeros, gate and shift uniform between ±1
    """
    rng, weights = np.random.default_rng(rng), weights or glorot_uniform
    m, n = _checked("concat_squash_layer", shape)
    gate, shift = rng.uniform(-1.0, 1.0, (2, n)).astype(dtype)
    return weights(rng, (m, n), dtype), np.zeros(n, dtype), gate, np.zeros(n, dtype), shift


def concat_squash(layer, t, x):
    """(x W + b) sigmoid(gate t + gate_b) + shift t, (..., n): a layer that time opens and moves [grathwohl2019].

    layer : as `odec.nn.concat_squash_layer` makes it; t : (); x : (..., m)
    """
    w, b, gate, gate_b, shift = layer
    return (x @ w + b) * sigmoid(gate * t + gate_b) + shift * t


def _checked(caller, shape):
    """(m, n); ArgumentError for what is no pair of integers above zero."""
    pair = isinstance(shape, (tuple, list)) and len(shape) == 2
    if not pair or any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1 for n in shape):
        raise ArgumentError(
            f"odec.nn.{caller}: {shape!r} is no shape of a layer; how many numbers enter it and how many leave it are "
            "needed, integers above zero, as (2, 64)."
        )
    return tuple(shape)
