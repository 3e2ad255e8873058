"""Traced arrays are assigned to, viewed, indexed and iterated as NumPy's are: the same code, both ways."""

import copy

import numpy as np
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from tracing import evaluated, graph_of

import odec.special
from odec.errors import TraceError

V = np.array([0.3, -1.2, 2.5, 0.7, -0.4, 1.9])
M = np.array([[0.3, -1.2, 2.5], [0.7, -0.4, 1.9]])
T = np.arange(24.0).reshape(2, 3, 4) / 7 - 1.5


def check(function, *arrays):
    """`function` (which may change copies of its arguments) gives the same on ndarrays and traced."""
    expected = function(*(np.array(a) for a in arrays))
    expected = expected if isinstance(expected, tuple) else (expected,)
    found = evaluated(graph_of(function, *arrays), *arrays)
    assert len(found) == len(expected)
    for f, e in zip(found, expected, strict=True):
        e = np.asarray(e, float)
        assert f.shape == e.shape
        np.testing.assert_allclose(f, e, rtol=1e-14, atol=1e-14)


# ---- indexing ------------------------------------------------------------------------------------------

INDICES = [
    0,
    -1,
    slice(None),
    slice(1, None),
    slice(None, None, 2),
    slice(None, None, -1),
    slice(-1, 0, -2),
    slice(5, 2),
    None,
    Ellipsis,
    (Ellipsis, None),
    (None, 2),
    [0, 3, 3],
    np.array([[1, -1], [0, 2]]),
    [True, False, True, True, False, False],
    np.array([True] * 6),
    range(1, 4),
    np.int64(2),
    (slice(None), None),
]
GRID_INDICES = [
    (0, 1),
    (1,),
    (slice(None), 1),
    (slice(None), [0, 2]),
    ([0, 1], [2, 0]),
    (Ellipsis, 0),
    (slice(None, None, -1), slice(1, None)),
    (None, 1, Ellipsis, None),
    np.array([[True, False, True], [False, True, True]]),
    (0, [1, 1]),
    (np.array([True, False]), 1),
    (slice(None), np.array([True, False, True])),
    ([[0], [1]], [[0, 1]]),
    (1, None, slice(None)),
]
CUBE_INDICES = [
    (0, slice(None), 1),
    (Ellipsis, 2),
    (1, Ellipsis),
    ([0, 1], slice(None), [1, 2]),
    (slice(None), [0, 2], 1),
    (0, slice(None), [1, 3]),
    (slice(None), slice(None, None, -1), slice(None, None, 2)),
    (slice(None), None, [0, 1]),
]
CASES = [(V, i) for i in INDICES] + [(M, i) for i in GRID_INDICES] + [(T, i) for i in CUBE_INDICES]
every_index = pytest.mark.parametrize(("array", "index"), CASES, ids=lambda c: str(c)[:40].replace("\n", " "))


@every_index
def test_getitem_takes_what_numpy_takes(array, index):
    check(lambda x: x[index] * 1.0, array)


@every_index
def test_setitem_writes_what_numpy_writes(array, index):
    def assign(x, number):
        a, b, c, d = x.copy(), x.copy(), x.copy(), x.copy()
        a[index] = number
        b[index] = 2.0 * b[index]
        c[index] += 1.0
        d[index] = 7
        return a, b, c, d

    check(assign, array, np.float64(0.77))


@given(drawn=st.data())
def test_slices_of_any_step_read_and_write(drawn):
    shape = drawn.draw(strategies.SHAPES.filter(len))
    index = []
    for extent in shape:
        start, step, length = drawn.draw(strategies.slices_of(extent))
        stop = start + step * length
        index.append(slice(start, stop if stop >= 0 else None, step))

    def both(x):
        y = x.copy()
        y[tuple(index)] *= 3.0
        return x[tuple(index)], y

    check(both, drawn.draw(strategies.arrays(shape)))


def test_the_last_of_several_writes_to_an_element_counts():
    def repeated(x):
        y = np.zeros_like(x)
        y[[0, 1, 0]] = x[:3]
        return y

    check(repeated, V)


