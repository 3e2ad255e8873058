"""`check_model`: every generated derivative of a model against SymPy, at random points."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from odec.errors import ArgumentError, nearest
from odec.graph.structure import Structure, children_of, component_names
from odec.model import Model
from odec.testing.points import Point, grid, hypothesis, moved, plain
from odec.testing.references import directional, symbolic_reference
from odec.testing.rounding import rounding_spread

DERIVATIVES = ("jvp", "vjp", "jacobian", "taylor")


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
    check = Check(model, y0, params, dtype, t, order)
    _at_random_points(check, tuple(derivatives), examples)
    if not check.report.points:
        raise ArgumentError(
            f"check_model: {model.name} has no finite right-hand side near y0; give a y0 inside its domain."
        )
    return check.report


def _at_random_points(check, derivatives, examples):
    drawing = hypothesis()
    st, n, m = drawing.strategies, check.y.size, check.p.size
    every = drawing.HealthCheck

    @drawing.settings(
        max_examples=examples, database=None, derandomize=True, deadline=None, suppress_health_check=list(every),
        phases=(drawing.Phase.generate, drawing.Phase.shrink), report_multiple_bugs=False, print_blob=False,
    )  # fmt: skip
    @drawing.given(grid(st, 1 + n + m), grid(st, 1 + n + m), grid(st, n))
    def compare(place, tangent, cotangent):
        check.at(place, tangent, cotangent, derivatives)

    compare()


class Check:
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
        self.symbolic = symbolic_reference(self)
        self.functions: dict[Any, Any] = {}

    # ---- points

    def at(self, place, tangent, cotangent, derivatives):
        """Compare at the centre moved by `place` (numbers in [-1, 1])."""
        n = self.y.size
        t = self.t + float(abs(place[0]))
        y, p = moved(self.y, place[1 : 1 + n]), moved(self.p, place[1 + n :])
        y, p = (np.asarray(np.asarray(v, self.system.dtype), float) for v in (y, p))
        point = Point(t, y, p, tangent, cotangent)
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
        expected, error = directional(lambda x: self.rate(x), point.all, seed)
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
        return directional(self.rate, point.all, point.tangent), "differences"

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
        value, error = directional(lambda x: self.lower_coefficient(x, k - 1), point.all, along)
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
            spreads = rounding_spread(function, [point.t, point.y, point.p, *extra], self.eps)
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
            plain(s.unflatten(v)) for s, v in ((self.system.y_structure, point.y), (self.system.p_structure, point.p))
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
