"""Explicit Runge-Kutta methods as records of exact coefficients."""

from __future__ import annotations

import functools
import hashlib
import itertools
from dataclasses import dataclass
from fractions import Fraction as F

import numpy as np

from odec.errors import ArgumentError
from odec.steppers.rooted_trees import condition, density, elementary_weights, nodes_of

ROUNDING = 1e-14  # what sums of coefficients that were given as doubles may be off by
DEFECT = 1e-10  # what an order condition evaluated in doubles may be off by, relative to its terms


@dataclass(frozen=True, eq=False)
class ButcherTableau:
    """An explicit Runge-Kutta method, with an error estimate if it is to control its step, and dense output.

    k_i = f(t + c_i h, y + h sum_j a_ij k_j),  y1 = y + h sum_i b_i k_i,  error = h sum_i b_error_i k_i,
    y(t + theta h) = y + h sum_i b_i(theta) k_i,  b_i(theta) = sum_m dense[i][m] theta^(m+1)

    order : of y1
    error_order : of the other solution of the pair, y1 - error; None, as b_error, for fixed steps
    b_error_second : of a second estimate e2; the error is then |e|² / sqrt(|e|² + 0.01 |e2|²)
        [hairer1993, II.10], and error_order the order at which that falls, less one
    dense : a row for each stage, for the slope at the new point unless that is the last stage, and for each
        extra stage; rows of zeros at the end may be left out. None: the cubic through both states and slopes
    extra_c, extra_a : stages that only the dense output needs, over the same slopes as `dense`
    ssp : the strong-stability-preserving coefficient, in forward Euler steps; None where there is none
    Coefficients may be given as fractions, text ('1/3'), or floats; the rows of a may be those of a square.

    Raises
    ------
    ArgumentError : an implicit method, lengths that do not fit, sums or order conditions that do not hold
    """

    name: str
    order: int
    c: tuple[F, ...]
    a: tuple[tuple[F, ...], ...]
    b: tuple[F, ...]
    b_error: tuple[F, ...] | None = None
    error_order: int | None = None
    dense: tuple[tuple[F, ...], ...] | None = None
    dense_order: int | None = None
    source: str = ""
    b_error_second: tuple[F, ...] | None = None
    extra_c: tuple[F, ...] = ()
    extra_a: tuple[tuple[F, ...], ...] = ()
    ssp: float | None = None
    family: str = "explicit Runge-Kutta"

    sizes_itself = False
    adapts_order = False

    def __post_init__(self):
        for field in ("c", "b", "b_error", "b_error_second", "extra_c"):
            if getattr(self, field) is not None:
                object.__setattr__(self, field, exact_entries(self.name, field, getattr(self, field)))
        for field in ("a", "dense", "extra_a"):
            if getattr(self, field) is not None:
                rows = enumerate(getattr(self, field))
                exact = tuple(exact_entries(self.name, f"row {i} of {field}", row) for i, row in rows)
                object.__setattr__(self, field, exact)
        check_order(self.name, "order", self.order)
        self._check_stages()
        self._fill_dense()
        self._check_dense_sizes()
        self._check_orders()
        self._check_sums()
        self._check_conditions()

    def _refuse(self, found):
        refuse(self.name, found)

    # ---- sizes

    def _check_stages(self):
        s = len(self.b)
        if s == 0:
            self._refuse("b is empty, so there are no stages; a method needs at least one")
        for what in ("c", "a", "b_error", "b_error_second"):
            entries = getattr(self, what)
            if entries is not None and len(entries) != s:
                self._refuse(f"{what} has {len(entries)} entries; it needs one for each of the {s} stages that b has")
        object.__setattr__(self, "a", self._lower_triangle())

    def _lower_triangle(self):
        """a without the zeros on and above its diagonal, which a square has."""
        s, rows = len(self.b), []
        for i, row in enumerate(self.a):
            if len(row) == s:
                later = [j for j in range(i, s) if row[j] != 0]
                if later:
                    self._refuse(
                        f"a[{i}][{later[0]}] is {float(row[later[0]]):g}, so stage {i} needs itself or a later one: "
                        "the method is implicit; an explicit one has zeros on and above the diagonal of a"
                    )
                row = row[:i]
            if len(row) != i:
                self._refuse(
                    f"row {i} of a has {len(row)} entries; an explicit method has {i}, one for each earlier stage, or "
                    f"{s} with zeros from the diagonal on"
                )
            rows.append(row)
        return tuple(rows)

    def _fill_dense(self):
        """The order of the cubic where no dense output is given; rows of zeros where they were left out."""
        if self.dense is None:
            if self.dense_order is None:
                object.__setattr__(self, "dense_order", min(3, self.order))
            return
        missing = self.slopes - len(self.dense)
        if missing > 0 and self.dense:
            zero = (F(0),) * len(self.dense[0])
            object.__setattr__(self, "dense", (*self.dense, *(zero,) * missing))

    def _check_dense_sizes(self):
        if len(self.extra_c) != len(self.extra_a):
            self._refuse(f"extra_c has {len(self.extra_c)} entries, extra_a {len(self.extra_a)}; they need as many")
        first = self.slopes - len(self.extra_a)
        for i, row in enumerate(self.extra_a):
            if len(row) != first + i:
                self._refuse(
                    f"row {i} of extra_a has {len(row)} entries; it needs {first + i}, one for each earlier slope"
                )
        if self.dense is None:
            if self.extra_a:
                self._refuse("extra_a is given, but dense is not; give the rows that use the extra stages")
            return
        if len(self.dense) != self.slopes:
            self._refuse(f"dense has {len(self.dense)} entries; it needs one for each of the {self.slopes} slopes")
        degree = len(self.dense[0])
        for i, row in enumerate(self.dense):
            if len(row) != degree or degree == 0:
                self._refuse(
                    f"row {i} of dense has {len(row)} entries; each needs one for each power of theta, {degree or 1}"
                )

    def _check_orders(self):
        if (self.b_error is None) != (self.error_order is None):
            self._refuse("b_error and error_order go together; give both, or neither for fixed steps")
        for what, least in (("error_order", 0), ("dense_order", 1)):
            value = getattr(self, what)
            if value is None and what == "error_order":
                continue
            check_order(self.name, what, value, least)

    # ---- sums and order conditions

    def _check_sums(self):
        self._check_sum("b", self.b, F(1), "")
        for what in ("b_error", "b_error_second"):
            if getattr(self, what) is not None:
                self._check_sum(what, getattr(self, what), F(0), "")
        for i in range(self.stages):
            self._check_sum(f"row {i} of a", self.a[i], self.c[i], ", its c")
        for i, row in enumerate(self.extra_a):
            self._check_sum(f"row {i} of extra_a", row, self.extra_c[i], ", its c")
        for i, row in enumerate(self.dense or ()):
            wanted = self.b[i] if i < self.stages else F(0)
            self._check_sum(f"row {i} of dense", row, wanted, ", its b" if i < self.stages else "")

    def _check_sum(self, what, row, wanted, which):
        size = max([1.0, *(abs(float(x)) for x in row)])
        if abs(sum(row) - wanted) > ROUNDING * size:
            self._refuse(f"{what} sums to {float(sum(row))!r}; it must sum to {float(wanted):g}{which}")

    def _check_conditions(self):
        """The order conditions in doubles; the tests of odec's own tables repeat them exactly."""
        most = max(self.order, self.dense_order or 0, self.error_order or 0)
        weights = elementary_weights(self.matrix(float), most)
        pairs = [("order", self.order, _floats(self.b))]
        if self.b_error is not None and self.b_error_second is None:
            pairs.append(("error_order", self.error_order or 0, _floats(self.b) - _floats(self.b_error)))
        for what, order, row in pairs:
            padded = np.zeros(self.slopes)
            padded[: len(row)] = row
            self._check_condition(what, order, weights, padded, lambda tree: 1.0 / density(tree))
        for power, row in enumerate(np.array(self.dense, float).T if self.dense else (), 1):
            self._check_condition(
                f"dense_order (theta^{power})", self.dense_order, weights, row,
                lambda tree, power=power: 1.0 / density(tree) if nodes_of(tree) == power else 0.0,
            )  # fmt: skip

    def _check_condition(self, what, claim, weights, row, wanted):
        for tree, weight in weights.items():
            if nodes_of(tree) > claim:
                return
            found = row @ weight
            if abs(found - wanted(tree)) > DEFECT * max(1.0, np.abs(row) @ np.abs(weight)):
                self._refuse(
                    f"{what} is {claim}, but the condition {condition(tree)} of order {nodes_of(tree)} gives "
                    f"{found:.6g} instead of {wanted(tree):.6g}"
                )

    def matrix(self, dtype):
        """a as a square over all slopes, extra stages last: (slopes, slopes), floats or Fractions (object)."""
        rows = [*self.a, *((self.b,) if not self.fsal else ()), *self.extra_a]
        square = np.zeros((self.slopes, self.slopes), dtype)
        for i, row in enumerate(rows):
            square[i, : len(row)] = _floats(row) if dtype is float else row
        return square

    def __repr__(self):
        orders = f"{self.order}({self.error_order})" if self.adaptive else str(self.order)
        return f"<ButcherTableau {self.name}: order {orders}, {self.stages} stages>"

    # ---- what steps ask

    @functools.cached_property
    def digest(self):
        """A hash of the coefficients, equal in every process."""
        return digest_of(
            self.c, self.a, self.b, self.b_error, self.b_error_second, self.dense, self.extra_c, self.extra_a
        )

    @property
    def stages(self):
        """How many stages a step has."""
        return len(self.b)

    @property
    def adaptive(self):
        """Whether there is an error estimate to control the step with."""
        return self.b_error is not None

    @property
    def error_exponent(self):
        """The error of a step falls as h to this power; of the solution too for fixed steps."""
        return self.order + 1 if self.error_order is None else min(self.order, self.error_order) + 1

    @property
    def evaluations(self):
        """How often a step evaluates f, the slope at the new point included."""
        return self.stages - self.fsal

    @property
    def dense_evaluations(self):
        """How often the dense output of a step evaluates f."""
        return len(self.extra_a)

    @property
    def degree(self):
        """The degree of the dense output in theta."""
        return len(self.dense[0]) if self.dense else 3

    @property
    def carries(self):
        """Whether a step hands n numbers on to the next."""
        return self.carries_slope

    @property
    def carries_slope(self):
        """Whether a step takes the slope at its start from the step before."""
        return True

    @functools.cached_property
    def fsal(self):
        """Whether the last stage is the first of the next step."""
        return self.a[-1] == self.b[:-1] and self.b[-1] == 0 and float(self.c[-1]) == 1.0

    @property
    def slopes(self):
        """How many slopes the dense output may use: stages, the one at the new point, extra stages."""
        return self.stages + (not self.fsal) + len(self.extra_a)

    @functools.cached_property
    def centred(self):
        """The dense output in a form whose numbers stay small: for each slope the coefficients s_im with
        b_i(theta) = theta b_i + theta (1 - theta) sum_m s_im (2 theta - 1)^m, (slopes, degree - 1).

        Powers of theta cancel: in that form the interpolants of high order lose up to six digits.
        """
        padded = (*self.b, *(F(0),) * (self.slopes - self.stages))
        return tuple(_centred(row, b) for row, b in zip(self.dense or (), padded))

    @functools.cached_property
    def kept(self):
        """The stages, counted from 0, that the dense output needs beside the slopes at both ends."""
        inner = range(1, self.stages - self.fsal)
        rows = self.dense or ()
        return tuple(i for i in inner if rows and (any(rows[i]) or any(row[i] != 0 for row in self.extra_a)))


