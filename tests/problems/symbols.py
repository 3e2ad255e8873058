"""The plain right-hand sides called on SymPy: NumPy calls x.sin() on an object that is no number."""

import functools

import mpmath
import sympy


class Symbolic:
    """A SymPy expression with the methods that NumPy's functions look for."""

    def __init__(self, expression):
        self.expression = expression

    def __repr__(self):
        return repr(self.expression)


def _expression(value):
    return value.expression if isinstance(value, Symbolic) else sympy.sympify(value)


def _binary(name):
    def forward(a, b):
        return Symbolic(getattr(_expression(a), name)(_expression(b)))

    return forward


for _name in ("add", "sub", "mul", "truediv", "pow", "radd", "rsub", "rmul", "rtruediv"):
    setattr(Symbolic, f"__{_name}__", _binary(f"__{_name}__"))
Symbolic.__neg__ = lambda a: Symbolic(-a.expression)
for _name in ("sin", "cos", "exp", "log", "sqrt", "tanh"):
    setattr(Symbolic, _name, functools.partialmethod(lambda a, f: Symbolic(f(a.expression)), getattr(sympy, _name)))


def expressions(f, n, m):
    """(t, y, p, rhs) of f(t, y, p) in SymPy."""
    t, y, p = sympy.Symbol("t"), sympy.symbols(f"y:{n}"), sympy.symbols(f"p:{m}")
    rhs = f(Symbolic(t), [Symbolic(s) for s in y], [Symbolic(s) for s in p])
    return t, y, p, [_expression(r) for r in rhs]


def jacobian_entries(rhs, symbols):
    """{(row, column): expression} of the derivatives that are not identically zero."""
    entries = {}
    for i, expression in enumerate(rhs):
        free = expression.free_symbols
        for j, symbol in enumerate(symbols):
            if symbol in free:
                derivative = expression.diff(symbol)
                if derivative != 0:
                    entries[i, j] = derivative
    return entries


def evaluator(entries, arguments):
    """A function of numbers: {(row, column): mpf} with 30 digits."""
    function = sympy.lambdify(arguments, list(entries.values()), modules="mpmath", cse=True)

    def evaluate(values):
        with mpmath.workdps(30):
            return dict(zip(entries, function(*map(mpmath.mpf, values)), strict=True))

    return evaluate
