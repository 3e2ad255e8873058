"""`odec.taylor_map`: the end of a solve as a polynomial of small changes of y0 and of parameters."""

from __future__ import annotations

import functools
import itertools
import warnings
from dataclasses import dataclass

import numpy as np

from odec.direction import Moved, input_structure, names_of
from odec.ensemble_inputs import one_size
from odec.errors import ArgumentError, SolveError
from odec.gradients.polynomial import branches, exponents, term_count, with_polynomials
from odec.graph.structure import component_paths, structure_of
from odec.graph.trace import place
from odec.solution import Solution
from odec.solving import parameters_by_name, positive_integer
from odec.system import System
from odec.variation import check_options, larger_system, point_of, posed_larger, solution_of_state, tolerances_of_y

MOST_STATES = 20_000
TOLERANCE = {"float64": 1e-13, "float32": 1e-6}
SHOWN, WIDTH = 12, 120  # rows and characters a row of a printed map


def taylor_map(model, t_span, y0, params=(), *, order=2, wrt=("y0",), method="vern9", rtol=None, atol=None,
               error_control=True, dtype=None, progress=False, **options):  # fmt: skip
    """The state at t_span[1] as a polynomial of changes d of y0 and params: sum over |m| <= order of c_m d^m.

    The model is solved together with the coefficients of its solution as a polynomial of the changes: the variational
    equations of every order up to `order`. Events are not mapped. Where a condition (np.where, abs, max, a table)
    changes on the way, which is looked for at the steps, the terms hold only for changes that leave its time alone,
    and a RuntimeWarning names the line.

    Parameters
    ----------
    model, t_span, y0, params, dtype, progress : as for `odec.solve`
    order : of the highest terms, at least 1; 1 is the Jacobian
    wrt : what changes: "y0" and names of parameters, one or several
    method : as for `odec.solve`
    rtol, atol : as for `odec.solve`; None is 1e-13, for a float32 state 1e-6
    error_control : let all coefficients take part in the error norm, with the tolerances rtol and atol / |x^m| of
        what they are coefficients of (1 for an x of 0); without it the error of y alone chooses the steps
    options : as for `odec.solve`, without events; t_eval=[], the end only, unless given

    Returns
    -------
    TaylorMap

    Raises
    ------
    ArgumentError, ShapeError, TraceError : the arguments or the model cannot be used
    SolveError : the solve stopped early; `.solution` holds what was reached

    References: Berz, Part. Accel. 24 (1989) 109; [griewank2008] ch. 13
    """
    check_options("taylor_map", options)
    values = parameters_by_name(model, params, "taylor_map")
    system, y, p = point_of(model, y0, values, dtype)
    names = _inputs(system, values, wrt)
    if options["events"]:
        raise ArgumentError(
            f"{system.name}: events have no Taylor map; leave events out, and end t_span where the event would."
        )
    moved = Moved.by(system, names, 0.0, y, p)
    order = _order(system, order, len(moved.places))
    given = tuple(TOLERANCE[system.dtype] if value is None else value for value in (rtol, atol))
    conditions = branches(system.graph, moved.places)
    options.setdefault("t_eval", None if conditions else [])
    powers = np.array(exponents(len(moved.places), order), int).reshape(-1, len(moved.places))
    task = _posed(system, t_span, y, p, moved, powers, given, error_control, {"method": method, **options})
    out = task.run(progress)
    solution = solution_of_state(task, out, system, p, given, throw=False)
    if not solution.success:
        raise SolveError(_why(task.system, out, solution), solution)
    _warn_of_changes(system, conditions, solution, p)
    center = np.concatenate([y if name == "y0" else p[system.p_structure.part(name)[1]] for name in names])
    return TaylorMap(
        out.y.reshape(y.size, -1).copy(), powers, _variables(system, names), center, solution, names, system
    )


