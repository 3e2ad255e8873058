"""Solutions as xarray Datasets."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from odec.graph.structure import Leaf, component_names

RESERVED = ("t", "state")  # names of coordinates


def _xarray() -> Any:
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
    xarray = _xarray()
    variables, coordinates = {}, {"t": solution.ts}
    structure = solution.structure
    if structure is None or (structure.is_array and len(structure.root.shape) == 1):
        variables["y"] = (("t", "state"), solution.flat_rows)
        coordinates["state"] = list(solution.names)
    else:
        names = leaf_names(structure, solution.state)
        for name, (_, leaf) in zip(names, structure.leaves, strict=True):
            dims = ("t", *(_dimension(name, k, names) for k in range(len(leaf.shape))))
            variables[name] = (dims, _rows(solution.flat_rows, leaf))
            if solution.state and len(leaf.shape) == 1:
                coordinates[dims[1]] = list(solution.state[leaf.offset : leaf.offset + leaf.size])
    return xarray.Dataset(variables, coordinates, _attributes(solution))


def leaf_names(structure, state=None):
    """A short name for each leaf of a structure: 'angle' for y['angle'], 'arm.angle', 'y[0]'; 'y' for an array.

    state : names of the components, or None; a leaf that is one number takes its own
    """
    given = component_names(structure, state)
    short = [given[leaf.offset] if state and leaf.shape == () else _short(path) for path, leaf in structure.leaves]
    return [
        name if short.count(name) == 1 and name not in RESERVED else f"y{path}"
        for name, (path, _) in zip(short, structure.leaves, strict=True)
    ]


def _short(path):
    """'arm.angle' for "['arm'].angle"; 'y[0]' for '[0]'."""
    dotted = re.sub(r"\['([^'\[\]]*)'\]", r".\1", path)
    return dotted[1:] if dotted.startswith(".") else f"y{dotted}"


def _dimension(name, k, taken):
    dimension = f"{name}_{k}"
    while dimension in taken:
        dimension += "_"
    return dimension


def _rows(flat_rows, leaf: Leaf):
    return flat_rows[:, leaf.offset : leaf.offset + leaf.size].reshape(len(flat_rows), *leaf.shape)


def _attributes(solution):
    found = {"model": solution.name, "status": solution.status.name, "message": solution.message}
    return found | {k: v for k, v in solution.stats.items() if isinstance(v, (int, float, str, np.number))}