@pytest.mark.parametrize("function", [np.add, np.subtract], ids=["add", "subtract"])
def test_values_that_meet_in_one_element_are_all_added(function):
    def accumulated(v, m):
        whole, rows = np.zeros_like(v), m.copy()
        function.at(whole, [0, 2, 0, 5, 2, 2], v * v)
        function.at(whole[1:], 3, v[0])
        function.at(rows, (slice(None), [1, 1]), v[:2])
        function.at(rows[0], np.array([[0, 1], [2, 0]]), 1.5)
        return whole, rows

    check(accumulated, V, M)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda v: np.add.at(np.zeros(6), [0, 1], v[:2]), ("np.add.at", "plain NumPy array", "zeros_like")),
        (lambda v: np.add.at(v, 6, 1.0), ("shape (6,)", "out of bounds")),
        (lambda v: np.add.at(v, [0, 1], v), ("shape (6,)", "broadcast")),
        (lambda v: np.multiply.at(v, 0, v[1]), ("np.multiply.at", "not an odec op")),
    ],
    ids=["plain", "index", "shape", "multiply"],
)
def test_what_cannot_be_added_is_refused(write, words):
    with pytest.raises(TraceError) as caught:
        graph_of(write, V)
    assert all(word in str(caught.value) for word in words)


def test_traced_mask_assignment_is_a_choice():
    def masked(x):
        a, b = x.copy(), x.copy()
        a[a > 0.5] = 0.0
        b[b[:, 0] > 0.5] = 9.0
        return a, b

    check(masked, M)


# ---- assignment through views ---------------------------------------------------------------------------


def through(view, write=lambda v: v.__setitem__(..., 5.0)):
    def assign(x):
        base = x.copy()
        seen = view(base)
        write(seen)
        return base, seen * 1.0

    return assign


