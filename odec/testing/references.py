"""References to compare with: SymPy's derivatives, and differences where SymPy cannot serve."""

from __future__ import annotations

from typing import Any

import numpy as np

from odec.errors import MissingRuleError
from odec.testing.points import Point
from odec.transforms.scalar import operation_count

LEVELS = 9


def directional(function, x, direction):
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


def symbolic_reference(check):
    """The Symbolic reference of a check, or None with a remark that says why."""
    n, m = check.y.size, check.p.size
    if operation_count(check.double) > LARGEST_MODEL or n * (1 + n + m) > LARGEST_BLOCK:
        check.remark("the model is too large for SymPy; extrapolated differences serve")
        return None
    try:
        symbolic = Symbolic(check)
        if len(symbolic.program.statements) <= LARGEST_PROGRAM:
            symbolic.jacobian(Point(check.t, check.y, check.p, check.y, check.y))  # does it have values
            return symbolic
    except (MissingRuleError, NotImplementedError, RecursionError) as error:
        check.remark(f"SymPy cannot serve ({error}); extrapolated differences do")
        return None
    check.remark("SymPy's expressions are too large; extrapolated differences serve")
    return None


class Program:
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


class Symbolic:
    """SymPy's derivatives of a right-hand side, evaluated with 30 digits."""

    def __init__(self, check):
        import sympy

        from odec.interop.sympy import to_sympy

        form = to_sympy(check.system, digits=40)
        self.leaves = [form.t, *form.y_symbols, *form.p_symbols]
        self.functions = _mpmath_functions()
        self.program = Program(sympy)
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

        return evaluate_expression(expression, values, self.functions)


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


def _mpmath_functions():
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
