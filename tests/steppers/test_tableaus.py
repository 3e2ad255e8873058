"""Every method keeps what it claims: order conditions of its coefficients in exact arithmetic."""

import functools
import importlib
import math
import pickle
import pkgutil
from fractions import Fraction as F

import numpy as np
import pytest

import odec
from odec.steppers import methods as registry
from odec.steppers import tables
from odec.steppers.methods import HOMES, add_method, method_named, methods
from odec.steppers.rooted_trees import condition, density, elementary_weights, nodes_of, trees
from odec.steppers.tableaus import ButcherTableau, rounded, row_sums

# The digits k to which a table that is not rational is known: the conditions hold to 10^-k. Step, dense output.
DIGITS = {"tsit5": (43, 16), "dop853": (26, 25), "vern7": (None, 41), "vern8": (None, 33), "vern9": (43, 35)}
NAMES = [name for name in HOMES if isinstance(method_named(name), ButcherTableau)]
every_method = pytest.mark.parametrize("name", NAMES)
every_pair = pytest.mark.parametrize("name", [name for name in NAMES if method_named(name).adaptive])


def tolerances(name):
    """What the conditions may be off by for the step, and for the dense output: 0 where all is rational."""
    return [F(0) if digits is None else F(1, 10**digits) for digits in DIGITS.get(name, (None, None))]


def as_integers(rows):
    """Integers (object array), and the denominator that all the fractions of the rows share."""
    shared = math.lcm(*(F(x).denominator for x in np.ravel(rows)))
    return np.vectorize(lambda x: int(x * shared), otypes=[object])(np.array(rows, object)), shared


@functools.cache
def integer_weights(name):
    """{tree: weights (slopes,)} up to one order beyond the claims, as integers, and the denominator of a.

    The weights of a tree of n nodes are products of n - 1 entries of a, so theirs is that to the power n - 1.
    """
    method = method_named(name)
    a, shared = as_integers(method.matrix(object))
    return elementary_weights(a, 1 + max(method.order, method.dense_order)), shared


def defects(name, row, wanted=lambda tree: F(1, density(tree))):
    """[the largest |sum_i row_i weight_i - wanted| over the trees of n nodes, exactly, for n = 1, 2, ...]."""
    weights, shared = integer_weights(name)
    numerators, below = as_integers(row)
    largest = {}
    for tree, weight in weights.items():
        n = nodes_of(tree)
        found = F(int(numerators @ weight[: len(row)]), below * shared ** (n - 1))
        largest[n] = max(largest.get(n, F(0)), abs(found - wanted(tree)))
    return list(largest.values())


def dense_rows(method):
    """The rows of the dense output: the method's own, or those of the cubic [hairer1993, II.6 (6.7)]."""
    if method.dense is not None:
        return method.dense
    last = method.stages - method.fsal
    b = [*method.b, *[F(0)] * (method.slopes - method.stages)]
    first, end = ([F(i == at) for i in range(method.slopes)] for at in (0, last))
    return [(f, 3 * x - 2 * f - e, f + e - 2 * x) for x, f, e in zip(b, first, end)]


def minus(b, error):
    return [x - e for x, e in zip(b, error)]


# ---- the trees themselves --------------------------------------------------------------------------------


def test_numbers_of_rooted_trees():
    """1, 1, 2, 4, 9, 20, 48, 115, 286, 719 trees [hairer1993, II.2, table 2.1]."""
    assert [len(trees(n)) for n in range(1, 11)] == [1, 1, 2, 4, 9, 20, 48, 115, 286, 719]
    assert all(nodes_of(tree) == 6 for tree in trees(6))


def test_conditions_of_order_four_read_as_in_the_books():
    """[hairer1993, II.1, theorem 1.4 and (1.11)]."""
    found = {condition(tree): density(tree) for n in range(1, 5) for tree in trees(n)}
    assert found == {
        "b 1": 1, "b (c)": 2, "b (c c)": 3, "b ((A (c)))": 6, "b (c c c)": 4, "b (c (A (c)))": 8,
        "b ((A (c c)))": 12, "b ((A ((A (c)))))": 24,
    }  # fmt: skip


# ---- the tables of odec ----------------------------------------------------------------------------------


def test_no_table_is_forgotten():
    functions = {}
    for module in pkgutil.iter_modules(tables.__path__):
        found = importlib.import_module(f"odec.steppers.tables.{module.name}")
        for name, value in vars(found).items():
            if callable(value) and value.__module__ == found.__name__ and not name.startswith("_"):
                functions[name] = module.name
    assert functions == HOMES
    assert [method.name for method in methods()[: len(HOMES)]] == list(HOMES)