VIEWS = {
    "slice": lambda a: a[1:],
    "column": lambda a: a[:, 1:2],
    "row": lambda a: a[0],
    "step": lambda a: a[:, ::-2],
    "new axis": lambda a: a[:, None],
    "T": lambda a: a.T,
    "transpose": np.transpose,
    "transpose method": lambda a: a.transpose(1, 0),
    "swapaxes": lambda a: np.swapaxes(a, 0, 1),
    "swapaxes method": lambda a: a.swapaxes(0, 1),
    "moveaxis": lambda a: np.moveaxis(a, 0, -1),
    "reshape": lambda a: np.reshape(a, (3, 2)),
    "reshape method": lambda a: a.reshape(-1),
    "ravel": np.ravel,
    "ravel method": lambda a: a.ravel(),
    "expand_dims": lambda a: np.expand_dims(a, 0),
    "squeeze": lambda a: np.squeeze(a[:, :1]),
    "squeeze method": lambda a: a[:1].squeeze(0),
    "flip": lambda a: np.flip(a, 1),
    "atleast_2d": lambda a: np.atleast_2d(a[0]),
    "atleast_3d": np.atleast_3d,
    "atleast_1d": np.atleast_1d,
    "split": lambda a: np.split(a, 3, axis=1)[2],
    "array_split": lambda a: np.array_split(a, 2, 1)[0],
    "view of a view": lambda a: a.T[1:].T[0],
    "reshape of a slice": lambda a: a[1:].reshape(3, 1),
    "transpose of a transpose": lambda a: a.T.T.ravel(),
    "row while iterating": lambda a: list(a)[1],
    "no axes": lambda a: a[1, 2, ...],
    "unpacked": lambda a: (lambda r, s: s)(*a),
}
COPIES = {
    "copy": lambda a: a.copy(),
    "np.copy": np.copy,
    "copy.copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "flatten": lambda a: a.flatten(),
    "ravel of a transpose": lambda a: a.T.ravel(),
    "reshape of a transpose": lambda a: a.T.reshape(-1),
    "ravel of columns": lambda a: a[:, :2].ravel(),
    "ravel of a step": lambda a: a[0, ::2].ravel(),
    "integer array": lambda a: a[[0, 1]],
    "mask": lambda a: a[a.shape[0] * [True]],
    "take": lambda a: np.take(a, [0, 1], axis=1),
    "repeat": lambda a: np.repeat(a, 2, 0),
    "roll": lambda a: np.roll(a, 1),
    "tile": lambda a: np.tile(a, 2),
    "sum": lambda a: a + 0.0,
    "astype": lambda a: a.astype(float),
    "concatenate": lambda a: np.concatenate([a, a]),
    "reshape in Fortran's order": lambda a: a.reshape(3, 2, order="F"),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_assignment_through_a_view_reaches_its_base(view):
    if np.ndim(view(np.array(M))):
        check(through(view), M)

    def in_place(v):
        v += 3.0
        return v

    check(through(view, in_place), M)
    check(through(view, lambda v: np.multiply(v, 2.0, out=v)), M)


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_assignment_to_a_copy_stays_there(copied):
    check(through(copied), M)


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_view_sees_later_assignments_to_its_base(view):
    def assign(x):
        base = x.copy()
        seen = view(base)
        base[...] = 4.0 * base
        base[0, 1:] = 9.0
        return seen * 1.0

    check(assign, M)


def test_overlapping_parts_are_read_before_they_are_written():
    def shift(x):
        y = x.copy()
        y[1:] = y[:-1]
        y[:-1] += y[1:]
        return y

    check(shift, V)


def test_result_of_a_transposed_array_refuses_what_may_be_a_view():
    def f(x):
        r = (x.T * 2).ravel()
        r[0] = 1.0
        return r

    with pytest.raises(TraceError, match=r"test_trace_views.py:\d+\): .*view or a copy.*\.copy\(\)"):
        graph_of(f, M)
    check(lambda x: (x.T * 2).ravel() + (x.T * 2).copy().ravel(), M)


@pytest.mark.parametrize("view", [np.diagonal, np.diag, lambda a: np.broadcast_to(a, (4, 2, 3))])
def test_read_only_views_refuse_assignment(view):
    with pytest.raises(TraceError, match=r"read-only in NumPy too\. Assign into the array itself"):
        graph_of(through(view), M)
    check(lambda x: view(x) * 1.0, M)


# ---- in place ---------------------------------------------------------------------------------------------


def test_augmented_assignment_of_names_and_elements():
    def f(y):
        dy = np.zeros_like(y)
        dy[0] = y[1]
        dy[1:] += y[:-1]
        dy[0] -= 2 * y[2]
        dy *= 3.0
        dy /= y[0]
        dy **= 2
        alias = dy
        alias -= 1.0
        return dy

    check(f, V)


def test_scalars_are_rebound_not_written():
    def f(y):
        a = y[0]
        b = a
        a += 1.0
        return np.stack([a, b, y[0]])

    check(f, V)


def test_out_writes_into_a_traced_array():
    def f(y):
        out = np.empty_like(y)
        np.sin(y, out=out)
        np.add(out[1:], y[1:], out=out[1:])
        return out

    check(f, V)


def test_fill_and_slices_of_functions_results():
    def f(y):
        z = np.ones_like(y)
        z.fill(2.5)
        z[::2] = np.cos(y)[::2]
        return z

    check(f, V)


# ---- nested lists and arrays of objects -----------------------------------------------------------------------


def test_np_array_of_traced_values_computes():
    def f(y):
        a = np.array([y[0], y[1], 2.0 * y[2]])
        b = np.array([[y[0], y[1], y[2]], [1.0, y[4], y[5]], [0.0, 2.0, y[3]]])
        return b @ a + a * y[:3] + np.sin(a) + np.exp(y[3:] - a) - a[::-1] + b.sum(axis=0) + b.T[0]

    check(f, V)


def test_np_asarray_of_a_traced_array_computes():
    def f(y):
        z = np.asarray(y)
        return np.cos(z) + z * y - z[::-1] + np.dot(z, y)

    check(f, V)


def test_objects_meet_traced_arrays():
    def f(y):
        a = np.array([y[0], y[1]])
        m = y[:4].reshape(2, 2)
        return np.concatenate([m @ a, a @ m, a + m[0], m[1] * a, np.where(m[0] > 0, a, 1.0), odec.special.sigmoid(a)])

    check(f, V)


def test_lists_join_as_arrays():
    def f(y):
        x, v = y[:3], y[3:]
        return np.concatenate([v, [x[0] * v[0], 1.0, 2.0]]) + np.hstack([x, v]) + np.sum([x[0], v[1]])

    check(f, V)


def test_np_array_copies_and_np_asarray_refuses_assignment():
    def copies(y):
        a = y.copy()
        b = np.array(a)
        b[0] = 7.0
        return a + b

    def aliases(y):
        a = y.copy()
        b = np.asarray(a)
        a[0] = 7.0
        return a + b

    def writes(y):
        b = np.asarray(y)
        b[0] = 7.0
        return b

    check(copies, V)
    with pytest.raises(TraceError, match=r"np\.asarray was called on\. Leave np\.asarray out"):
        graph_of(aliases, V)
    with pytest.raises(TraceError, match="read-only"):
        graph_of(writes, V)


# ---- arrays as Python sees them --------------------------------------------------------------------------------


def test_unpacking_iteration_and_len():
    def f(y, m):
        a, b, *rest = y
        total = a - b
        for v in rest:
            total = total * 0.5 + v
        for row, other in zip(m, reversed(m), strict=True):
            total = total + row @ other
        return total * len(y) + len(m) + len(rest) + sum(y) + max(len(row) for row in m)

    check(f, V, M)


def test_attributes_are_those_of_arrays():
    def f(m):
        assert m.shape == (2, 3) and m.ndim == 2 and m.size == 6 and m.dtype == np.float64 and m.T.shape == (3, 2)
        assert np.shape(m) == (2, 3) and np.ndim(m) == 2 and np.size(m) == 6
        assert (m > 0).dtype == bool and m[0, 0].shape == () and m[0, 0].ndim == 0
        assert m.real is m
        assert f"{m[0, 0]:.3f}" in ("0.300", "<traced float64[]>")
        return m * m.shape[0]

    check(f, M)


def test_methods_are_those_of_arrays():
    def f(m):
        return (
            m.sum(0), m.mean(axis=1), m.prod(), m.max(1), m.min(), m.std(), m.var(0, ddof=1), m.cumsum(), m.cumprod(1),
            m.dot(m.T), m.clip(0, 1), m.take([0, 1]), m.repeat(2), m.trace(), m.diagonal(), m.reshape(3, 2),
            m.reshape((3, 2)), m.astype(float), m.astype(np.float64).copy(), m.transpose(), m.swapaxes(0, 1),
            m.flatten(), m.ravel(), (m > 0).any(), (m > -9).all(axis=0), (m > 0).astype(float), (m > 0).sum(),
        )  # fmt: skip

    check(f, M)


def test_comparisons_and_logic_give_conditions():
    def f(m):
        a, b = m > 0, m < 1
        return np.where(a & b | ~a, m, -m) + (a ^ b) + (a == b) * 2.0 + (a != b) + np.logical_and(a, m) + (m == 0.3)

    check(f, M)


def test_dtype_float32_is_kept_and_cast():
    x = np.array([0.5, 1.5], np.float32)
    graph = graph_of(lambda y: np.sin(y * 2.0).astype(np.float64) + y.astype(bool), x, dtype="float32")
    assert graph.outputs["out0"].dtype == "float64"
    np.testing.assert_allclose(evaluated(graph, x)[0], np.sin(2 * x) + 1.0, rtol=1e-6)


def test_scipy_special_functions_are_traced_where_scipy_is_imported():
    import scipy.special

    check(lambda y: scipy.special.erf(y) + scipy.special.expit(2 * y), V)
    with pytest.raises(TraceError, match=r"scipy\.special\.\w+ is not an odec op"):
        graph_of(lambda y: scipy.special.j0(y), V)
