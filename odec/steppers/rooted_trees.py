"""Rooted trees and elementary weights: the order conditions of Runge-Kutta methods [hairer1993, II.2]."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np


@functools.cache
def trees(order):
    """The rooted trees with `order` nodes; a tree is the sorted tuple of the trees below its root."""
    return sorted({tuple(sorted(forest)) for forest in _forests(order - 1, order - 1)})


def _forests(nodes, largest):
    """The multisets of trees with `nodes` nodes together, none of more than `largest`."""
    if nodes == 0:
        yield ()
        return
    for size in range(min(nodes, largest), 0, -1):
        for count in range(1, nodes // size + 1):
            for some in itertools.combinations_with_replacement(trees(size), count):
                for rest in _forests(nodes - size * count, size - 1):
                    yield (*some, *rest)


@functools.cache
def nodes_of(tree):
    """How many nodes a tree has."""
    return 1 + sum(map(nodes_of, tree))


@functools.cache
def density(tree):
    """gamma(tree): b is of order p where sum_i b_i weight_i = 1 / gamma for every tree of up to p nodes."""
    return nodes_of(tree) * math.prod(map(density, tree))


def elementary_weights(a, order):
    """{tree: the weight of each stage (s,)} for the trees of up to `order` nodes.

    a : (s, s) array of floats, or of Fractions (dtype object) for exact weights
    """
    one = np.ones(len(a), a.dtype)
    weights, carried = {}, {}
    for n in range(1, order + 1):
        for tree in trees(n):
            weights[tree] = math.prod((carried[child] for child in tree), start=one)
            if n < order:
                carried[tree] = a @ weights[tree]
    return weights


def condition(tree):
    """The left side of a tree's order condition in matrix notation: 'b (c c (A c))'."""
    return f"b {_factors(tree)}" if tree else "b 1"


def _factors(tree):
    return "(" + " ".join(f"(A {_factors(child)})" if child else "c" for child in tree) + ")"
