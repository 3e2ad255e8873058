"""The loop as machine code, for each dtype of the state."""

from __future__ import annotations

import functools
import threading

from odec.codegen.numba_bridge import loop_function
from odec.integrate import control, events, interpolate, loop, start

_one_at_a_time = threading.Lock()
PARTS = (
    control.log2_rough, control.exp2_rough, control.accepted_log, control.rejected_factor,
    interpolate.state_at, interpolate.copy, interpolate.time_after, interpolate.state_after,
    interpolate.keep_row, interpolate.keep_segment, events.sign, events._values, events._root, events._record,
    events.find_events, events._never_left, events.next_size, events.reset_state, events.first_sides,
    events.set_sides, start._scaled_norm, start.slope_at, start.start,
    loop._come_home,
)  # fmt: skip


def compiled_loop(dtype, with_events):
    """`loop.integrate` compiled for states of `dtype`, called as `loop_function` says; threads wait for the first."""
    with _one_at_a_time:
        return _compiled_loop(dtype, with_events)


@functools.cache
def _compiled_loop(dtype, with_events):
    state, real, whole = f"{dtype}*", "float64*", "int64*"
    parameters = (
        *["int"] * 3, *["int" if with_events else "none"] * 2, whole,  # step, rhs, dense; events, rates; resets
        *[state] * 12, whole, real,  # y, y_next, f0, f1, k, q, p, rtol, atol, work, g, trial; watch, roots
        real, real, real, state, real, state,  # t_eval, stops, ts, ys, marks, segments
        real, whole, state, real, whole,  # fired_t, fired_e, fired_y; real, count
    )  # fmt: skip
    return loop_function("integrate", loop.integrate, parameters, PARTS)
