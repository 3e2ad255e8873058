"""Checks of a user's own model, and random models for property-based tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from odec.errors import ArgumentError, MissingRuleError, nearest
from odec.graph.node import CONSTANT, value_of
from odec.graph.op import OPS, zero
from odec.graph.structure import Structure, children_of, component_names
from odec.model import Model
from odec.ops.families import taylor_by_jvp
from odec.transforms.scalar import operation_count

DERIVATIVES = ("jvp", "vjp", "jacobian", "taylor")


def _hypothesis() -> Any:
    try:
        import hypothesis
    except ImportError:
        raise ImportError("odec: Hypothesis is not installed, which this needs; pip install odec[testing].") from None
    return hypothesis


# ---- checking a model -------------------------------------------------------------------------------------


@dataclass
class Comparison:
    """How one derivative was compared: against what, how many numbers, the worst error over its tolerance."""

    reference: str
    numbers: int = 0
    worst: float = 0.0


@dataclass
class CheckReport:
    """What `check_model` did: `points` compared, `skipped` where the right-hand side is not finite,
    and for each derivative a Comparison. `remarks` say where SymPy could not serve, and why."""

    model: str
    points: int = 0
    skipped: int = 0
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def __str__(self):
        lines = [f"{self.model}: {self.points} points compared, {self.skipped} skipped (right-hand side not finite)"]
        lines += [
            f"  {name:<9} {c.numbers:>7} numbers against {c.reference}, worst error {c.worst:.2g} of its tolerance"
            for name, c in self.comparisons.items()
        ]
        return "\n".join([*lines, *(f"  {remark}" for remark in self.remarks)])


def check_model(model, y0, params=(), examples=100, derivatives=DERIVATIVES, *, t=0.0, order=4, dtype=None):
    """A CheckReport, if every generated derivative of a model agrees with SymPy at random points.

    The points lie near (t, y0, params): each number within a quarter of itself (of 1 for a zero), the time in
    [t, t + 1]. What is compared is compiled code. Where SymPy cannot serve (a model too large, an op
    without SymPy form), the reference is extrapolated differences [ridders1982]; the report says so.

    Parameters
    ----------
    model : Model f(t, y, *params)
    y0, params : as in `model.bind`; the centre of the points
    examples : how many points
    derivatives : of 'jvp', 'vjp', 'jacobian', 'taylor'
    order : of the Taylor coefficients

    Raises
    ------
    AssertionError : a derivative that is wrong; names it, the component, the smallest failing point, both numbers
    ArgumentError : no point has a finite right-hand side
    """
    unknown = [d for d in derivatives if d not in DERIVATIVES]
    if unknown:
        raise ArgumentError(
            f"check_model: derivative {unknown[0]!r} is not known{nearest(unknown[0], DERIVATIVES)} "
            f"It is one of {', '.join(DERIVATIVES)}."
        )
    model = model if isinstance(model, Model) else Model(model)
    check = _Check(model, y0, params, dtype, t, order)
    _at_random_points(check, tuple(derivatives), examples)
    if not check.report.points:
        raise ArgumentError(
            f"check_model: {model.name} has no finite right-hand side near y0; give a y0 inside its domain."
        )
    return check.report


DRAWN = 48  # numbers that Hypothesis draws one by one; more come from a drawn seed
GRID = 32  # points lie on a grid of this many steps each way, so that a failing one shrinks to the centre


def _at_random_points(check, derivatives, examples):
    hypothesis = _hypothesis()
    st, n, m = hypothesis.strategies, check.y.size, check.p.size
    every = hypothesis.HealthCheck

    @hypothesis.settings(
        max_examples=examples, database=None, derandomize=True, deadline=None, suppress_health_check=list(every),
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink), report_multiple_bugs=False, print_blob=False,
    )  # fmt: skip
    @hypothesis.given(_grid(st, 1 + n + m), _grid(st, 1 + n + m), _grid(st, n))
    def compare(place, tangent, cotangent):
        check.at(place, tangent, cotangent, derivatives)

    compare()


def _grid(st, count):
    """`count` numbers in [-1, 1], shrinking to 0."""
    if count <= DRAWN:
        steps = st.lists(st.integers(-GRID, GRID), min_size=count, max_size=count)
        return steps.map(lambda values: np.array(values, float) / GRID)
    return st.integers(0, 2**31).map(lambda seed: np.random.default_rng(seed).integers(-GRID, GRID + 1, count) / GRID)


class _Check:
    """The parts of one check: the system, its centre, its reference, the report."""

    def __init__(self, model, y0, params, dtype, t, order):
        self.model, self.t, self.order = model, float(t), order
        self.values = model.parameter_values(params)
        self.system = model.bind(y0, params, dtype)
        self.y = np.asarray(self.system.y_structure.flatten(y0, "y0", self.system.dtype), float)
        self.p = np.asarray(self.system.p_structure.flatten(self.values, "params", self.system.dtype), float)
        self.eps = float(np.finfo(self.system.dtype).eps)
        self.report = CheckReport(model.name)
        self.double = model.bind(y0, params, np.float64).graph
        self.symbolic = _symbolic(self)
        self.functions: dict[Any, Any] = {}

    # ---- points

    def at(self, place, tangent, cotangent, derivatives):
        """Compare at the centre moved by `place` (numbers in [-1, 1])."""
        n = self.y.size
        t = self.t + float(abs(place[0]))
        y, p = _moved(self.y, place[1 : 1 + n]), _moved(self.p, place[1 + n :])
        y, p = (np.asarray(np.asarray(v, self.system.dtype), float) for v in (y, p))
        point = _Point(t, y, p, tangent, cotangent)
        known = self.double.evaluate(t, y, p)["dydt"]
        if not np.all(np.isfinite(known)):
            self.report.skipped += 1
            return
        self.report.points += 1
        self.check_rhs(point)
        for name in derivatives:
            getattr(self, f"check_{name}")(point)

    def arguments(self, point):
        """(t, y, *params) as the System takes them."""
        dtype = self.system.dtype
        y = self.system.y_structure.unflatten(np.asarray(point.y, dtype))
        p = self.system.p_structure.unflatten(np.asarray(point.p, dtype))
        return point.t, y, *p.values()

    # ---- derivatives

    def check_rhs(self, point):
        t, y, *params = self.arguments(point)
        with np.errstate(all="ignore"):
            named = "*" not in self.model.parameters
            plain = (
                self.model(t, y, **dict(zip(self.values, params, strict=True))) if named else self.model(t, y, *params)
            )
        found = self.flat(self.system.rhs(t, y, *params))
        self.compare("rhs", "the plain function", point, found, self.flat(plain), self.spread("rhs", point))

    def check_jvp(self, point):
        dt, dy, dp = point.parts(point.tangent, self.y.size)
        structure = self.system.p_structure
        tangents = (dt, self.system.y_structure.unflatten(dy), tuple(structure.unflatten(dp).values()))
        found = self.flat(self.system.jvp(*self.arguments(point), tangents=tangents))
        (expected, error), reference = self.product(point)
        names = ("t", "y", "p") if self.p.size else ("t", "y")
        extra = [dt, dy, dp][: len(names)]
        self.compare("jvp", reference, point, found, expected, self.spread("jvp", point, extra, wrt=names), error)

    def check_vjp(self, point):
        cotangent = np.asarray(point.cotangent, self.system.dtype)
        t_bar, y_bar, p_bar = self.system.vjp(
            *self.arguments(point), cotangent=self.system.y_structure.unflatten(cotangent)
        )
        names = dict(zip(self.system.p_structure.root.keys, p_bar, strict=True))
        found = np.concatenate([[t_bar], self.flat(y_bar), self.system.p_structure.flatten(names, "params_bar", float)])
        spread = self.spread("vjp", point, [point.cotangent])
        if self.symbolic:
            expected, error = self.symbolic.jacobian(point).T @ point.cotangent, 0.0
            self.compare("vjp", "SymPy", point, found, expected, spread, error)
        else:  # <w, J v> = <J^T w, v>
            (product, error), reference = self.product(point)
            error = np.array([np.abs(point.cotangent) @ np.broadcast_to(error, product.shape)])
            expected, found = np.array([point.cotangent @ product]), np.array([found @ point.tangent])
            spread = lambda spread=spread: np.array([np.abs(spread()) @ np.abs(point.tangent)])
            self.compare("vjp", f"the adjoint identity, {reference}", point, found, expected, spread, error)

    def check_jacobian(self, point):
        n, columns = self.y.size, {"t": 1, "y": self.y.size}
        root = self.system.p_structure.root
        widths = dict(zip(root.keys, (sum(leaf.size for _, leaf in _leaves_of(c)) for c in root.children), strict=True))
        start = 0
        for wrt, width in {**columns, **widths}.items():
            if width and self.system.jacobian_sparsity(wrt).nnz <= MOST_ENTRIES:
                self.check_block(point, wrt, start, width, n)
            elif width:
                self.remark(f"jacobian: the block by {wrt} was left out, for it has too many entries")
            start += width

    def check_block(self, point, wrt, start, width, n):
        """The columns start .. start + width of the Jacobian by (t, y, p)."""
        with np.errstate(all="ignore"):
            block = self.system.jacobian(*self.arguments(point), wrt=wrt, sparse=True)
        if self.symbolic:
            expected = self.symbolic.jacobian(point)[:, start : start + width]
            found = block.toarray().reshape(n, width)
            rows, cols = (part for part in self.system.jacobian_sparsity(wrt).nonzero())

            def spread():
                full = np.zeros((n, width))
                full[rows, cols] = self.spread("jacobian", point, wrt=wrt)()
                return full.reshape(-1)

            self.compare("jacobian", "SymPy", point, found.reshape(-1), expected.reshape(-1), spread, 0.0, wrt)
            return
        seed = np.zeros_like(point.tangent)
        seed[start : start + width] = point.tangent[start : start + width]
        expected, error = _directional(lambda x: self.rate(x), point.all, seed)
        found = block @ seed[start : start + width]
        size = np.abs(block).sum(axis=1) if width else np.zeros(n)
        self.compare(
            "jacobian",
            "differences",
            point,
            found,
            expected,
            lambda: self.eps * np.asarray(size).reshape(-1),
            error,
            wrt,
        )

    def check_taylor(self, point):
        rows = self.system.taylor(*self.arguments(point), order=self.order)
        found = np.stack(
            [self.flat(self.system.y_structure.map(_row_picker(rows, self.system, k))) for k in range(self.order + 1)]
        )
        spread = self.spread("taylor", point, order=self.order)
        for k in range(1, self.order + 1):
            expected, error, reference = self.coefficient(point, k)
            part = lambda k=k: spread().reshape(self.order + 1, -1)[k]
            self.compare("taylor", reference, point, found[k], expected, part, error, f"coefficient {k}")

    # ---- references

    def product(self, point) -> Any:
        """((J v, error), reference) along the point's tangent in (t, y, p)."""
        if self.symbolic:
            return (self.symbolic.jacobian(point) @ point.tangent, 0.0), "SymPy"
        return _directional(self.rate, point.all, point.tangent), "differences"

    def rate(self, x):
        """The right-hand side of the flat vector (t, y, p), in float64."""
        n = self.y.size
        return self.double.evaluate(x[0], x[1 : 1 + n], x[1 + n :])["dydt"]

    def coefficient(self, point, k):
        """(c_k, error, reference) of the solution: (k + 1) c_{k+1} = dc_k/dt + (dc_k/dy) f."""
        if self.symbolic:
            known = self.symbolic.coefficient(point, k)
            if known is not None:
                return known, 0.0, "SymPy"
            self.remark(f"taylor: from order {k} on, SymPy's expressions grow too large; differences serve")
        if k == 1:
            return self.rate(point.all), 0.0, "differences"
        along = np.concatenate([[1.0], self.rate(point.all), np.zeros(self.p.size)])
        value, error = _directional(lambda x: self.lower_coefficient(x, k - 1), point.all, along)
        return value / k, error / k, "differences"

    def lower_coefficient(self, x, k):
        from odec.transforms.taylor import taylor

        if ("taylor", k) not in self.functions:
            self.functions["taylor", k] = taylor(self.double, k)
        n = self.y.size
        return self.functions["taylor", k].evaluate(x[0], x[1 : 1 + n], x[1 + n :])["coefficients"][k]

    def spread(self, kernel, point, extra=(), **how):
        """() -> how far rounding can move each output of a kernel's graph at this point."""

        def found():
            key = (kernel, *sorted(how.items()))
            if key not in self.functions:
                self.functions[key] = self.system.derivative(kernel, **how)
            function = self.functions[key]
            spreads = _rounding_spread(function, [point.t, point.y, point.p, *extra], self.eps)
            return np.concatenate([s.reshape(-1) for s in spreads])

        return found

    # ---- comparing

    def flat(self, value):
        return np.asarray(self.system.y_structure.flatten(value, "result", float))

    def remark(self, text):
        if text not in self.report.remarks:
            self.report.remarks.append(text)

    def compare(self, name, reference, point, found, expected, spread, error: Any = 0.0, part=""):
        """AssertionError where |found - expected| exceeds what rounding at this point explains."""
        found, expected = np.asarray(found, float), np.asarray(expected, float)
        known = np.isfinite(expected)
        difference = np.where(known, np.abs(found - expected), 0.0)
        quick = QUICK * self.eps * np.abs(expected) + 2.0 * np.asarray(error) + TINY
        with np.errstate(invalid="ignore"):
            wrong = known & ~(difference <= quick)
        tolerance = np.broadcast_to(quick, found.shape)
        if wrong.any():
            tolerance = quick + SPREAD * np.nan_to_num(spread(), nan=np.inf, posinf=np.inf)
            with np.errstate(invalid="ignore"):
                wrong = known & ~(difference <= tolerance)
        comparison = self.report.comparisons.setdefault(name, Comparison(reference))
        if reference not in comparison.reference:
            comparison.reference += f" and {reference}"
        comparison.numbers += int(known.sum())
        if wrong.any():
            self.fail(name, reference, point, found, expected, tolerance, int(np.argmax(wrong)), part)
        with np.errstate(invalid="ignore"):
            ratio = np.where(known, difference / np.maximum(tolerance, 1e-300), 0.0)
        comparison.worst = max(comparison.worst, float(np.max(ratio, initial=0.0)))

    def fail(self, name, reference, point, found, expected, tolerance, k, part):
        where = self.component(name, k, part)
        y, p = (
            _plain(s.unflatten(v)) for s, v in ((self.system.y_structure, point.y), (self.system.p_structure, point.p))
        )
        point_text = f"t = {point.t!r}, y = {y}, params = {p}"
        direction = {
            "jvp": f", tangent {point.tangent.tolist()}",
            "vjp": f", cotangent {point.cotangent.tolist()}",
        }.get(name, "")
        ours, theirs = float(found[k]), float(expected[k])
        raise AssertionError(
            f"{self.model.name}: {name}{where} is {ours!r} by generated code, {theirs!r} by {reference} "
            f"(difference {abs(ours - theirs):.3g}, tolerance {tolerance[k]:.3g}) at {point_text}{direction}."
        )

    def component(self, name, k, part):
        names = self.state_names()
        if name == "jacobian" and self.symbolic:
            width = {"t": 1, "y": self.y.size}.get(part) or self.system.jacobian_sparsity(part).shape[1]
            column = names[k % width] if part == "y" else f"{part}[{k % width}]" if width > 1 else part
            return f" d {names[k // width]}' / d {column}"
        if name == "vjp":
            return f" component {k} of (t, y, params)" if self.symbolic else ""
        return f"{' ' + part if part else ''} of {names[k]}"

    def state_names(self):
        return component_names(self.system.y_structure, self.system.state)


