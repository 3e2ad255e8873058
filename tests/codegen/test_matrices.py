"""Matrix routines in plain loops against NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odec.codegen import matrices

SIZES = st.integers(1, 4)


@given(SIZES, SIZES, SIZES, st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_product_is_numpys(m, n, k, flip_a, flip_b, seed):
    a, b = (np.random.default_rng(seed + i).normal(size=shape) for i, shape in enumerate(((m, k), (k, n))))
    stored_a, stored_b = (np.ascontiguousarray(x.T if flip else x) for x, flip in ((a, flip_a), (b, flip_b)))
    c = np.empty((m, n))
    matrices.gemm(flip_a, flip_b, m, n, k, stored_a.ravel(), stored_a.shape[1], stored_b.ravel(), stored_b.shape[1],
                  c.reshape(-1), n)  # fmt: skip
    np.testing.assert_allclose(c, a @ b, rtol=1e-13, atol=1e-13)


@given(SIZES, SIZES, st.integers(0, 2**32 - 1))
def test_a_solution_satisfies_its_equations(n, m, seed):
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(n, n)), random.normal(size=(n, m))
    x = b.T.copy().ravel()
    matrices.gesv(n, m, a.T.copy().ravel(), x, None)
    x = x.reshape(m, n).T
    np.testing.assert_allclose(a @ x, b, atol=1e-13 * np.linalg.cond(a) * (1 + np.abs(b).max()))


@given(SIZES, st.integers(0, 2**32 - 1))
def test_a_determinant_is_numpys(n, seed):
    a, found = np.random.default_rng(seed).normal(size=(n, n)), np.empty(1)
    matrices.det(n, a.T.copy().ravel(), None, found)
    np.testing.assert_allclose(found[0], np.linalg.det(a), rtol=1e-12, atol=1e-14)


def test_a_matrix_with_a_zero_pivot_is_solved():
    x = np.array([3.0, 5.0])
    matrices.gesv(2, 1, np.array([0.0, 1.0, 1.0, 0.0]), x, None)
    assert x.tolist() == [5.0, 3.0]


@pytest.mark.parametrize("entry", [0.0, np.nan])
def test_a_singular_matrix_gives_nan(entry):
    x, found = np.ones(2), np.empty(1)
    matrices.gesv(2, 1, np.full(4, entry), x, None)
    assert np.isnan(x).all()
    matrices.det(2, np.full(4, entry), None, found)
    assert found[0] == 0.0 if entry == 0.0 else np.isnan(found[0])
