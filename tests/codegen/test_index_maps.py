"""Index maps of views against NumPy."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from odec.codegen.index_maps import IndexMaps, Region, Split, Unmappable, is_row_major, replaced, row_major, span
from odec.codegen.kernel import Index

NAMES = ("i", "j", "k")
SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple)


def value(index, at):
    return index.offset + sum(stride * at[name] for name, stride in index.terms)


@given(source=SHAPES, data=st.data())
def test_reshape_finds_the_element_that_numpy_finds(source, data):
    size = math.prod(source)
    rows = data.draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
    shape = (rows, size // rows)
    maps = IndexMaps(dict(zip(NAMES, shape, strict=False)))
    index = tuple(Index(0, ((name, 1),)) for name, _ in zip(NAMES, shape, strict=False))
    try:
        found = maps.reshaped(index, shape, source)
    except (Split, Unmappable):
        found = None  # said, not guessed
    places = np.arange(size).reshape(source)
    for at in np.ndindex(*shape) if found else ():
        place = tuple(value(i, dict(zip(NAMES, at, strict=False))) for i in found)
        assert places[place] == np.ravel_multi_index(at, shape)


@given(offset=st.integers(-5, 5), strides=st.lists(st.integers(-3, 3), min_size=2, max_size=2))
def test_span_is_what_an_index_reaches(offset, strides):
    extents = {"i": 3, "j": 4}
    index = Index(offset, tuple(zip(extents, strides, strict=True)))
    reached = [value(index, {"i": i, "j": j}) for i in range(3) for j in range(4)]
    assert span(index, extents) == (min(reached), max(reached))


def test_part_of_a_region_is_the_slice():
    whole = Region("b", 0, row_major((4, 5)))
    part = whole.part((1, 4), (2, -1))
    assert part.places((2, 3), np.arange(6)).tolist() == np.arange(20).reshape(4, 5)[1::2, 4:1:-1].ravel().tolist()
    assert is_row_major(whole.strides, (4, 5)) and not is_row_major(part.strides, (2, 3))


def test_replaced_variable_takes_its_stride_along():
    moved = replaced(Index(1, (("i", 3), ("j", 2))), "i", Index(4, (("k", 5),)))
    assert moved == Index(13, (("j", 2), ("k", 15)))