@every_method
def test_order_conditions_hold_up_to_the_claim_and_fail_beyond(name):
    method, tolerance = method_named(name), tolerances(name)[0]
    found = defects(name, method.b)
    assert max(found[: method.order]) <= tolerance
    assert found[method.order] > 1e-7


@every_pair
def test_embedded_solution_has_the_error_order_and_no_more(name):
    method, tolerance = method_named(name), tolerances(name)[0]
    found = defects(name, minus(method.b, method.b_error))
    order = 5 if method.b_error_second else method.error_order
    assert max(found[:order]) <= tolerance
    assert found[order] > 1e-7


def test_two_estimates_are_of_orders_five_and_three_and_fall_together_as_the_eighth_power():
    """|e|² / |e2| is then of order 2 * 6 - 4 = 8, that of error_order + 1 [hairer1993, II.10]."""
    method = method_named("dop853")
    found = defects("dop853", minus(method.b, method.b_error_second))
    assert max(found[:3]) <= tolerances("dop853")[0] and found[3] > 1e-7
    assert method.error_order + 1 == 2 * (5 + 1) - (3 + 1)
    assert [m.name for m in methods() if getattr(m, "b_error_second", None)] == ["dop853"]


@every_method
def test_dense_output_has_its_order_at_every_theta_and_no_more(name):
    """sum_i b_i(theta) weight_i = theta^n / gamma, coefficient by coefficient [hairer1993, II.6 (6.5)]."""
    method, tolerance = method_named(name), tolerances(name)[1]
    beyond = []
    for power, row in enumerate(zip(*dense_rows(method)), 1):
        found = defects(name, row, lambda tree, power=power: F(nodes_of(tree) == power, density(tree)))
        assert max(found[: method.dense_order]) <= tolerance
        beyond.append(found[method.dense_order])
    assert method.dense_order <= method.order and max(beyond) > 1e-7


@every_method
def test_dense_output_meets_both_ends_with_their_slopes(name):
    method, tolerance = method_named(name), tolerances(name)[1] * 100
    last = method.stages - method.fsal
    for i, row in enumerate(dense_rows(method)):
        assert abs(sum(row) - (method.b[i] if i < method.stages else 0)) <= tolerance
        assert row[0] == (i == 0)
        assert abs(sum(m * x for m, x in enumerate(row, 1)) - (i == last)) <= tolerance


@every_method
def test_rows_sum_to_the_nodes(name):
    method = method_named(name)
    step, dense = tolerances(name)
    assert row_sums(method.a) == method.c
    assert all(abs(sum(row) - c) <= dense for row, c in zip(method.extra_a, method.extra_c))
    assert abs(sum(method.b) - 1) <= step
    assert all(abs(sum(row)) <= step for row in (method.b_error, method.b_error_second) if row is not None)


@every_method
def test_records_are_exact_and_state_their_source(name):
    method = method_named(name)
    rows = (method.b, method.c, *method.a, *(method.dense or ()), *method.extra_a)
    assert all(isinstance(x, F) for row in rows for x in row)
    assert method.name == name and method.source and method.family == "explicit Runge-Kutta"
    assert method.fsal == (name in ("bs3", "dopri5", "tsit5", "vern6") or name.startswith("owren_zennaro"))
    assert method.slopes == method.stages + (not method.fsal) + len(method.extra_a)


@every_method
def test_strong_stability_coefficient_is_the_radius_of_absolute_monotonicity(name):
    """The largest r with K (I + r K)^-1 >= 0 and r K (I + r K)^-1 1 <= 1, K = (a 0; b 0) [kraaijevanger1991]."""
    method = method_named(name)
    s = method.stages
    k = np.zeros((s + 1, s + 1))
    k[:s, :s], k[s, :s] = method.matrix(float)[:s, :s], [float(x) for x in method.b]

    def monotone(r):
        part = k @ np.linalg.inv(np.eye(s + 1) + r * k)
        return np.all(part > -1e-13) and np.all(r * part.sum(1) < 1 + 1e-13)

    if method.ssp is None:
        assert not monotone(0.01)
    else:
        assert monotone(method.ssp * (1 - 1e-6)) and not monotone(method.ssp * (1 + 1e-6))


def test_a_tableau_survives_pickling():
    tsit5 = method_named("tsit5")
    copy = pickle.loads(pickle.dumps(tsit5))
    assert (copy.name, copy.a, copy.b, copy.dense) == (tsit5.name, tsit5.a, tsit5.b, tsit5.dense) and copy.fsal


# ---- tables that users bring -----------------------------------------------------------------------------

