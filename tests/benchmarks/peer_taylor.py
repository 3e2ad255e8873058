"""Solves to machine epsilon by heyoka behind a pipe, for taylor.py: peer_taylor.py heyoka CASE.npz

The case is Lorenz's equations where the file has y, bodies that attract each other where it has masses, else a chain
between springs. A line of JSON comes first, {"codes": [...]}; then one request a line, {"code": name, "t1": end,
"path": file or null}, and one answer a line, {"seconds": s, "steps": n, "compile": s}: a solve from 0 to t1, whose end
state is saved at the path, (n,) of Lorenz's equations, else q and v behind each other; and what it took to compile the
code when it was first asked for.
"""

from __future__ import annotations

import functools
import json
import statistics
import sys
import time

import heyoka as hy
import numpy as np

CUBIC = 0.25


def lorenz(given):
    x, y, z = hy.make_vars("x", "y", "z")
    return [(x, 10 * (y - x)), (y, x * (28.0 - z) - y), (z, x * y - 8 / 3 * z)], given["y"], slice(None)


def bodies(given):
    """heyoka has the positions and speeds of one body after another."""
    count = len(given["masses"])
    system = hy.model.nbody(count, masses=given["masses"], Gconst=float(given["gravity"]))
    mine = np.arange(6 * count).reshape(count, 2, 3).swapaxes(0, 1).ravel()
    return system, np.hstack([given["q"], given["v"]]).ravel(), mine


def chain(given):
    count = len(given["q"])
    q, v = (hy.make_vars(*(f"{name}{i}" for i in range(count))) for name in "qv")
    stretched = [b - a for a, b in zip([hy.expression(0.0), *q], [*q, hy.expression(0.0)])]
    pull = [x + CUBIC * x * (x * x) for x in stretched]
    system = [*zip(q, v), *((v[i], pull[i + 1] - pull[i]) for i in range(count))]
    return system, np.concatenate([given["q"], given["v"]]), slice(None)


def codes(path):
    """{name of a code: function of the end -> (seconds, steps, end state, seconds to compile)}"""
    given = np.load(path)
    system, start, mine = lorenz(given) if "y" in given else bodies(given) if "masses" in given else chain(given)

    @functools.cache
    def solver(compact):
        began = time.perf_counter()
        made = hy.taylor_adaptive(system, start, compact_mode=compact)
        return made, time.perf_counter() - began

    def run(compact, t1, calls):
        made, compiled = solver(compact)
        seconds, steps = [], 0
        for _ in range(calls):
            made.time, made.state[:] = 0.0, start
            began = time.perf_counter()
            steps = made.propagate_until(t1)[3]
            seconds.append(time.perf_counter() - began)
        return statistics.median(seconds), steps, made.state[mine], compiled

    return {"heyoka default": functools.partial(run, False), "heyoka compact": functools.partial(run, True)}


def main():
    runs = codes(sys.argv[2])
    print(json.dumps({"codes": list(runs)}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        seconds, steps, end, compiled = runs[request["code"]](request["t1"], request.get("calls", 1))
        if request["path"]:
            np.save(request["path"], end)
        print(json.dumps({"seconds": seconds, "steps": steps, "compile": compiled}), flush=True)


if __name__ == "__main__":
    main()
