"""Every Hypothesis strategy of the test suite.

Those that an argument fixes are kept: Hypothesis looks a new strategy through before it draws from it, which takes
longer than the draw.
"""

import functools

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4)
# 0.6 and not 0.5: NumPy itself takes the power 0.5 in two ways, which differ at -inf.
EDGES = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e300, -1e300, 1e-300, -1e-300, 0.6, -2.5, 7.0)


@functools.cache
def numbers(low, high):
    """Floats of an interval, neither subnormal nor tiny."""
    return st.floats(low, high, allow_subnormal=False).map(lambda v: v if abs(v) > 1e-3 else 1e-3)


@functools.cache
def points(domains):
    """One float for each (low, high)."""
    return st.tuples(*(numbers(low, high) for low, high in domains))


@functools.cache
def arrays(shape, low=-3.0, high=3.0):
    """Arrays of a shape with elements of an interval."""
    return hnp.arrays(float, shape, elements=numbers(low, high))


@functools.cache
def edge_points(count):
    """`count` values of those where functions are special: zeros, infinities, nan, huge and tiny."""
    return st.tuples(*[st.sampled_from(EDGES)] * count)


@functools.cache
@st.composite
def slices_of(draw, extent):
    """(start, step, length) of a slice with at least one element of an axis."""
    step = draw(st.sampled_from((-2, -1, 1, 2)))
    start = draw(st.integers(0, extent - 1))
    room = (extent - 1 - start) // step if step > 0 else start // -step
    return start, step, draw(st.integers(1, room + 1))


@functools.cache
@st.composite
def axes_of(draw, ndim):
    """Some of the axes of an array, rising."""
    return tuple(sorted(draw(st.sets(st.integers(0, ndim - 1), min_size=1))))


@st.composite
def well_conditioned(draw, n):
    """Matrices (n, n) far from singular."""
    return draw(arrays((n, n), -1.0, 1.0)) + 4.0 * np.eye(n)


@functools.cache
def directions(shape):
    """Tangents and cotangents."""
    return arrays(shape, -1.0, 1.0)