HEUN_EULER = dict(
    name="mine", order=2, error_order=1, c=(0, 1), a=((), (1,)), b=(F(1, 2), F(1, 2)),
    b_error=(F(-1, 2), F(1, 2)), dense=((1, F(-1, 2)), (0, F(1, 2))), dense_order=2, source="Heun 1900",
)  # fmt: skip
RK4 = dict(
    name="mine", order=4, c=("0", "1/2", "1/2", "1"), a=((), ("1/2",), (0, "1/2"), (0, 0, 1)),
    b=("1/6", "1/3", "1/3", "1/6"),
)  # fmt: skip
EXTRA = dict(extra_c=("1/2",), extra_a=((F(3, 8), 0, F(1, 8)),))


def test_plain_numbers_lists_and_text_become_exact():
    tableau = ButcherTableau(**HEUN_EULER | {"c": [0, np.float64(1.0)], "a": [[], ["1"]], "b": [0.5, "1/2"]})
    assert tableau.b == (F(1, 2), F(1, 2)) and tableau.a == ((), (F(1),)) and tableau.c == (0, 1)
    assert not tableau.fsal and tableau.slopes == 3


def test_square_arrays_are_taken_as_the_books_print_them():
    square = np.array([[0, 0, 0, 0], [0.5, 0, 0, 0], [0, 0.5, 0, 0], [0, 0, 1, 0]])
    tableau = ButcherTableau(**RK4 | {"a": square, "c": np.array([0, 0.5, 0.5, 1])})
    assert tableau.a == ButcherTableau(**RK4).a
    assert tableau.dense is None and tableau.dense_order == 3 and not tableau.adaptive


def test_coefficients_given_as_doubles_are_within_the_bounds():
    """The largest tables, rounded, as a user would copy them from a program."""
    for name in ("dop853", "vern9", "tanaka_yamashita7"):
        method = method_named(name)
        rounded = {
            field: [[float(x) for x in row] for row in getattr(method, field)]
            for field in ("a", "extra_a", "dense")
            if getattr(method, field)
        } | {
            field: [float(x) for x in getattr(method, field)]
            for field in ("b", "c", "b_error", "b_error_second", "extra_c")
            if getattr(method, field)
        }
        orders = dict(order=method.order, error_order=method.error_order, dense_order=method.dense_order)
        assert ButcherTableau("mine", **orders, **rounded).slopes == method.slopes


def test_rows_of_stages_that_the_dense_output_does_not_use_may_be_left_out():
    assert ButcherTableau(**HEUN_EULER).dense == ((1, F(-1, 2)), (0, F(1, 2)), (0, 0))


@pytest.mark.parametrize(
    ("table", "change", "words"),
    [
        (HEUN_EULER, {"b": (F(1, 2), F(1, 3))}, ("b sums to 0.8333333333333334", "1")),
        (HEUN_EULER, {"b_error": (F(1, 2), F(1, 3))}, ("b_error sums to 0.8333333333333334", "0")),
        (HEUN_EULER, {"c": (0, F(1, 2))}, ("row 1 of a sums to 1.0", "0.5")),
        (HEUN_EULER, {"a": ((), (1, 0, 0))}, ("row 1 of a has 3 entries", "1")),
        (HEUN_EULER, {"a": ((), (1,), (1, 2))}, ("a has 3", "2 stages")),
        (HEUN_EULER, {"b_error": (0,)}, ("b_error has 1", "2 stages")),
        (HEUN_EULER, {"b_error_second": (0,)}, ("b_error_second has 1", "2 stages")),
        (HEUN_EULER, {"dense": ((1, F(-1, 2)), (0, F(1, 4)))}, ("row 1 of dense sums to 0.25", "0.5")),
        (HEUN_EULER, {"dense": ((1, F(-1, 2)), (F(1, 2),))}, ("row 1 of dense has 1", "2")),
        (HEUN_EULER, {"dense": ((), ())}, ("row 0 of dense has 0",)),
        (HEUN_EULER, {"dense": ((1, F(-1, 2)), (0, F(1, 2)), (0, 0), (0, 0))}, ("dense has 4", "3 slopes")),
        (HEUN_EULER, {"b": (float("nan"), 1)}, ("b", "nan")),
        (HEUN_EULER, {"b": ("half", 1)}, ("b", "half")),
        (HEUN_EULER, {"order": 0}, ("order is 0",)),
        (HEUN_EULER, {"order": 2.5}, ("order is 2.5",)),
        (HEUN_EULER, {"error_order": -1}, ("error_order is -1",)),
        (HEUN_EULER, {"error_order": None}, ("b_error and error_order go together",)),
        (HEUN_EULER, {"b": (), "c": (), "a": (), "b_error": (), "dense": ()}, ("no stages",)),
        (HEUN_EULER, {"order": 3}, ("order is 3", "b (c c) of order 3", "0.5 instead of 0.333333")),
        (HEUN_EULER, {"error_order": 2}, ("error_order is 2", "b (c) of order 2", "0 instead of 0.5")),
        (HEUN_EULER, {"dense": ((1, F(-1, 3)), (0, F(1, 3))), "b": (F(2, 3), F(1, 3))}, ("order is 2", "0.333333")),
        (HEUN_EULER, {"dense": (("3/4", "-1/4"), ("1/4", "1/4"))}, ("dense_order (theta^1) is 2", "0.25 instead of 0")),
        (HEUN_EULER, {"dense_order": 3}, ("dense_order (theta^2) is 3", "b (c c)", "0.5 instead of 0")),
        (RK4, {"order": 5}, ("order is 5", "instead of 0.2")),
        (RK4, {"a": np.eye(4) / 2}, ("a[0][0] is 0.5", "implicit", "zeros on and above")),
        (RK4, {"a": [[0, 0, 0, 0], [0.5, 0, 0, 0], [0, 0, 0.5, 0], [0, 0, 1, 0]]}, ("a[2][2] is 0.5", "stage 2")),
        (RK4, {"a": [[0, 0, 0, 1], [0.5, 0, 0, 0], [0, 0.5, 0, 0], [0, 0, 1, 0]]}, ("a[0][3] is 1", "implicit")),
        (RK4, EXTRA, ("row 0 of extra_a has 3 entries", "5")),
        (RK4, {"extra_c": (1,)}, ("extra_c has 1 entries, extra_a 0",)),
        (HEUN_EULER, EXTRA | {"extra_c": (1,)}, ("row 0 of extra_a sums to 0.5", "1, its c")),
        (HEUN_EULER, EXTRA | {"dense": None}, ("extra_a is given, but dense is not",)),
    ],
)
def test_inconsistent_tables_are_refused_with_the_numbers(table, change, words):
    with pytest.raises(odec.ArgumentError) as raised:
        ButcherTableau(**table | change)
    message = str(raised.value)
    assert message.startswith("tableau mine: ") and message.endswith(".")
    assert all(word in message for word in words), message