QUICK = 64.0  # times eps times the number: agreement without a look at the condition
SPREAD = 16.0  # times the spread that perturbations of 4 eps at every operation cause
TINY = 1e-280  # below this, products underflow
MOST_ENTRIES = 100_000  # of a Jacobian block


class _Point(NamedTuple):
    t: float
    y: np.ndarray
    p: np.ndarray
    tangent: np.ndarray
    cotangent: np.ndarray

    @property
    def all(self):
        return np.concatenate([[self.t], self.y, self.p])

    def parts(self, vector, n):
        return vector[0], vector[1 : 1 + n], vector[1 + n :]


def _moved(centre, place):
    """Each number within a quarter of itself, a zero within a quarter of 1; signs are kept."""
    return np.where(centre == 0, 0.25, 0.25 * np.abs(centre)) * place + centre


def _plain(value):
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def _leaves_of(item):
    return Structure(item, 0).leaves


def _row_picker(rows, system, k):
    """A function leaf -> the k-th Taylor coefficient of that leaf."""
    flat = np.concatenate([r.reshape(r.shape[0], -1) for r in _arrays(rows, system.y_structure)], axis=1)[k]
    return lambda leaf: flat[leaf.offset : leaf.offset + leaf.size].reshape(leaf.shape)


def _arrays(value, structure):
    """The arrays of a structured value, in flat order."""
    if structure.is_array:
        return [value]
    parts = children_of(value)
    if parts is None:
        return [value]
    return [a for child in parts[2] for a in _arrays(child, structure)]


