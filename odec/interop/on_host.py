"""Ensembles whose states lie on a GPU, brought to this machine's memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

COPIES = ("copy_to_host", "get")  # what Numba and CuPy call it


def on_host(solution):
    """An EnsembleSolution with states and rows in NumPy arrays, nan where a member failed; else itself.

    solution : EnsembleSolution, solved with on_device=True or not
    """
    if not hasattr(solution.flat_y1, "__cuda_array_interface__"):
        return solution
    failed = ~np.asarray(solution.success)
    ends, rows = _copied(solution.flat_y1), solution.flat_rows
    ends[failed] = np.nan
    if rows is not None:
        rows = _copied(rows)
        t0, t1 = (np.ravel(t)[0] for t in solution.t_span)
        times = solution.ts if solution.ts.ndim == 1 else solution.ts[failed]
        late = (times - solution.t1[failed, None]) * np.sign(t1 - t0) > 0.0
        rows[failed] = np.where(late[:, :, None], np.nan, rows[failed])
    return replace(solution, flat_y1=ends, flat_rows=rows)


def _copied(array):
    copy = next(getattr(array, name) for name in COPIES if hasattr(array, name))
    return np.array(copy())
