"""Rooted trees and their weights: the order conditions of Runge-Kutta methods [hairer1993, II.2]."""

import functools
import itertools
import math
from fractions import Fraction


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


def nodes_of(tree):
    return 1 + sum(map(nodes_of, tree))


def density(tree):
    """gamma(tree): b is of order p where sum_i b_i weight_i = 1 / gamma for every tree of up to p nodes."""
    return nodes_of(tree) * math.prod(map(density, tree))


def stage_weights(tree, a):
    """The elementary weight of every stage, exactly."""
    below = [stage_weights(child, a) for child in tree]
    inner = [[sum((x * w for x, w in zip(row, weights)), Fraction(0)) for row in a] for weights in below]
    return [math.prod((column[i] for column in inner), start=Fraction(1)) for i in range(len(a))]