# ---- what rounding can do ---------------------------------------------------------------------------------

RUNS = 6


def _rounding_spread(function, inputs, eps):
    """For each output, the largest change that random relative changes of 4 eps cause, made to every input
    and every operation: the condition of the computation, kinks and cancellation included [vignes1993]."""
    exact = list(function.evaluate(*inputs).values())
    rng = np.random.default_rng(0)
    spreads = [np.zeros(np.shape(e)) for e in exact]
    for _ in range(RUNS):
        moved = _perturbed(function, inputs, 4 * eps, rng)
        for k, (e, v) in enumerate(zip(exact, moved, strict=True)):
            with np.errstate(invalid="ignore"):
                spreads[k] = np.fmax(spreads[k], np.where(np.isfinite(v), np.abs(v - e), np.inf))
    return spreads


def _rounds(op):
    """Whether an op computes new numbers; one that picks among its inputs is exact, and masks rely on it."""
    if op.family == "elementwise":
        return op.taylor is not zero and op.taylor is not taylor_by_jvp
    return op.family != "linear" or op.name in ("sum", "cumsum", "put_add")


def _perturbed(function, inputs, eps, rng):
    def move(array, floor):
        array = np.asarray(array)
        if array.dtype.kind != "f":
            return array
        return array + eps * (np.abs(array) + floor) * rng.uniform(-1, 1, array.shape)

    values = {id(n): move(np.asarray(a, float), 1e-3) for n, a in zip(function.inputs.values(), inputs, strict=True)}
    with np.errstate(all="ignore"):
        for node in function.nodes[len(function.inputs) :]:
            if node.op is CONSTANT:
                values[id(node)] = np.asarray(value_of(node), bool if node.dtype == "bool" else float)
            else:
                result = np.asarray(node.op.evaluate(*(values[id(i)] for i in node.inputs), **node.params))
                values[id(node)] = move(result, 0.0) if _rounds(node.op) else result
    return [values[id(n)] for n in function.outputs.values()]


