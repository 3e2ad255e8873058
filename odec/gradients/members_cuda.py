"""The discrete adjoint of an ensemble on a GPU, one member a thread: its members are solved again with their accepted
steps on record, as many at a time as the GPU's memory takes, and gone back over.

As on the CPU (members.py), and by the same loops.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from odec.codegen.cuda_driver import OUT_OF_MEMORY, DriverError
from odec.errors import ArgumentError, Status
from odec.gradients.members import Cotangents, nothing_yet
from odec.gradients.thread_back import READ, WRITTEN, Asked, back_kernel
from odec.integrate import slots as at
from odec.integrate.ensemble import member_arrays
from odec.integrate.ensemble_cuda import MEMBER_BYTES, SHARE, Run, own_columns, prepare_cuda, prepared
from odec.integrate.problem import NO_TIMES

MORE_STEPS = 16  # beside twice as many, for members that took more steps than when they were solved first


class MembersBackOnCuda:
    """The discrete adjoint of a Batch, all of whose members succeed.

    system : System; record : of the method; steps, tries (size,) : that each member takes, and tries
    """

    def __init__(self, system, record, batch, steps, tries):
        self.system, self.record, self.batch, self.steps, self.tries = system, record, batch, steps, tries
        self.bare = replace(batch, times=None, problem=replace(batch.problem, t_eval=NO_TIMES))
        self.forward = prepare_cuda(system, record, self.bare, records=True)
        columns, own, rows = own_columns(batch), batch.parameters is not None, batch.rows > 0
        key = "back", record.digest, columns, own, rows
        make = lambda: back_kernel(system, record, columns, own, rows)
        self.backward = prepared(system, key, make, self.forward.gpu)
        self.n, self.m, self.dtype = system.y_structure.size, system.p_structure.size, np.dtype(system.dtype)

    def pull(self, rows_bar):
        """The PulledMembers of cotangents rows_bar (size, rows, n) of the rows, without times (size, 1, n).

        Raises
        ------
        ArgumentError : the record of one member alone does not fit on the GPU
        """
        size = self.batch.size
        found, start, most = nothing_yet(self.batch, self.n, self.m, self.dtype), 0, size
        with self.forward.lock:
            run = Run(self.system.name, self.forward, self.record, self.bare)
            while start < size:
                stop = start + max(1, min(most, self.fitting(start)))
                try:
                    pulled = self._pull(run, start, stop, rows_bar[start:stop])
                except DriverError as error:
                    if error.code != OUT_OF_MEMORY:
                        raise
                    if stop - start == 1:
                        raise self._no_room(start) from None
                    most = (stop - start) // 2
                    continue
                found.take(pulled, slice(start, stop), self.batch.columns)
                start = stop
        return found

    def fitting(self, start):
        """How many members from `start` on fit on the GPU with their records; ArgumentError where not one does."""
        state, batch = self.dtype.itemsize, self.batch
        each = (
            MEMBER_BYTES + 8 * at.ROUND_MARKS + 16 * batch.rows + state * (self.m + self.n * (3 + max(batch.rows, 1)))
        )
        each += 0 if batch.parameters is None else state * batch.parameters.shape[1]
        filled = np.cumsum(self.steps[start:] * self._step_bytes + each)
        fits = int(np.searchsorted(filled, SHARE * self.forward.gpu.free_bytes(), "right"))
        if not fits:
            raise self._no_room(start)
        return fits

    @property
    def _step_bytes(self):
        return 8 * at.ROUND_MARKS + self.dtype.itemsize * self.n

    def _no_room(self, member):
        steps, gpu = int(self.steps[member]), self.forward.gpu
        return ArgumentError(
            f"{self.system.name}: the record of a member of {steps:,} steps takes {steps * self._step_bytes:,} bytes, "
            f"and {gpu.free_bytes():,} bytes of {gpu.name}'s memory are free; use target='cpu', or looser tolerances."
        )

    def _pull(self, run, start, stop, rows_bar):
        """The Cotangents of the members from start to stop."""
        recorded = self._forwards(run, self.bare.part(start, stop), self.steps[start:stop])
        return self._backwards(self.batch.part(start, stop), recorded, rows_bar)

    def _forwards(self, run, part, steps):
        """{name: DeviceArray} of what members leave that are solved again, on record."""
        while True:
            starts = np.concatenate([[0], np.cumsum(steps)])
            left = run.launch(part, 0, starts)
            ended = left["tally"].numpy()[:, at.ENDED_AS]
            short = ended == at.NEEDS_ROOM
            if not short.any():
                assert (ended == Status.SUCCESS).all()
                return left | {"starts": self.forward.gpu.copy_of(starts)}
            steps = np.where(short, 2 * steps + MORE_STEPS, steps)

    def _backwards(self, part, recorded, rows_bar):
        gpu, size, rows = self.forward.gpu, part.size, part.rows
        arrays = member_arrays(part, self.dtype)
        t0, t1 = (float(np.ravel(arrays[name])[0]) for name in ("begins", "ends"))
        arrays |= {"stops": np.array(part.problem.tstops, float), "rows_bar": rows_bar.astype(self.dtype, copy=False)}
        given = recorded | {"states": recorded["segments"]}
        read = [given[name] if name in given else gpu.copy_of(arrays[name]) for name in READ]
        shapes = {"times_bar": (size, rows), "y0_bar": (size, self.n), "p_sum": (size, self.m)}
        left = {name: gpu.empty(shapes.get(name, (size,)), dtype or self.dtype) for name, dtype in WRITTEN.items()}
        for array in left.values():
            array.fill_bytes(0)
        asked = Asked(size, rows, int(part.times is not None), len(arrays["stops"]), 1 if t1 > t0 else -1)
        self.backward.function.launch(size, asked, [*read, *left.values()])
        gpu.wait()
        found = {name: array.numpy() for name, array in left.items()}
        return Cotangents(found["y0_bar"], found["p_sum"], found["t0_bar"], found["t1_bar"], found["times_bar"])
