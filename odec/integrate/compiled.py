"""The loop as machine code, for each dtype of the state."""

from __future__ import annotations

import functools
import threading

from odec.codegen.numba_bridge import loop_function
from odec.integrate import control, loop

_one_at_a_time = threading.Lock()


def compiled_loop(dtype):
    """`loop.integrate` compiled for states of `dtype`, taking addresses; threads wait for the first to compile it."""
    with _one_at_a_time:
        return _compiled_loop(dtype)


@functools.cache
def _compiled_loop(dtype):
    state, real = f"{dtype}*", "float64*"
    parameters = (
        *["int"] * 5,  # step, rhs, n, stages, order
        *[state] * 9,  # y, y_next, k, k_next, f0, p, rtol, atol, work
        real, real, "int", real, real, state, real, "int64*",  # t_eval, dense, degree, weights, ts, ys, real, count
    )  # fmt: skip
    helpers = (
        control.log2_rough, control.exp2_rough, control.accepted_factor,
        control.rejected_factor, loop._come_home, loop._save_start, loop._interpolate, loop._scaled_norm, loop._start,
    )  # fmt: skip
    return loop_function("integrate", loop.integrate, parameters, helpers)