# ---- references -------------------------------------------------------------------------------------------

LEVELS = 9


def _directional(function, x, direction):
    """(derivative, error) of h -> function(x + h direction) at 0: central differences, extrapolated [ridders1982]."""
    size = np.max(np.abs(direction), initial=0.0)
    if size == 0:
        return np.zeros_like(function(x)), 0.0
    h = 0.05 / size
    best, error, rows = np.zeros(()), np.asarray(np.inf), []
    for _ in range(LEVELS):
        with np.errstate(all="ignore"):
            row = [(function(x + h * direction) - function(x - h * direction)) / (2 * h)]
            for k, coarse in enumerate(rows[-1] if rows else []):
                row.append(row[k] + (row[k] - coarse) / (4.0 ** (k + 1) - 1))
                change = np.maximum(np.abs(row[k + 1] - row[k]), np.abs(row[k + 1] - coarse))
                change = np.where(np.isfinite(change), change, np.inf)
                better = change < error
                best, error = np.where(better, row[k + 1], best), np.where(better, change, error)
        rows.append(row)
        h /= 2.0
    # The estimate is a guess: never believe it below the square of the cube root of eps.
    return best, 8 * error + 4e-11 * (np.abs(best) + np.max(np.abs(best), initial=0.0))


LARGEST_MODEL = 3_000  # scalar operations of a right-hand side that SymPy is given
LARGEST_PROGRAM = 20_000  # statements, of which each costs some SymPy derivatives
LARGEST_BLOCK = 3_000  # entries of the Jacobian by (t, y, p)


