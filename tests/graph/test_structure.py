"""Structures: nested values to flat vectors and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from structured_values import Arm, Body

from odec.errors import ArgumentError, ShapeError
from odec.graph.structure import structure_of

NUMBERS = st.integers(-9, 9).map(float)
ARRAYS = hnp.arrays(float, hnp.array_shapes(max_dims=3, max_side=3), elements=NUMBERS)
LEAVES = NUMBERS | ARRAYS
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, inner),
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1),
        st.builds(Body, ARRAYS, inner),
        st.builds(Arm, NUMBERS, inner),
        st.lists(ARRAYS, min_size=1, max_size=3),
    ),
    max_leaves=6,
)


def same(a, b):
    assert type(a) is type(b) or (np.ndim(a) == 0 and np.ndim(b) == 0) or isinstance(b, np.ndarray)
    if isinstance(a, dict):
        assert list(a) == list(b)
        return all(same(a[k], b[k]) for k in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, Arm):
        return same(a.length, b.length) and same(a.body, b.body)
    return np.array_equal(a, b)


@given(VALUES)
def test_unflatten_reverses_flatten(value):
    structure = structure_of(value, "value")
    flat = structure.flatten(value, "value")
    assert flat.shape == (structure.size,) and flat.dtype == np.float64
    assert same(value, structure.unflatten(flat))


@given(value=VALUES, size=st.integers(1, 3))
def test_members_are_flattened_as_one_is(value, size):
    structure = structure_of(value, "value")
    rows = np.arange(size * structure.size, dtype=float).reshape(size, -1)
    members = structure.unflatten(rows, (size,))
    np.testing.assert_array_equal(structure.flatten_members(members, "members", float, size), rows)
    for row in rows:
        np.testing.assert_array_equal(structure.flatten(structure.unflatten(row), "member"), row)


@given(a=VALUES, b=VALUES)
def test_a_part_is_the_structure_of_a_child(a, b):
    whole = structure_of({"a": a, "b": b}, "value")
    flat = whole.flatten({"a": a, "b": b}, "value")
    for key, value in (("a", a), ("b", b)):
        part, place = whole.part(key)
        assert part == structure_of(value, "value")
        np.testing.assert_array_equal(part.flatten(value, "value"), flat[place])


@given(VALUES)
def test_leaves_tile_the_flat_vector(value):
    structure = structure_of(value, "value")
    ends = [0]
    for _, leaf in structure.leaves:
        assert leaf.offset == ends[-1]
        ends.append(leaf.offset + leaf.size)
    assert ends[-1] == structure.size
    assert len({path for path, _ in structure.leaves}) == len(structure.leaves)


@given(VALUES)
def test_flatten_copies(value):
    structure = structure_of(value, "value")
    flat = structure.flatten(value, "value")
    before = flat.copy()
    flat += 1
    np.testing.assert_array_equal(structure.flatten(value, "value"), before)


def test_paths_name_the_parts():
    structure = structure_of({"arm": Arm(1.0, Body(np.zeros(2), 0.0)), "pair": (1.0, 2.0)}, "y")
    assert [path for path, _ in structure.leaves] == [
        "['arm'].length", "['arm'].body.place", "['arm'].body.speed", "['pair'][0]", "['pair'][1]"
    ]  # fmt: skip


def test_a_list_of_numbers_is_an_array_and_of_arrays_a_container():
    assert structure_of([1.0, 2.0], "y").is_array
    assert structure_of([[1.0, 2.0], [3.0, 4.0]], "y").leaves[0][1].shape == (2, 2)
    assert not structure_of([np.zeros(2), np.zeros(3)], "y").is_array


def test_leading_axes_stay_in_front():
    structure = structure_of({"a": 0.0, "b": np.zeros(2)}, "y")
    parts = structure.unflatten(np.arange(12.0).reshape(4, 3), lead=(4,))
    assert parts["a"].shape == (4,) and parts["b"].shape == (4, 2)


def test_order_of_keys_does_not_matter_when_filling():
    structure = structure_of({"a": 1.0, "b": 2.0}, "y")
    assert structure.flatten({"b": 20.0, "a": 10.0}, "y").tolist() == [10.0, 20.0]


def test_float32_flat_vectors():
    structure = structure_of((1.0, np.zeros(2)), "y")
    assert structure.flatten((1, np.ones(2)), "y", np.float32).dtype == np.float32


BAD = {
    "another shape": (np.zeros(3), np.zeros(2), ShapeError, r"y has shape \(2,\), but the model is bound to \(3,\)"),
    "a part of another shape": ({"a": np.zeros(3)}, {"a": 1.0}, ShapeError, r"y\['a'\] has shape \(\)"),
    "another key": (
        {"a": 1.0},
        {"b": 1.0},
        ShapeError,
        r"y is dict with \['b'\], but the model is bound to a dict of \(a",
    ),
    "an array for a dict": ({"a": 1.0}, np.zeros(1), ShapeError, "y is an array"),
    "fewer parts": ((1.0, 2.0), (1.0,), ShapeError, "y is tuple"),
    "a text": (np.zeros(1), ["a"], ArgumentError, "y: list is not a number"),
    "complex": (np.zeros(1), np.zeros(1, complex), ArgumentError, "y: complex values are not supported"),
}


@pytest.mark.parametrize(("bound", "given_", "kind", "message"), BAD.values(), ids=BAD)
def test_values_that_do_not_fit_are_named(bound, given_, kind, message):
    with pytest.raises(kind, match=message):
        structure_of(bound, "y").flatten(given_, "y")


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ([[1.0], [1.0, 2.0]], (ShapeError, ArgumentError), "y"),
        ("text", ArgumentError, "str is not a number"),
        ({"a": None}, ArgumentError, r"y\['a'\]: NoneType is not a number"),
        (np.zeros(2, complex), ArgumentError, "complex"),
    ],
)
def test_what_has_no_structure_is_refused(value, kind, message):
    with pytest.raises(kind, match=message):
        structure_of(value, "y").flatten(value, "y")


def test_a_structure_in_itself_is_refused():
    loop: dict = {"a": 1.0}
    loop["b"] = (loop,)
    with pytest.raises(ArgumentError, match="contains itself"):
        structure_of(loop, "y")