@dataclass(frozen=True, eq=False, repr=False)
class TaylorMap:
    """The end of a solve as a polynomial of changes d of its inputs: sum over m of coefficients[:, m] d^exponents[m].

    coefficients : (n, terms), of each number of y in their order; exponents : (terms, variables), by total degree
    variables : names of the numbers that change, as "y0[1]" or "rho"; center : (variables,) their values
    solution : the Solution around which the map is, of y alone
    inputs : the names in wrt; system : the model with its shapes

    `map(dy0, dparams)` is the value for changes of y0 and of parameters, and `str(map)` the polynomial.
    """

    coefficients: np.ndarray
    exponents: np.ndarray
    variables: tuple[str, ...]
    center: np.ndarray
    solution: Solution
    inputs: tuple[str, ...]
    system: System

    def __call__(self, dy0=None, dparams=None, *, batched=()):
        """The end state for changes of the inputs, in the structure of y.

        Parameters
        ----------
        dy0 : in the structure of y0; None is no change
        dparams : a tuple in signature order or a dict by name; None, and a missing name, is no change
        batched : names of the inputs whose changes have a first axis N, of as many maps at once

        Returns
        -------
        as y0; with `batched` the same with a first axis N in each array

        Raises
        ------
        ArgumentError, ShapeError : a change of what is not in wrt, or of another shape
        """
        change = self._change(dy0, dparams, _names_in(batched)).T
        terms = np.ones((len(self.exponents), *change.shape[1:]))
        for degree, lower, variable in self._products:
            terms[degree] = terms[lower] * change[variable]
        end = (terms.T @ self.coefficients.T).astype(self.system.dtype, copy=False)
        return self.system.y_structure.unflatten(end, terms.shape[1:])

    @property
    def degree(self):
        """The highest total degree."""
        return int(self.exponents[-1].sum())

    @property
    def jacobian(self):
        """(n, variables): the terms of first order, d y(t1) / d variable."""
        return self.coefficients[:, 1 : 1 + len(self.variables)]

    @functools.cached_property
    def _products(self):
        """For each degree from 1 its terms, a slice, and for each d^m of them (place of d^m / d_v, v)."""
        places = {tuple(m): k for k, m in enumerate(self.exponents.tolist())}
        unit = np.eye(len(self.variables), dtype=int)
        last = [int(np.flatnonzero(m)[-1]) for m in self.exponents[1:]]
        lower = np.array([0, *(places[tuple((m - unit[v]).tolist())] for m, v in zip(self.exponents[1:], last))])
        bounds = np.searchsorted(self.exponents.sum(axis=1), np.arange(1, self.degree + 2))
        found, variable = [slice(a, b) for a, b in itertools.pairwise(bounds)], np.array([0, *last])
        return [(degree, lower[degree], variable[degree]) for degree in found]

    @functools.cached_property
    def _structures(self):
        return {name: input_structure(self.system, name) for name in ("y0", *map(str, self.system.parameters.keys))}

    def _change(self, dy0, dparams, batched):
        """(variables,) or (N, variables) float64, of the changes as the user gives them."""
        system = self.system
        given = {"y0": dy0, **({} if dparams is None else system.by_name(dparams, "dparams"))}
        given = {name: value for name, value in given.items() if value is not None}
        lead = _lead(system, given, batched)
        flat = {}
        for name, value in given.items():
            what, own = f"{system.name}: change of {name}", lead if name in batched else ()
            flat[name] = self._structures[name].flatten_members(value, what, np.float64, *own)
            if name not in self.inputs and flat[name].any():
                raise ArgumentError(
                    f"{system.name}: {name} changes, but this map is one of {', '.join(self.inputs)}; make one with "
                    f"{name!r} in wrt."
                )
        change, begin = np.zeros((*lead, len(self.variables))), 0
        for name in self.inputs:
            end = begin + self._structures[name].size
            change[..., begin:end] = flat.get(name, 0.0)
            begin = end
        return change

    def __repr__(self):
        return (
            f"<TaylorMap of {self.system.name}: degree {self.degree} in {', '.join(self.variables[:SHOWN])}"
            f"{', ...' if len(self.variables) > SHOWN else ''}, {len(self.exponents):,} terms>"
        )

    def __str__(self):
        rows = [
            f"{name} = {self._row(row, WIDTH - len(name) - 3)}"
            for name, row in zip(self.solution.names[:SHOWN], self.coefficients)
        ]
        more = len(self.coefficients) - len(rows)
        return "\n".join([*rows, f"... {more:,} more"] if more else rows)

    def _row(self, row, width):
        """The terms that are not zero, as many as there is room for."""
        text = ""
        for k in np.flatnonzero(row):
            sign = ("-" if row[k] < 0 else "") if not text else " - " if row[k] < 0 else " + "
            term = f"{sign}{abs(row[k]):.6g}{self._monomial(k)}"
            if len(text) + len(term) > width - len(" + ..."):
                return f"{text} + ..."
            text += term
        return text or "0"

    def _monomial(self, k):
        powers = [(f"d{name}", power) for name, power in zip(self.variables, self.exponents[k]) if power]
        return "".join(f" {name}" if power == 1 else f" {name}^{power}" for name, power in powers)


