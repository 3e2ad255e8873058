"""The inputs of an ensemble: which of them its members differ in, checked, as a Batch of flat arrays."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from odec.errors import ArgumentError, ShapeError, TraceError, nearest
from odec.graph.structure import structure_of
from odec.integrate.batch import SHARED, Batch
from odec.integrate.problem import NO_TIMES
from odec.integrate.run import all_finite
from odec.model import dtype_of_state
from odec.solving import bound, first_not_finite, listed_times, parameters_by_name, span_of, stops_within, times_within
from odec.system import System

STATE = "y0"  # the name of the state among the inputs
CHECKED = 2**20  # numbers that are checked together, so that the temporaries of a check stay small


@dataclass(frozen=True)
class Inputs:
    """The state and the parameters by name, and which of them are batched.

    name : of the model; given : {name: value} of what is batched, "y0" the state; a value is an array or a structure
    y0, params : of one member, zeros where it is batched
    sizes : {where: length of the first axis} of every array that is batched
    """

    name: str
    given: dict[str, Any]
    y0: Any
    params: dict[str, Any]
    sizes: dict[str, int]


def inputs_of(model, y0, params, batched):
    """The Inputs of a Model or a System.

    Raises
    ------
    ArgumentError, ShapeError : an unknown name, or a value without a first axis for the members
    """
    values = parameters_by_name(model, params)
    known = system_parameters(model) if isinstance(model, System) else tuple(values)
    names = _names(model.name, batched, known)
    given, one, sizes = {}, {}, {}
    for name in names:
        if name == STATE or name in values:  # a parameter that is missing is refused where the model is bound
            value, where = _rows_as_array(y0 if name == STATE else values[name]), _where(name)
            structure = structure_of(value, f"{model.name}: {where}")
            sizes |= _first_axes(model.name, where, structure)
            given[name] = np.asarray(value) if structure.is_array else value
            one[name] = _of_one_member(structure)
    if sizes:
        one_size(model.name, sizes)
    y_one = one.pop(STATE, y0)
    return Inputs(model.name, given, y_one, values | one, sizes)


def system_parameters(system):
    """The names of the parameters of a System, in order."""
    return tuple(map(str, system.parameters.keys))


def bound_inputs(model, inputs, dtype):
    """(system, flat y, flat p) of one member; zeros where it is batched.

    Raises
    ------
    ArgumentError : a shared value that is not finite
    ShapeError, TraceError : shapes of one member that do not fit the model
    """
    if dtype is None and not isinstance(model, System):
        dtype = dtype_of_state(inputs.given.get(STATE, inputs.y0))
    try:
        system, y, p = bound(model, inputs.y0, inputs.params, dtype)
    except (ArgumentError, ShapeError, TraceError) as error:
        note = _shapes_of_a_member(inputs) if "shape" in str(error) or "y0 has" in str(error) else ""
        raise type(error)(f"{error}{note}") from error
    for what, flat in (("y0", y), ("params", p)):
        if not all_finite(flat):
            raise ArgumentError(f"{inputs.name}: {first_not_finite(system, what, flat)}; finite numbers are needed.")
    return system, y, p


def batch_of(system, inputs, problem, t_span, t_eval, tstops):
    """The Batch of a Problem, which holds what all members share but times; its y and p become those of the first.

    Raises
    ------
    ArgumentError : members whose number differs, spans or times that cannot be used
    ShapeError : batched inputs that do not fit the system
    """
    name, times = inputs.name, _kept_times(inputs.name, t_eval)
    ends, size = _span_arrays(name, t_span), number_of_members(inputs, t_span, t_eval)
    spans = Spans(*(np.broadcast_to(a, (size,)) for a in ends), differ=any(a.ndim for a in ends))
    spans.check(name)
    _check_times(name, times, spans)
    problem.span, problem.tstops = spans.of(0), _stops(name, tstops, spans)
    problem.t_eval = times if times.ndim == 1 else NO_TIMES
    begins, ends = (SHARED if a.ndim == 0 else a for a in ends)
    own = times if times.ndim == 2 and times.size else SHARED
    return _with_inputs(Batch(problem, size, begins, ends, times=own), system, inputs)


def number_of_members(inputs, t_span, t_eval):
    """N, on which batched inputs, spans and times agree."""
    name = inputs.name
    return one_size(name, inputs.sizes | _members_of_times(_span_arrays(name, t_span), _kept_times(name, t_eval)))


def one_size(name, sizes):
    """N, on which all inputs {where: length of the first axis} agree."""
    if not sizes:
        raise ArgumentError(
            f"{name}: nothing is batched; name the inputs that the members differ in, as batched=('y0',), or use "
            "odec.solve."
        )
    (first, size), *others = sizes.items()
    for other, extent in others:
        if extent != size:
            raise ArgumentError(
                f"{name}: {first} has {size:,} members along its first axis, but {other} has {extent:,}; "
                "one number of members is needed."
            )
    if size == 0:
        raise ArgumentError(f"{name}: {first} has no members along its first axis; at least one is needed.")
    return size


def finite_members(batch):
    """(size,) whether the state and the parameters of each member are finite, or None where all are."""
    given = [a for a in (batch.states, batch.parameters) if a is not None]
    with np.errstate(over="ignore", invalid="ignore"):
        if all(all_finite(a.reshape(-1)) for a in given):
            return None
    return np.logical_and.reduce([np.isfinite(a).all(axis=1) for a in given])


# ---- what is batched ----------------------------------------------------------------------------------------


def _names(model, batched, parameters):
    """The names of the batched inputs, checked."""
    try:
        names = (batched,) if isinstance(batched, str) else tuple(batched)
    except TypeError:
        raise ArgumentError(
            f"{model}: batched is {batched!r}; the name of an input is needed, or several, as ('y0', 'rho')."
        ) from None
    known = (STATE, *parameters)
    for name in names:
        if not isinstance(name, str) or name not in known:
            raise ArgumentError(
                f"{model}: batched has {name!r}, which is no input{nearest(name, known)} The inputs are "
                f"{', '.join(known)}."
            )
        if names.count(name) > 1:
            raise ArgumentError(f"{model}: batched has {name!r} twice; name each input once.")
    if STATE in names and STATE in parameters:
        raise ArgumentError(f"{model}: {STATE!r} in batched is the state, but also a parameter; rename the parameter.")
    return names


def _rows_as_array(value):
    """A list of numbers, or of lists of them, as an array: a structure of a million is looked through in seconds."""
    if type(value) is list and (_are_numbers(value) or all(type(v) is list and _are_numbers(v) for v in value)):
        try:
            return np.array(value)
        except (ValueError, OverflowError):
            return value  # of different lengths, which is refused as such
    return value


def _are_numbers(values):
    return set(map(type, values)) <= {float, int}


def _where(name):
    return STATE if name == STATE else f"params[{name!r}]"


def _first_axes(model, where, structure):
    """{where: length of the first axis} of the arrays of a batched value."""
    leaves = structure.leaves
    if not leaves:
        raise ShapeError(f"{model}: {where} is batched but holds no numbers; take it out of batched.")
    for path, leaf in leaves:
        if not leaf.shape:
            raise ShapeError(
                f"{model}: {where}{path} is batched but is one number; an array with a first axis for the members is "
                "needed, or take it out of batched."
            )
    return {f"{where}{path}": leaf.shape[0] for path, leaf in leaves}


def _of_one_member(structure):
    """A value of a structure without its first axes, all zeros."""
    return structure.map(lambda leaf: np.zeros(leaf.shape[1:]))


def _shapes_of_a_member(inputs):
    """Sentences that say what each member has of the batched inputs, and which others look as if they were batched."""
    notes, size = [], next(iter(inputs.sizes.values()), 0)
    for name, value in inputs.given.items():
        given = structure_of(value, "")
        one = structure_of(_of_one_member(given), "")
        notes.append(f" {_where(name)} is batched: {given.describe()} gives each member {one.describe()}.")
    for name, value in {STATE: inputs.y0, **inputs.params}.items():
        if name not in inputs.given and _holds_members(value, size):
            notes.append(
                f" {_where(name)} is not batched, but holds {size:,} along its first axis too; if those are the "
                "members, name it in batched."
            )
    return "".join(notes)


def _holds_members(value, size):
    leaves = structure_of(value, "").leaves
    return bool(leaves) and all(leaf.shape[:1] == (size,) for _, leaf in leaves)


def _with_inputs(batch, system, inputs):
    """The Batch with the batched states and parameters; arrays that lie as it needs them are not copied."""
    name, size, dtype, problem = inputs.name, batch.size, system.dtype, batch.problem
    if STATE in inputs.given:
        states = system.y_structure.flatten_members(inputs.given[STATE], f"{name}: y0", dtype, size)
        problem.y[:] = states[0]
        batch = replace(batch, states=states)
    found = []
    for key, value in inputs.given.items():
        if key != STATE:
            structure, place = system.p_structure.part(key)
            flat = structure.flatten_members(value, f"{name}: {_where(key)}", dtype, size)
            found.append((flat, np.arange(place.start, place.stop)))
    if not found:
        return batch
    columns = np.concatenate([c for _, c in found])
    parameters = found[0][0] if len(found) == 1 else np.concatenate([flat for flat, _ in found], axis=1)
    problem.p[columns] = parameters[0]
    return replace(batch, parameters=parameters, columns=columns)


# ---- time spans, times to keep, stops -----------------------------------------------------------------------


@dataclass(frozen=True)
class Spans:
    """Where the members begin and end, (N,) each, and whether they differ in that."""

    begins: np.ndarray
    ends: np.ndarray
    differ: bool

    def of(self, i):
        """(t0, t1) of member i."""
        return float(self.begins[i]), float(self.ends[i])

    @property
    def forward(self):
        """Whether time runs forward."""
        return bool(self.ends[0] > self.begins[0])

    def check(self, name):
        """ArgumentError for a span that cannot be used, and where some run forward and some backward."""
        with np.errstate(invalid="ignore", over="ignore"):
            length = self.ends - self.begins
        for i in np.flatnonzero(~np.isfinite(length) | (length == 0.0))[:1]:
            span_of(_member(name, i), self.of(i))
        against = np.flatnonzero((length > 0.0) != self.forward)
        if against.size:
            raise ArgumentError(
                f"{name}: t_span runs {'forward' if self.forward else 'backward'} in member 0, but not in member "
                f"{against[0]}; one direction is needed, so solve the members of each apart."
            )

    def narrowest(self):
        """Members that begin last and end first: what lies in their spans lies in all."""
        late, early = (np.argmax, np.argmin) if self.forward else (np.argmin, np.argmax)
        return sorted({0, int(late(self.begins)), int(early(self.ends))})


def _member(name, i):
    return f"{name}, member {i}"


def _span_arrays(name, t_span):
    """(begins, ends), each an array () or (N,)."""
    try:
        t0, t1 = t_span
        numbers = np.ndim(t0) == 0 and np.ndim(t1) == 0
    except (TypeError, ValueError):
        raise ArgumentError(
            f"{name}: t_span is {reprlib.repr(t_span)}; (t0, t1) is needed, each a number or an array (N,) with "
            "one for each member."
        ) from None
    if numbers:
        return tuple(map(np.asarray, span_of(name, t_span)))
    return _end_array(name, "t_span[0]", t0), _end_array(name, "t_span[1]", t1)


def _end_array(name, what, given):
    found = np.asarray(given)
    if found.dtype.kind not in "iuf" or found.ndim > 1:
        raise ArgumentError(
            f"{name}: {what} has shape {found.shape} and holds {found.dtype}; a number is needed, or an array (N,) "
            "with one for each member."
        )
    return found.astype(np.float64, "C", copy=False)


def _members_of_times(ends, times):
    """{where: N} of the times that members have of their own."""
    found = {f"t_span[{k}]": len(a) for k, a in enumerate(ends) if a.ndim}
    return found | ({"t_eval": len(times)} if times.ndim == 2 else {})


def _kept_times(name, t_eval):
    """Times to keep, (m,) or (N, m); none for the end only."""
    if t_eval is None:
        return NO_TIMES
    times = listed_times(name, "t_eval", t_eval)
    if times.ndim not in (1, 2):
        raise ArgumentError(
            f"{name}: t_eval has shape {times.shape}; (m,) for all members, or (N, m) for each its own, is needed."
        )
    return np.ascontiguousarray(times)


def _check_times(name, times, spans):
    """ArgumentError for times that are not sorted, or outside the span of a member."""
    if times.ndim == 1:
        for i in spans.narrowest():
            times_within(_member(name, i) if spans.differ else name, times, *spans.of(i))
        return
    rows = max(CHECKED // max(times.shape[1], 1), 1)
    for start in range(0, len(times), rows):
        part = slice(start, start + rows)
        bad = _unusable(times[part], spans.begins[part], spans.ends[part], spans.forward)
        for i in start + np.flatnonzero(bad)[:1]:
            _refuse_times(_member(name, i), times[i], spans.of(i))


def _unusable(times, begins, ends, forward):
    """(N,) whether a row of times (N, m) has one outside its span, out of order, or after nan."""
    first, last = (begins, ends) if forward else (ends, begins)
    with np.errstate(invalid="ignore"):
        outside = (times < first[:, None]) | (times > last[:, None])
        falling = (np.diff(times, axis=1) < 0.0) if forward else (np.diff(times, axis=1) > 0.0)
    absent = np.isnan(times)
    return outside.any(axis=1) | falling.any(axis=1) | (absent[:, :-1] & ~absent[:, 1:]).any(axis=1)


def _refuse_times(name, times, span):
    there = np.isnan(times)
    times_within(name, times[~there], *span)
    raise ArgumentError(
        f"{name}: t_eval has nan before {times[~there][-1]}; in a row of t_eval only nan may follow nan."
    )


def _stops(name, tstops, spans):
    """The stops, strictly within all spans."""
    if not spans.differ:
        return stops_within(name, tstops, *spans.of(0))
    found = {i: stops_within(_member(name, i), tstops, *spans.of(i)) for i in spans.narrowest()}
    for i, stops in found.items():
        if stops != found[0]:
            raise ArgumentError(
                f"{name}: tstops has a time at which the span of member {i} begins or ends, but others go on; it must "
                "lie within every span, so solve such members apart."
            )
    return found[0]
