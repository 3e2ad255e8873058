"""Every tableau keeps what it claims: order conditions in exact arithmetic."""

import pickle
from fractions import Fraction as F

import pytest
from rooted_trees import density, nodes_of, stage_weights, trees

import odec
from odec.steppers.tableaus import TABLEAUS, ButcherTableau, tableau_named

# Dormand and Prince give fractions, so their conditions hold exactly. Tsitouras's method is known to 40
# digits, and its interpolant to the 19 that the paper's authors printed.
EXACT = {"dopri5": (0, 0), "tsit5": (F(1, 10**30), F(1, 10**15))}
METHODS = list(TABLEAUS.values())


def by_name(tableau):
    return tableau.name


def residuals(tableau, b, order):
    """|sum_i b_i weight_i - 1 / gamma| for the trees of an order."""
    return [abs(sum(x * w for x, w in zip(b, stage_weights(t, tableau.a))) - F(1, density(t))) for t in trees(order)]


def embedded(tableau):
    return [b - e for b, e in zip(tableau.b, tableau.b_error)]


def test_numbers_of_rooted_trees():
    """The generator itself: 1, 1, 2, 4, 9, 20, 48, 115 trees [hairer1993, II.2, table 2.1]."""
    assert [len(trees(n)) for n in range(1, 9)] == [1, 1, 2, 4, 9, 20, 48, 115]
    assert all(nodes_of(t) == 6 for t in trees(6))


def test_every_tableau_states_its_exactness_here():
    assert set(TABLEAUS) == set(EXACT)


@pytest.mark.parametrize("tableau", METHODS, ids=by_name)
def test_order_conditions_hold_up_to_the_claim(tableau):
    tolerance = EXACT[tableau.name][0]
    for order in range(1, tableau.order + 1):
        assert max(residuals(tableau, tableau.b, order)) <= tolerance


@pytest.mark.parametrize("tableau", METHODS, ids=by_name)
def test_order_conditions_fail_beyond_the_claim(tableau):
    assert max(residuals(tableau, tableau.b, tableau.order + 1)) > 1e-5
    assert max(residuals(tableau, embedded(tableau), tableau.error_order + 1)) > 1e-5


@pytest.mark.parametrize("tableau", METHODS, ids=by_name)
def test_embedded_solution_has_the_error_order(tableau):
    tolerance = EXACT[tableau.name][0]
    for order in range(1, tableau.error_order + 1):
        assert max(residuals(tableau, embedded(tableau), order)) <= tolerance


@pytest.mark.parametrize("tableau", METHODS, ids=by_name)
def test_dense_output_has_its_order_at_every_theta(tableau):
    """sum_i b_i(theta) weight_i = theta^order / gamma, coefficient by coefficient [hairer1993, II.6 (6.5)]."""
    tolerance = EXACT[tableau.name][1] * 100  # sums of some tens of products of rounded coefficients
    degree = len(tableau.dense[0])
    for order in range(1, tableau.dense_order + 1):
        for tree in trees(order):
            weights = stage_weights(tree, tableau.a)
            for power in range(1, degree + 1):
                found = sum(row[power - 1] * w for row, w in zip(tableau.dense, weights))
                wanted = F(1, density(tree)) if power == order else 0
                assert abs(found - wanted) <= tolerance


@pytest.mark.parametrize("tableau", METHODS, ids=by_name)
def test_dense_output_meets_both_ends_with_their_slopes(tableau):
    tolerance = EXACT[tableau.name][1] * 100
    last = tableau.stages - 1
    for i, row in enumerate(tableau.dense):
        assert abs(sum(row) - tableau.b[i]) <= tolerance
        assert row[0] == (1 if i == 0 else 0)
        assert abs(sum((m + 1) * x for m, x in enumerate(row)) - (1 if i == last else 0)) <= tolerance


@pytest.mark.parametrize("tableau", METHODS, ids=by_name)
def test_rows_sum_to_the_nodes(tableau):
    assert [sum(row, F(0)) for row in tableau.a] == list(tableau.c)
    assert abs(sum(tableau.b) - 1) <= EXACT[tableau.name][0]
    assert abs(sum(tableau.b_error)) <= EXACT[tableau.name][0]


@pytest.mark.parametrize("tableau", METHODS, ids=by_name)
def test_first_same_as_last_and_sources_are_stated(tableau):
    assert tableau.fsal and abs(tableau.c[-1] - 1) <= EXACT[tableau.name][0]
    assert len(tableau.dense_matrix) == tableau.stages
    assert tableau.source and tableau.name and tableau.family
    assert all(isinstance(x, F) for row in (*tableau.a, tableau.b, tableau.c, *tableau.dense) for x in row)


# ---- tables that users bring -----------------------------------------------------------------------------

HEUN_EULER = dict(
    name="heun_euler", order=2, error_order=1, c=(0, 1), a=((), (1,)), b=(F(1, 2), F(1, 2)),
    b_error=(F(-1, 2), F(1, 2)), dense=((1, F(-1, 2)), (0, F(1, 2))), dense_order=2, source="Heun 1900",
)  # fmt: skip


def test_plain_numbers_lists_and_text_become_exact():
    tableau = ButcherTableau(**HEUN_EULER | {"c": [0, 1.0], "a": [[], ["1"]], "b": [0.5, "1/2"]})
    assert tableau.b == (F(1, 2), F(1, 2)) and tableau.a == ((), (F(1),)) and tableau.c == (0, 1)
    assert not tableau.fsal


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"b": (F(1, 2), F(1, 3))}, ("b sums to 0.8333333333333334", "1")),
        ({"b_error": (F(1, 2), F(1, 3))}, ("b_error sums to 0.8333333333333334", "0")),
        ({"c": (0, F(1, 2))}, ("row 1 of a sums to 1.0", "0.5")),
        ({"a": ((), (1, 0))}, ("row 1 of a has 2 entries", "1")),
        ({"a": ((), (1,), (1, 2))}, ("a has 3", "2 stages")),
        ({"b_error": (0,)}, ("b_error has 1", "2 stages")),
        ({"dense": ((1, F(-1, 2)), (0, F(1, 4)))}, ("row 1 of dense sums to 0.25", "0.5")),
        ({"dense": ((1, F(-1, 2)), (F(1, 2),))}, ("row 1 of dense has 1", "2")),
        ({"dense": ((), ())}, ("row 0 of dense has 0",)),
        ({"b": (float("nan"), 1)}, ("b", "nan")),
        ({"b": ("half", 1)}, ("b", "half")),
        ({"order": 0}, ("order is 0",)),
        ({"order": 2.5}, ("order is 2.5",)),
        ({"error_order": -1}, ("error_order is -1",)),
        ({"b": (), "c": (), "a": (), "b_error": (), "dense": ()}, ("no stages",)),
    ],
)
def test_inconsistent_tables_are_refused_with_the_numbers(change, words):
    with pytest.raises(odec.ArgumentError) as raised:
        ButcherTableau(**HEUN_EULER | change)
    message = str(raised.value)
    assert message.startswith("tableau heun_euler: ") and message.endswith(".")
    assert all(word in message for word in words), message


def test_names_and_records_are_found():
    assert tableau_named("auto") is TABLEAUS["tsit5"]
    assert odec.methods() == METHODS
    for tableau in METHODS:
        assert tableau_named(tableau.name) is tableau and tableau_named(tableau) is tableau


def test_a_tableau_survives_pickling():
    copy = pickle.loads(pickle.dumps(TABLEAUS["tsit5"]))
    assert repr(copy) == repr(TABLEAUS["tsit5"]) and copy.fsal