def _symbolic(check):
    """The _Symbolic reference of a check, or None with a remark that says why."""
    n, m = check.y.size, check.p.size
    if operation_count(check.double) > LARGEST_MODEL or n * (1 + n + m) > LARGEST_BLOCK:
        check.remark("the model is too large for SymPy; extrapolated differences serve")
        return None
    try:
        symbolic = _Symbolic(check)
        if len(symbolic.program.statements) <= LARGEST_PROGRAM:
            symbolic.jacobian(_Point(check.t, check.y, check.p, check.y, check.y))  # does it have values
            return symbolic
    except (MissingRuleError, NotImplementedError, RecursionError) as error:
        check.remark(f"SymPy cannot serve ({error}); extrapolated differences do")
        return None
    check.remark("SymPy's expressions are too large; extrapolated differences serve")
    return None


class _Program:
    """SymPy expressions as statements `symbol = function of symbols and numbers`, each distinct one once.

    SymPy differentiates single statements, which takes time in proportion to their number; whole
    expressions grow with every derivative.
    """

    def __init__(self, sympy):
        self.sympy = sympy
        self.statements: list[tuple] = []  # (symbol, expression, symbols it reads)
        self._symbol_of: dict[Any, Any] = {}  # expression of symbols and numbers -> symbol
        self._entered: dict[Any, Any] = {}  # any expression -> symbol or number
        self._slopes: dict[Any, Any] = {}

    def enter(self, expression):
        """The symbol (or number) that stands for an expression."""
        stack = [expression]
        while stack:
            part = stack[-1]
            if part in self._entered:
                stack.pop()
                continue
            if not part.args:
                self._entered[part] = part
                continue
            missing = [a for a in part.args if a not in self._entered]
            if missing:
                stack.extend(missing)
                continue
            self._entered[part] = self._stated(part)
        return self._entered[expression]

    def _stated(self, part):
        kind, args = type(part).__name__, [self._entered[a] for a in part.args]
        if kind == "Mod":
            return self.enter(args[0] - args[1] * self.sympy.floor(args[0] / args[1]))
        part = part.func(*args)
        if (
            not part.args or isinstance(part, self.sympy.logic.boolalg.Boolean) or kind == "ExprCondPair"
        ):  # conditions stay where they stand
            return part
        if part not in self._symbol_of:
            symbol = self._symbol_of[part] = self.sympy.Dummy(real=True)
            self.statements.append((symbol, part, sorted(part.free_symbols, key=str)))
        return self._symbol_of[part]

    def slope(self, expression, symbol):
        """d expression / d symbol of one statement."""
        key = expression, symbol
        if key not in self._slopes:
            self._slopes[key] = self._differentiated(expression, symbol)
        return self._slopes[key]

    def _differentiated(self, expression, symbol):
        if type(expression).__name__ == "Piecewise":  # the conditions do not move
            pairs = [(self._differentiated(value, symbol), condition) for value, condition in expression.args]
            return self.sympy.Piecewise(*pairs)
        found = self.sympy.diff(expression, symbol)
        return found.replace(lambda e: type(e).__name__ in UNEVALUATED, lambda e: self.sympy.Integer(_flat(e)))

    def derivative(self, results, seeds):
        """Symbols of the derivatives of `results` where the leaves move at the rates `seeds`; None where too large."""
        rates = dict(seeds)
        for symbol, expression, read in list(self.statements):
            terms = [self.slope(expression, s) * rates[s] for s in read if s in rates]
            if terms:
                rates[symbol] = self.enter(self.sympy.Add(*terms))
            if len(self.statements) > LARGEST_PROGRAM:
                return None
        return [rates.get(r, self.sympy.Integer(0)) for r in results]


class _Symbolic:
    """SymPy's derivatives of a right-hand side, evaluated with 30 digits."""

    def __init__(self, check):
        import sympy

        from odec.interop.sympy import to_sympy

        form = to_sympy(check.system, digits=40)
        self.leaves = [form.t, *form.y_symbols, *form.p_symbols]
        self.library = _mpmath_library()
        self.program = _Program(sympy)
        self.rates = [self.program.enter(sympy.sympify(e)) for e in form.rhs]
        self.length = len(self.program.statements)  # of the right-hand side alone
        self.coefficients: dict[int, Any] = {1: self.rates}
        self.last: Any = (None, {}, 0)

    def jacobian(self, point):
        """d rhs / d (t, y, p) at a point, (n, 1 + n + m), by the chain rule over the statements."""
        import mpmath

        with mpmath.workdps(30):
            values = self.values(point, self.length)
            rows: dict[Any, dict] = {s: {k: mpmath.mpf(1)} for k, s in enumerate(self.leaves)}
            for symbol, expression, read in self.program.statements[: self.length]:
                row: dict[int, Any] = {}
                for s in read:
                    if rows.get(s):
                        slope = self.value(self.program.slope(expression, s), values)
                        for k, v in rows[s].items():
                            row[k] = row.get(k, 0) + slope * v
                rows[symbol] = row
        result = np.zeros((len(self.rates), len(self.leaves)))
        for i, rate in enumerate(self.rates):
            for k, v in rows.get(rate, {}).items():
                result[i, k] = float(v)
        return result

    def coefficient(self, point, k):
        """The k-th Taylor coefficient (n,), or None where its program is too large."""
        import mpmath

        for j in range(2, k + 1):
            if j not in self.coefficients:
                self.coefficients[j] = self.next_coefficient(j)
        known = self.coefficients[k]
        if known is None:
            return None
        with mpmath.workdps(30):
            values = self.values(point, len(self.program.statements))
            return np.array([float(self.value(e, values)) for e in known])

    def next_coefficient(self, k):
        """Symbols of c_k = (dc_{k-1}/dt + (dc_{k-1}/dy) f) / k."""
        before = self.coefficients[k - 1]
        if before is None:
            return None
        t, *states = self.leaves[: 1 + len(self.rates)]
        moved = self.program.derivative(
            before, {t: self.program.sympy.Integer(1), **dict(zip(states, self.rates, strict=True))}
        )
        return None if moved is None else [self.program.enter(e / k) for e in moved]

    def values(self, point, count):
        """{symbol: number} of the leaves and the first `count` statements at a point."""
        import mpmath

        if self.last[0] is not point:
            self.last = point, dict(zip(self.leaves, map(mpmath.mpf, point.all.tolist()), strict=True)), 0
        _, values, done = self.last
        for symbol, expression, _ in self.program.statements[done:count]:
            values[symbol] = self.value(expression, values)
        self.last = point, values, max(done, count)
        return values

    def value(self, expression, values):
        from odec.interop.sympy import evaluate_expression

        return evaluate_expression(expression, values, self.library)


