"""Solutions as xarray Datasets."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from odec.graph.structure import Leaf, component_names

RESERVED = ("t", "state")  # names of coordinates


def xarray_module() -> Any:
    """The module xarray, imported.

    Raises
    ------
    ImportError : xarray is not installed
    """
    try:
        import xarray
    except ImportError:
        raise ImportError("odec: xarray is not installed, which this needs; pip install odec[xarray].") from None
    return xarray


def to_dataset(solution):
    """An xarray.Dataset of a Solution, with its times as coordinate `t`.

    An array state is the variable `y`: of one dimension with dims (t, state), where the coordinate `state` holds the
    names of the components; of any other shape with dims (t, y_0, y_1, ...). A structured state has one variable for
    each leaf, named by its path ('arm.angle', 'y[0]'), with dims (t, <name>_0, ...); a leaf that is one number takes
    the name that the model gives it. The attributes are numbers and text, as netCDF needs them.

    Raises
    ------
    ImportError : xarray is not installed
    """
    xarray = xarray_module()
    variables, coordinates = state_variables(solution, solution.flat_rows, ("t",))
    status = {"model": solution.name, "status": solution.status.name, "message": solution.message}
    return xarray.Dataset(variables, {"t": solution.ts} | coordinates, status | plain(solution.stats))


def state_variables(solution, flat, lead, reserved=RESERVED):
    """({name: (dims, array)}, coordinates) of states (*, n), one variable for each leaf of a solution's structure.

    lead : names of the leading dimensions; reserved : names that no variable may take
    """
    structure, state = solution.structure, solution.state
    if structure is None or (structure.is_array and len(structure.root.shape) == 1):
        return {"y": ((*lead, "state"), flat)}, {"state": list(solution.names)}
    variables, coordinates, names = {}, {}, leaf_names(structure, state, reserved)
    for name, (_, leaf) in zip(names, structure.leaves, strict=True):
        inner = dimensions(name, len(leaf.shape), names)
        variables[name] = ((*lead, *inner), _rows(flat, leaf))
        if state and len(leaf.shape) == 1:
            coordinates[inner[0]] = list(state[leaf.offset : leaf.offset + leaf.size])
    return variables, coordinates


def leaf_names(structure, state=None, reserved=RESERVED):
    """A short name for each leaf of a structure: 'angle' for y['angle'], 'arm.angle', 'y[0]'; 'y' for an array.

    state : names of the components, or None; a leaf that is one number takes its own
    reserved : names that belong to something else
    """
    given = component_names(structure, state)
    short = [given[leaf.offset] if state and leaf.shape == () else _short(path) for path, leaf in structure.leaves]
    return [
        name if short.count(name) == 1 and name not in reserved else f"y{path}"
        for name, (path, _) in zip(short, structure.leaves, strict=True)
    ]


def _short(path):
    """'arm.angle' for "['arm'].angle"; 'y[0]' for '[0]'."""
    found = dotted(path)
    return found[1:] if found.startswith(".") else f"y{found}"


def dotted(path):
    """'.arm.angle' for "['arm'].angle"."""
    return re.sub(r"\['([^'\[\]]*)'\]", r".\1", path)


def dimensions(name, count, taken):
    """Names <name>_0, <name>_1, ... of the dimensions of a variable, none of them among the names taken."""
    return tuple(free_name(f"{name}_{k}", taken) for k in range(count))


def free_name(name, taken):
    """The name, with underscores after it until it is none of those taken."""
    while name in taken:
        name += "_"
    return name


def _rows(flat, leaf: Leaf):
    return flat[..., leaf.offset : leaf.offset + leaf.size].reshape(*flat.shape[:-1], *leaf.shape)


def plain(stats):
    """The entries that are numbers or text, as netCDF takes them for attributes."""
    return {k: v for k, v in stats.items() if isinstance(v, (int, float, str, np.number))}
