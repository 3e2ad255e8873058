"""Two worker processes against one: python tests/benchmarks/executors.py [CASE ...] [--seconds S] [--quick]

Cases: dask (a LocalCluster), processes (ProcessPoolExecutor), left (rows left on the cluster); all by default.
--seconds is what an ensemble takes one worker, in chunks of about a second; --quick takes little, to see that
everything runs. Results are compared with those of this process to the bit before anything is timed. Rows are case,
goal, measured; medians of runs that alternate between one worker and two.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np

import odec

GOAL = 1.8
SPAN = (0.0, 20.0)
OPTIONS = {"batched": "rho", "rtol": 1e-8, "atol": 1e-8, "method": "tsit5"}
KEPT = np.linspace(*SPAN, 21)


@odec.dynamics
def lorenz(t, y, rho=28.0):
    return [10 * (y[1] - y[0]), y[0] * (rho - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]]


def solved(size, executor=None, **where):
    return odec.solve_ensemble(
        lorenz, SPAN, np.ones(3), (np.linspace(0.0, 28.0, size),), t_eval=KEPT, executor=executor, **OPTIONS, **where
    )


@contextlib.contextmanager
def dask_client(workers):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def processes(workers):
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


CASES = {"dask": (dask_client, {}), "processes": (processes, {}), "left": (dask_client, {"gather": False})}


def seconds_of(size, executor, where):
    began = time.perf_counter()
    solved(size, executor, **where)
    return time.perf_counter() - began


def check(executor, where):
    here, there = solved(200), solved(200, executor, **where)
    if where:
        there = dataclasses.replace(there, flat_rows=executor.compute(there.flat_rows).result())
    assert here.ys.tobytes() == there.ys.tobytes() and here.y1.tobytes() == there.y1.tobytes()


def measure(case, seconds, repeats):
    make, where = CASES[case]
    with make(1) as one, make(2) as two:
        for executor in (one, two):
            check(executor, where)
        few = 2000 if seconds > 1 else 200
        size = max(few, int(few * seconds / seconds_of(few, one, where)))
        pairs = [(seconds_of(size, one, where), seconds_of(size, two, where)) for _ in range(repeats)]
    alone, both = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"| {case}, {size:,} members | {GOAL} | {ratio:.2f} ({alone:.2f} s, {both:.2f} s) |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of {', '.join(CASES)}")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    for case in given.cases:
        if case not in CASES:
            parser.error(f"case {case!r} is not known; it is one of {', '.join(CASES)}")
    print("| two workers against one | goal | measured |\n|---|---|---|")
    for case in given.cases or CASES:
        measure(case, *((0.5, 1) if given.quick else (given.seconds, 5)))


if __name__ == "__main__":
    main()