UNEVALUATED = ("Derivative", "Subs", "DiracDelta")  # what SymPy leaves of the derivatives of these:
FLAT = ("floor", "ceiling", "sign", "Heaviside", "DiracDelta")


def _flat(part):
    """0: the derivative, almost everywhere, of functions that SymPy does not differentiate there."""
    inner = part
    while type(inner).__name__ in ("Subs", "Derivative"):
        inner = inner.expr
    if type(inner).__name__ not in FLAT:
        raise MissingRuleError(f"SymPy leaves {str(part)[:80]!r} without a value")
    return 0


def _mpmath_library():
    """What `evaluate_expression` computes with: real numbers of many digits, nan where there is none."""
    import mpmath as mp
    import sympy

    def real(function):
        def guarded(*args):
            try:
                value = function(*args)
            except (ValueError, ZeroDivisionError, OverflowError, TypeError):
                return mp.nan
            return mp.nan if isinstance(value, mp.mpc) else value

        return guarded

    def number(part):
        if part.is_Boolean:
            return bool(part)
        return mp.mpf(sympy.N(part, mp.mp.dps + 5)._to_mpmath(mp.mp.prec + 16))

    def fold(function):
        def folded(*args):
            result = args[0]
            for a in args[1:]:
                result = function(result, a)
            return result

        return real(folded)

    cbrt = lambda x: mp.sign(x) * mp.cbrt(abs(x))
    step = lambda x, h=0.5: mp.mpf(0) if x < 0 else mp.mpf(1) if x > 0 else mp.mpf(h)
    library = {name: getattr(mp, name) for name in (
        "exp", "log", "sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "atan2", "sinh", "cosh",
        "tanh", "coth", "sech", "csch", "asinh", "acosh", "atanh", "sign", "floor", "erf", "erfc", "sinc",
    )}  # fmt: skip
    library |= {
        "cbrt": cbrt, "Abs": abs, "ceiling": mp.ceil, "Pow": lambda a, b: a**b,
        "Mod": lambda a, b: a - b * mp.floor(a / b),
        "Heaviside": step, "StrictLessThan": lambda a, b: a < b, "LessThan": lambda a, b: a <= b,
        "StrictGreaterThan": lambda a, b: a > b, "GreaterThan": lambda a, b: a >= b, "Equality": lambda a, b: a == b,
        "Unequality": lambda a, b: a != b, "Not": lambda a: not a,
        "re": lambda a: a, "im": lambda a: mp.mpf(0), "conjugate": lambda a: a,
    }  # fmt: skip
    library = {name: real(function) for name, function in library.items()}
    return library | {
        "number": number, "nan": mp.nan, "where": lambda c, a, b: a if c else b,
        "Add": fold(lambda a, b: a + b), "Mul": fold(lambda a, b: a * b),
        "Max": fold(max), "Min": fold(min), "And": fold(lambda a, b: a and b),
        "Or": fold(lambda a, b: a or b), "ITE": lambda c, a, b: a if c else b, "Xor": fold(lambda a, b: a != b),
    }  # fmt: skip


# ---- random models ----------------------------------------------------------------------------------------


class RandomModel(NamedTuple):
    """A model with a point at which it is finite; prints as the source it stands for."""

    model: Model
    y0: Any
    params: dict

    def __repr__(self):
        return f"{self.model.__doc__}\n# y0 = {_plain(self.y0)}, params = {_plain(self.params)}"


def models(depth=4, smooth=False):
    """A Hypothesis strategy of random dynamics: RandomModel(model, y0, params).

    The right-hand side is a random expression in NumPy functions, of scalars and of arrays of rank up to 3 with
    axes up to 4; arguments are led into each function's domain, so that values stay finite near y0. The
    state is a number, an array (n,) or (2, 2), or a dict or tuple of such; params are k (a number) and c (3,).

    depth : how deep functions are nested
    smooth : leave out what has kinks or jumps (abs, floor, maximum, where, ...)
    """
    st = _hypothesis().strategies
    return st.composite(_random_model)(depth, smooth)


