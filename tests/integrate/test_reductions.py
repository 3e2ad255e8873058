"""Reductions over blocks of members: those of NumPy, and the same to the bit however the blocks were grouped."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from odec.integrate.reductions import LEAST_BLOCK, MOST_BLOCKS, REDUCTIONS, Partial, block_size, combined

MEMBERS, TIMES, N = 11, 3, 2
NUMPY = {"mean": np.nanmean, "std": np.nanstd, "min": np.nanmin, "max": np.nanmax, "sum": np.nansum}
VALUES = st.floats(-1e3, 1e3, allow_subnormal=False)


def partials(rows, good, cuts, names=REDUCTIONS):
    """Partials of the members between the cuts."""
    edges = [0, *sorted(cuts), len(rows)]
    return [Partial.of(rows[a:b], good[a:b], names) for a, b in itertools.pairwise(edges)]


def some_rows(seed=0, members=MEMBERS, dtype=float):
    return np.random.default_rng(seed).normal(3.0, 2.0, (members, TIMES, N)).astype(dtype)


@given(size=st.integers(1, 10**9))
def test_there_are_few_blocks_of_many_members(size):
    block = block_size(size)
    assert block >= LEAST_BLOCK and block & (block - 1) == 0
    assert -(-size // block) <= MOST_BLOCKS
    assert block == LEAST_BLOCK or -(-size // (block // 2)) > MOST_BLOCKS


@given(
    rows=hnp.arrays(float, (MEMBERS, TIMES, N), elements=VALUES),
    ended=hnp.arrays(bool, (MEMBERS, TIMES)),
    good=hnp.arrays(bool, MEMBERS),
    cuts=st.lists(st.integers(0, MEMBERS), max_size=4),
)
def test_reductions_are_those_of_numpy(rows, ended, good, cuts):
    rows = np.where(ended[:, :, None], np.nan, rows)
    found = combined(partials(rows, good, cuts))
    count = (good[:, None] & ~ended).sum(axis=0)
    for name, function in NUMPY.items():
        assert np.isnan(found[name][count == 0]).all()
        if (count > 0).any():
            wanted = function(rows[good][:, count > 0], axis=0)
            np.testing.assert_allclose(found[name][count > 0], wanted, rtol=1e-12, atol=1e-9)


def test_the_variance_of_numbers_far_from_zero_keeps_its_digits():
    rows = 1e8 + some_rows()
    found = combined(partials(rows, np.ones(MEMBERS, bool), (2, 5, 6)))
    np.testing.assert_allclose(found["std"], np.std(rows, axis=0), rtol=1e-7)


def test_float32_rows_are_added_in_float64():
    rows = np.full((2**12, 1, 1), 0.1, np.float32)
    found = combined([Partial.of(rows, np.ones(len(rows), bool), ("mean", "sum"))])
    assert found["mean"][0, 0] == pytest.approx(float(np.float32(0.1)), rel=1e-15)


@pytest.mark.parametrize("names", [("mean",), ("std",), ("min", "sum"), ("max",)])
def test_only_what_is_asked_for_is_kept(names):
    (part,) = partials(some_rows(), np.ones(MEMBERS, bool), (), names)
    assert (part.low is None) == ("min" not in names) and (part.high is None) == ("max" not in names)
    assert (part.squares is None) == ("std" not in names)
    assert tuple(combined([part, part])) == names


def test_blocks_without_a_good_member_change_nothing():
    rows, good = some_rows(), np.ones(MEMBERS, bool)
    alone = combined(partials(rows, good, ()))
    failed = Partial.of(np.full((4, TIMES, N), np.nan), np.zeros(4, bool), REDUCTIONS)
    none = Partial.of(np.empty((0, TIMES, N)), np.empty(0, bool), REDUCTIONS)
    for others in ([failed, *partials(rows, good, ())], [*partials(rows, good, ()), none, failed]):
        for name, value in combined(others).items():
            np.testing.assert_array_equal(value, alone[name])
    assert all(np.isnan(value).all() for value in combined([failed]).values())


def test_huge_numbers_overflow_in_silence():
    rows = np.full((4, 1, 1), 1e308)
    found = combined(partials(rows, np.ones(4, bool), (2,)))
    assert np.isinf(found["sum"]).all() and (found["max"] == 1e308).all()