# ---- arguments --------------------------------------------------------------------------------------------


def _names_in(batched):
    """One name or several as a tuple."""
    return (batched,) if isinstance(batched, str) else tuple(batched)


def _lead(system, given, batched):
    """(N,) of the inputs that have a first axis, () where none has."""
    missing = [name for name in batched if name not in given]
    if missing:
        raise ArgumentError(
            f"{system.name}: batched has {missing[0]!r}, of which no change is given; give one, or leave it out of "
            "batched."
        )
    sizes = {}
    for name in batched:
        for path, leaf in structure_of(given[name], f"{system.name}: change of {name}").leaves:
            sizes[f"change of {name}{path}"] = leaf.shape[0] if leaf.shape else 1
    return (one_size(system.name, sizes),) if sizes else ()


def _inputs(system, values, wrt):
    """The names in wrt; ArgumentError for what a map has no variables for."""
    names = names_of(system, values, wrt)
    if "t0" in names:
        raise ArgumentError(
            f"{system.name}: wrt has 't0', which a Taylor map does not change; it takes 'y0' and names of parameters. "
            "odec.sensitivities has the derivative by t0."
        )
    if "y0" in names and "y0" in system.parameters.keys:
        raise ArgumentError(f"{system.name}: 'y0' in wrt is the state, but also a parameter; rename the parameter.")
    return names


def _order(system, order, variables):
    """The order, for which there are few enough states."""
    order, n = positive_integer(system.name, "order", order), system.y_structure.size
    states = n * term_count(variables, order)
    if states > MOST_STATES:
        raise ArgumentError(
            f"{system.name}: a map of order {order} in {variables:,} variables takes {states:,} states, {n:,} times "
            f"{states // n:,} terms; at most {MOST_STATES:,} are solved: lower order, or leave inputs out of wrt."
        )
    return order


def _variables(system, names):
    """A name for each number of the inputs."""
    return tuple(name + path for name in names for path in component_paths(input_structure(system, name)))


# ---- the solve --------------------------------------------------------------------------------------------


def _posed(system, t_span, y, p, moved, powers, given, error_control, options):
    """The Posed of y together with its coefficients, those of the monomials with exponents `powers`."""
    places, degree = moved.places, int(powers[-1].sum())
    larger = larger_system(
        system, (places, degree), len(powers), lambda: with_polynomials(system.graph, places, degree)
    )
    states = np.zeros((y.size, len(powers)), y.dtype)
    states[:, 0], states[:, 1 : 1 + len(places)] = y, moved.starts
    scales = np.where(moved.sizes > 0, moved.sizes, 1.0).astype(float)
    with np.errstate(all="ignore"):
        sizes = np.prod(scales ** powers[1:], axis=1)
    limits = tolerances_of_y(system, given[0], given[1], sizes, error_control)
    return posed_larger(larger, t_span, states, p, limits, options)


def _why(larger, out, solution):
    """How the solve failed, in words; where only a coefficient is not finite, the line that it comes from."""
    origin = larger.graph.first_non_finite(out.t, out.y, out.p)
    if origin is None or origin.output_place % (out.y.size // solution.flat_rows.shape[1]) == 0:
        return solution.message
    return (
        f"{larger.name} ({place(origin.node.line)}): a derivative of this line is {origin.value} at t = {out.t:.6g}, "
        "and a Taylor map needs it; keep away from that point, or take what is not smooth there out of the model."
    )


def _warn_of_changes(system, conditions, solution, p):
    """A RuntimeWarning for the first condition that is not the same at all rows."""
    before: dict = {}
    for t, y in zip(solution.ts, solution.flat_rows) if conditions else ():
        values = system.graph.values(t, y, p)
        for node, side in conditions:
            found = side(*(values[id(i)] for i in node.inputs), **node.params)
            if not np.array_equal(found, before.setdefault(id(node), found)):
                warnings.warn(
                    f"{system.name} ({place(node.line)}): a condition changes before t = {t:.6g}; where the model is "
                    "not smooth there, the Taylor map leaves out that its time moves. End t_span before it, or compare "
                    "the map with solves.",
                    RuntimeWarning,
                    stacklevel=3,
                )
                return