STATES = {
    "y": [{"y": (3,)}, {"y": (1,)}, {"y": ()}, {"y": (2, 2)}],
    "dict": [{"y['a']": (), "y['b']": (2,)}],
    "tuple": [{"y[0]": (2,), "y[1]": (), "y[2]": (1, 3)}],
}
PARAMETERS = {"k": (), "c": (3,)}


@dataclass(frozen=True)
class Term:
    """A random expression: how it reads, its shape, and its value from the values of the sources."""

    text: str
    shape: tuple
    value: Callable


def _random_model(draw, depth, smooth):
    st = _hypothesis().strategies
    kind = draw(st.sampled_from(sorted(STATES)))
    state = draw(st.sampled_from(STATES[kind]))
    sources = {**state, **PARAMETERS, "t": ()}
    growing = _Grower(draw, st, sources, smooth)
    terms = [growing.term(shape, depth, bare=False) for shape in state.values()]
    y0 = _packed(kind, [growing.array(shape) for shape in state.values()])
    params = {name: growing.array(shape) for name, shape in PARAMETERS.items()}
    texts = [term.text for term in terms]
    shown = {"y": "{}", "dict": "{{'a': {}, 'b': {}}}", "tuple": "({}, {}, {})"}[kind].format(*texts)

    def random_model(t, y, k, c):
        values = {"t": t, "k": k, "c": c, **_unpacked(kind, y)}
        return _packed(kind, [term.value(values) for term in terms])

    random_model.__doc__ = f"def random_model(t, y, k, c):\n    return {shown}"
    return RandomModel(Model(random_model), y0, params)


def _packed(kind, parts) -> Any:
    if kind == "y":
        return parts[0]
    return tuple(parts) if kind == "tuple" else dict(zip(("a", "b"), parts, strict=True))


def _unpacked(kind, y):
    if kind == "y":
        return {"y": y}
    return {f"y[{k!r}]": v for k, v in (enumerate(y) if kind == "tuple" else y.items())}


BOUNDED = ("sin", "cos", "tanh", "arctan", "neg", "abs", "add", "sub", "arcsinh", "sigmoid", "sign")
MOST_AXES, LONGEST_AXIS = 3, 4