# ---- names -----------------------------------------------------------------------------------------------


def test_names_and_records_are_found():
    assert method_named("auto") is method_named("tsit5")
    assert odec.methods()[: len(NAMES)] == [method_named(name) for name in NAMES]
    assert all(method_named(method) is method for method in methods())


def test_unknown_names_are_answered_with_a_near_one():
    with pytest.raises(odec.ArgumentError, match=r"method 'vern' is not known.*vern7"):
        method_named("vern")
    with pytest.raises(odec.ArgumentError, match="method 5 is not known"):
        method_named(5)


def test_methods_of_ones_own_are_added_under_a_new_name(monkeypatch):
    monkeypatch.setattr(registry, "_known", dict(registry._known))
    mine = ButcherTableau(**HEUN_EULER)
    add_method(mine)
    assert method_named("mine") is mine and methods()[-1] is mine
    for taken in (mine, ButcherTableau(**HEUN_EULER | {"name": "vern9"}), ButcherTableau(**RK4 | {"name": "auto"})):
        with pytest.raises(odec.ArgumentError, match=f"the name '{taken.name}' is taken"):
            add_method(taken)
    with pytest.raises(odec.ArgumentError, match="add_method: str is not a method"):
        add_method("rk4")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@every_method
def test_rounded_rows_keep_their_sum_and_first_moment(name, dtype):
    """To rounding of the small coefficients of a row, not of the large ones."""
    tableau = method_named(name)
    unit = {"float64": F(1, 2**53), "float32": F(1, 2**24)}[dtype]
    for row in (*tableau.a[1:], tableau.b):
        found = [F(x) for x in rounded(row, tableau.c, dtype)]
        assert all(abs(x - y) <= 64 * unit * max(1, *map(abs, row)) for x, y in zip(found, row))
        assert [x == 0 for x in found] == [x == 0 for x in row]
        if sum(x != 0 for x in row) < 2:
            continue
        sizes = sorted(abs(x) for x in row if x != 0)
        small = max(1, sizes[len(sizes) // 2])
        assert abs(sum(found) - sum(row)) <= 4 * unit * small
        moment = sum((x - y) * c for x, y, c in zip(found, row, tableau.c))
        assert abs(moment) <= 4 * unit * small


def test_large_coefficients_do_not_stop_convergence():
    """With vern6's (208 in a, 176 in b) rounded each by itself, the error stopped at 4e-11."""
    turning = odec.dynamics(lambda t, y: [y[1], -np.sin(y[0])])
    exact = odec.solve(turning, (0.0, 10.0), [1.0, 0.0], method="vern9", rtol=1e-13, atol=1e-14, t_eval=[]).y1
    sol = odec.solve(turning, (0.0, 10.0), [1.0, 0.0], method="vern6", rtol=1e-13, atol=1e-14, t_eval=[])
    assert sol.y1 == pytest.approx(exact, abs=2e-12)
