"""One member a thread: what surrounds the loop on a GPU, as LLVM IR, as PTX and as readable Python.

The loop is the CPU's (loop.py). What it works on lies in the thread's own buffers, of sizes that are known when the
kernel is made, so that a compiler can keep them in registers.
"""

from __future__ import annotations

import ast
import functools
import inspect
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from odec.codegen.print_llvm import TYPES, print_llvm, table_text
from odec.codegen.print_python import print_python
from odec.codegen.targets import CUDA
from odec.integrate import events, interpolate, loop, start
from odec.integrate import slots as at
from odec.integrate.compiled import loop_signature, loop_text
from odec.integrate.loop import Kept, Kernels, Lanes, Members, integrate

NAME = "ensemble"
WITHOUT_END = 2**62  # steps before a pause


class Sizes(NamedTuple):
    """What is known when the kernel is made: slots of count and whole, as slots.py names them."""

    n: int
    m: int
    p_stride: int
    carried: int
    degree: int
    events: int
    exponent: int
    adaptive: int
    own_p: int
    own_parameters: int


class Asked(NamedTuple):
    """What a launch is asked for: members, in what they differ, rows, stops, room for the events of a member."""

    size: int
    own_begin: int
    own_end: int
    own_state: int
    own_times: int
    times: int
    stops: int
    room: int


def trajectory(member, sizes, asked, kernels, values, rates, lanes, members, kept, fired, whole):
    """Solve one member in buffers of its own; fired[member] : how many events it had.

    A member whose events need more room than there is ends with the status NEEDS_ROOM.
    """
    count, room = lanes.count, asked.room
    for slot in range(at.COUNTS):
        count[slot] = 0
    for slot in range(at.WHOLES):
        whole[slot] = 0
    for slot in range(at.TASKS):
        lanes.task[slot] = 0.0
    count[at.N], count[at.M], count[at.P_STRIDE], count[at.CARRIED] = sizes.n, sizes.m, sizes.p_stride, sizes.carried
    count[at.DEGREE], count[at.EVENTS], count[at.EXPONENT] = sizes.degree, sizes.events, sizes.exponent
    whole[at.ADAPTIVE], whole[at.OWN_P], whole[at.OWN_PARAMETERS] = sizes.adaptive, sizes.own_p, sizes.own_parameters
    whole[at.OWN_BEGIN], whole[at.OWN_END], whole[at.OWN_STATE] = asked.own_begin, asked.own_end, asked.own_state
    whole[at.OWN_TIMES], whole[at.TIMES], whole[at.STOPS] = asked.own_times, asked.times, asked.stops
    whole[at.SIZE], whole[at.IDLE], whole[at.MORE], whole[at.PAUSE] = member + 1, 1, 1, WITHOUT_END
    whole[at.FIRED_ROOM], members.queue[0] = room, member
    own = Kept(
        kept.ts, kept.ys, kept.marks, kept.segments, offset(kept.fired_t, member * room),
        offset(kept.fired_e, member * room), offset(kept.fired_m, member * room),
        offset(kept.fired_y, member * room * sizes.n), kept.t_end, kept.y_end, kept.tally,
    )  # fmt: skip
    if integrate(kernels, values, rates, lanes, members, own, whole) == NEEDS_ROOM:
        kept.tally[member * at.TALLIES + at.ENDED_AS] = NEEDS_ROOM
    fired[member] = whole[at.ALL_FIRED]
    return 0
