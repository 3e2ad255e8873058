"""numbalsoda's DOP853 behind a pipe, for methods.py: one JSON request a line, one JSON answer a line.

Request: {"problem": name, "t_span": [t0, t1], "y0": [...], "params": [...], "tolerance": x, "seconds": s}
Answer: {"y": [...], "ok": bool, "whole": s, "inside": s}, the state at t1 and the median seconds of a call
from Python and of one from compiled code, from samples of about `seconds` each.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np
from numba import carray, cfunc, njit
from numbalsoda import dop853, lsoda_sig

SAMPLES = 3


@cfunc(lsoda_sig)
def arenstorf(t, y, dy, p):
    mu = p[0]
    mup = 1 - mu
    d1 = (y[0] + mu) ** 2 + y[1] ** 2
    d2 = (y[0] - mup) ** 2 + y[1] ** 2
    r1 = d1 * np.sqrt(d1)
    r2 = d2 * np.sqrt(d2)
    dy[0] = y[2]
    dy[1] = y[3]
    dy[2] = y[0] + 2 * y[3] - mup * (y[0] + mu) / r1 - mu * (y[0] - mup) / r2
    dy[3] = y[1] - 2 * y[2] - mup * y[1] / r1 - mu * y[1] / r2


@cfunc(lsoda_sig)
def pleiades(t, u, du, masses):
    y, dy, p = carray(u, (28,)), carray(du, (28,)), carray(masses, (7,))
    for i in range(14):
        dy[i] = y[14 + i]
    for i in range(7):
        ax = 0.0
        ay = 0.0
        for j in range(7):
            if i != j:
                dx = y[j] - y[i]
                dz = y[7 + j] - y[7 + i]
                d = dx**2 + dz**2
                w = p[j] / (d * np.sqrt(d))
                ax += w * dx
                ay += w * dz
        dy[14 + i] = ax
        dy[21 + i] = ay


ADDRESSES = {"arenstorf": arenstorf.address, "pleiades": pleiades.address}


@njit
def repeated(address, y0, ends, params, tolerance, calls):
    total = 0.0
    for _ in range(calls):
        u, _ok = dop853(address, y0, ends, params, rtol=tolerance, atol=tolerance, mxstep=10_000_000)
        total += u[-1, 0]
    return total


def answer(request):
    address, tolerance = ADDRESSES[request["problem"]], request["tolerance"]
    y0, ends, params = (np.array(request[name], float) for name in ("y0", "t_span", "params"))

    def once():
        return dop853(address, y0, ends, params, rtol=tolerance, atol=tolerance, mxstep=10_000_000)

    repeated(address, y0, ends, params, 1e-3, 1)
    once()
    began = time.perf_counter()
    u, ok = once()
    calls = max(1, int(request["seconds"] / (time.perf_counter() - began)))
    whole, inside = [], []
    for _ in range(SAMPLES):
        began = time.perf_counter()
        for _ in range(calls):
            once()
        middle = time.perf_counter()
        repeated(address, y0, ends, params, tolerance, calls)
        whole.append((middle - began) / calls)
        inside.append((time.perf_counter() - middle) / calls)
    return {
        "y": u[-1].tolist(), "ok": bool(ok), "whole": statistics.median(whole), "inside": statistics.median(inside),
    }  # fmt: skip


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
