"""What one run of the loop works on, and the call that advances it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from odec.codegen.compile import address
from odec.integrate import slots as at
from odec.integrate.compiled import compiled_loop
from odec.integrate.loop import integrate
from odec.integrate.problem import NO_TIMES

CHANGING = 9  # arguments of the loop that change from call to call: t_eval, stops and what is kept


class Buffers:
    """What one run of the loop works on, laid out in two allocations, and the call that advances it.

    state : a vector (n,) to work on in place of one of its own
    """

    def __init__(self, solver, interpolates, events, state=None):
        method, n, m = solver.method, solver.n, solver.m
        self.method, self.events, python = method, events, solver.python
        slope, tolerance = n if method.carries_slope else 0, n if method.adaptive else 0
        n_events = len(events.resets) if events else 0
        dense = solver.dense if interpolates else solver.step  # never called without
        kernels = [solver.step, solver.rhs, dense, events and events.values, events and events.rates]
        resets = list(events.resets) if events else []
        work = 0 if python else max(k.work_size for k in (*kernels, *resets) if k is not None)
        sizes = {
            "y": n if state is None else 0, "y_next": n, "f0": slope, "f1": slope, "k": len(method.kept) * n,
            "q": method.degree * n if interpolates else 0, "p": m, "rtol": tolerance, "atol": tolerance, "work": work,
            "g": 5 * n_events, "trial": n + m if events else tolerance,
        }  # fmt: skip
        vectors, numbers = _Block(solver.dtype, *sizes.values()), _Block(np.float64, n_events, at.REALS)
        named = dict(zip(sizes, vectors.parts, strict=True))
        self.state, self.slope, self.p, self.rtol, self.atol, self.work = (
            named[name] for name in ("y", "f0", "p", "rtol", "atol", "work")
        )
        counts = np.zeros(at.COUNTS, np.int64)
        self.real, self.count = _view(numbers.parts[1]), _view(counts)
        self.watch = events.watched if events else np.zeros(0, np.int64)
        self.size = sum(map(len, vectors.parts)) + sum(map(len, numbers.parts))
        self._cleared = np.zeros(at.REALS), np.zeros(at.COUNTS, np.int64)
        sizes_of = n, m, slope, method.degree, method.error_exponent, int(method.adaptive), n_events
        self._cleared[1][at.N : at.N + len(sizes_of)] = sizes_of
        place = (lambda array: array) if python else address
        if not python:
            kernels = [0 if k is None else k.address for k in kernels]
            resets = np.array([0 if r is None else r.address for r in resets], np.int64)
        buffers = vectors.parts if python else vectors.addresses
        if state is not None:
            self.state, buffers[0] = state, place(state)
        roots, real = numbers.parts if python else numbers.addresses
        head = (*kernels, place(resets), *buffers, place(self.watch), roots)
        tail = (real, place(counts))
        self._blocks = vectors, numbers, counts, resets, state  # what the addresses point into
        loop: Callable = integrate if python else compiled_loop(solver.dtype.name, events is not None)
        self._run = (lambda places: loop(*head, *places, *tail)) if python else _calling(loop, head, tail)

    def advance(self, places):
        """Run the loop until it pauses or ends; the status."""
        return self._run((self._times, self._stops, *places))

    def place(self):
        """(t, y, p, h) where the loop is."""
        return self.real[at.T], self.state, self.p, min(abs(self.real[at.H]), self.real[at.MAX_STEP])

    def start(self, problem):
        """Fill in a problem; the cleared slots of the loop's own state."""
        real, count = self.real, self.count
        if self.state is not problem.y:
            self.state[:] = problem.y
        self.p[:] = problem.p
        if self.method.adaptive:
            self.rtol[:], self.atol[:] = problem.rtol, problem.atol
        real[:], count[:] = self._cleared
        t0, t1 = problem.span
        self._times = NO_TIMES if problem.t_eval is None else problem.t_eval
        self._stops = np.array((*problem.tstops, t1))
        gains = problem.controller.gains(self.method.error_exponent)
        real[at.GAINS : at.GAINS + len(gains)] = gains
        real[at.T], real[at.T_END] = t0, t1
        real[at.MIN_STEP], real[at.MAX_STEP] = problem.min_step, problem.max_step
        real[at.H] = problem.first_step if t1 > t0 else -problem.first_step
        count[at.MAX_STEPS], count[at.STOPS] = problem.max_steps, len(self._stops)
        count[at.EVALS] = at.EVERY_STEP if problem.t_eval is None else len(self._times)
        count[at.DENSE] = int(problem.dense)
        return real, count


def _calling(loop, head, tail):
    """The loop as machine code, its arguments in one array: called with the arrays that change from call to call."""
    first = len(head)
    arguments = np.array((*head, *(0,) * CHANGING, *tail), np.int64)
    slots, where = _view(arguments), address(arguments)

    def run(places, _held=arguments):
        for i, array in enumerate(places, first):
            slots[i] = address(array)
        return loop(where)

    return run


def _view(array) -> Any:
    """The numbers of an array, read and written one by one three times as quickly."""
    return memoryview(array)


class _Block:
    """Buffers of the sizes side by side in one allocation, and their addresses."""

    def __init__(self, dtype, *sizes):
        block = np.empty(sum(sizes) + 1, dtype)
        base, start = address(block), 0
        self.parts, self.addresses = [], []
        for size in sizes:
            self.parts.append(block[start : start + size])
            self.addresses.append(base + start * block.itemsize)
            start += size
