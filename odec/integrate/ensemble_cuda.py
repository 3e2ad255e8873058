"""Running a batch on a GPU, one member a thread: what travels there and back, in as many launches as memory asks."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from odec.codegen.cuda_driver import LOCAL_LIMIT, OUT_OF_MEMORY, Device, DriverError, Function, Occupancy, device
from odec.errors import ArgumentError
from odec.integrate import slots as at
from odec.integrate.advance import rules_of
from odec.integrate.batch import NONE_KEPT, Fired, Results
from odec.integrate.ensemble import ROUND, member_arrays, partials_of
from odec.integrate.roots import SAMPLES
from odec.integrate.thread_kernel import Asked, ThreadKernel, thread_kernel

SHARE = 0.8  # of the free memory that a launch may take
FIRST_ROOM = 16  # events of a member at first, beside what one step may find
MORE_ROOM = 4  # times the room, for members that had more events
FEWEST = 32  # members of a launch, however little memory there is
MEMBER_BYTES = 8 * (at.TALLIES + 3)  # of a launch for each member, beside states, parameters, rows and events
_known: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # Systems -> {what a kernel depends on: Loaded}


@dataclass(frozen=True, eq=False)
class Loaded:
    """A kernel on a GPU. held : what its key names by identity; lock : of its constants, one solve at a time."""

    gpu: Device
    kernel: Any
    function: Function
    held: Any
    lock: threading.Lock


def run_batch_cuda(system, method, batch, reduce=(), reached=None, on_device=False, gpu=None):
    """The Results of a Batch; with `on_device`, y1 and ys are arrays in the GPU's memory.

    reduce, reached : as for run_batch; gpu : a Device, None for the first of this process

    Raises
    ------
    ArgumentError : there is no GPU, a member needs more memory than a thread can have, or what is to stay on the GPU
        does not fit
    """
    if on_device and reduce:
        raise ArgumentError(f"{system.name}: on_device and reduce exclude each other, for reductions come to the host.")
    loaded = prepare_cuda(system, method, batch, gpu)
    with loaded.lock:
        run = Run(system.name, loaded, method, batch)
        return run.on_device() if on_device else run.gathered(reduce, reached)


def report(system, method, batch, gpu=None) -> Occupancy:
    """Registers, local memory, block and occupancy of the kernel of a batch, as the GPU's driver has them."""
    return prepare_cuda(system, method, batch, gpu).function.occupancy


def kernel_of(system, method, batch, records=False) -> ThreadKernel:
    """The ThreadKernel of a batch; records : as it says."""
    own = batch.parameters is not None
    return thread_kernel(system, method, own_columns(batch), own, batch.problem.events, records)


def own_columns(batch):
    """The places of the flat parameters in which the members of a batch differ, as a key."""
    return () if batch.parameters is None else tuple(map(int, batch.columns))


def prepare_cuda(system, method, batch, gpu=None, records=False):
    """The kernel of a batch, Loaded: made, compiled and put on the GPU once for a system and what members differ in."""
    events = batch.problem.events
    key = method.digest, batch.parameters is None, own_columns(batch), id(events), records
    return prepared(system, key, lambda: kernel_of(system, method, batch, records), gpu, events)


def prepared(system, key, make, gpu=None, held=None):
    """What `make` makes, Loaded: once for a system and a key. held : what the key names by identity"""
    gpu = gpu or device()
    known, key = _known.setdefault(system, {}), (id(gpu), *key)
    if key not in known:
        kernel = make()
        _check_size(system.name, kernel, gpu)
        known[key] = Loaded(gpu, kernel, gpu.compiled(kernel), (gpu, held), threading.Lock())
    return known[key]


def _check_size(name, kernel, gpu):
    """ArgumentError where a thread cannot have what a member needs."""
    needed = kernel.local_bytes
    cure = "use target='cpu', a method of fewer stages, or dtype='float32'."
    if needed > LOCAL_LIMIT:
        raise ArgumentError(
            f"{name}: a member needs {needed:,} bytes of its own on the GPU, and a thread can have {LOCAL_LIMIT:,}; "
            f"{cure}"
        )
    if needed * gpu.resident > gpu.free_bytes():
        raise ArgumentError(
            f"{name}: a member needs {needed:,} bytes of its own, {gpu.name} runs up to {gpu.resident:,} members at a "
            f"time, and {gpu.free_bytes():,} bytes of its memory are free; {cure}"
        )