class _Grower:
    """Draws terms of a wanted shape."""

    def __init__(self, draw, st, sources, smooth):
        self.draw, self.st, self.sources = draw, st, sources
        self.ops = _drawable_ops(smooth)
        self.smooth = smooth

    def choose(self, options):
        return self.draw(self.st.sampled_from(options))

    def number(self):
        return self.draw(self.st.integers(-96, 96)) / 64

    def array(self, shape):
        size = math.prod(shape)
        return np.array([self.number() for _ in range(size)]).reshape(shape) if shape else self.number()

    def term(self, shape, depth, bare=True):
        """A term of a shape, nested up to `depth` deep; `bare`: it may be a mere source."""
        if depth == 0 or (bare and self.draw(self.st.integers(0, 9)) == 9):
            return self.leaf(shape)
        ways = [self.elementwise] * 5 + [self.power, self.total]
        ways += [] if self.smooth else [self.selected]
        if shape:
            ways += [self.reversed_, self.running, self.reshaped, self.joined, self.shifted]
        if len(shape) <= 2:
            ways += [self.product, self.product]
        if len(shape) == 1:
            ways += [self.listed, self.solved]
        if len(shape) >= 2:
            ways += [self.transposed]
        if shape == ():
            ways += [self.determinant]
        return self.choose(ways)(shape, depth - 1)

    # ---- leaves

    def leaf(self, shape):
        name = self.choose([*self.sources, "number"])
        if name == "number":
            value = self.number()
            return self.full(value, shape) if shape else Term(f"{value!r}", (), lambda v: value)
        source = self.sources[name]
        if source == shape:
            return Term(name, shape, lambda v: v[name])
        if source == ():
            return Term(f"np.broadcast_to({name}, {shape})", shape, lambda v: np.broadcast_to(v[name], shape))
        index = np.array([self.draw(self.st.integers(0, math.prod(source) - 1)) for _ in range(math.prod(shape))], int)
        shown = index.reshape(shape).tolist() if shape else int(index[0])
        index = index.reshape(shape) if shape else index[0]
        return Term(
            f"np.ravel({name})[{'np.array(' + str(shown) + ')' if shape else shown}]",
            shape,
            lambda v: np.ravel(v[name])[index],
        )

    def full(self, value, shape):
        return Term(f"np.full({shape}, {value!r})", shape, lambda v: np.full(shape, value))

    # ---- functions of elements

    def elementwise(self, shape, depth):
        op, name, function = self.choose(self.ops)
        parts = []
        for k, domain in enumerate(op.domain):
            wanted = shape if k == 0 else self.choose([shape, shape, shape[1:]])
            part = self.term(wanted, depth)
            parts.append(part if op.name in BOUNDED else fitted(part, domain))
        text = f"{name}({', '.join(p.text for p in parts)})"
        return Term(text, shape, lambda v: function(*(p.value(v) for p in parts)))

    def power(self, shape, depth):
        x, n = fitted(self.term(shape, depth), (-1.5, 1.5)), self.choose([2, 3, 4])
        return Term(f"({x.text}) ** {n}", shape, lambda v: x.value(v) ** n)

    def selected(self, shape, depth):
        a, b, x, y = (self.term(shape, max(depth - 1, 0)) for _ in range(4))
        text = f"np.where({a.text} < {b.text}, {x.text}, {y.text})"
        return Term(text, shape, lambda v: np.where(a.value(v) < b.value(v), x.value(v), y.value(v)))

    # ---- functions of arrays

    def total(self, shape, depth):
        if len(shape) >= MOST_AXES:
            return self.elementwise(shape, depth)
        axis, extent = self.draw(self.st.integers(0, len(shape))), self.draw(self.st.integers(1, LONGEST_AXIS))
        x = self.term((*shape[:axis], extent, *shape[axis:]), depth)
        return Term(f"np.sum({x.text}, axis={axis})", shape, lambda v: np.sum(x.value(v), axis=axis))

    def running(self, shape, depth):
        x, axis = self.term(shape, depth), self.draw(self.st.integers(0, len(shape) - 1))
        return Term(f"np.cumsum({x.text}, axis={axis})", shape, lambda v: np.cumsum(x.value(v), axis=axis))

    def reversed_(self, shape, depth):
        x = self.term(shape, depth)
        return Term(f"({x.text})[::-1]", shape, lambda v: x.value(v)[::-1])

    def reshaped(self, shape, depth):
        x = self.term((math.prod(shape),), depth) if math.prod(shape) <= LONGEST_AXIS else self.term(shape[::-1], depth)
        return Term(f"np.reshape({x.text}, {shape})", shape, lambda v: np.reshape(x.value(v), shape))

    def transposed(self, shape, depth):
        x = self.term(shape[::-1], depth)
        return Term(f"({x.text}).T", shape, lambda v: x.value(v).T)

    def joined(self, shape, depth):
        if shape[0] < 2:
            return self.elementwise(shape, depth)
        a, b = self.term((1, *shape[1:]), depth), self.term((shape[0] - 1, *shape[1:]), depth)
        return Term(f"np.concatenate([{a.text}, {b.text}])", shape, lambda v: np.concatenate([a.value(v), b.value(v)]))

    def shifted(self, shape, depth):
        """Assignment into a part of an array."""
        x = self.term(shape, depth)

        def value(v):
            array = x.value(v) * 1.0
            array[:-1] += array[1:] * 0.5
            return array

        return Term(f"added_to_the_row_before({x.text})", shape, value)

    def listed(self, shape, depth):
        parts = [self.term((), depth) for _ in range(shape[0])]
        return Term(
            f"np.stack([{', '.join(p.text for p in parts)}])", shape, lambda v: np.stack([p.value(v) for p in parts])
        )

    def product(self, shape, depth):
        inner = self.draw(self.st.integers(1, LONGEST_AXIS))
        a, b = self.term((*shape[:1], inner), depth), self.term((inner, *shape[1:]), depth)
        return Term(f"({a.text}) @ ({b.text})", shape, lambda v: a.value(v) @ b.value(v))

    def solved(self, shape, depth):
        a, b, eye = self.term((shape[0], shape[0]), depth), self.term(shape, depth), 4.0 * np.eye(shape[0])
        text = f"np.linalg.solve(np.tanh({a.text}) + 4 * np.eye({shape[0]}), {b.text})"
        return Term(text, shape, lambda v: np.linalg.solve(np.tanh(a.value(v)) + eye, b.value(v)))

    def determinant(self, shape, depth):
        a, eye = self.term((2, 2), depth), np.eye(2)
        return Term(
            f"np.linalg.det(np.tanh({a.text}) + np.eye(2))", shape, lambda v: np.linalg.det(np.tanh(a.value(v)) + eye)
        )


def fitted(x, domain):
    """A term led smoothly into the interval `domain`."""
    low, high = domain
    middle, half = (low + high) / 2, (high - low) / 2
    return Term(f"({middle:g} + {half:g} * np.tanh({x.text}))", x.shape, lambda v: middle + half * np.tanh(x.value(v)))


def _drawable_ops(smooth):
    """[(op, its name in NumPy, function)] of elementwise ops that give numbers of numbers."""
    from odec import special

    found = []
    for name, op in sorted(OPS.items()):
        if op.family != "elementwise" or op.dtype(*["float64"] * len(op.domain), **_no_params(op)) == "bool":
            continue
        if smooth and (op.taylor is zero or op.taylor is taylor_by_jvp):
            continue
        function = op.numpy[0] if op.numpy else getattr(special, name, None)
        if function is not None and name not in ("to_float", "where"):
            prefix = "np" if op.numpy else "odec.special"
            found.append((op, f"{prefix}.{function.__name__}", function))
    return found


def _no_params(op):
    """Something for the parameters that the dtype of an op asks for."""
    import inspect

    asked = inspect.signature(op.dtype).parameters.values()
    return {p.name: "float64" for p in list(asked)[len(op.domain) :] if p.kind is p.POSITIONAL_OR_KEYWORD}