def refuse(name, found):
    """ArgumentError for a tableau of a name."""
    raise ArgumentError(f"tableau {name}: {found}.")


def check_order(name, what, value, least=1):
    """ArgumentError unless an order of a tableau is an integer that is not below the least."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        refuse(name, f"{what} is {value!r}; an integer of at least {least} is needed")


def exact_entries(name, what, entries):
    """Entries of a tableau as exact fractions: a float is the binary fraction that it is, '1/3' is a third."""
    row = []
    for entry in entries:
        try:
            row.append(entry if type(entry) is F else F(entry.item() if isinstance(entry, np.generic) else entry))
        except (TypeError, ValueError, OverflowError, ZeroDivisionError):
            refuse(name, f"{what} has {entry!r}; finite numbers, fractions or text such as '1/3' are needed")
    return tuple(row)


def rounded(row, c, dtype):
    """A row of coefficients as floats of a dtype that keep its sum and its first moment, sum_j row_j c_j.

    Large coefficients lose, rounded each by itself, what the order conditions of low order need: with those of
    vern6 (208 in a, 176 in b) the error stops at 4e-11. Two small ones have room for what the others lost.
    """
    near = float if dtype == "float64" else lambda x: float(np.float32(float(x)))
    floats = [near(x) for x in row]
    inside = [j for j, x in enumerate(row) if x != 0]
    lost = [x - F(d) for x, d in zip(row, floats)]
    if max((abs(x) for x in floats), default=0.0) <= LARGE or len(inside) < 2:
        return floats
    first, second = min(
        itertools.combinations(inside, 2),
        key=lambda pair: (max(abs(row[j]) for j in pair) + F(1, 10)) / max(abs(c[pair[0]] - c[pair[1]]), F(1, 10**6)),
    )
    total, moment = sum(lost), sum(x * c[j] for j, x in enumerate(lost))
    move = (moment - total * c[first]) / (c[second] - c[first]) if c[second] != c[first] else F(0)
    floats[second] = near(F(floats[second]) + move)
    floats[first] = near(F(floats[first]) + total - move)
    return floats


LARGE = 1.0  # coefficients up to which rounding each by itself is as good


def _centred(row, b):
    """Coefficients in 2 theta - 1 of (p(theta) - b theta) / (theta (1 - theta)), p = sum_m row[m] theta^(m+1)."""
    quotient, carried = [], F(0)
    for coefficient in (row[0] - b, *row[1:-1]):  # division by 1 - theta, lowest power first
        carried += coefficient
        quotient.append(carried)
    shifted = [F(0)] * len(quotient)  # theta = (u + 1) / 2, by Horner's rule
    for coefficient in reversed(quotient):
        shifted = [(x + y) / 2 for x, y in zip([F(0), *shifted[:-1]], shifted)]
        shifted[0] += coefficient
    return tuple(shifted)


def digest_of(*coefficients):
    """A hash of tuples of exact coefficients."""
    return hashlib.sha256(repr(coefficients).encode()).hexdigest()


def _floats(row):
    return np.array([float(x) for x in row])


def exact_row(text):
    """A row of fractions from text: '1/5 3.25e-2' means 1/5 and 325/10000 exactly."""
    return tuple(F(x) for x in text.split())


def exact_rows(*texts):
    """Rows of fractions, each from text."""
    return tuple(exact_row(text) for text in texts)


def row_sums(rows):
    """The c that belongs to the rows of a."""
    return tuple(sum(row, F(0)) for row in rows)
