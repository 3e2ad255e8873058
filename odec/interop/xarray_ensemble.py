"""Ensembles as xarray Datasets."""

from __future__ import annotations

import numpy as np

from odec.errors import Status
from odec.graph.structure import structure_of
from odec.interop.on_host import on_host
from odec.interop.xarray import RESERVED, dimensions, dotted, free_name, plain, state_variables, xarray_module

MEMBERS = "trajectory"
ROWS = "row"  # the dimension of time where each member has its own times
TAKEN = (*RESERVED, MEMBERS, ROWS, "status", "t1", "steps", "rejected", "nfev")


def to_dataset(solution):
    """An xarray.Dataset of an EnsembleSolution, with the dimension `trajectory` first and then time.

    Variables are those of a Solution's dataset, with dims (trajectory, t, ...); where each member has its own times the
    dimension is `row`, and `t` a coordinate of (trajectory, row), nan after a member's last. An ensemble that was only
    reduced has one for each reduction, <name>_mean (t, ...), and the end states, <name>_end (trajectory, ...).

    Coordinates along `trajectory` are its number, how each member ended (`status`, whose attributes name its values,
    `t1`, `steps`, `rejected`, `nfev`), and the inputs that were batched: numbers by the name of the parameter, arrays
    with dimensions <name>_0, ... of their own, leaves of structures by their path ('arm.length'), the state as `y0` or
    `y0.<leaf>` with the dimensions of y, time spans as `t_start` and `t_end`. A name that is taken ends in an
    underscore. The attributes are numbers and text, as netCDF needs them.

    Raises
    ------
    ImportError : xarray is not installed
    """
    xarray, solution = xarray_module(), on_host(solution)
    time = "t" if solution.ts.ndim == 1 else ROWS
    variables, coordinates = _variables(solution, time)
    coordinates |= {"t": ("t" if time == "t" else (MEMBERS, time), solution.ts)} | _endings(solution)
    for name, (dims, values) in _inputs(solution, {*variables, *coordinates}).items():
        coordinates[name] = ((MEMBERS, *dims), values)
    return xarray.Dataset(variables, coordinates, {"model": solution.name} | plain(solution.stats))


def _variables(solution, time):
    """(variables, coordinates) of the rows, or of what they were reduced to and the ends."""
    if solution.flat_rows is not None:
        return state_variables(solution, solution.flat_rows, (MEMBERS, time), TAKEN)
    found, coordinates = state_variables(solution, solution.flat_y1, (MEMBERS,), TAKEN)
    variables = {f"{name}_end": pair for name, pair in found.items()}
    for reduction in solution.reduced:
        found, _ = state_variables(solution, solution.flat_reduction(reduction), (time,), TAKEN)
        variables |= {f"{name}_{reduction}": pair for name, pair in found.items()}
    return variables, coordinates


def _endings(solution):
    """Coordinates that say how each member ended."""
    kinds = list(Status)
    meaning = {
        "flag_values": np.array(kinds, np.int8), "flag_meanings": " ".join(kind.name for kind in kinds),
    }  # fmt: skip
    return {
        MEMBERS: np.arange(len(solution)), "status": (MEMBERS, solution.status, meaning), "t1": (MEMBERS, solution.t1),
        "steps": (MEMBERS, solution.steps), "rejected": (MEMBERS, solution.rejected), "nfev": (MEMBERS, solution.nfev),
    }  # fmt: skip


# ---- inputs --------------------------------------------------------------------------------------------------


def _inputs(solution, taken):
    """{name: (dims after the trajectory, values (N, ...))} of the batched inputs."""
    found = {}
    for name, given in solution.batched.items():
        if name == "y0":
            found |= _starts(solution, given)
            continue
        for path, values in _leaves(name, given):
            free = free_name(path, {*taken, *found})
            found[free] = (dimensions(free, values.ndim - 1, {*taken, *found}), values)
    for name, t in zip(("t_start", "t_end"), solution.t_span):
        if np.ndim(t):
            found[free_name(name, {*taken, *found})] = ((), np.asarray(t))
    return found


def _starts(solution, y0):
    """The states at the start as `y0`, or as one array for each leaf, with the dimensions of y."""
    flat = solution.structure.flatten_members(y0, "y0", solution.flat_y1.dtype, len(solution))
    variables, _ = state_variables(solution, flat, (MEMBERS,), TAKEN)
    return {_start_name(name): (dims[1:], values) for name, (dims, values) in variables.items()}


def _start_name(name):
    """'y0' of 'y', 'y0[1]' of 'y[1]', 'y0.angle' of 'angle'."""
    return f"y0{name[1:]}" if name == "y" or name.startswith("y[") else f"y0.{name}"


def _leaves(name, given):
    """(name, array) of each leaf of a structured value: 'mass', 'arm.length', 'rates[0]'."""
    structure = structure_of(given, name)
    flat = structure.flatten(given, name)
    for path, leaf in structure.leaves:
        yield name + dotted(path), flat[leaf.offset : leaf.offset + leaf.size].reshape(leaf.shape)