class Run:
    """One run of a batch on a loaded kernel."""

    def __init__(self, name, loaded, method, batch):
        self.name, self.loaded, self.method, self.batch = name, loaded, method, batch
        self.gpu, self.kernel, self.function = loaded.gpu, loaded.kernel, loaded.function
        self.dtype, self.n = np.dtype(self.kernel.dtype), self.kernel.sizes.n
        self.n_events = self.kernel.sizes.events
        constants = {"rules": rules_of(method, batch.problem), "p": batch.problem.p}
        if method.adaptive:
            constants |= {k: np.broadcast_to(getattr(batch.problem, k), self.n) for k in ("rtol", "atol")}
        for constant, (_, dtype) in self.kernel.shared.items():
            self.function.set_constant(f"shared_{constant}", np.ascontiguousarray(constants[constant], dtype))

    def gathered(self, reduce, reached):
        """The Results in the host's memory; `reduce`d round by round of whole blocks."""
        batch, size = self.batch, self.batch.size
        step = max(1, ROUND // batch.block) * batch.block if reduce else size
        held = np.empty((min(step, size), batch.rows, self.n), self.dtype)
        found, events = Results.waiting(np.empty(size), np.empty((size, self.n), self.dtype), held), []
        for start in range(0, size, step):
            stop = min(start + step, size)
            rows = found.ys[: stop - start]
            tally = np.empty((stop - start, at.TALLIES), np.int64)
            places = {"t_end": found.t1[start:stop], "y_end": found.y1[start:stop], "tally": tally, "ys": rows}
            events += [
                (who + start, *rest) for who, *rest in self.fill(batch.part(start, stop), places, reached, start)
            ]
            self.count(found, start, tally)
            if reduce:
                found.partials += partials_of(batch, found, rows, start, stop, reduce)
        found.ys, found.fired = NONE_KEPT if reduce else found.ys, self.collected(events)
        return found

    def on_device(self):
        """The Results with states and rows left on the GPU."""
        batch, size, room = self.batch, self.batch.size, self.first_room
        tally, launch = None, None
        while tally is None or (tally[:, at.ENDED_AS] == at.NEEDS_ROOM).any():
            if self.fitting(batch, room) < size:
                raise ArgumentError(
                    f"{self.name}: the results of {size:,} members do not fit on the GPU beside their inputs, and "
                    "on_device asks them to stay there; solve fewer at a time, or leave on_device out."
                )
            launch = self.launch(batch, room)
            tally, room = launch["tally"].numpy(), MORE_ROOM * room
        assert launch is not None and tally is not None
        found = Results.waiting(launch["t_end"].numpy(), launch["y_end"].public(), launch["ys"].public())
        self.count(found, 0, tally)
        found.fired = self.collected([self.events_of(launch)])
        return found

    def count(self, found, start, tally):
        """Write down how the members from `start` on ended, and the steps that their threads tried."""
        found.note(start, self.method, tally)
        found.slots += int(tally[:, [at.TOOK, at.REFUSED]].sum())

    # ---- launches

    @property
    def first_room(self):
        return FIRST_ROOM + SAMPLES * self.n_events if self.n_events else 0

    def fill(self, part, places, reached, before, room=None):
        """Solve a part in as many launches as it takes; its events as (members, indices, times, states) columns."""
        start, events, limit = 0, [], part.size
        room = self.first_room if room is None else room
        while start < part.size:
            size = min(part.size - start, max(FEWEST, min(limit, self.fitting(part, room))))
            some = part.part(start, start + size)
            try:
                launch = self.launch(some, room)
            except DriverError as error:
                if error.code != OUT_OF_MEMORY or size <= FEWEST:
                    raise
                limit = size // 2  # others have taken memory meanwhile
                continue
            here = {name: place[start : start + size] for name, place in places.items()}
            for name, place in here.items():
                place[...] = launch[name].numpy().reshape(place.shape)
            who, *rest = self.events_of(launch)
            events.append((who + start, *rest))
            del launch
            events += [(who + start, *rest) for who, *rest in self.fill_short(some, here, room)]
            start += size
            if reached is not None:
                reached(before + start)
        return events

    def fill_short(self, part, places, room):
        """Solve those members again that had more events than there was room for; their events."""
        short = np.flatnonzero(places["tally"][:, at.ENDED_AS] == at.NEEDS_ROOM)
        if not short.size:
            return []
        own = {name: getattr(part, name) for name in ("begins", "ends", "states", "parameters", "times")}
        chosen = replace(part, size=len(short), **{name: a if a is None else a[short] for name, a in own.items()})
        again = {name: place[short] for name, place in places.items()}
        events = self.fill(chosen, again, None, 0, MORE_ROOM * room)
        for name, place in places.items():
            place[short] = again[name]
        return [(short[who], *rest) for who, *rest in events]

    def launch(self, part, room, starts=None):
        """Solve a part that fits; {name: DeviceArray} of what it leaves.

        starts (size + 1,) : of a kernel that records, where the record of each member starts, and the last one ends
        """
        size, rows, n, gpu = part.size, part.rows, self.n, self.gpu
        arrays = member_arrays(part, self.dtype)
        events = part.problem.events
        arrays |= {"stops": np.array(part.problem.tstops, float), "large_p": arrays["p"],
                   "first_watch": events.watched if events else np.empty(0, np.int64)}  # fmt: skip
        shapes = {
            "ys": (size, rows, n), "fired_t": (size, room), "fired_e": (size, room), "fired_m": (size, room),
            "fired_y": (size, room, n), "t_end": (size,), "y_end": (size, n), "tally": (size, at.TALLIES),
            "fired": (size,),
        }  # fmt: skip
        if starts is not None:
            arrays["starts"] = starts
            shapes |= {"marks": (starts[-1], at.ROUND_MARKS), "segments": (starts[-1], n)}
        launch = self.kernel.launch
        read = {name: gpu.copy_of(arrays[name]) for name in launch.read}
        left = {name: gpu.empty(shapes[name], dtype or self.dtype) for name, dtype in launch.written.items()}
        left["ys"].fill_bytes(0xFF)  # nan, where a member does not get so far
        own = (int(a is not None) for a in (part.begins, part.ends, part.states, part.times))
        asked = Asked._make((size, *own, rows, len(part.problem.tstops), room))
        self.function.launch(size, asked, [*read.values(), *left.values()])
        gpu.wait()
        return left

    def fitting(self, part, room):
        """How many members of a part fit on the GPU with all that they read and leave."""
        state = self.dtype.itemsize * self.n
        each = MEMBER_BYTES + state * (1 + part.rows) + room * (24 + state)
        for name, size in (("begins", 8), ("ends", 8), ("states", state)):
            each += size if getattr(part, name) is not None else 0
        each += 0 if part.parameters is None else self.dtype.itemsize * part.parameters.shape[1]
        each += 0 if part.times is None else 8 * part.rows
        return int(SHARE * self.gpu.free_bytes()) // each

    # ---- events

    def events_of(self, launch):
        """(members, indices, times, states) of the events of a launch, those of members without room left out."""
        if not self.n_events:
            return self.none
        count = np.where(launch["tally"].numpy()[:, at.ENDED_AS] == at.NEEDS_ROOM, 0, launch["fired"].numpy())
        columns = [launch[name].numpy() for name in ("fired_e", "fired_t", "fired_y")]
        there = np.arange(columns[0].shape[1]) < count[:, None]
        return (np.nonzero(there)[0], *(column[there] for column in columns))

    @property
    def none(self):
        """The events of no members."""
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty((0, self.n), self.dtype)

    def collected(self, events):
        """The events of all members, by member."""
        who, *rest = (np.concatenate(column) for column in zip(self.none, *events, strict=True))
        order = np.argsort(who, kind="stable")
        return Fired(who[order], *(column[order] for column in rest))
